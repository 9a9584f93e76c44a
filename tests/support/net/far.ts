import type { Impairment } from "./impairment.ts";

/** Of far-headless-process.ts, as JSON in {@link FAR_VARIABLE}. */
export interface FarSettings {
  readonly seed: number;
  readonly impairment: Partial<Impairment>;
  /** The connection that carries this frame breaks, if it is not the only one. */
  readonly breakAtFrame: number | null;
  /** Gets a line for each frame that is sent, the number of its connection, and `broken N`; null for none. */
  readonly log: string | null;
}
export const FAR_VARIABLE = "WEIR_TEST_FAR";
