import type { LogLevel } from "#shared/base/env.ts";
import type { FromDriver, ToDriver } from "../links/driver-protocol.ts";
import type { FromWorker, ToWorker, WorkerSettings } from "../transfer/chunk-worker-protocol.ts";

/**
 * Messages between the main process and the engine, many in one array. Both ends are the same build, so they are typed
 * and not validated. What is posted first arrives first, over both parts: a chunk that was handed to the chunk worker
 * before its connection was closed is stored.
 */
export type ToEngine =
  | ToDriver
  /** `w` names a run of the chunk worker. `url`: where chunk-worker is. */
  | { readonly type: "workerStart"; readonly w: number; readonly url: string; readonly settings: WorkerSettings }
  /** Held frames stand in it for bytes. */
  | { readonly type: "worker"; readonly w: number; readonly message: ToWorker }
  | { readonly type: "drop"; readonly frames: readonly number[] }
  | { readonly type: "ping" }
  /** Close every connection, wait for the chunk worker, which was told before, and exit. */
  | { readonly type: "end" };

export type FromEngine =
  | FromDriver
  | { readonly type: "ready" }
  | { readonly type: "worker"; readonly w: number; readonly message: FromWorker }
  | { readonly type: "workerFailed"; readonly w: number; readonly reason: string }
  | { readonly type: "workerExited"; readonly w: number }
  | { readonly type: "pong" }
  | {
      readonly type: "log";
      readonly level: LogLevel;
      readonly in: string | null;
      readonly message: string;
      readonly fields: Record<string, unknown>;
    };

/**
 * What the main process has of a running engine; made by the host. Whatever `post` is given was posted in this order;
 * once the engine has exited nothing happens.
 */
export interface EnginePort {
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  post(messages: readonly ToEngine[]): void;
  /** At once, whatever it does. */
  kill(): void;
}
export interface EngineListener {
  messages(messages: readonly FromEngine[]): void;
  /** It ended, or could not be started. Called once; `how` is for the log. */
  exited(how: string): void;
}
export type ForkEngine = (listener: EngineListener) => EnginePort;
