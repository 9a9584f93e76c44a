import * as v from "valibot";
import { assert } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import { type FileId, FileIdSchema } from "#shared/base/ids.ts";
import { CHUNKS_PAGE_BYTES, CHUNKS_PER_FILE_MAX, LEAVES_PER_PAGE, WAL_PAGES_MAX } from "#shared/base/limits.ts";
import type { Database } from "./database.ts";

const PAGES_PER_FILE_MAX = CHUNKS_PER_FILE_MAX / LEAVES_PER_PAGE;
/** Keeps every id an exact double. */
const FILES_MAX = 2 ** 29;
/** Rows scanned before others get a turn. */
const STEP_ROWS = 256;
/**
 * Pages given back in one transaction. SQLite counts them as changed until they are cut off, and writes those that exceed its
 * memory of 16 MB (244 pages) to the WAL.
 */
const STEP_PAGES = 192;
/** Of the rows removed in one step: what SQLite adds to each makes it as many pages. */
const STEP_BYTES = (STEP_PAGES * CHUNKS_PAGE_BYTES) / 1.15;

export type SaveStatus = "stored" | "duplicate" | "replaced";

/** Counters of one download since it began. */
export interface DownloadCounters {
  readonly requested: number;
  readonly duplicate: number;
  readonly late: number;
  readonly rejected: number;
}

/**
 * What chunks.db holds. `pageBytes` is its size once its WAL is copied: the `bytes` of all files, `freeBytes`, and
 * `overheadBytes` for everything else in its pages.
 */
export interface ChunkStorage {
  readonly files: readonly {
    readonly fileId: FileId;
    readonly chunks: number;
    /** Of its chunks and hashes. */
    readonly bytes: number;
  }[];
  readonly pageBytes: number;
  readonly freeBytes: number;
  readonly overheadBytes: number;
}

interface FileRow extends DownloadCounters {
  file: number;
  final_path: string | null;
  final_inode: string | null;
}

/** SQL of chunks.db. Knows nothing of hashes and keys: what comes here has been proven. One user at a time: the chunk worker. */
export class ChunkTables {
  readonly #db: Database;
  readonly #committed: () => void;
  readonly #statements;

