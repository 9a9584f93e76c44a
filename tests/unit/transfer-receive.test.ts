import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { type Bytes, freeNow } from "#shared/base/bytes.ts";
import {
  CHUNK_BYTES,
  CHUNK_BYTES_LARGE,
  CHUNK_TAG_BYTES,
  STORE_GATHER_BYTES,
  STORE_GATHER_MS,
} from "#shared/base/limits.ts";
import { ChunkTables } from "../../src-main/store/chunks.ts";
import { Database } from "../../src-main/store/database.ts";
import { chunksMigrations } from "../../src-main/store/schema/chunks.ts";
import { KnownFiles } from "../../src-main/transfer/worker/known-files.ts";
import { ChunkReceiver } from "../../src-main/transfer/worker/receive.ts";
import { createManualClock } from "../support/fake-app.ts";
import { freshFileId, freshKey } from "../support/files.ts";

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

/** A receiver that counts the chunks of each commit. No leaves are stored: what is answered does not matter here. */
const startReceiver = () => {
  const directory = mkdtempSync(join(tmpdir(), "weir-receive-"));
  undo.push(() => rmSync(directory, { recursive: true }));
  const db = Database.openChunks(join(directory, "chunks.db"), chunksMigrations);
  undo.push(() => db.dispose());
  const tables = new ChunkTables(db);
  const clock = createManualClock();
  const commits: number[] = [];
  const receiver = new ChunkReceiver(clock, tables, new KnownFiles(tables), (results) => commits.push(results.length));
  const spec = {
    fileId: freshFileId(),
    sizeBytes: 2 ** 24,
    chunkBytes: 2 ** 16,
    chunkCount: 256,
    root: new Uint8Array(32),
    key: freshKey(),
  };
  const add = (count: number, chunkBytes = CHUNK_BYTES): void => {
    const bytesOf = (): Bytes => new Uint8Array(chunkBytes + CHUNK_TAG_BYTES);
    const chunks = Array.from({ length: count }, (_, index) => ({ job: index, index, bytes: bytesOf() }));
    receiver.add(spec, { requested: 0, duplicate: 0, late: 0, rejected: 0 }, chunks);
  };
  return { receiver, clock, commits, add };
};

test("a few chunks wait for company, and not longer than the limit", async () => {
  const { clock, commits, add } = startReceiver();
  add(1);
  clock.advance(STORE_GATHER_MS - 1);
  add(2);
  await setImmediate();
  expect(commits).toEqual([]);
  clock.advance(1);
  await setImmediate();
  expect(commits).toEqual([3]);
  expect(clock.timers()).toBe(0);
});

test.each([CHUNK_BYTES, CHUNK_BYTES_LARGE])(
  "enough chunks of %i bytes are committed at once, with those that came in the same turn",
  async (chunkBytes) => {
    const enough = STORE_GATHER_BYTES / chunkBytes;
    const { clock, commits, add } = startReceiver();
    add(enough - 1, chunkBytes);
    await setImmediate();
    expect(commits).toEqual([]);
    add(1, chunkBytes);
    add(3, chunkBytes);
    await setImmediate();
    expect(commits).toEqual([enough + 3]);
    expect(clock.timers()).toBe(0);
    add(1, chunkBytes);
    clock.advance(STORE_GATHER_MS);
    await setImmediate();
    expect(commits).toEqual([enough + 3, 1]);
  },
);

test("a flush commits what was gathered, once", async () => {
  const { receiver, clock, commits, add } = startReceiver();
  add(5);
  receiver.flush();
  expect(commits).toEqual([5]);
  clock.advance(STORE_GATHER_MS);
  await setImmediate();
  expect(commits).toEqual([5]);
});

test("memory is given back at once, but never that of a buffer that holds more", () => {
  const own = new Uint8Array(70).subarray(20);
  freeNow(own, 20);
  expect(own.length).toBe(0);
  const pool = new Uint8Array(1000);
  freeNow(pool.subarray(20, 70), 20);
  expect(pool.length).toBe(1000);
});
