import * as v from "valibot";
import { assert } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import { type FileId, FileIdSchema } from "#shared/base/ids.ts";
import { CHUNKS_PAGE_BYTES, CHUNKS_PER_FILE_MAX, LEAVES_PER_PAGE, WAL_PAGES_MAX } from "#shared/base/limits.ts";
import type { Database } from "./database.ts";

const PAGES_PER_FILE_MAX = CHUNKS_PER_FILE_MAX / LEAVES_PER_PAGE;
/** Keeps every id an exact double. */
const FILES_MAX = 2 ** 29;
/** Rows freed or scanned before others get a turn. */
const STEP_ROWS = 256;

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
      removeChunk: db.sql.prepare<[number]>("DELETE FROM chunks WHERE id = ?"),
      removeChunks: db.sql.prepare<[number, number, number]>(
        "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)",
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
      storage: db.sql.prepare<[], { file_id: string; chunks: number; bytes: number }>(
        `SELECT file_id, ifnull(chunks, 0) AS chunks, ifnull(chunk_bytes, 0) + ifnull(leaf_bytes, 0)
           + ifnull((SELECT length(sealed) FROM folder_lists WHERE folder_lists.file = files.file), 0) AS bytes FROM files
         LEFT JOIN (SELECT id / ${PAGES_PER_FILE_MAX} AS leaf_file, sum(length(leaves) + length(root)) AS leaf_bytes
                    FROM leaf_pages GROUP BY leaf_file) ON leaf_file = files.file
         LEFT JOIN (SELECT id / ${CHUNKS_PER_FILE_MAX} AS chunk_file, count(*) AS chunks, sum(length(data)) AS chunk_bytes
                    FROM chunks GROUP BY chunk_file) ON chunk_file = files.file
         ORDER BY files.file`,
      ),
      removePages: db.sql.prepare<[number, number]>("DELETE FROM leaf_pages WHERE id >= ? AND id < ?"),
    };
  }

  transaction<T>(body: () => T): T {
    const value = this.#db.transaction(body);
    if (!this.#db.sql.inTransaction) this.#committed();
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

  /** Frees some rows and gives their space back; false when none was left. The caller repeats it, letting others in between. */
  removeSomeChunks(file: number): boolean {
    const base = chunkId(file, 0);
    // A transaction, also because only one tells of a full disk, and then the ballast makes room for it.
    return this.transaction(() => {
      const removed = this.#statements.removeChunks.run(base, base + CHUNKS_PER_FILE_MAX, STEP_ROWS).changes;
      if (removed > 0) this.#db.sql.pragma(`incremental_vacuum(${STEP_ROWS * 4})`);
      return removed > 0;
    });
  }

  /** Reads every row's length, which is in the index pages alone: 0.3 s for 1 GiB. */
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

const chunkId = (file: number, index: number): number => {
  assert(index >= 0 && index < CHUNKS_PER_FILE_MAX, "chunk index out of range");
  return file * CHUNKS_PER_FILE_MAX + index;
};

const pageId = (file: number, page: number): number => {
  assert(page >= 0 && page < PAGES_PER_FILE_MAX, "page out of range");
  return file * PAGES_PER_FILE_MAX + page;
};
