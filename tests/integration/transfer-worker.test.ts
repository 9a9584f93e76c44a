import { mkdir, open, readdir, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, type TestContext, test } from "vitest";
import { DISK_RESERVE_BYTES } from "#shared/base/limits.ts";
import { BULK_HEADER_BYTES } from "#shared/wire/frame.ts";
import { pageCountOf } from "../../src-main/crypto/hash-tree.ts";
import type { ChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import type { FileSpec, StoreOutcome } from "../../src-main/transfer/chunk-worker-protocol.ts";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";
import { counted } from "../support/counts.ts";
import { describeDownload, runDownloadChild } from "../support/described-download.ts";
import {
  freshFileId,
  must,
  payloadOf,
  sha256OfFile,
  shareForTest,
  startWorker,
  temporaryFolder,
  writeRandomFile,
} from "../support/files.ts";
import { mountSmallDisk } from "../support/tmpfs.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const NO_COUNTERS = { requested: 0, duplicate: 0, late: 0, rejected: 0 };

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let owner: ChunkWorker;
let receiver: ChunkWorker;
beforeEach(async () => {
  folder = await temporaryFolder();
  owner = startWorker(join(folder.path, "owner.db"));
  receiver = startWorker(join(folder.path, "receiver.db"));
});
afterEach(async () => {
  await Promise.all([owner.dispose(), receiver.dispose()]);
  await folder.dispose();
});

const errorType = (result: { ok: true } | { ok: false; error: { type: string } }): string | null =>
  result.ok ? null : result.error.type;

const share = async (sizeBytes: number) => {
  const path = join(folder.path, "source.bin");
  const hex = await writeRandomFile(path, sizeBytes);
  return { path, hex, ...(await shareForTest(owner, path)) };
};
type Shared = Awaited<ReturnType<typeof share>>;

const store = (worker: ChunkWorker, spec: FileSpec, index: number, bytes: Uint8Array): Promise<StoreOutcome> =>
  new Promise((resolve) => {
    worker.storeChunk(spec, NO_COUNTERS, { index, bytes: new Uint8Array(bytes) }, resolve);
  });

const read = async ({ spec, path }: Shared, indices: number[]) =>
  must(await owner.run("readChunks", { spec, source: { kind: "file", path }, indices }).result).frames.map((frame) => ({
    index: frame.index,
    bytes: payloadOf(frame),
  }));

const moveLeaves = async ({ spec }: Shared, to = receiver): Promise<void> => {
  for (let page = 0; page < pageCountOf(spec.chunkCount); page += 1) {
    const frame = must(await owner.run("readLeaves", { spec, page }).result);
    const payload = payloadOf(frame);
    expect(must(await to.run("storeLeaves", { spec, page, payload }).result)).toBe("stored");
  }
};

const moveChunks = async (shared: Shared, to = receiver): Promise<StoreOutcome[]> => {
  const outcomes: StoreOutcome[] = [];
  for (let first = 0; first < shared.spec.chunkCount; first += 16) {
    const indices = Array.from({ length: Math.min(16, shared.spec.chunkCount - first) }, (_, i) => first + i);
    const frames = await read(shared, indices);
    outcomes.push(...(await Promise.all(frames.map(({ index, bytes }) => store(to, shared.spec, index, bytes)))));
  }
  return outcomes;
};

const complete = async ({ spec, sha256 }: Shared, directory: string, name = "out.bin"): Promise<string> => {
  must(await receiver.run("assemble", { spec, directory }).result);
  must(await receiver.run("verify", { spec, directory, sha256 }).result);
  return must(await receiver.run("finish", { spec, directory, name }).result);
};

describe("the chunk worker", () => {
  test.each([0, 1, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, 5 * MiB])(
    "hashes, encrypts, stores, assembles and verifies %i bytes",
    async (sizeBytes) => {
      const shared = await share(sizeBytes);
      const { spec } = shared;
      expect(Buffer.from(shared.sha256).toString("hex")).toBe(shared.hex);
      const directory = folder.path;
      must(await receiver.run("prepare", { spec, directory, unstoredBytes: spec.sizeBytes }).result);
      must(await receiver.run("open", { spec, directory }).result);
      await moveLeaves(shared);
      expect(new Set(await moveChunks(shared))).toEqual(new Set(sizeBytes === 0 ? [] : ["stored"]));
      const progress: number[] = [];
      must(await receiver.run("assemble", { spec, directory }, (chunks) => progress.push(chunks)).result);
      expect(progress.at(-1)).toBe(sizeBytes === 0 ? undefined : spec.chunkCount);
      expect(await sha256OfFile(await complete(shared, directory))).toBe(shared.hex);
      must(await receiver.run("drop", { fileId: spec.fileId, directory, what: "everything" }).result);
      expect((await readdir(directory)).filter((name) => name.includes(".part"))).toEqual([]);
    },
  );

  test("stores a chunk once, and never one that does not hash to its leaf", async () => {
    const shared = await share(MiB);
    const { spec } = shared;
    must(await receiver.run("open", { spec, directory: folder.path }).result);
    const [chunk] = await read(shared, [3]);
    const bytes = chunk?.bytes ?? new Uint8Array();
    expect(await store(receiver, spec, 3, bytes)).toMatchObject({ type: "missing_leaves" });
    await moveLeaves(shared);
    const garbage = new Uint8Array(bytes.length).fill(9);
    expect(await store(receiver, spec, 3, garbage)).toBe("rejected");
    expect(await store(receiver, spec, 4, bytes)).toBe("rejected");
    expect(await store(receiver, spec, 3, bytes.subarray(1))).toBe("rejected");
    expect(await store(receiver, spec, 3, bytes)).toBe("stored");
    expect(await store(receiver, spec, 3, bytes)).toBe("duplicate");
    expect(await store(receiver, spec, 3, garbage)).toBe("rejected");
    // Several in one batch, the same chunk among them twice.
    const outcomes = await Promise.all([bytes, garbage, bytes].map((b) => store(receiver, spec, 3, b)));
    expect(outcomes).toEqual(["duplicate", "rejected", "duplicate"]);
    const opened = must(await receiver.run("open", { spec, directory: folder.path }).result);
    expect(PieceMap.fromBytes(spec.chunkCount, opened.stored).count).toBe(1);
  });

  test("finds damaged rows when it assembles, names them, and replaces a damaged row that is fetched again", async () => {
    const shared = await share(2 * MiB);
    const { spec } = shared;
    const directory = folder.path;
    must(await receiver.run("open", { spec, directory }).result);
    await moveLeaves(shared);
    await moveChunks(shared);
    const db = new Sqlite(join(folder.path, "receiver.db"));
    const base = db.prepare<[], number>("SELECT min(id) FROM chunks").pluck().get() ?? 0;
    const flip = (index: number): void => {
      const data = db
        .prepare<[number], Buffer>("SELECT data FROM chunks WHERE id = ?")
        .pluck()
        .get(base + index);
      const bad = Buffer.from(data ?? []);
      bad[100] = (bad[100] ?? 0) ^ 4;
      db.prepare("UPDATE chunks SET data = ? WHERE id = ?").run(bad, base + index);
    };
    flip(2);
    flip(30);
    db.prepare("DELETE FROM chunks WHERE id = ?").run(base + 7);
    const failed = await receiver.run("assemble", { spec, directory }).result;
    expect(failed).toMatchObject({ ok: false, error: { type: "corrupt_chunks", indices: [2, 7, 30] } });
    for (const { index, bytes } of await read(shared, [2, 7, 30]))
      expect(await store(receiver, spec, index, bytes)).toBe("stored");
    flip(5);
    const [five] = await read(shared, [5]);
    expect(await store(receiver, spec, 5, five?.bytes ?? new Uint8Array())).toBe("replaced");
    db.close();
    expect(await sha256OfFile(await complete(shared, directory))).toBe(shared.hex);
  });

  test("notices a temporary file that was changed before it is renamed", async () => {
    const shared = await share(MiB);
    const { spec, sha256 } = shared;
    const directory = folder.path;
    must(await receiver.run("open", { spec, directory }).result);
    await moveLeaves(shared);
    await moveChunks(shared);
    must(await receiver.run("assemble", { spec, directory }).result);
    const file = await open(join(directory, `.weir-${spec.fileId}.part`), "r+");
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, 500_000);
    await file.write(Buffer.of((byte[0] ?? 0) ^ 1), 0, 1, 500_000);
    await file.close();
    expect(errorType(await receiver.run("verify", { spec, directory, sha256 }).result)).toBe("checksum_mismatch");
    expect(await sha256OfFile(await complete(shared, directory))).toBe(shared.hex);
  });

  test("recognises a file that got its final name just before a crash, and gives back the space of its chunks", async () => {
    const shared = await share(4 * MiB);
    const { spec } = shared;
    const directory = folder.path;
    must(await receiver.run("open", { spec, directory }).result);
    await moveLeaves(shared);
    await moveChunks(shared);
    const path = await complete(shared, directory);
    expect(must(await receiver.run("open", { spec, directory }).result).finishedPath).toBe(path);
    // Another file under that name is not the one that was renamed.
    await rm(path);
    await writeRandomFile(path, 4 * MiB);
    expect(must(await receiver.run("open", { spec, directory }).result).finishedPath).toBeNull();
    must(await receiver.run("drop", { fileId: spec.fileId, directory: null, what: "everything" }).result);
    const db = new Sqlite(join(folder.path, "receiver.db"));
    expect(db.pragma("page_count", { simple: true })).toBeLessThan(20);
    for (const table of ["chunks", "leaf_pages", "files"])
      expect(db.prepare(`SELECT count(*) FROM ${table}`).pluck().get()).toBe(0);
    db.close();
  });

  test("never serves a chunk of a file that changed, and says what became of it", async () => {
    const shared = await share(MiB);
    const { spec, path } = shared;
    const serve = () => owner.run("readChunks", { spec, source: { kind: "file", path }, indices: [4] }).result;
    const file = await open(path, "r+");
    await file.write(Buffer.from("changed"), 0, 7, 4 * 64 * KiB);
    await file.close();
    expect(errorType(await serve())).toBe("file_changed");
    await truncate(path, 1000);
    expect(errorType(await serve())).toBe("file_changed");
    await rm(path);
    expect(errorType(await serve())).toBe("file_missing");
  });

  test("serves what it stored, too: the same ciphertext", async () => {
    const shared = await share(MiB);
    const { spec } = shared;
    must(await receiver.run("open", { spec, directory: folder.path }).result);
    await moveLeaves(shared);
    await moveChunks(shared);
    const source = { kind: "chunks" } as const;
    const served = must(await receiver.run("readChunks", { spec, source, indices: [0, 9] }).result);
    const original = await read(shared, [0, 9]);
    expect(served.frames.map((frame) => Buffer.from(payloadOf(frame)))).toEqual(
      original.map(({ bytes }) => Buffer.from(bytes)),
    );
    expect(must(await receiver.run("readLeaves", { spec, page: 0 }).result)?.bytes.byteLength).toBe(
      BULK_HEADER_BYTES + 16 * 32,
    );
  });

  test("refuses to share what is no file, or changes while it is read", async () => {
    const hash = (path: string) => {
      const input = { fileId: freshFileId(), key: new Uint8Array(32), path };
      return owner.run("hashFile", input);
    };
    expect(errorType(await hash(folder.path).result)).toBe("not_a_file");
    expect(errorType(await hash(join(folder.path, "none")).result)).toBe("file_missing");
    expect(errorType(await hash("/dev/zero").result)).toBe("not_a_file");
    const path = join(folder.path, "growing.bin");
    await writeRandomFile(path, 24 * MiB);
    const file = await open(path, "a");
    let grown = Promise.resolve();
    const job = owner.run("hashFile", { fileId: freshFileId(), key: new Uint8Array(32), path }, () => {
      grown = grown.then(async () => {
        await file.write("x");
      });
    });
    expect(errorType(await job.result)).toBe("file_changed");
    await grown;
    await file.close();
  });

  test("answers every job when it ends", async () => {
    const path = join(folder.path, "long.bin");
    await writeRandomFile(path, 32 * MiB);
    const job = owner.run("hashFile", { fileId: freshFileId(), key: new Uint8Array(32), path });
    await owner.dispose();
    expect(["cancelled", null]).toContain(errorType(await job.result));
    const after = await owner.run("drop", {
      fileId: freshFileId(),
      directory: null,
      what: "chunks",
    }).result;
    expect(errorType(after)).toBe("worker_ended");
  });
});

