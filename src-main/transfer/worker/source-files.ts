import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { SOURCE_FILE_IDLE_MS } from "#shared/base/limits.ts";

interface OpenFile {
  readonly handle: Promise<FileHandle>;
  users: number;
  idle: Disposable | null;
}

/**
 * Files that are being served stay open between two batches: opening and closing for each cost a tenth of the worker's
 * time. What is read is compared with its hash in any case, so a file that is replaced meanwhile can do no harm.
 */
export class SourceFiles {
  readonly #clock: Clock;
  readonly #openByPath = new Map<string, OpenFile>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Runs `body` with the file open for reading. @throws what `open` and `body` throw. */
  async use<T>(path: string, body: (file: FileHandle) => Promise<T>): Promise<T> {
    const entry = this.#take(path);
    try {
      return await body(await entry.handle);
    } catch (error) {
      // The next batch looks at the path again, and tells what is there now.
      this.#forget(path, entry);
      throw error;
    } finally {
      this.#leave(path, entry);
    }
  }

  async dispose(): Promise<void> {
    const entries = [...this.#openByPath];
    for (const [path, entry] of entries) this.#forget(path, entry);
    await Promise.allSettled(entries.map(async ([, entry]) => (await entry.handle).close()));
  }

  #take(path: string): OpenFile {
    const known = this.#openByPath.get(path);
    if (known !== undefined) {
      known.idle?.dispose();
      known.idle = null;
      known.users += 1;
      return known;
    }
    // Non-blocking: a pipe in the file's place must not hold up the worker.
    const handle = open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const entry: OpenFile = { handle, users: 1, idle: null };
    this.#openByPath.set(path, entry);
    return entry;
  }

  #leave(path: string, entry: OpenFile): void {
    entry.users -= 1;
    if (entry.users > 0) return;
    if (this.#openByPath.get(path) === entry)
      entry.idle = this.#clock.setTimer(SOURCE_FILE_IDLE_MS, () => {
        this.#forget(path, entry);
        close(entry);
      });
    else close(entry);
  }

  #forget(path: string, entry: OpenFile): void {
    entry.idle?.dispose();
    if (this.#openByPath.get(path) === entry) this.#openByPath.delete(path);
  }
}

/** A file that could not be opened has told so to whoever wanted it; one that cannot be closed was only read. */
const close = (entry: OpenFile): void => {
  entry.handle.then((handle) => handle.close()).catch(() => undefined);
};
