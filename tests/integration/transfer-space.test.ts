import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { open, readdir, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterEach, describe, expect, test } from "vitest";
import { DISK_RESERVE_BYTES, REQUEST_WINDOW_CHUNKS } from "#shared/base/limits.ts";
import { TransfersTable } from "../../src-main/store/transfers.ts";
import { chunkThread } from "../../src-main/transfer/chunk-thread.ts";
import { createChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import { freshFileId, realEnv, temporaryFolder, workerUrl, writeRandomFile } from "../support/files.ts";
import { mountSmallDisk } from "../support/tmpfs.ts";
import { createTransferWorld, type TransferWorld, viewWhere } from "../support/transfer-world.ts";

const MiB = 1024 * 1024;

let world: TransferWorld | null = null;
afterEach(async () => {
  await world?.dispose();
  world = null;
});

const shareRandom = async (into: TransferWorld, sizeBytes: number, name = "photo.bin") => {
  const path = join(into.folder, name);
  await writeRandomFile(path, sizeBytes);
  return into.share(path);
};

const rowsOf = (database: string): Record<string, unknown> => {
  const db = new Sqlite(database);
  const count = (table: string): unknown => db.prepare(`SELECT count(*) FROM ${table}`).pluck().get();
  const rows = { chunks: count("chunks"), leaf_pages: count("leaf_pages"), files: count("files") };
  db.close();
  return rows;
};
const NO_ROWS = { chunks: 0, leaf_pages: 0, files: 0 };

const errorType = (result: { ok: true } | { ok: false; error: { type: string } }): string | null =>
  result.ok ? null : result.error.type;

describe("the space of a download", () => {
  test("that was cancelled is given back at the next start when it could not be at once", async () => {
    world = await createTransferWorld();
    const file = await shareRandom(world, 24 * MiB);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await viewWhere(world.bob, ({ chunksStored }) => chunksStored > 60);
    const database = join(world.folder, "bob", "chunks.db");
    const db = new Sqlite(database);
    db.exec("CREATE TRIGGER stuck BEFORE DELETE ON chunks BEGIN SELECT RAISE(ABORT, 'stuck'); END");
    world.bob.transfers.cancel(file.fileId);
    const table = new TransfersTable(world.bob.db);
    await expect.poll(() => table.all().map(({ status }) => status.kind)).toEqual(["cancelled"]);
    // A job that comes later is answered later.
    await world.bob.worker.run("readLeaves", { spec: neverShared(), page: 0 }).result;
    expect(rowsOf(database)["chunks"]).toBeGreaterThan(60);
    expect(table.all()).toHaveLength(1);
    db.exec("DROP TRIGGER stuck");
    db.close();
    await world.restartBob();
    await expect.poll(() => new TransfersTable(requireWorld().bob.db).all(), { timeout: 20_000 }).toEqual([]);
    expect(rowsOf(database)).toEqual(NO_ROWS);
    expect(await readdir(world.bob.downloads)).toEqual([]);
  });

  test("is reserved only after the download was written down", async () => {
    world = await createTransferWorld();
    const file = await shareRandom(world, MiB);
    const table = new TransfersTable(world.bob.db);
    const starting = world.bob.transfers.start(file.fileId, world.bob.downloads);
    expect(table.all()).toHaveLength(1);
    expect(errorType(await starting)).toBeNull();
    expect((await stat(join(world.bob.downloads, `.weir-${file.fileId}.part`))).size).toBe(MiB);
    const missing = await shareRandom(world, MiB, "second.bin");
    expect(errorType(await world.bob.transfers.start(missing.fileId, join(world.folder, "none")))).toBe("not_writable");
    expect(table.all()).toHaveLength(1);
  });

  test("counts what the others have still to receive", async (context) => {
    const disk = mountSmallDisk(DISK_RESERVE_BYTES + 48 * MiB);
    if ("unavailable" in disk) return context.skip(disk.unavailable);
    try {
      world = await createTransferWorld({ bobHome: join(disk.directory, "bob") });
      const first = await shareRandom(world, 8 * MiB);
      const second = await shareRandom(world, 8 * MiB, "second.bin");
      expect(errorType(await world.bob.transfers.start(first.fileId))).toBeNull();
      expect(errorType(await world.bob.transfers.start(second.fileId))).toBe("disk_full");
      expect(world.bob.transfers.list()).toHaveLength(1);
      expect(await readdir(world.bob.downloads)).toEqual([`.weir-${first.fileId}.part`]);
      world.bob.transfers.pause(first.fileId);
      world.bob.transfers.cancel(first.fileId);
      await expect.poll(() => readdir(requireWorld().bob.downloads), { timeout: 20_000 }).toEqual([]);
      expect(errorType(await world.bob.transfers.start(second.fileId))).toBeNull();
    } finally {
      await world?.dispose();
      world = null;
      disk.dispose();
    }
  });
});

describe("what was written to chunks.db for nothing", () => {
  test("by a process that was killed while it hashed is removed at the next start", async () => {
    const folder = await temporaryFolder();
    try {
      const path = join(folder.path, "large.bin");
      await writeFile(path, "");
      await truncate(path, 1024 * MiB);
      const database = join(folder.path, "chunks.db");
      await hashUntilKilled(path, database, 600 * MiB);
      expect(rowsOf(database)).toMatchObject({ files: 1 });
      expect(rowsOf(database)["leaf_pages"]).toBeGreaterThan(1);
      world = await createTransferWorld({ bobDatabase: database });
      await expect.poll(() => rowsOf(database), { timeout: 20_000 }).toEqual(NO_ROWS);
    } finally {
      await world?.dispose();
      world = null;
      await folder.dispose();
    }
  });

  test("is not removed of files that are shared or under way", async () => {
    world = await createTransferWorld();
    const file = await shareRandom(world, 24 * MiB);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await viewWhere(world.bob, ({ chunksStored }) => chunksStored > 60);
    world.bob.transfers.pause(file.fileId);
    const paused = await viewWhere(world.bob, ({ inFlight }) => inFlight === 0);
    await world.restartBob();
    world.links.connect();
    world.bob.transfers.resume(file.fileId);
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(paused.chunksStored).toBeGreaterThan(60);
    expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + REQUEST_WINDOW_CHUNKS);
  });
});

