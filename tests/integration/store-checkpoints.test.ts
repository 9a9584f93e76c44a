import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CHUNKS_PAGE_BYTES, WAL_REST_MS, WAL_RESTART_PAGES } from "#shared/base/limits.ts";
import { ChunkTables } from "../../src-main/store/chunks.ts";
import { type CheckpointMode, Database } from "../../src-main/store/database.ts";
import { chunksMigrations } from "../../src-main/store/schema/chunks.ts";
import { checkpointThread, type StartCheckpointThread, WalKeeper } from "../../src-main/transfer/worker/wal-keeper.ts";
import { counted } from "../support/counts.ts";
import { createManualClock } from "../support/fake-app.ts";
import { checkpointerUrl, freshFileId, quietLog } from "../support/files.ts";

const LARGE = Number.MAX_SAFE_INTEGER;
let directory: string;
let path: string;
const undo: (() => Promise<void> | void)[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "weir-checkpoints-"));
  path = join(directory, "chunks.db");
});
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
  rmSync(directory, { recursive: true });
});

const realThread: StartCheckpointThread = (listener) => checkpointThread(checkpointerUrl, path, quietLog)(listener);

/** A writer with its keeper; remembers what the writer copied by itself, and what became of the thread. */
const startWriter = (startThread: StartCheckpointThread = realThread) => {
  const db = Database.openChunks(path, chunksMigrations);
  const byWriter: CheckpointMode[] = [];
  const seen = { passes: 0, exits: 0, errors: [] as (string | null)[] };
  const clock = createManualClock();
  const wal = new WalKeeper({
    db: {
      checkpoint: (mode) => {
        if (mode !== "noop") byWriter.push(mode);
        return db.checkpoint(mode);
      },
    },
    clock,
    log: quietLog,
    startThread: (listener) =>
      startThread({
        passed: (error) => {
          seen.passes += 1;
          seen.errors.push(error);
          listener.passed(error);
        },
        exited: () => {
          seen.exits += 1;
          listener.exited();
        },
      }),
  });
  undo.push(() => db.dispose());
  undo.push(() => wal.dispose());
  const tables = new ChunkTables(db, () => wal.committed());
  const { file } = tables.ensure(freshFileId());
  let count = 0;
  const store = (chunks: number, fileBytes: number): void => {
    wal.beforeChunks(fileBytes);
    tables.transaction(() => {
      for (let i = 0; i < chunks; i += 1) {
        tables.saveChunk(file, count, Buffer.alloc(65_552, count % 251));
        count += 1;
      }
    });
  };
  const rest = (): void => {
    clock.advance(WAL_REST_MS);
    clock.advance(WAL_REST_MS);
  };
  return { db, wal, tables, file, byWriter, seen, store, rest, count: () => count };
};
const walBytes = (): number => (existsSync(`${path}-wal`) ? statSync(`${path}-wal`).size : 0);

const expectWhole = (tables: ChunkTables, file: number, count: number): void => {
  for (let index = 0; index < count; index += 1) {
    const data = tables.chunk(file, index);
    if (data === null || data.length !== 65_552 || data[0] !== index % 251 || data.at(-1) !== index % 251)
      throw new Error(`chunk ${index} of ${count} is wrong`);
  }
};

