import { Worker } from "node:worker_threads";
import type { HeldFrame } from "#shared/wire/frame.ts";
import type { FromWorker, ToWorker, WorkerSettings } from "./chunk-worker-protocol.ts";

/** The way to a running chunk worker: its thread, or the engine that has one. */
export interface WorkerChannel {
  /** Buffers to transfer are detached. A message to one that has exited is lost. */
  post(message: ToWorker, transfer?: ArrayBuffer[]): void;
  /** Forgets frames that are held there and were neither sent nor stored. */
  drop(frames: readonly HeldFrame[]): void;
}

export interface WorkerListener {
  message(message: FromWorker): void;
  failed(error: unknown): void;
  /** Nothing comes after it. */
  exited(): void;
}

export type StartWorker = (settings: WorkerSettings, listener: WorkerListener) => WorkerChannel;

/** Runs chunk-worker.ts, which is at this address, in a thread of this process. */
export const chunkThread =
  (url: URL): StartWorker =>
  (settings, listener) => {
    const thread = new Worker(url, { workerData: settings, name: "weir-chunks" });
    thread.on("message", (message: FromWorker) => listener.message(message));
    thread.on("error", (error) => listener.failed(error));
    thread.once("exit", () => listener.exited());
    return {
      post(message, transfer = []) {
        try {
          thread.postMessage(message, transfer);
        } catch (error) {
          // A buffer that may not be transferred (a pooled one) is copied instead.
          if (!(error instanceof DOMException && error.name === "DataCloneError")) throw error;
          thread.postMessage(message);
        }
      },
      drop: () => undefined,
    };
  };