describe("a database that cannot be opened", () => {
  const openAt = async (databasePath: string) => {
    const worker = startWorker(databasePath);
    const ready = await worker.ready();
    const job = await worker.run("sweep", { known: [] }).result;
    await worker.dispose();
    expect(job.ok).toBe(ready.ok);
    return ready.ok ? null : ready.error;
  };

  test("because it is newer, or no file is told by `ready` and by every job", async () => {
    const path = join(folder.path, "other.db");
    expect(await openAt(path)).toBeNull();
    const db = new Sqlite(path);
    db.exec("INSERT INTO migrations (name, applied_at) VALUES ('9999-later', 0)");
    db.close();
    expect(await openAt(path)).toMatchObject({ type: "newer_database", message: /Update Weir/ });
    await rm(path);
    await mkdir(path);
    expect(await openAt(path)).toMatchObject({ type: "not_accessible", message: /permissions/ });
    await rm(path, { recursive: true });
    expect(await openAt(path)).toBeNull();
  });

  test("works again as soon as it is in order", async () => {
    const path = join(folder.path, "other.db");
    await mkdir(path);
    const worker = startWorker(path);
    expect(errorType(await worker.ready())).toBe("not_accessible");
    await rm(path, { recursive: true });
    await expect.poll(async () => errorType(await worker.ready())).toBeNull();
    expect(errorType(await worker.run("sweep", { known: [] }).result)).toBeNull();
    await worker.dispose();
  });
});