describe("the WAL of chunks.db", () => {
  test("is copied by the thread while a large file is stored, begins anew, and is emptied at rest", async () => {
    const writer = startWriter();
    const limit = 3 * WAL_RESTART_PAGES;
    while (writer.seen.passes < 2 || writer.db.checkpoint("noop").frames >= 400) {
      expect(writer.count()).toBeLessThan(limit);
      writer.store(32, LARGE);
      await setImmediate();
    }
    expect(writer.seen.errors).not.toContain(expect.any(String));
    // By then all that is in the file was copied by the thread, but for a few pages each time that the WAL begins anew.
    expect(new Set(writer.byWriter)).toEqual(new Set(["passive"]));
    expect(statSync(path).size).toBeGreaterThan(300 * CHUNKS_PAGE_BYTES);
    writer.rest();
    await expect.poll(() => writer.seen.exits, { timeout: 60_000 }).toBe(1);
    expect(walBytes()).toBe(0);
    expectWhole(writer.tables, writer.file, writer.count());
  }, 120_000);

  test("of a small file is not copied before rest; when its rows are gone by then, they never reach the file", () => {
    const writer = startWriter();
    for (let i = 0; i < 20; i += 1) writer.store(32, 20 * 32 * 65_536);
    expect(writer.byWriter).toEqual([]);
    expect(walBytes()).toBeGreaterThan(600 * CHUNKS_PAGE_BYTES);
    while (writer.tables.removeSomeChunks(writer.file));
    writer.db.checkpoint("passive");
    expect(statSync(path).size).toBeLessThan(20 * CHUNKS_PAGE_BYTES);
    writer.rest();
    expect(writer.byWriter).toEqual(["truncate"]);
    expect(walBytes()).toBe(0);
    expect(writer.seen.passes).toBe(0);
  });

  test("is bounded by the writer when the thread dies", async () => {
    const dead: StartCheckpointThread = (listener) => {
      queueMicrotask(() => listener.exited());
      return { pass: () => undefined, end: () => undefined };
    };
    const writer = startWriter(dead);
    let longest = 0;
    for (let i = 0; i < 100; i += 1) {
      writer.store(32, LARGE);
      await setImmediate();
      longest = Math.max(longest, writer.db.checkpoint("noop").frames);
    }
    expect(writer.byWriter).toContain("passive");
    expect(longest).toBeLessThan(WAL_RESTART_PAGES + 200);
    expect(writer.seen.exits).toBe(1);
    expectWhole(writer.tables, writer.file, writer.count());
  });

  test("is left for the next start instead of being copied at the end", async () => {
    const writer = startWriter();
    for (let i = 0; i < 10; i += 1) writer.store(32, 1);
    const before = walBytes();
    writer.db.disposeWithoutCheckpoint();
    expect(walBytes()).toBe(before);
    expect(statSync(path).size).toBeLessThan(20 * CHUNKS_PAGE_BYTES);
    const again = startWriter();
    expectWhole(again.tables, writer.file, writer.count());
    again.rest();
    await expect.poll(walBytes, { timeout: 60_000 }).toBe(0);
    expect(again.seen.passes).toBe(1);
  }, 120_000);
});

const KILLS = counted(2, 100);

test(
  `${KILLS} kills while the thread copies: what was committed is there and right`,
  async () => {
    const committed = new Map<number, number>();
    for (let kill = 0; kill < KILLS; kill += 1) {
      const script = join(import.meta.dirname, "../support/checkpoint-child.ts");
      const child = spawn(process.execPath, [script, path], { stdio: ["ignore", "pipe", "inherit"] });
      const chunks = 600 + Math.floor(Math.random() * 600);
      let text = "";
      child.stdout.on("data", (data: Buffer) => {
        text += data.toString();
        if (Number(text.trim().split(" ").at(-1)) >= chunks) child.kill("SIGKILL");
      });
      await new Promise((resolve) => child.once("close", resolve));
      for (const line of text.split("\n").slice(0, -1)) {
        const [file = 0, count = 0] = line.split(" ").map(Number);
        committed.set(file, count);
      }
      const db = Database.openChunks(path, chunksMigrations);
      try {
        expect(db.sql.pragma("integrity_check", { simple: true })).toBe("ok");
        const tables = new ChunkTables(db);
        for (const [file, count] of committed) expectWhole(tables, file, count);
        for (const file of committed.keys()) while (tables.removeSomeChunks(file));
        committed.clear();
      } finally {
        db.dispose();
      }
    }
  },
  counted(240_000, 3_600_000),
);
