import { Worker } from "node:worker_threads";
import type { Bytes } from "#shared/base/bytes.ts";
import type { Log } from "#shared/base/env.ts";
import type { FileId } from "#shared/base/ids.ts";
import { READ_BACK_FILE_BYTES_MIN, WORK_BATCH_BYTES } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { ContentMac } from "../../crypto/content-mac.ts";

export interface HasherInput {
  readonly path: string;
  readonly sizeBytes: number;
  readonly macKey: Bytes;
}

export type ToHasher =
  /** From the start of the file on; never less than before. */
  { readonly type: "written"; readonly bytes: number } | { readonly type: "stop" };

export type FromHasher =
  | { readonly type: "hashed"; readonly sha256: Bytes; readonly mac: Bytes }
  | { readonly type: "failed"; readonly code: string }
  | { readonly type: "stopped" };

/** A thread that reads back and hashes one file. */
export interface HasherThread {
  post(message: ToHasher): void;
}

export interface HasherListener {
  result(message: FromHasher): void;
  /** Nothing comes after it. */
  exited(): void;
}

export type StartHasher = (input: HasherInput, listener: HasherListener) => HasherThread;

/** Runs chunk-hasher, which is at this address. */
export const hasherThread =
  (url: URL, log: Pick<Log, "error">): StartHasher =>
  (input, listener) => {
    const thread = new Worker(url, { workerData: input, name: "weir-hashing" });
    thread.on("message", (message: FromHasher) => listener.result(message));
    thread.on("error", (error) => log.error("the hashing thread failed", { reason: messageOf(error) }));
    thread.once("exit", () => listener.exited());
    return { post: (message) => thread.postMessage(message) };
  };

/** What was read of a file while it was still written. */
export interface ReadBack {
  /** Of the MAC that tells whether the file is the same when it is read again. */
  readonly macKey: Bytes;
  /** When all of it was read. Null: it could not be, or is not wanted any more. */
  readonly result: Promise<{ readonly sha256: Bytes; readonly mac: Bytes } | null>;
}

/** Is told how far a file is written, from its start on. */
export interface Follower {
  written(bytes: number): void;
}

interface Held extends ReadBack {
  readonly fileId: FileId;
  readonly thread: HasherThread;
}

/**
 * Reads a file back and hashes it while it is assembled, in a thread that lives as long as that takes. One file at a time:
 * of another one, as of a small one, nothing is known when it is verified. What is known of a file is kept until it is
 * forgotten, or another one begins.
 */
export class ReadBacks {
  readonly #start: StartHasher;
  readonly #log: Pick<Log, "warn">;
  readonly #fileBytesMin: number;
  #held: Held | null = null;
  /** Of the thread that is there: resolves when it is not any more. */
  #exited: Promise<void> | null = null;
  #disposed = false;

  constructor(deps: { readonly start: StartHasher; readonly log: Pick<Log, "warn">; readonly fileBytesMin?: number }) {
    this.#start = deps.start;
    this.#log = deps.log;
    this.#fileBytesMin = deps.fileBytesMin ?? READ_BACK_FILE_BYTES_MIN;
  }

  /** Null when the file is not worth a thread, or there is one. */
  begin({ fileId, sizeBytes }: { fileId: FileId; sizeBytes: number }, path: string): Follower | null {
    this.forget(fileId);
    if (this.#disposed || this.#exited !== null || sizeBytes < this.#fileBytesMin) return null;
    const macKey = ContentMac.freshKey();
    const result = Promise.withResolvers<Awaited<ReadBack["result"]>>();
    const exited = Promise.withResolvers<void>();
    const thread = this.#start(
      { path, sizeBytes, macKey },
      {
        result: (message) => {
          if (message.type === "hashed") result.resolve(message);
          if (message.type === "failed")
            this.#log.warn("a file could not be read back while it was assembled", { code: message.code });
        },
        exited: () => {
          result.resolve(null);
          this.#exited = null;
          exited.resolve();
        },
      },
    );
    this.#exited = exited.promise;
    this.#held = { fileId, thread, macKey, result: result.promise };
    let told = 0;
    return {
      written: (bytes) => {
        if (bytes - told < WORK_BATCH_BYTES && bytes < sizeBytes) return;
        told = bytes;
        thread.post({ type: "written", bytes });
      },
    };
  }

  /** What is known of the file, or will be soon. */
  of(fileId: FileId): ReadBack | null {
    return this.#held?.fileId === fileId ? this.#held : null;
  }

  /** Ends the thread too, if it still reads this file. */
  forget(fileId: FileId): void {
    if (this.#held?.fileId !== fileId) return;
    this.#held.thread.post({ type: "stop" });
    this.#held = null;
  }

  /** The thread is gone when it resolves. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    if (this.#held !== null) this.forget(this.#held.fileId);
    await this.#exited;
  }
}
