import { randomBytes } from "node:crypto";
import pino from "pino";
import { toDisposable } from "#shared/base/disposable.ts";
import type { Clock, Env, Log, Random } from "#shared/base/env.ts";

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

const wrap = (logger: pino.Logger): Log => ({
  debug: (message, fields) => logger.debug(fields ?? {}, message),
  info: (message, fields) => logger.info(fields ?? {}, message),
  warn: (message, fields) => logger.warn(fields ?? {}, message),
  error: (message, fields) => logger.error(fields ?? {}, message),
  child: (name) => wrap(logger.child({ in: name })),
});

/** Logs JSON lines to stderr: stdout belongs to the ready line of the headless host. */
export const createLog = (level = process.env["WEIR_LOG"] ?? "info"): Log =>
  wrap(pino({ level, base: null }, pino.destination({ dest: 2, sync: true })));

export const systemEnv = (): Env => ({ clock: systemClock, random: systemRandom, log: createLog() });
