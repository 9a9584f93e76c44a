import { randomBytes } from "node:crypto";
import pino from "pino";
import { toDisposable } from "#shared/base/disposable.ts";
import type { Env, Log } from "#shared/base/env.ts";

const wrap = (logger: pino.Logger): Log => ({
  debug: (message, fields) => logger.debug(fields ?? {}, message),
  info: (message, fields) => logger.info(fields ?? {}, message),
  warn: (message, fields) => logger.warn(fields ?? {}, message),
  error: (message, fields) => logger.error(fields ?? {}, message),
  child: (name) => wrap(logger.child({ in: name })),
});

/**
 * The real clock, randomness and log of the standalone server; the only place in src-server that reads them. The log
 * goes to stderr as JSON lines, because stdout belongs to the ready line.
 */
export const systemEnv = (level: string): Env => ({
  clock: {
    now: () => Date.now(),
    monotonicMs: () => performance.now(),
    setTimer(delayMs, fn) {
      const timer = setTimeout(fn, delayMs);
      return toDisposable(() => clearTimeout(timer));
    },
  },
  random: {
    bytes: (length) => new Uint8Array(randomBytes(length)),
    number: () => Math.random(),
  },
  log: wrap(pino({ level, base: null }, pino.destination({ dest: 2, sync: true }))),
});