describe("a disk that is full", () => {
  const withDisk = async (
    context: TestContext,
    bytes: number,
    body: (directory: string) => Promise<void>,
  ): Promise<void> => {
    const disk = mountSmallDisk(bytes);
    if ("unavailable" in disk) return context.skip(disk.unavailable);
    try {
      await body(disk.directory);
    } finally {
      disk.dispose();
    }
  };

  test("is told before the download starts, and nothing is left behind", async (context) => {
    const shared = await share(8 * MiB);
    await withDisk(context, DISK_RESERVE_BYTES + 4 * MiB, async (directory) => {
      const { spec } = shared;
      expect(errorType(await receiver.run("prepare", { spec, directory, unstoredBytes: spec.sizeBytes }).result)).toBe(
        "disk_full",
      );
      expect(await readdir(directory)).toEqual([]);
    });
  });

  test("while chunks are stored is an error of those chunks; those before it stay", async (context) => {
    const shared = await share(8 * MiB);
    const { spec } = shared;
    await withDisk(context, 6 * MiB, async (directory) => {
      const small = startWorker(join(directory, "chunks.db"));
      must(await small.run("open", { spec, directory }).result);
      await moveLeaves(shared, small);
      const outcomes = await moveChunks(shared, small);
      const full = outcomes.filter((outcome) => typeof outcome === "object" && outcome.type === "disk_full");
      const stored = outcomes.filter((outcome) => outcome === "stored");
      expect(full.length + stored.length).toBe(spec.chunkCount);
      expect(full.length).toBeGreaterThan(0);
      const opened = must(await small.run("open", { spec, directory }).result);
      expect(PieceMap.fromBytes(spec.chunkCount, opened.stored).count).toBe(stored.length);
      await small.dispose();
    });
  });
});

