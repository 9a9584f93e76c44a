import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { closeSync, fsyncSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { open, readdir, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterEach, describe, expect, test } from "vitest";
import type { Env } from "#shared/base/env.ts";
import { CHUNK_BYTES, DISK_RESERVE_BYTES } from "#shared/base/limits.ts";
import { counted } from "../support/counts.ts";
import {
  must,
  payloadOf,
  realEnv,
  sha256OfFile,
  shareForTest,
  startWorker,
  temporaryFolder,
  writeRandomFile,
} from "../support/files.ts";
import { mountSmallDisk } from "../support/tmpfs.ts";
import { createTransferWorld, type TransferWorld, viewWhere } from "../support/transfer-world.ts";

const MiB = 1024 * 1024;
const DAY_MS = 24 * 60 * 60 * 1000;

let world: TransferWorld | null = null;
afterEach(async () => {
  await world?.dispose();
  world = null;
});

const shareRandom = async (into: TransferWorld, sizeBytes: number, name: string) => {
  const path = join(into.folder, name);
  const hex = await writeRandomFile(path, sizeBytes);
  return { ...(await into.share(path)), hex };
};

/** Leaves this much room on the disk; `dispose` gives the rest back. */
const fillUp = async (path: string, roomBytes: number): Promise<{ dispose(): Promise<void> }> => {
  const file = await open(path, "w");
  try {
    let written = 0;
    for (let piece = MiB; piece >= 4096; ) {
      const { bytesWritten } = await file.write(Buffer.alloc(piece)).catch(() => ({ bytesWritten: 0 }));
      written += bytesWritten;
      if (bytesWritten < piece) piece /= 2;
    }
    await file.truncate(Math.max(0, written - roomBytes));
  } finally {
    await file.close();
  }
  return { dispose: () => rm(path) };
};

const DISK_FULL_ROUNDS = counted(4, 100);

describe("a disk that runs full while a file arrives", () => {
  test(`at ${DISK_FULL_ROUNDS} places: the download fails and says so, and goes on once there is room, without a byte twice`, async (context) => {
    const disk = mountSmallDisk(DISK_RESERVE_BYTES + 64 * MiB);
    if ("unavailable" in disk) return context.skip(disk.unavailable);
    try {
      const home = join(disk.directory, "bob");
      world = await createTransferWorld({ bobHome: home });
      const { bob, links } = world;
      let failures = 0;
      for (let round = 0; round < DISK_FULL_ROUNDS; round += 1) {
        const file = await shareRandom(world, 4 * MiB, `file-${round}.bin`);
        links.cut();
        const started = await bob.transfers.start(file.fileId);
        expect(started.ok, JSON.stringify(started)).toBe(true);
        // At the start nothing but the reserve is asked for; what fills the disk comes later.
        const filler = await fillUp(join(disk.directory, "filler"), Math.floor((round / DISK_FULL_ROUNDS) * 7 * MiB));
        links.connect();
        const ended = await viewWhere(
          bob,
          ({ fileId, phase }) => fileId === file.fileId && ["failed", "complete"].includes(phase),
        );
        await filler.dispose();
        if (ended.phase === "failed") {
          failures += 1;
          expect(ended.error?.type).toBe("disk_full");
          expect(ended.savedPath).toBeNull();
          expect(bob.transfers.retry(file.fileId).ok).toBe(true);
        }
        const done = await viewWhere(
          bob,
          ({ fileId, phase }) => fileId === file.fileId && phase === "complete",
          60_000,
        );
        expect(await sha256OfFile(done.savedPath ?? "")).toBe(file.hex);
        expect(done.duplicateChunks).toBe(0);
        await rm(done.savedPath ?? "");
      }
      expect(failures).toBeGreaterThan(0);
      expect(await readdir(bob.downloads)).toEqual([]);
    } finally {
      await world?.dispose();
      world = null;
      disk.dispose();
    }
  }, 1_200_000);
});

const FLIPS = counted(24, 500);

describe("bits that flip in chunks.db", () => {
  test(`in ${FLIPS} rows: all of them are found, none is served, and all are named when the file is assembled`, async () => {
    const folder = await temporaryFolder();
    const database = join(folder.path, "receiver.db");
    const owner = startWorker(join(folder.path, "owner.db"));
    let receiver = startWorker(database);
    try {
      const path = join(folder.path, "source.bin");
      const hex = await writeRandomFile(path, 2 * FLIPS * CHUNK_BYTES);
      const { spec, sha256 } = await shareForTest(owner, path);
      const directory = folder.path;
      must(await receiver.run("open", { spec, directory }).result);
      const payload = payloadOf(must(await owner.run("readLeaves", { spec, page: 0 }).result));
      expect(must(await receiver.run("storeLeaves", { spec, page: 0, payload }).result)).toBe("stored");
      const store = async (indices: number[]): Promise<unknown[]> => {
        const { frames } = must(
          await owner.run("readChunks", { spec, source: { kind: "file", path }, indices }).result,
        );
        return Promise.all(
          frames.map(
            (frame) =>
              new Promise((resolve) => {
                const counters = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
                const bytes = new Uint8Array(payloadOf(frame));
                receiver.storeChunk(spec, counters, { index: frame.index, bytes }, resolve);
              }),
          ),
        );
      };
      const all = Array.from({ length: spec.chunkCount }, (_, index) => index);
      for (let first = 0; first < all.length; first += 16) await store(all.slice(first, first + 16));
      await receiver.dispose();

      // Where a row lies in the file: its bytes are random, so a piece of them is found once.
      const db = new Sqlite(database);
      db.pragma("wal_checkpoint(TRUNCATE)");
      const rows = db.prepare<[], { id: number; data: Buffer }>("SELECT id, data FROM chunks ORDER BY id").all();
      db.close();
      const bytes = Buffer.alloc(statSync(database).size);
      const file = openSync(database, "r+");
      readSync(file, bytes, 0, bytes.length, 0);
      const flipped = rows.filter((_, index) => index % 2 === 1);
      for (const { data } of flipped) {
        // Pages that SQLite has given up may still hold a copy, and a piece across two pages is nowhere in one: so
        // several pieces, each wherever it is.
        for (let piece = 0; piece < 3; ) {
          const at = randomInt(0, 60_000);
          const bit = 1 << randomInt(0, 8);
          const looked = data.subarray(at, at + 32);
          const places: number[] = [];
          for (let place = bytes.indexOf(looked); place >= 0; place = bytes.indexOf(looked, place + 1))
            places.push(place);
          for (const place of places) writeSync(file, Buffer.from([(bytes[place] ?? 0) ^ bit]), 0, 1, place);
          if (places.length > 0) piece += 1;
        }
      }
      fsyncSync(file);
      closeSync(file);

      receiver = startWorker(database);
      const bad = all.filter((index) => index % 2 === 1);
      const stored = must(await receiver.run("open", { spec, directory }).result);
      expect(stored.stored.reduce((count, byte) => count + byte.toString(2).replaceAll("0", "").length, 0)).toBe(
        spec.chunkCount,
      );
      for (let first = 0; first < all.length; first += 16) {
        const indices = all.slice(first, first + 16);
        const served = must(await receiver.run("readChunks", { spec, source: { kind: "chunks" }, indices }).result);
        expect(served.unavailable).toEqual(indices.filter((index) => index % 2 === 1));
      }
      const assembled = await receiver.run("assemble", { spec, directory }).result;
      expect(assembled).toMatchObject({ ok: false, error: { type: "corrupt_chunks", indices: bad } });
      for (let first = 0; first < bad.length; first += 16)
        expect(new Set(await store(bad.slice(first, first + 16)))).toEqual(new Set(["stored"]));
      must(await receiver.run("assemble", { spec, directory }).result);
      must(await receiver.run("verify", { spec, directory, sha256 }).result);
      const saved = must(await receiver.run("finish", { spec, directory, name: "out.bin" }).result);
      expect(await sha256OfFile(saved)).toBe(hex);
    } finally {
      await Promise.all([owner.dispose(), receiver.dispose()]);
      await folder.dispose();
    }
  }, 600_000);
});

const COMPLETIONS = counted(5, 200);

describe("the final name", () => {
  test(`of ${COMPLETIONS} downloads shows a whole file from its first moment on`, async () => {
    world = await createTransferWorld();
    const { bob, links } = world;
    links.connect();
    const script = join(import.meta.dirname, "../support/appearance-child.ts");
    const child = spawn(process.execPath, [script, bob.downloads], { stdio: ["pipe", "pipe", "inherit"] });
    let text = "";
    child.stdout.on("data", (data: Buffer) => {
      text += data.toString();
    });
    await expect.poll(() => text, { timeout: 30_000 }).toContain("ready");
    const wanted = new Map<string, string>();
    for (let round = 0; round < COMPLETIONS; round += 1) {
      const file = await shareRandom(world, 3 * MiB, `file-${round}.bin`);
      wanted.set(file.name, file.hex);
      expect((await bob.transfers.start(file.fileId)).ok).toBe(true);
      await viewWhere(bob, ({ fileId, phase }) => fileId === file.fileId && phase === "complete", 60_000);
    }
    const seen = () => text.split("\n").filter((line) => line.startsWith("file-"));
    await expect.poll(() => seen().length, { timeout: 30_000 }).toBe(COMPLETIONS);
    child.stdin.end();
    for (const line of seen()) {
      const [name = "", hex] = line.split(" ");
      expect(hex, name).toBe(wanted.get(name));
    }
  }, 600_000);
});

describe("a download survives", () => {
  test("a temporary file that was cut or removed", async () => {
    world = await createTransferWorld();
    const { bob, links } = world;
    for (const [name, harm] of [
      ["cut.bin", (part: string) => truncate(part, 1000)],
      ["gone.bin", (part: string) => rm(part)],
    ] as const) {
      const file = await shareRandom(world, 3 * MiB, name);
      links.cut();
      expect((await bob.transfers.start(file.fileId)).ok).toBe(true);
      await harm(join(bob.downloads, `.weir-${file.fileId}.part`));
      links.connect();
      const done = await viewWhere(bob, ({ fileId, phase }) => fileId === file.fileId && phase === "complete", 60_000);
      expect(await sha256OfFile(done.savedPath ?? "")).toBe(file.hex);
    }
    expect((await readdir(bob.downloads)).sort()).toEqual(["cut.bin", "gone.bin"]);
  }, 120_000);

  test("a clock that jumps back and forth", async () => {
    let jumpMs = 0;
    const env: Env = { ...realEnv, clock: { ...realEnv.clock, now: () => Date.now() + jumpMs } };
    world = await createTransferWorld({ env });
    const { bob, links } = world;
    const file = await shareRandom(world, 24 * MiB, "long.bin");
    links.connect();
    bob.transfers.onChanged(({ chunksStored }) => {
      jumpMs = chunksStored % 2 === 0 ? -400 * DAY_MS : 400 * DAY_MS;
    });
    expect((await bob.transfers.start(file.fileId)).ok).toBe(true);
    const done = await viewWhere(bob, ({ phase }) => phase === "complete", 60_000);
    expect(jumpMs).not.toBe(0);
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(file.hex);
    for (const { bytesPerSecond, etaMs } of bob.views) {
      expect(bytesPerSecond).toBeGreaterThanOrEqual(0);
      expect(etaMs ?? 0).toBeGreaterThanOrEqual(0);
    }
  }, 120_000);
});
