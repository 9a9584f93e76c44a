import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import { BugError } from "#shared/base/assert.ts";
import type { Clock } from "#shared/base/env.ts";
import { PROGRESS_INTERVAL_MS, WORK_BATCH_BYTES, WORK_TURN_MS, WRITE_PIECE_BYTES } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { systemClock } from "../../env.ts";
import { isDamaged } from "../../store/errors.ts";
import { type WorkError, workError } from "../chunk-worker-protocol.ts";

/** What the jobs of the chunk worker share: errors as data, fair turns, whole reads. */

/** Thrown inside a job to end it with a typed error; `run` at the worker's entry turns it into data. */
export class WorkFailure extends Error {
  override readonly name = "WorkFailure";
  readonly error: WorkError;

  constructor(error: WorkError) {
    super(error.message);
    this.error = error;
  }
}

export const failWork = (type: Parameters<typeof workError>[0], message: string): never => {
  throw new WorkFailure(workError(type, message));
};

const codeOf = (thrown: unknown): string =>
  typeof thrown === "object" && thrown !== null && "code" in thrown ? String(thrown.code) : "";

/** A system or SQLite error while writing, as data for the user. */
export const writeErrorOf = (thrown: unknown): WorkError => {
  if (thrown instanceof WorkFailure) return thrown.error;
  if (thrown instanceof BugError) throw thrown;
  const code = codeOf(thrown);
  if (["ENOSPC", "EDQUOT", "SQLITE_FULL"].includes(code))
    return workError("disk_full", "The disk is full. Free some space, then try again.");
  if (isDamaged(thrown))
    return workError(
      "damaged",
      "Weir's store of unfinished downloads is damaged on the disk. It is repaired; try again.",
    );
  if (code === "ENOENT")
    return workError(
      "not_writable",
      "This folder does not exist. Make it and try again, or choose another; only the download folder of the settings is made by itself.",
    );
  if (["EACCES", "EPERM", "EROFS", "ENOTDIR", "ELOOP", "EISDIR", "SQLITE_READONLY"].includes(code))
    return workError("not_writable", "The folder cannot be written to. Choose another folder.");
  if (code === "EFBIG")
    return workError("too_large", "The file is too large for this file system. Choose another folder.");
  return workError("io_error", `The disk reported an error (${code === "" ? messageOf(thrown) : code}). Try again.`);
};

/** A system error while reading a file that the user shared. */
export const readErrorOf = (thrown: unknown): WorkError => {
  if (thrown instanceof WorkFailure) return thrown.error;
  const code = codeOf(thrown);
  if (["ENOENT", "ENOTDIR"].includes(code))
    return workError("file_missing", "The file is no longer there. Share it again from its new place.");
  if (["EACCES", "EPERM", "ELOOP"].includes(code))
    return workError("file_unreadable", "The file cannot be read. Check its permissions.");
  if (code === "EISDIR") return workError("not_a_file", "This is not a file. Choose a file.");
  return writeErrorOf(thrown);
};

export const isCode = (thrown: unknown, code: string): boolean => codeOf(thrown) === code;

/** Lets messages and other jobs have a turn; ends the job when it was cancelled meanwhile. */
export const yieldTurn = async (signal: AbortSignal): Promise<void> => {
  await setImmediate();
  if (signal.aborted) failWork("cancelled", "The work was stopped.");
};

/** Turns for others while one job does many small things: after WORK_BATCH_BYTES, or WORK_TURN_MS. */
export class Turns {
  readonly #signal: AbortSignal;
  #bytes = 0;
  #since = systemClock.monotonicMs();

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** `bytes`: what was done since the last call. */
  async take(bytes: number): Promise<void> {
    this.#bytes += bytes;
    if (this.#bytes < WORK_BATCH_BYTES && systemClock.monotonicMs() - this.#since < WORK_TURN_MS) return;
    await yieldTurn(this.#signal);
    this.#bytes = 0;
    this.#since = systemClock.monotonicMs();
  }
}

/**
 * Tells how far a job is as often as people are told of it: a message for every batch would be a thousand a GiB, each through
 * three threads.
 */
export class Progress {
  readonly #tell: (value: number) => void;
  readonly #clock: Pick<Clock, "monotonicMs">;
  #toldAtMs = Number.NEGATIVE_INFINITY;
  #untold: number | null = null;

  constructor(tell: (value: number) => void, clock: Pick<Clock, "monotonicMs"> = systemClock) {
    this.#tell = tell;
    this.#clock = clock;
  }

  report(value: number): void {
    this.#untold = value;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#toldAtMs < PROGRESS_INTERVAL_MS) return;
    this.#toldAtMs = nowMs;
    this.flush();
  }

  /** The job is over: the last value is told in any case. */
  flush(): void {
    if (this.#untold !== null) this.#tell(this.#untold);
    this.#untold = null;
  }
}

/** Reads exactly `target.length` bytes at `position`; fewer mean that the file became shorter. */
export const readWhole = async (file: FileHandle, target: Uint8Array, position: number): Promise<boolean> => {
  let at = 0;
  while (at < target.length) {
    const { bytesRead } = await file.read(target, at, target.length - at, position + at);
    if (bytesRead === 0) return false;
    at += bytesRead;
  }
  return true;
};

/** Writes all buffers one after the other from `position` on. */
export const writeWhole = async (file: FileHandle, buffers: Uint8Array[], position: number): Promise<void> => {
  let at = position;
  for (const buffer of buffers) {
    for (let from = 0; from < buffer.length; ) {
      // A short write is rare (signals, full disks): the next one goes on behind it.
      const length = Math.min(WRITE_PIECE_BYTES, buffer.length - from);
      const { bytesWritten } = await file.write(buffer, from, length, at);
      from += bytesWritten;
      at += bytesWritten;
    }
  }
};

/** Opens the temporary file of a download; never through a link that somebody put in its place. */
export const openPart = (path: string): Promise<FileHandle> =>
  open(path, constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0), 0o666);
