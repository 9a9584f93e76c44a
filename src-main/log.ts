import pino from "pino";
import type { Env, Log } from "#shared/base/env.ts";
import { systemClock, systemRandom } from "./env.ts";

const wrap = (logger: pino.Logger): Log => ({
  debug: (message, fields) => logger.debug(fields ?? {}, message),
  info: (message, fields) => logger.info(fields ?? {}, message),
  warn: (message, fields) => logger.warn(fields ?? {}, message),
  error: (message, fields) => logger.error(fields ?? {}, message),
  child: (name) => wrap(logger.child({ in: name })),
});

/** Logs JSON lines to stderr: stdout belongs to the ready line of the headless host. */
const createLog = (level = process.env["WEIR_LOG"] ?? "info"): Log =>
  wrap(pino({ level, base: null }, pino.destination({ dest: 2, sync: true })));

export const systemEnv = (): Env => ({ clock: systemClock, random: systemRandom, log: createLog() });
