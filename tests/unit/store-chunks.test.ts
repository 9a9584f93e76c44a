import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CHUNK_BYTES, CHUNK_BYTES_LARGE, CHUNK_TAG_BYTES, CHUNKS_PAGE_BYTES } from "#shared/base/limits.ts";
import { ChunkTables } from "../../src-main/store/chunks.ts";
import { Database } from "../../src-main/store/database.ts";
import { chunksMigrations } from "../../src-main/store/schema/chunks.ts";
import { freshFileId } from "../support/files.ts";

let directory: string;
let db: Database;
let tables: ChunkTables;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "weir-chunks-"));
  db = Database.openChunks(join(directory, "chunks.db"), chunksMigrations);
  tables = new ChunkTables(db);
});
afterEach(() => {
  db.dispose();
  rmSync(directory, { recursive: true });
});

/** Stores `count` chunks of a new file, in batches and a little out of order, as they arrive. */
const storeFile = (count: number, chunkBytes: number): { fileId: string; file: number } => {
  const fileId = freshFileId();
  const { file } = tables.ensure(fileId);
  const data = new Uint8Array(chunkBytes + CHUNK_TAG_BYTES).fill(7);
  for (let from = 0; from < count; from += 8)
    tables.transaction(() => {
      for (let index = from; index < Math.min(from + 8, count); index += 1) tables.saveChunk(file, index ^ 1, data);
    });
  return { fileId, file };
};

describe("removing the chunks of a file", () => {
  test.each([CHUNK_BYTES, CHUNK_BYTES_LARGE])(
    "of %i bytes gives all their space back, and moves next to nothing",
    (bytes) => {
      const { file } = storeFile((128 * CHUNK_BYTES_LARGE) / bytes, bytes);
      const before = tables.measure();
      const { frames } = db.checkpoint("noop");
      while (tables.removeSomeChunks(file));
      const after = tables.measure();
      expect(after).toMatchObject({ freeBytes: 0, files: [{ chunks: 0, bytes: 0 }] });
      const removedPages = (before.pageBytes - after.pageBytes) / CHUNKS_PAGE_BYTES;
      expect(removedPages).toBeGreaterThan(500);
      expect(db.checkpoint("noop").frames - frames).toBeLessThan(removedPages / 3);
    },
  );

  test("leaves those of others as they were", () => {
    const [first, second] = [storeFile(40, CHUNK_BYTES), storeFile(30, CHUNK_BYTES)];
    const bytes = CHUNK_BYTES + CHUNK_TAG_BYTES;
    expect(tables.measure().files).toEqual([
      { fileId: first.fileId, chunks: 40, bytes: 40 * bytes },
      { fileId: second.fileId, chunks: 30, bytes: 30 * bytes },
    ]);
    while (tables.removeSomeChunks(first.file));
    expect(tables.indicesFrom(first.file, 0)).toEqual([]);
    expect(tables.indicesFrom(second.file, 0)).toEqual(Array.from({ length: 30 }, (_, i) => i));
    expect(tables.chunk(second.file, 29)?.every((byte) => byte === 7)).toBe(true);
    expect(tables.measure()).toMatchObject({ freeBytes: 0, files: [{ chunks: 0 }, { chunks: 30, bytes: 30 * bytes }] });
    expect(db.sql.pragma("integrity_check", { simple: true })).toBe("ok");
  });

  test("gives back what a removal that was killed in between has freed", () => {
    const { file } = storeFile(20, CHUNK_BYTES_LARGE);
    db.transaction(() => db.sql.exec("DELETE FROM chunks"));
    expect(tables.measure().freeBytes).toBeGreaterThan(20 * CHUNK_BYTES_LARGE);
    expect(tables.removeSomeChunks(file)).toBe(false);
    expect(tables.measure().freeBytes).toBe(0);
  });
});

test("measuring counts chunks, hashes and the list of every file", () => {
  const { file, fileId } = storeFile(3, CHUNK_BYTES);
  tables.savePage(file, 0, new Uint8Array(32), new Uint8Array(96));
  tables.saveFolderList(file, new Uint8Array(1000));
  const empty = freshFileId();
  tables.ensure(empty);
  const { files, pageBytes, freeBytes, overheadBytes } = tables.measure();
  expect(files).toEqual([
    { fileId, chunks: 3, bytes: 3 * (CHUNK_BYTES + CHUNK_TAG_BYTES) + 128 + 1000 },
    { fileId: empty, chunks: 0, bytes: 0 },
  ]);
  expect(files.reduce((sum, { bytes }) => sum + bytes, 0) + freeBytes + overheadBytes).toBe(pageBytes);
});
