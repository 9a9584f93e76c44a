import pino from "pino";
import type { Clock, Env, Log, LogLevel } from "#shared/base/env.ts";
import { RECENT_LOG_ENTRIES } from "#shared/base/limits.ts";
import { systemClock, systemRandom } from "./env.ts";

/** One line of the log as `diagnostics.export` shows it. Fields never hold content, names, keys or addresses. */
export interface LogEntry {
  readonly atMs: number;
  readonly level: LogLevel;
  readonly in: string | null;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

/** The last {@link RECENT_LOG_ENTRIES} lines, oldest first, whatever the level that is written. */
export class RecentLog {
  #entries: LogEntry[] = [];

  add(entry: LogEntry): void {
    this.#entries.push(entry);
    if (this.#entries.length >= 2 * RECENT_LOG_ENTRIES) this.#entries = this.#entries.slice(-RECENT_LOG_ENTRIES);
  }

  entries(): readonly LogEntry[] {
    return this.#entries.slice(-RECENT_LOG_ENTRIES);
  }
}

/** Writes to `logger`, and remembers in `recent` all but debug lines. */
export const createLog = (logger: pino.Logger, recent: RecentLog, clock: Pick<Clock, "now">, name?: string): Log => {
  const write =
    (level: LogLevel) =>
    (message: string, fields: Record<string, unknown> = {}): void => {
      logger[level](fields, message);
      if (level !== "debug") recent.add({ atMs: clock.now(), level, in: name ?? null, message, fields });
    };
  return {
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    child: (child) => createLog(logger.child({ in: child }), recent, clock, child),
  };
};

export interface SystemEnv extends Env {
  readonly recentLog: RecentLog;
}

/** The real environment; its log goes as JSON lines to stderr, because stdout belongs to the ready line. */
export const systemEnv = (): SystemEnv => {
  const recentLog = new RecentLog();
  const level = process.env["WEIR_LOG"] ?? "info";
  const logger = pino({ level, base: null }, pino.destination({ dest: 2, sync: true }));
  return { clock: systemClock, random: systemRandom, log: createLog(logger, recentLog, systemClock), recentLog };
};