describe("a full disk", () => {
  test("is told by a deletion, so that the ballast makes room for it", async (context) => {
    const disk = mountSmallDisk(32 * MiB);
    if ("unavailable" in disk) return context.skip(disk.unavailable);
    const ballast = join(disk.directory, "ballast");
    let released = 0;
    const worker = createChunkWorker({
      ...{ env: realEnv, start: chunkThread(workerUrl), databasePath: join(disk.directory, "chunks.db") },
      onDiskFull: () => {
        released += 1;
        rmSync(ballast);
      },
    });
    try {
      const db = new Sqlite(join(disk.directory, "chunks.db"));
      const { fileId } = neverShared();
      await worker.run("sweep", { known: [] }).result;
      db.prepare("INSERT INTO files (file, file_id) VALUES (1, ?)").run(fileId);
      const insert = db.prepare("INSERT INTO chunks (id, data) VALUES (?, ?)");
      for (let index = 0; index < 64; index += 1) insert.run(2 ** 24 + index, Buffer.alloc(65_552, index));
      db.pragma("wal_checkpoint(TRUNCATE)");
      db.close();
      await writeFile(ballast, Buffer.alloc(MiB));
      await fill(join(disk.directory, "filler"));
      const drop = () => worker.run("drop", { fileId, directory: null, what: "everything" }).result;
      expect(errorType(await drop())).toBe("disk_full");
      expect(released).toBe(1);
      expect(errorType(await drop())).toBeNull();
    } finally {
      await worker.dispose();
      disk.dispose();
    }
  });
});

describe("a record that cannot be written", () => {
  test("is no exception, and is written as soon as it can be", async () => {
    world = await createTransferWorld();
    const file = await shareRandom(world, MiB);
    await world.bob.transfers.start(file.fileId);
    const table = new TransfersTable(world.bob.db);
    world.bob.db.sql.pragma("query_only = ON");
    expect(world.bob.transfers.pause(file.fileId)).toMatchObject({ ok: true, value: { paused: true } });
    const other = await shareLater(world, "second.bin");
    expect(errorType(await world.bob.transfers.start(other, world.bob.downloads))).toBe("disk_full");
    expect(table.all().map(({ status }) => status.kind)).toEqual(["active"]);
    world.bob.db.sql.pragma("query_only = OFF");
    await expect
      .poll(() => table.all().map(({ status }) => status.kind), { timeout: 10_000, interval: 100 })
      .toEqual(["paused"]);
  });
});

const requireWorld = (): TransferWorld => {
  if (world === null) throw new Error("there is no world");
  return world;
};

/** A file that Bob hears of while his database can be written for a moment. */
const shareLater = async (into: TransferWorld, name: string): Promise<string> => {
  into.bob.db.sql.pragma("query_only = OFF");
  const { fileId } = await shareRandom(into, MiB, name);
  into.bob.db.sql.pragma("query_only = ON");
  return fileId;
};

const neverShared = () => {
  const fileId = freshFileId();
  const key = new Uint8Array(32);
  return { fileId, sizeBytes: 1, chunkBytes: 65_536, chunkCount: 1, root: new Uint8Array(32), key };
};

const fill = async (path: string): Promise<void> => {
  const file = await open(path, "w");
  try {
    for (let piece = MiB; piece >= 4096; ) {
      const { bytesWritten } = await file.write(Buffer.alloc(piece)).catch(() => ({ bytesWritten: 0 }));
      if (bytesWritten < piece) piece /= 2;
    }
  } finally {
    await file.close();
  }
};

const hashUntilKilled = (path: string, database: string, bytes: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const script = join(import.meta.dirname, "../support/hash-child.ts");
    const child = spawn(process.execPath, [script, path, database], { stdio: ["ignore", "pipe", "inherit"] });
    child.stdout.on("data", (data: Buffer) => {
      const hashed = Number(data.toString().trim().split("\n").at(-1));
      if (hashed >= bytes) child.kill("SIGKILL");
    });
    child.on("close", (_code, signal) => (signal === "SIGKILL" ? resolve() : reject(new Error("it ended by itself"))));
  });
