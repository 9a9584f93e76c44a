import type { Disposable } from "./disposable.ts";

/** Milliseconds since the Unix epoch. */
export type TimeMs = number;

/** Time as an input: no core reads a clock by itself, so that a simulator can own it. */
export interface Clock {
  now(): TimeMs;
  /** Monotonic milliseconds, for durations; unaffected by changes of the wall clock. */
  monotonicMs(): number;
  /** Calls `fn` once after `delayMs`; disposing cancels it. */
  setTimer(delayMs: number, fn: () => void): Disposable;
}

/** Cryptographically strong in production, seeded in simulations. */
export interface Random {
  bytes(length: number): Uint8Array<ArrayBuffer>;
  /** Uniform in [0, 1). For jitter and scheduling, never for secrets. */
  number(): number;
}

export type LogLevel = "debug" | "info" | "warn" | "error";

/** Structured log. Fields never hold message text, file names, keys, SDP or candidates. */
export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
  child(name: string): Log;
}

/** What every shell receives from the composition root. */
export interface Env {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}
