import { closeSync, mkdirSync, openSync, readFileSync, readSync, renameSync, statSync, writeSync } from "node:fs";
import { cp, mkdir, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHUNKS_PAGE_BYTES } from "#shared/base/limits.ts";
import { chunkThread } from "../../src-main/transfer/chunk-thread.ts";
import { type ChunkWorker, createChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import type { KeptFile, RepairReport } from "../../src-main/transfer/chunk-worker-protocol.ts";
import {
  must,
  payloadOf,
  realEnv,
  shareForTest,
  startWorker,
  temporaryFolder,
  workerUrl,
  writeRandomFile,
} from "../support/files.ts";

/** A real chunks.db with a download of CHUNKS chunks and one that was cancelled, damaged in all places. */
const CHUNKS = 120;
const FRAME_BYTES = 24 + CHUNKS_PAGE_BYTES;
const NO_COUNTERS = { requested: 7, duplicate: 0, late: 0, rejected: 0 };
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let kept: KeptFile;
/** One whose WAL was copied, and one of which everything is in the WAL. */
let closed: string;
let killed: string;
let copies = 0;

const store = async (owner: ChunkWorker, worker: ChunkWorker, path: string): Promise<KeptFile> => {
  const { spec } = await shareForTest(owner, path);
  must(await worker.run("open", { spec, directory: folder.path }).result);
  const leaves = payloadOf(must(await owner.run("readLeaves", { spec, page: 0 }).result));
  must(await worker.run("storeLeaves", { spec, page: 0, payload: leaves }).result);
  for (let first = 0; first < spec.chunkCount; first += 16) {
    const indices = Array.from({ length: Math.min(16, spec.chunkCount - first) }, (_, i) => first + i);
    const read = must(await owner.run("readChunks", { spec, source: { kind: "file", path }, indices }).result);
    await Promise.all(
      read.frames.map((frame) => {
        const bytes = new Uint8Array(payloadOf(frame));
        return new Promise((resolve) => worker.storeChunk(spec, NO_COUNTERS, { index: frame.index, bytes }, resolve));
      }),
    );
  }
  return { spec, wantsChunks: true };
};

beforeAll(async () => {
  folder = await temporaryFolder();
  const owner = startWorker(join(folder.path, "owner.db"));
  const [wanted, gone] = [join(folder.path, "wanted.bin"), join(folder.path, "gone.bin")];
  await writeRandomFile(wanted, CHUNKS * 65_536 - 5);
  await writeRandomFile(gone, 20 * 65_536);
  killed = join(folder.path, "killed", "chunks.db");
  closed = join(folder.path, "closed", "chunks.db");
  const live = join(folder.path, "live", "chunks.db");
  for (const path of [live, killed, closed]) await mkdir(dirname(path));
  const worker = startWorker(live);
  // Its number is used again, and its rows are still in free pages.
  const { spec } = await store(owner, worker, gone);
  must(await worker.run("drop", { fileId: spec.fileId, directory: null, what: "everything" }).result);
  kept = await store(owner, worker, wanted);
  // As a kill leaves it.
  for (const name of ["chunks.db", "chunks.db-wal"]) await cp(join(dirname(live), name), join(dirname(killed), name));
  await worker.dispose();
  await cp(live, closed);
  await owner.dispose();
}, 60_000);
afterAll(() => folder.dispose());

const change = (path: string, at: number, bytes: Uint8Array): void => {
  const fd = openSync(path, "r+");
  writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
};

/** Numbers (from 0) of the pages of a kind: 0x05 an inner page of a table, 0x0d a leaf. */
const pagesOf = (path: string, kind: number): number[] => {
  const fd = openSync(path, "r");
  const byte = Buffer.alloc(1);
  const found: number[] = [];
  for (let page = 1; page < statSync(path).size / CHUNKS_PAGE_BYTES; page += 1) {
    readSync(fd, byte, 0, 1, page * CHUNKS_PAGE_BYTES);
    if (byte[0] === kind) found.push(page);
  }
  closeSync(fd);
  return found;
};

/** Damages a copy, lets a worker use it, and says what is left once it is repaired. */
const damaged = async (from: string, damage: (path: string) => void) => {
  copies += 1;
  const path = join(folder.path, `copy-${copies}`, "chunks.db");
  await cp(dirname(from), dirname(path), { recursive: true });
  damage(path);
  const reports: RepairReport[] = [];
  const worker = createChunkWorker({
    ...{ env: realEnv, start: chunkThread(workerUrl), databasePath: path },
    filesToKeep: () => [kept],
    onRepaired: (report) => reports.push(report),
  });
  const directory = dirname(path);
  const { spec } = kept;
  let opened = await worker.run("open", { spec, directory }).result;
  // Found while it was read: whoever reads it then is told to try again.
  if (!opened.ok) {
    expect(opened.error.type).toBe("worker_ended");
    opened = await worker.run("open", { spec, directory }).result;
  }
  const { stored, pages, counters } = must(opened);
  const has = (index: number): boolean => (((stored[index >> 3] ?? 0) >> (index & 7)) & 1) === 1;
  const held = Array.from({ length: CHUNKS }, (_, index) => index).filter(has);
  // Each of them is what it was.
  const read = must(await worker.run("readChunks", { spec, source: { kind: "chunks" }, indices: held }).result);
  expect(read.unavailable).toEqual([]);
  await worker.dispose();
  expect((await readdir(directory)).filter((name) => name.startsWith("chunks.db."))).toEqual([]);
  await rm(directory, { recursive: true });
  return { held: held.length, pages: pages[0], counters, reports };
};

const GARBAGE = new Uint8Array(4096).fill(0xa5);

describe("a chunks.db that is damaged", () => {
  test("in its header loses nothing", async () => {
    const { held, pages, counters, reports } = await damaged(closed, (path) => change(path, 0, GARBAGE));
    expect(reports).toMatchObject([{ chunks: CHUNKS, withoutHashes: [] }]);
    expect({ held, pages, counters }).toEqual({ held: CHUNKS, pages: 1, counters: NO_COUNTERS });
  });

  test("in an inner page of its tables loses nothing", async () => {
    const inner = pagesOf(closed, 0x05);
    expect(inner.length).toBeGreaterThan(0);
    const { held, pages, reports } = await damaged(closed, (path) => {
      for (const page of inner) change(path, page * CHUNKS_PAGE_BYTES, GARBAGE);
    });
    expect(reports).toHaveLength(1);
    expect({ held, pages }).toEqual({ held: CHUNKS, pages: 1 });
  });

  test("in a leaf loses the rows of that leaf", async () => {
    const leaves = pagesOf(closed, 0x0d);
    const { held, pages, reports } = await damaged(closed, (path) =>
      change(path, (leaves.at(-1) ?? 0) * CHUNKS_PAGE_BYTES, GARBAGE),
    );
    expect(reports).toHaveLength(1);
    expect(pages).toBe(1);
    expect(held).toBeLessThan(CHUNKS);
    expect(held).toBeGreaterThanOrEqual(CHUNKS - 8);
  });

  test("in its WAL loses what is in the frames that are damaged, and not all that comes after them", async () => {
    const wal = `${killed}-wal`;
    const frames = Math.floor((statSync(wal).size - 32) / FRAME_BYTES);
    expect(frames).toBeGreaterThan(CHUNKS);
    const inTheMiddle = (path: string): void =>
      change(`${path}-wal`, 32 + Math.floor(frames / 2) * FRAME_BYTES, GARBAGE);
    const { held, reports } = await damaged(killed, inTheMiddle);
    expect(reports).toHaveLength(1);
    expect(held).toBeLessThan(CHUNKS);
    expect(held).toBeGreaterThanOrEqual(CHUNKS - 8);
    const all = await damaged(killed, (path) => change(`${path}-wal`, 0, GARBAGE.subarray(0, 32)));
    expect(all).toMatchObject({ held: CHUNKS, pages: 1 });
  });

  test("that is not is left alone", async () => {
    for (const from of [closed, killed]) {
      const { held, reports } = await damaged(from, () => undefined);
      expect({ held, reports }).toEqual({ held: CHUNKS, reports: [] });
    }
  });

  test("and nothing but garbage becomes an empty one", async () => {
    const { held, pages, reports } = await damaged(closed, (path) => {
      change(path, 0, new Uint8Array(readFileSync(path).length).fill(7));
    });
    expect(reports).toMatchObject([{ chunks: 0, withoutHashes: [kept.spec.fileId] }]);
    expect({ held, pages }).toEqual({ held: 0, pages: 0 });
  });

  test("is salvaged from the start after a kill in the middle", async () => {
    const { held, reports } = await damaged(closed, (path) => {
      // Set aside, and no more than that.
      const aside = `${path}.damaged`;
      change(path, 0, GARBAGE);
      mkdirSync(aside);
      renameSync(path, join(aside, "database"));
    });
    expect(reports).toHaveLength(1);
    expect(held).toBe(CHUNKS);
  });
});
