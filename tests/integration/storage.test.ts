import { execFileSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { LEFTOVER_KEPT_MS } from "#shared/base/limits.ts";
import { createStorage, type StorageReport } from "../../src-main/storage.ts";
import { TransfersTable } from "../../src-main/store/transfers.ts";
import { freshFileId, realEnv, writeRandomFile } from "../support/files.ts";
import { createTransferWorld, type TransferWorld, viewWhere } from "../support/transfer-world.ts";

const MiB = 1024 * 1024;

let world: TransferWorld;
beforeEach(async () => {
  world = await createTransferWorld();
});
afterEach(() => world.dispose());

const storageOfBob = () => {
  const { bob, folder } = world;
  const table = new TransfersTable(bob.db);
  return createStorage({
    ...{ env: realEnv, dataDir: join(folder, "bob"), worker: bob.worker },
    records: () => table.all(),
    isKnown: (fileId) => bob.files.find(fileId) !== null,
    downloadDirectory: () => bob.downloads,
  });
};
const chunksOf = ({ chunks }: StorageReport) => {
  if (chunks === null) throw new Error("the worker measured nothing");
  expect(chunks.files.reduce((sum, { bytes }) => sum + bytes, 0) + chunks.freeBytes + chunks.overheadBytes).toBe(
    chunks.pageBytes,
  );
  return chunks;
};

test("the sums add up to what the disk says, and a cancelled download gives its bytes back", async () => {
  const { bob, links, folder } = world;
  const storage = storageOfBob();
  const before = chunksOf(await storage.report());
  expect(before.files).toEqual([]);
  const path = join(folder, "photo.bin");
  await writeRandomFile(path, 24 * MiB);
  const file = await world.share(path);
  links.connect();
  await bob.transfers.start(file.fileId);
  await viewWhere(bob, ({ chunksStored }) => chunksStored > 100);
  bob.transfers.pause(file.fileId);
  const { chunksStored } = await viewWhere(bob, ({ paused, inFlight }) => paused && inFlight === 0);

  const report = await storage.report();
  const chunks = chunksOf(report);
  expect(chunks.files).toHaveLength(1);
  expect(chunks.files[0]?.chunks).toBe(chunksStored);
  expect(chunks.files[0]?.bytes).toBeGreaterThanOrEqual(chunksStored * 65_552);
  expect(chunks.overheadBytes).toBeGreaterThan(0);
  // The download folder of this world lies in the data folder, and so does the temporary file.
  expect(report.data["downloads"]).toBeGreaterThanOrEqual(24 * MiB);
  expect(report.temporaryFiles).toEqual({ count: 0, bytes: 0 });
  expect(report.totalBytes).toBe(Object.values(report.data).reduce((sum, bytes) => sum + bytes, 0));
  if (process.platform === "linux") {
    const home = join(folder, "bob");
    const du = Number(execFileSync("du", ["-sB1", home], { encoding: "utf8" }).split("\t")[0]);
    expect(report.totalBytes + statSync(home).blocks * 512).toBe(du);
  }

  bob.transfers.cancel(file.fileId);
  await expect.poll(() => bob.transfers.list()).toEqual([]);
  await expect.poll(async () => (await readdir(bob.downloads)).length, { timeout: 20_000 }).toBe(0);
  const after = chunksOf(await storage.report());
  expect(after.files).toEqual([]);
  expect(after.freeBytes).toBe(0);
  expect(after.pageBytes).toBeLessThanOrEqual(before.pageBytes + 2 * 65_536);
  // Ended in order, the file system has them back too.
  await bob.worker.dispose();
  expect(statSync(join(folder, "bob", "chunks.db")).size).toBe(after.pageBytes);
  expect(existsSync(join(folder, "bob", "chunks.db-wal"))).toBe(false);
});

test("temporary files that no download needs are found and removed, and no others", async () => {
  const { bob, folder: home } = world;
  const storage = storageOfBob();
  const share = async (name: string) => {
    const path = join(home, name);
    await writeRandomFile(path, MiB);
    return (await world.share(path)).fileId;
  };
  const [wanted, over] = [await share("wanted.bin"), await share("over.bin")];
  await bob.transfers.start(wanted);
  const part = (fileId: string): string => join(bob.downloads, `.weir-${fileId}.part`);
  const [fresh, old] = [part(freshFileId()), part(freshFileId())];
  const others = [part("nonsense"), join(bob.downloads, "weir-notes.part")];
  for (const path of [fresh, old, ...others]) await writeFile(path, "left over");
  const folder = part(freshFileId());
  for (const path of [part(over), folder]) {
    await mkdir(path);
    await writeFile(join(path, "inside"), "left over");
  }
  const longAgo = (Date.now() - LEFTOVER_KEPT_MS - 60_000) / 1000;
  await utimes(old, longAgo, longAgo);
  await utimes(folder, longAgo, longAgo);

  expect(await storage.removeLeftovers()).toBe(2);
  const left = (await readdir(bob.downloads)).map((name) => join(bob.downloads, name));
  expect(left.sort()).toEqual([part(wanted), fresh, folder, ...others].sort());
  expect(await storage.removeLeftovers()).toBe(0);
});

/** So that a download is stopped long before it is complete. */
const SLOW_BYTES_PER_SECOND = 2_000_000;

test("a limit on chunks refuses what does not fit, and makes room only of what has failed", async () => {
  const { bob, links, folder } = world;
  const storage = storageOfBob();
  const share = async (name: string, mebibytes: number) => {
    const path = join(folder, name);
    await writeRandomFile(path, mebibytes * MiB);
    return (await world.share(path)).fileId;
  };
  const limit = (chunkStorageBytes: number | null, downloadBytesPerSecond: number | null = null): void =>
    bob.settingsChanged.emit({
      ...{ drainTimeoutMs: 5000, downloadBytesPerSecond, uploadBytesPerSecond: null, chunkStorageBytes },
    });
  const errorOf = (result: { ok: boolean; error?: { type: string } }): string | null => result.error?.type ?? null;
  const [lost, paused, large, small] = [
    await share("lost.bin", 8),
    await share("paused.bin", 8),
    await share("large.bin", 16),
    await share("small.bin", 2),
  ];
  // The first fails half way, the second rests.
  links.connect();
  limit(null, SLOW_BYTES_PER_SECOND);
  for (const fileId of [lost, paused]) {
    await bob.transfers.start(fileId);
    await viewWhere(bob, (view) => view.fileId === fileId && view.chunksStored > 20);
    bob.transfers.pause(fileId);
    await viewWhere(bob, (view) => view.fileId === fileId && view.paused && view.inFlight === 0);
    if (fileId === lost) bob.transfers.contactGone(world.alice.userId, "blocked");
  }
  const before = bob.transfers.chunkUsage();
  expect(before.evictableBytes).toBeGreaterThan(MiB);
  const size = chunksOf(await storage.report()).pageBytes;

  limit(before.usedBytes + MiB);
  const views = bob.transfers.list().length;
  expect(errorOf(await bob.transfers.start(large))).toBe("quota_exceeded");
  expect(bob.transfers.list()).toHaveLength(views);
  expect(bob.transfers.chunkUsage()).toMatchObject({ usedBytes: before.usedBytes, evictions: [] });

  // A second of it fits once what failed is gone.
  expect(errorOf(await bob.transfers.start(small))).toBeNull();
  await viewWhere(bob, (view) => view.fileId === small && view.phase === "complete");
  const after = bob.transfers.chunkUsage();
  expect(after.evictions).toMatchObject([{ name: "lost.bin", bytes: before.evictableBytes, forName: "small.bin" }]);
  expect(bob.transfers.list().map(({ fileId }) => fileId)).toEqual(expect.arrayContaining([paused, small]));
  expect(bob.transfers.list().some(({ fileId }) => fileId === lost)).toBe(false);
  // What is paused has what it had; going on with it takes room too.
  limit(after.usedBytes + MiB);
  expect(bob.transfers.chunkUsage().usedBytes).toBe(after.usedBytes);
  expect(errorOf(bob.transfers.resume(paused))).toBe("quota_exceeded");
  limit(null);
  expect(errorOf(bob.transfers.resume(paused))).toBeNull();
  await viewWhere(bob, (view) => view.fileId === paused && view.phase === "complete");
  // Rows are deleted in steps, and their pages are given back after each.
  const held = async () => {
    const { files, freeBytes } = chunksOf(await storage.report());
    return files.reduce((sum, { chunks }) => sum + chunks, 0) + freeBytes;
  };
  await expect.poll(held, { timeout: 20_000 }).toBe(0);
  const left = chunksOf(await storage.report());
  expect(left.pageBytes).toBeLessThan(size / 2);
  await bob.worker.dispose();
  expect(statSync(join(folder, "bob", "chunks.db")).size).toBe(left.pageBytes);
});