  /** `committed` is called after every transaction. */
  constructor(db: Database, committed: () => void = () => undefined) {
    this.#db = db;
    this.#committed = committed;
    // A backstop: see wal-machine.ts for who copies the WAL before that.
    db.sql.pragma(`wal_autocheckpoint = ${WAL_PAGES_MAX}`);
    this.#statements = {
      file: db.sql.prepare<[string], FileRow>(
        "SELECT file, requested, duplicate, late, rejected, final_path, final_inode FROM files WHERE file_id = ?",
      ),
      fileIds: db.sql.prepare<[], string>("SELECT file_id FROM files ORDER BY file").pluck(),
      addFile: db.sql.prepare<[string]>("INSERT INTO files (file_id) VALUES (?) ON CONFLICT DO NOTHING"),
      removeFile: db.sql.prepare<[number]>("DELETE FROM files WHERE file = ?"),
      // Counters only grow: a snapshot that was taken earlier and comes later changes nothing.
      setCounters: db.sql.prepare<[number, number, number, number, number]>(
        "UPDATE files SET requested = max(requested, ?), duplicate = max(duplicate, ?), late = max(late, ?), " +
          "rejected = max(rejected, ?) WHERE file = ?",
      ),
      resetCounters: db.sql.prepare<[number]>(
        "UPDATE files SET requested = 0, duplicate = 0, late = 0, rejected = 0 WHERE file = ?",
      ),
      setFinal: db.sql.prepare<[string | null, string | null, number]>(
        "UPDATE files SET final_path = ?, final_inode = ? WHERE file = ?",
      ),
      addChunk: db.sql.prepare<[number, Uint8Array]>(
        "INSERT INTO chunks (id, data) VALUES (?, ?) ON CONFLICT DO NOTHING",
      ),
      replaceChunk: db.sql.prepare<[Uint8Array, number]>("UPDATE chunks SET data = ? WHERE id = ?"),
      chunk: db.sql.prepare<[number], Buffer>("SELECT data FROM chunks WHERE id = ?").pluck(),
      chunkIds: db.sql
        .prepare<[number, number, number], number>("SELECT id FROM chunks WHERE id >= ? AND id < ? ORDER BY id LIMIT ?")
        .pluck(),
      firstLength: db.sql
        .prepare<[number, number], number>(
          "SELECT length(data) FROM chunks WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
        )
        .pluck(),
      removeChunk: db.sql.prepare<[number]>("DELETE FROM chunks WHERE id = ?"),
      removeChunks: db.sql.prepare<[number, number, number]>(
        "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT ?)",
      ),
      addPage: db.sql.prepare<[number, Uint8Array, Uint8Array]>(
        "INSERT INTO leaf_pages (id, root, leaves) VALUES (?, ?, ?) " +
          "ON CONFLICT (id) DO UPDATE SET root = excluded.root, leaves = excluded.leaves",
      ),
      leaves: db.sql.prepare<[number], Buffer>("SELECT leaves FROM leaf_pages WHERE id = ?").pluck(),
      pages: db.sql.prepare<[number, number], { id: number; root: Buffer }>(
        "SELECT id, root FROM leaf_pages WHERE id >= ? AND id < ? ORDER BY id",
      ),
      setFolderList: db.sql.prepare<[number, Uint8Array]>(
        "INSERT INTO folder_lists (file, sealed) VALUES (?, ?) ON CONFLICT (file) DO UPDATE SET sealed = excluded.sealed",
      ),
      folderList: db.sql.prepare<[number], Buffer>("SELECT sealed FROM folder_lists WHERE file = ?").pluck(),
      removeFolderList: db.sql.prepare<[number]>("DELETE FROM folder_lists WHERE file = ?"),
      // File by file: to group all rows at once, SQLite would sort them, with their data.
      storage: db.sql.prepare<[], { file_id: string; chunks: number; bytes: number }>(
        `SELECT file_id,
           (SELECT count(*) FROM chunks WHERE ${ofFile("chunks", CHUNKS_PER_FILE_MAX)}) AS chunks,
           (SELECT ifnull(sum(length(data)), 0) FROM chunks WHERE ${ofFile("chunks", CHUNKS_PER_FILE_MAX)})
             + (SELECT ifnull(sum(length(leaves) + length(root)), 0) FROM leaf_pages
                WHERE ${ofFile("leaf_pages", PAGES_PER_FILE_MAX)})
             + ifnull((SELECT length(sealed) FROM folder_lists WHERE folder_lists.file = files.file), 0) AS bytes
         FROM files ORDER BY files.file`,
      ),
      removePages: db.sql.prepare<[number, number]>("DELETE FROM leaf_pages WHERE id >= ? AND id < ?"),
    };
  }

  transaction<T>(body: () => T): T {
    const value = this.#db.transaction(body);
    if (!this.#db.sql.inTransaction) this.#committed();
    return value;
  }

  /** What is lost with the power is removed again: nobody counts on it before {@link endDownload} or {@link removeFile}. */
  #repeatable<T>(body: () => T): T {
    const value = this.#db.repeatableTransaction(body);
    this.#committed();
    return value;
  }

  find(fileId: FileId): FileRow | null {
    return this.#statements.file.get(fileId) ?? null;
  }

  /** Every file that something is kept of. */
  fileIds(): FileId[] {
    return this.#statements.fileIds.all().map((text) => v.parse(FileIdSchema, text));
  }

  ensure(fileId: FileId): FileRow {
    this.transaction(() => this.#statements.addFile.run(fileId));
    const row = this.find(fileId);
    assert(row !== null && row.file < FILES_MAX, "the file row was just made");
    return row;
  }

  setCounters(file: number, counters: DownloadCounters): void {
    const { requested, duplicate, late, rejected } = counters;
    this.#statements.setCounters.run(requested, duplicate, late, rejected, file);
  }

  /** The download is over; another one of the same file counts anew. */
  endDownload(file: number): void {
    this.transaction(() => {
      this.#statements.setFinal.run(null, null, file);
      this.#statements.resetCounters.run(file);
    });
  }

  setFinal(file: number, final: { path: string; inode: string } | null): void {
    this.transaction(() => this.#statements.setFinal.run(final?.path ?? null, final?.inode ?? null, file));
  }

  /**
   * Idempotent. `replaced`: a row was there with other bytes; since only proven chunks are stored, the disk had changed it.
   */
  saveChunk(file: number, index: number, data: Uint8Array): SaveStatus {
    const id = chunkId(file, index);
    if (this.#statements.addChunk.run(id, data).changes === 1) return "stored";
    const there = this.#statements.chunk.get(id);
    assert(there !== undefined, "a chunk that was not added is there");
    if (there.equals(data)) return "duplicate";
    this.#statements.replaceChunk.run(data, id);
    return "replaced";
  }

  chunk(file: number, index: number): Buffer | null {
    return this.#statements.chunk.get(chunkId(file, index)) ?? null;
  }

  removeChunk(file: number, index: number): void {
    this.#statements.removeChunk.run(chunkId(file, index));
  }

  /** Indices that are there, from `first` on, at most {@link STEP_ROWS}. */
  indicesFrom(file: number, first: number): number[] {
    const base = chunkId(file, 0);
    return this.#statements.chunkIds.all(base + first, base + CHUNKS_PER_FILE_MAX, STEP_ROWS).map((id) => id - base);
  }

  savePage(file: number, page: number, root: Uint8Array, leaves: Uint8Array): void {
    this.transaction(() => this.#statements.addPage.run(pageId(file, page), root, leaves));
  }

  leaves(file: number, page: number): Bytes | null {
    const blob = this.#statements.leaves.get(pageId(file, page));
    return blob === undefined ? null : new Uint8Array(blob);
  }

  /** Pages that are there with the roots of their subtrees, in order. */
  pages(file: number): { page: number; root: Uint8Array }[] {
    const base = pageId(file, 0);
    return this.#statements.pages
      .all(base, base + PAGES_PER_FILE_MAX)
      .map(({ id, root }) => ({ page: id - base, root }));
  }

  /** The list of a shared folder, sealed by the caller. It stays when the chunks go: who serves the folder needs it. */
  saveFolderList(file: number, sealed: Uint8Array): void {
    this.transaction(() => this.#statements.setFolderList.run(file, sealed));
  }

  folderList(file: number): Buffer | null {
    return this.#statements.folderList.get(file) ?? null;
  }

  /**
   * Frees some rows and gives their space back; false when none was left. The caller repeats it, letting others in between.
   * The last rows first: theirs are about the last pages of the database, which are cut off. To give back the first ones,
   * SQLite moves the last ones to their place.
   */
  removeSomeChunks(file: number): boolean {
    const base = chunkId(file, 0);
    // Only the very last row may be shorter than the first.
    const rowBytes = this.#statements.firstLength.get(base, base + CHUNKS_PER_FILE_MAX) ?? STEP_BYTES;
    const rows = Math.ceil(STEP_BYTES / rowBytes);
    const removed = this.#repeatable(
      () => this.#statements.removeChunks.run(base, base + CHUNKS_PER_FILE_MAX, rows).changes,
    );
    // In one of its own: pages that were freed in the same one would be read again. Also after the last rows, because
    // it may have been killed between the two.
    this.#repeatable(() => this.#db.sql.pragma(`incremental_vacuum(${STEP_PAGES})`));
    return removed > 0;
  }

  /** Reads every row's length, which is in the index pages alone: 0.1 s for 1 GiB in small chunks. */
  measure(): ChunkStorage {
    return this.#db.transaction(() => {
      const files = this.#statements.storage
        .all()
        .map(({ file_id, chunks, bytes }) => ({ fileId: v.parse(FileIdSchema, file_id), chunks, bytes }));
      const pages = (name: "page_count" | "freelist_count"): number =>
        v.parse(v.number(), this.#db.sql.pragma(name, { simple: true })) * CHUNKS_PAGE_BYTES;
      const [pageBytes, freeBytes] = [pages("page_count"), pages("freelist_count")];
      const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
      return { files, pageBytes, freeBytes, overheadBytes: pageBytes - freeBytes - bytes };
    });
  }

  /** The chunks must be gone already. */
  removeFile(file: number): void {
    this.transaction(() => {
      this.#statements.removeFolderList.run(file);
      this.#statements.removePages.run(pageId(file, 0), pageId(file, 0) + PAGES_PER_FILE_MAX);
      this.#statements.removeFile.run(file);
      this.#db.sql.pragma(`incremental_vacuum(${STEP_ROWS * 4})`);
    });
  }
}

/** The range of ids that belongs to a row of `files`. */
const ofFile = (table: string, idsPerFile: number): string =>
  `${table}.id >= files.file * ${idsPerFile} AND ${table}.id < (files.file + 1) * ${idsPerFile}`;

const chunkId = (file: number, index: number): number => {
  assert(index >= 0 && index < CHUNKS_PER_FILE_MAX, "chunk index out of range");
  return file * CHUNKS_PER_FILE_MAX + index;
};

const pageId = (file: number, page: number): number => {
  assert(page >= 0 && page < PAGES_PER_FILE_MAX, "page out of range");
  return file * PAGES_PER_FILE_MAX + page;
};