describe("kill -9", () => {
  /** At named moments: transfer-kill-steps.test.ts. */
  const KILLS = counted(10, 1000);
  const CHUNKS = 200;

  test(`${KILLS} times at random: what was stored is never fetched again, and a final name means a whole file`, {
    timeout: counted(240_000, 3_600_000),
  }, async () => {
    let kills = 0;
    let killedMidway = 0;
    for (let round = 0; kills < KILLS; round += 1) {
      const download = await describeDownload(owner, folder.path, CHUNKS * 64 * KiB - 77, String(round));
      const stored = new Set<number>();
      for (let done = false; !done; ) {
        const last = kills >= KILLS;
        const { lines, killed } = await runDownloadChild(download.file, {
          kill: last ? null : { at: "", afterMs: Math.random() * 150 },
        });
        const before = new Set(stored);
        for (const line of lines) {
          const [kind, value] = [line[0], Number(line.slice(2))];
          if (kind === "F") expect(before.has(value), `chunk ${value} was stored and is fetched again`).toBe(false);
          if (kind === "S") stored.add(value);
          if (kind === "D") done = true;
        }
        const names = await readdir(download.directory);
        if (names.includes("final.bin"))
          expect(await sha256OfFile(join(download.directory, "final.bin"))).toBe(download.hex);
        expect(names.filter((name) => !["final.bin"].includes(name) && !name.endsWith(".part"))).toEqual([]);
        if (killed) kills += 1;
        if (!done && stored.size > 0) killedMidway += 1;
      }
      // Not all of them: a chunk may be stored just before the kill, and told by nobody.
      expect(stored.size).toBeGreaterThan(0);
      expect(await readdir(download.directory)).toEqual(["final.bin"]);
    }
    expect(killedMidway).toBeGreaterThan(0);
  });
});
