import { unlinkSync } from "node:fs";
import { open, rename, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { BALLAST_BYTES, BALLAST_RETRY_MS, DISK_RESERVE_BYTES } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { isDiskFull } from "./errors.ts";

/**
 * A file that only takes up room. On a full disk even a DELETE needs space for its journal, so without it a person could
 * not even remove something. It is given up when a write reports a full disk, and made again once there is room.
 *
 *   absent -> making    on `ensure` and every BALLAST_RETRY_MS, when there is room for it and the reserve
 *   making -> held      written and synced; the name changes last, so that `ballast` is always whole
 *   making -> absent    no room after all, or released meanwhile
 *   held   -> absent    released
 */
type State =
  | { readonly kind: "absent" }
  | { readonly kind: "making"; readonly done: Promise<void> }
  | { readonly kind: "held" };

interface BallastOptions {
  readonly env: Env;
  readonly directory: string;
  readonly bytes?: number;
  /** Room that must remain beside it. */
  readonly reserveBytes?: number;
}

const PIECE_BYTES = 1024 * 1024;
const BLOCK_BYTES = 512;

export class Ballast implements Disposable {
  readonly #env: Env;
  readonly #directory: string;
  readonly #path: string;
  readonly #partPath: string;
  readonly #bytes: number;
  readonly #reserveBytes: number;
  #state: State = { kind: "absent" };
  /** Counts up with every release; a file whose making began before is given up. */
  #generation = 0;
  #lastMaker: Promise<void> = Promise.resolve();
  #retry: Disposable | null = null;
  #disposed = false;

  constructor({ env, directory, bytes = BALLAST_BYTES, reserveBytes = DISK_RESERVE_BYTES }: BallastOptions) {
    this.#env = env;
    this.#directory = directory;
    this.#path = join(directory, "ballast");
    this.#partPath = join(directory, "ballast.part");
    this.#bytes = bytes;
    this.#reserveBytes = reserveBytes;
  }

  get state(): State["kind"] {
    return this.#state.kind;
  }

  /** Makes the file if it is missing and there is room; if there is none, tries again later by itself. Never rejects. */
  ensure(): Promise<void> {
    if (this.#disposed || this.#state.kind === "held") return Promise.resolve();
    if (this.#state.kind === "making") return this.#state.done;
    const generation = this.#generation;
    // One after the other: a maker that was outdated by a release still has to clear away its part.
    const done = this.#lastMaker.then(() => this.#make(generation));
    this.#lastMaker = done;
    this.#state = { kind: "making", done };
    return done;
  }

  /** Frees the room at once. False when nothing was freed yet. */
  release(): boolean {
    this.#generation++;
    const { kind } = this.#state;
    if (kind === "absent") return false;
    this.#state = { kind: "absent" };
    this.#retryLater();
    // While it is being made, whoever makes it sees the new generation and removes what there is.
    if (kind === "making") return false;
    try {
      unlinkSync(this.#path);
      this.#env.log.warn("disk full: ballast released");
      return true;
    } catch (error) {
      this.#env.log.error("ballast cannot be released", { reason: messageOf(error) });
      return false;
    }
  }

  /** Runs `write`; when the disk is full, releases the ballast and runs it once more. `write` must be repeatable. */
  retryOnFull<T>(write: () => T): T {
    try {
      return write();
    } catch (error) {
      if (!isDiskFull(error) || !this.release()) throw error;
      return write();
    }
  }

  /** Ends the retries. The file stays: it is for the next start too. */
  dispose(): void {
    this.#disposed = true;
    this.#generation++;
    this.#retry?.dispose();
    this.#retry = null;
  }

  async #make(generation: number): Promise<void> {
    let made = false;
    try {
      made = (await this.#isThere()) || ((await this.#hasRoom()) && (await this.#write(generation)));
    } catch (error) {
      this.#env.log.warn("ballast not made", { reason: messageOf(error) });
    }
    if (generation !== this.#generation) return;
    this.#state = { kind: made ? "held" : "absent" };
    if (!made) this.#retryLater();
  }

  /** A copied or restored file may be sparse or cut short, and then frees nothing. */
  async #isThere(): Promise<boolean> {
    await rm(this.#partPath, { force: true });
    const found = await stat(this.#path).catch(() => null);
    if (found === null) return false;
    const isAllocated = process.platform === "win32" || found.blocks * BLOCK_BYTES >= found.size;
    if (found.isFile() && found.size === this.#bytes && isAllocated) return true;
    await rm(this.#path, { force: true });
    return false;
  }

  async #hasRoom(): Promise<boolean> {
    const { bavail, bsize } = await statfs(this.#directory);
    return bavail * bsize >= this.#bytes + this.#reserveBytes;
  }

  /** Random bytes, because a file system that compresses would store anything else in less. False when outdated. */
  async #write(generation: number): Promise<boolean> {
    let whole = false;
    const file = await open(this.#partPath, "w", 0o600);
    try {
      for (let written = 0; written < this.#bytes && generation === this.#generation; ) {
        const piece = this.#env.random.bytes(Math.min(PIECE_BYTES, this.#bytes - written));
        written += (await file.write(piece)).bytesWritten;
      }
      await file.sync();
      whole = generation === this.#generation;
    } finally {
      await file.close();
      if (!whole) await rm(this.#partPath, { force: true });
    }
    if (!whole) return false;
    await rename(this.#partPath, this.#path);
    if (generation === this.#generation) return true;
    await rm(this.#path, { force: true });
    return false;
  }

  #retryLater(): void {
    this.#retry?.dispose();
    this.#retry = this.#disposed
      ? null
      : this.#env.clock.setTimer(BALLAST_RETRY_MS, () => {
          void this.ensure();
        });
  }
}
