import type { RateOptions } from "../../src-server/rates.ts";

/** No limit that a fast test on one machine would hit. */
export const generous: Partial<RateOptions> = {
  requestsBurst: 1_000_000,
  requestsPerSecond: 1_000_000,
  loginsPerAddress: 1_000_000,
};
