import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { FileId, UserId } from "#shared/base/ids.ts";
import { TRANSFER_SAVE_RETRY_MS } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Database } from "../store/database.ts";
import { isDiskFull } from "../store/errors.ts";
import { FilesTable } from "../store/files.ts";
import { type TransferRecord, TransfersTable } from "../store/transfers.ts";

/**
 * What is written down of the downloads. A write that fails (a full disk, most likely) is never an exception, because it
 * comes in the middle of a step; the newest record of that download is tried again until it is written.
 */
export class TransferRecords implements Disposable {
  readonly #env: Env;
  readonly #db: Database;
  readonly #table: TransfersTable;
  readonly #files: FilesTable;
  readonly #unsaved = new Map<FileId, TransferRecord>();
  #timer: Disposable | null = null;
  #disposed = false;

  constructor({ env, db }: { readonly env: Env; readonly db: Database }) {
    this.#env = env;
    this.#db = db;
    this.#table = new TransfersTable(db);
    this.#files = new FilesTable(db);
  }

  all(): TransferRecord[] {
    return this.#table.all();
  }

  /** False when it is not written yet. */
  save(record: TransferRecord): boolean {
    const isSaved = this.#write(() => this.#table.save(record));
    if (isSaved) this.#unsaved.delete(record.fileId);
    else {
      this.#unsaved.set(record.fileId, record);
      this.#retryLater();
    }
    return isSaved;
  }

  /** One that could not be removed is met again at the next start. */
  remove(fileId: FileId): void {
    this.#unsaved.delete(fileId);
    this.#write(() => this.#table.remove(fileId));
  }

  /** Forgets the files that somebody shared with us, with their keys and downloads. */
  removeFilesOf(ownerId: UserId): void {
    this.#write(() => this.#files.removeOffersOf(ownerId));
  }

  /** Our own files, and those that are downloaded. */
  knownFiles(): FileId[] {
    return [...this.#files.ownIds(), ...this.all().map(({ fileId }) => fileId)];
  }

  /** Ends the retries for a download whose record is gone. */
  forget(fileId: FileId): void {
    this.#unsaved.delete(fileId);
  }

  #write(write: () => void): boolean {
    try {
      try {
        this.#db.transaction(write);
      } catch (error) {
        // Whoever listens has given up the ballast by now.
        if (!isDiskFull(error)) throw error;
        this.#db.transaction(write);
      }
      return true;
    } catch (error) {
      this.#env.log.error("what became of a download was not written down", { reason: messageOf(error) });
      return false;
    }
  }

  #retryLater(): void {
    if (this.#disposed) return;
    this.#timer ??= this.#env.clock.setTimer(TRANSFER_SAVE_RETRY_MS, () => {
      this.#timer = null;
      for (const record of [...this.#unsaved.values()]) this.save(record);
    });
  }

  dispose(): void {
    this.#disposed = true;
    this.#timer?.dispose();
  }
}
