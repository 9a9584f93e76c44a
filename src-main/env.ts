import { randomBytes } from "node:crypto";
import { toDisposable } from "#shared/base/disposable.ts";
import type { Clock, Random } from "#shared/base/env.ts";

/** The real clock and randomness; the only place in src-main that reads them. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  setTimer(delayMs, fn) {
    const timer = setTimeout(fn, delayMs);
    return toDisposable(() => clearTimeout(timer));
  },
};

export const systemRandom: Random = {
  bytes: (length) => new Uint8Array(randomBytes(length)),
  number: () => Math.random(),
};
