import { execFileSync } from "node:child_process";
import { appendFile, mkdir, open, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import Sqlite from "better-sqlite3";
import * as v from "valibot";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { chatIdOf, type FileId, FileIdSchema, UserIdSchema } from "#shared/base/ids.ts";
import {
  DISK_RESERVE_BYTES,
  REQUEST_WINDOW_CHUNKS,
  TRANSFERS_ACTIVE_MAX,
  UNASKED_FRAMES_MAX,
} from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import { BULK_HEADER_BYTES } from "#shared/wire/frame.ts";
import { systemClock } from "../../src-main/env.ts";
import { freshFileId, realEnv, sha256OfFile, writeRandomFile } from "../support/files.ts";
import { mountSmallDisk } from "../support/tmpfs.ts";
import {
  addFileOf,
  createTransferWorld,
  phasesOf,
  type TransferPeer,
  type TransferWorld,
  viewWhere,
} from "../support/transfer-world.ts";

const MiB = 1024 * 1024;
const ALL_PHASES = ["downloading", "draining", "assembling", "verifying", "complete"];

let world: TransferWorld;
beforeEach(async () => {
  world = await createTransferWorld();
});
afterEach(async () => {
  const { errors } = world.links;
  await world.dispose();
  expect(errors).toEqual([]);
});

const shareRandom = async (sizeBytes: number, name = "photo.bin") => {
  const path = join(world.folder, name);
  const sha256 = await writeRandomFile(path, sizeBytes);
  const file = await world.share(path);
  expect(file.sha256).toBe(sha256);
  return { path, sha256, file };
};

/** Lets everything that a login set off come to its end. */
const nextPass = async (server: TransferPeer["server"]): Promise<void> => {
  let before = -1;
  while (before !== server.asked.length) {
    before = server.asked.length;
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
};

/** Resolves in the middle of a transfer, before the rest can come. */
const framesPassed = (count: number): Promise<void> =>
  new Promise((resolve) => {
    let frames = 0;
    world.links.tamper = (frame) => {
      frames += 1;
      if (frames === count) resolve();
      return [frame];
    };
  });

const errorType = (result: { ok: true } | { ok: false; error: { type: string } }): string | null =>
  result.ok ? null : result.error.type;

describe("a file between two peers", () => {
  test.each([0, 1, 64 * 1024, 3 * MiB + 17, 16 * MiB])(
    "of %i bytes passes every phase and is equal",
    async (sizeBytes) => {
      const { file, sha256 } = await shareRandom(sizeBytes);
      world.links.connect();
      expect(errorType(await world.bob.transfers.start(file.fileId))).toBeNull();
      const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
      expect(phasesOf(world.bob.views)).toEqual(ALL_PHASES);
      expect(done.savedPath).toBe(join(world.bob.downloads, "photo.bin"));
      expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
      expect(done).toMatchObject({
        chunksStored: file.chunkCount,
        requestedChunks: file.chunkCount,
        bytesStored: sizeBytes,
        inFlight: 0,
        duplicateChunks: 0,
        lateChunks: 0,
        rejectedChunks: 0,
      });
      expect(world.links.heldBytes).toBe(0);
      expect(await readdir(world.bob.downloads)).toEqual(["photo.bin"]);
    },
  );

  test("is never refetched where it was stored: link losses and restarts on the way", async () => {
    const { file, sha256 } = await shareRandom(24 * MiB);
    let frames = 0;
    world.links.tamper = (frame) => {
      frames += 1;
      return [frame];
    };
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await viewWhere(world.bob, ({ chunksStored }) => chunksStored > 60);
    world.links.cut();
    world.links.connect();
    await viewWhere(world.bob, ({ chunksStored }) => chunksStored > 150);
    await world.restartBob();
    expect(world.bob.transfers.list()[0]).toMatchObject({ phase: "downloading", paused: false });
    world.links.connect();
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    // Two interruptions: at most two windows were asked for twice. One page of leaves is a frame too.
    expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + 2 * REQUEST_WINDOW_CHUNKS);
    expect(frames).toBeLessThanOrEqual(file.chunkCount + 2 * REQUEST_WINDOW_CHUNKS + 3);
  });

  test("is asked for once where its link is replaced in order, and goes on where the old link breaks", async () => {
    const { file, sha256 } = await shareRandom(24 * MiB);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    for (const stored of [40, 120, 200]) {
      await viewWhere(world.bob, ({ chunksStored }) => chunksStored > stored);
      world.links.replace();
      await viewWhere(world.bob, ({ chunksStored }) => chunksStored > stored + 30);
      world.links.endReplaced("complete");
    }
    const { requestedChunks, chunksStored, inFlight } = await viewWhere(world.bob, (view) => view.chunksStored > 250);
    expect(requestedChunks - chunksStored - inFlight).toBeLessThanOrEqual(0);
    world.links.replace();
    world.links.endReplaced("broken");
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + REQUEST_WINDOW_CHUNKS);
    expect(world.bob.views.every(({ seeders }) => seeders.length <= 1)).toBe(true);
    expect(world.links.heldBytes).toBe(0);
  });

  test("is asked for once when it began over the link that had replaced another, and that one is given up later", async () => {
    const { file, sha256 } = await shareRandom(24 * MiB);
    world.links.connect();
    world.links.replace();
    const passed = framesPassed(100);
    await world.bob.transfers.start(file.fileId);
    await passed;
    world.links.endReplaced("broken");
    expect(world.bob.transfers.list()[0]?.phase).toBe("downloading");
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    expect(done).toMatchObject({ requestedChunks: file.chunkCount, duplicateChunks: 0, lateChunks: 0 });
    expect(world.links.heldBytes).toBe(0);
  });

  test("whose frames are doubled on the way counts every chunk once", async () => {
    const { file, sha256 } = await shareRandom(4 * MiB);
    let doubled = 0;
    world.links.tamper = (frame) => {
      if (frame[0] !== 2 || doubled === UNASKED_FRAMES_MAX) return [frame];
      doubled += 1;
      return [frame, new Uint8Array(frame)];
    };
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(done.chunksStored).toBe(file.chunkCount);
    expect(done).toMatchObject({
      requestedChunks: file.chunkCount,
      duplicateChunks: 0,
      lateChunks: UNASKED_FRAMES_MAX,
    });
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    for (const view of world.bob.views) expect(view.chunksStored).toBeLessThanOrEqual(file.chunkCount);
  });

  test("is not damaged by a chunk of the same length with other bytes: its sender is dropped, retry goes on", async () => {
    const { file, sha256 } = await shareRandom(4 * MiB);
    let chunks = 0;
    world.links.tamper = (frame) => {
      if (frame[0] === 2 && ++chunks === 20) frame[BULK_HEADER_BYTES + 5] = (frame[BULK_HEADER_BYTES + 5] ?? 0) ^ 1;
      return [frame];
    };
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const waiting = await viewWhere(world.bob, ({ rejectedChunks }) => rejectedChunks === 1);
    expect(waiting).toMatchObject({ phase: "downloading", waitingForSeeders: true, error: { type: "bad_seeder" } });
    world.bob.transfers.retry(file.fileId);
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(done.rejectedChunks).toBe(1);
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
  });

  test("gets its own name beside another one, also where only the case differs", async () => {
    await writeFile(join(world.bob.downloads, "PHOTO.bin"), "mine");
    const { file } = await shareRandom(1000);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(done.savedPath).toBe(join(world.bob.downloads, "photo (2).bin"));
    expect((await stat(join(world.bob.downloads, "PHOTO.bin"))).size).toBe(4);
  });
});

describe("the user", () => {
  test("pauses, resumes after a restart, and cancels", async () => {
    const { file, sha256 } = await shareRandom(24 * MiB);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await viewWhere(world.bob, ({ chunksStored }) => chunksStored > 20);
    expect(world.bob.transfers.pause(file.fileId)).toMatchObject({ ok: true, value: { paused: true } });
    const paused = await viewWhere(world.bob, ({ inFlight }) => inFlight === 0);
    await world.restartBob();
    world.links.connect();
    expect(world.bob.transfers.list()[0]).toMatchObject({ paused: true, chunksStored: paused.chunksStored });
    world.bob.transfers.resume(file.fileId);
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);

    const second = await shareRandom(24 * MiB, "second.bin");
    await world.bob.transfers.start(second.file.fileId);
    await viewWhere(world.bob, ({ fileId, chunksStored }) => fileId === second.file.fileId && chunksStored > 20);
    const cancelled = world.bob.transfers.cancel(second.file.fileId);
    expect(cancelled).toMatchObject({ ok: true, value: { phase: "failed", error: { type: "cancelled" } } });
    expect(world.bob.transfers.list().map((view) => view.fileId)).toEqual([file.fileId]);
    expect(errorType(await world.bob.transfers.start(second.file.fileId))).toBeNull();
    await viewWhere(world.bob, ({ fileId, phase }) => fileId === second.file.fileId && phase === "complete");
    expect((await readdir(world.bob.downloads)).sort()).toEqual(["photo.bin", "second.bin"]);
    expect(world.links.heldBytes).toBe(0);
  });

  test("gets typed errors", async () => {
    const { alice, bob } = world;
    const chatId = chatIdOf(bob.userId);
    expect(errorType(await alice.files.share(chatId, join(world.folder, "none")))).toBe("file_missing");
    expect(errorType(await alice.files.share(chatId, "/dev/null"))).toBe("not_a_file");
    expect(errorType(await bob.transfers.start("A".repeat(22)))).toBe("unknown_file");
    const { file } = await shareRandom(100);
    expect(errorType(bob.transfers.pause(file.fileId))).toBe("unknown_transfer");
    expect(errorType(await alice.transfers.start(file.fileId))).toBe("own_file");
    const missing = await bob.transfers.start(file.fileId, join(world.folder, "nope"));
    expect(missing).toMatchObject({ error: { type: "not_writable", message: /^This folder does not exist. Make it/ } });
    expect(await readdir(world.folder)).not.toContain("nope");
    expect(bob.transfers.list()).toEqual([]);
    world.links.connect();
    await bob.transfers.start(file.fileId);
    const done = await viewWhere(bob, ({ phase }) => phase === "complete");
    expect(errorType(await bob.transfers.start(file.fileId))).toBe("already_complete");
    expect(bob.transfers.savedPath(file.fileId)).toBe(done.savedPath);
    await rm(done.savedPath ?? "");
    expect(errorType(await bob.transfers.start(file.fileId))).toBeNull();
    await viewWhere(bob, ({ phase }) => phase === "complete");
  });

  test("goes to the download folder of the settings, which is made if it is missing", async () => {
    const { bob } = world;
    await rm(bob.downloads, { recursive: true });
    const { file } = await shareRandom(100);
    await writeFile(bob.downloads, "in its place");
    expect(errorType(await bob.transfers.start(file.fileId))).toBe("not_a_folder");
    await rm(bob.downloads);
    world.links.connect();
    expect(errorType(await bob.transfers.start(file.fileId))).toBeNull();
    const { savedPath } = await viewWhere(bob, ({ phase }) => phase === "complete");
    expect(dirname(savedPath ?? "")).toBe(bob.downloads);
  });
});

describe("another folder", () => {
  const part = (fileId: string): string => `.weir-${fileId}.part`;

  test.each(["paused", "running"])("for a %s download keeps what was received", async (how) => {
    const { bob } = world;
    const elsewhere = join(world.folder, "elsewhere");
    await mkdir(elsewhere);
    const { file, sha256 } = await shareRandom(24 * MiB);
    const half = framesPassed(100);
    world.links.connect();
    await bob.transfers.start(file.fileId);
    await half;
    if (how === "paused") bob.transfers.pause(file.fileId);
    const missing = await bob.transfers.start(file.fileId, join(world.folder, "nope"));
    expect(errorType(missing)).toBe("not_writable");
    expect(await readdir(bob.downloads)).toEqual([part(file.fileId)]);
    expect(errorType(await bob.transfers.start(file.fileId, elsewhere))).toBeNull();
    const done = await viewWhere(bob, ({ phase }) => phase === "complete");
    expect(done.savedPath).toBe(join(elsewhere, "photo.bin"));
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    // A running one is stopped for each of the two attempts: at most two windows were asked for twice.
    expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + 2 * REQUEST_WINDOW_CHUNKS);
    expect(await readdir(elsewhere)).toEqual(["photo.bin"]);
    await expect.poll(() => readdir(bob.downloads), { timeout: 20_000 }).toEqual([]);
  });

  test("is the way out when the first one vanished before the file was written", async () => {
    const { bob } = world;
    const first = join(world.folder, "usb");
    const second = join(world.folder, "home");
    for (const folder of [first, second]) await mkdir(folder);
    const { file, sha256 } = await shareRandom(8 * MiB);
    world.links.connect();
    await bob.transfers.start(file.fileId, first);
    await viewWhere(bob, ({ chunksStored }) => chunksStored > 20);
    await rm(first, { recursive: true });
    const failed = await viewWhere(bob, ({ phase }) => phase === "failed");
    expect(failed).toMatchObject({ chunksStored: file.chunkCount, error: { type: "not_writable" } });
    bob.transfers.retry(file.fileId);
    await viewWhere(bob, ({ phase }) => phase === "assembling" || phase === "failed");
    await viewWhere(bob, ({ phase }) => phase === "failed");
    expect(errorType(await bob.transfers.start(file.fileId, second))).toBeNull();
    const done = await viewWhere(bob, ({ phase }) => phase === "complete");
    expect(done.savedPath).toBe(join(second, "photo.bin"));
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    expect(done.requestedChunks).toBe(file.chunkCount);
  });
});

describe("a folder that cannot be written to", () => {
  test("is told before the download starts, with words, and nothing of it stays", async (context) => {
    const { bob } = world;
    const disk = mountSmallDisk(DISK_RESERVE_BYTES + 8 * MiB);
    if ("unavailable" in disk) return context.skip(disk.unavailable);
    try {
      execFileSync("mount", ["-o", "remount,ro", disk.directory], { stdio: "pipe" });
      const { file } = await shareRandom(1000);
      const refused = await bob.transfers.start(file.fileId, disk.directory);
      expect(refused).toMatchObject({ error: { type: "not_writable", message: /Choose another folder/ } });
      expect(bob.transfers.list()).toEqual([]);
      world.links.connect();
      expect(errorType(await bob.transfers.start(file.fileId))).toBeNull();
      await viewWhere(bob, ({ phase }) => phase === "complete");
    } finally {
      disk.dispose();
    }
  });
});

describe("many downloads", () => {
  test("run at most so many at once, the others wait in order and all complete", async () => {
    const shared = [];
    for (let i = 0; i < TRANSFERS_ACTIVE_MAX + 3; i += 1) shared.push(await shareRandom(200_000, `many-${i}.bin`));
    for (const { file } of shared) expect(errorType(await world.bob.transfers.start(file.fileId))).toBeNull();
    let most = 0;
    world.bob.transfers.onChanged(() => {
      const moving = world.bob.transfers.list().filter(({ inFlight }) => inFlight > 0);
      most = Math.max(most, moving.length);
    });
    world.links.connect();
    for (const { file, sha256 } of shared) {
      const done = await viewWhere(world.bob, (view) => view.fileId === file.fileId && view.phase === "complete");
      expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    }
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(TRANSFERS_ACTIVE_MAX);
    expect(world.links.heldBytes).toBe(0);
  });

  test("of people who are away leave the places to others", async () => {
    world.links.connect();
    for (let i = 0; i < TRANSFERS_ACTIVE_MAX + 2; i += 1) {
      const fileId = addFileOf(world.bob, "c".repeat(32), 1000);
      expect(errorType(await world.bob.transfers.start(fileId))).toBeNull();
    }
    const { file } = await shareRandom(200_000);
    await world.bob.transfers.start(file.fileId);
    await viewWhere(world.bob, (view) => view.fileId === file.fileId && view.phase === "complete");
    expect(world.bob.transfers.list().filter((view) => view.waitingForSeeders)).toHaveLength(TRANSFERS_ACTIVE_MAX + 2);
  });
});

describe("frames of a session that is forgotten", () => {
  test("are released and counted", async () => {
    const { file } = await shareRandom(4 * MiB);
    world.links.tamper = (frame) => {
      // Tags begin at 1; this one was never opened.
      frame[4 + 3] = 200;
      return [frame];
    };
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await expect.poll(() => world.bob.transfers.counters().strayFrames).toBeGreaterThan(0);
    expect(world.links.heldBytes).toBe(0);
  });
});

describe("the owner's file", () => {
  test("that became shorter is refused with words; restored, it comes after a retry", async () => {
    const { file, path, sha256 } = await shareRandom(4 * MiB);
    const original = await readFile(path);
    await truncate(path, 1000);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const failed = await viewWhere(world.bob, ({ phase }) => phase === "failed");
    expect(failed.error?.type).toBe("file_changed");
    expect(world.alice.notices.map(({ type }) => type)).toEqual(["file_changed"]);
    await writeFile(path, original);
    world.bob.transfers.retry(file.fileId);
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
  });

  test("that is gone is refused, and its owner is told", async () => {
    const { file, path } = await shareRandom(MiB);
    await rm(path);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const failed = await viewWhere(world.bob, ({ phase }) => phase === "failed");
    expect(failed.error?.type).toBe("file_changed");
    expect(world.alice.notices).toHaveLength(1);
  });

  test("that got longer still serves what was shared", async () => {
    const { file, path, sha256 } = await shareRandom(MiB + 5);
    await appendFile(path, "more");
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const done = await viewWhere(world.bob, ({ phase }) => phase === "complete" || phase === "failed");
    // The last chunk is read with its old length, so its bytes are those that were shared.
    expect(done.phase).toBe("complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
  });

  test("is served only to those it was shared with, and offered only by its owner's signature", async () => {
    const { file } = await shareRandom(1000);
    const offer = world.alice.sent.at(-1)?.offer;
    if (offer === undefined) throw new Error("nothing was sent");
    const { manifest } = offer.signed;
    expect(manifest.fileId).toBe(file.fileId);
    expect(world.alice.files.mayFetch(world.bob.userId, manifest.fileId)).toBe("serve");
    const stranger = v.parse(UserIdSchema, "z".repeat(32));
    expect(world.alice.files.mayFetch(stranger, manifest.fileId)).toBe("refuse");
    expect(errorType(world.bob.files.record(offer, world.alice.userId))).toBeNull();
    expect(errorType(world.bob.files.record(offer, world.bob.userId))).toBe("bad_manifest");
    const forged = { ...offer, signed: { ...offer.signed, manifest: { ...manifest, sizeBytes: 999 } } };
    expect(errorType(world.bob.files.record(forged, world.alice.userId))).toBe("bad_signature");
    const other = { ...offer, key: new Uint8Array(32) };
    expect(errorType(world.bob.files.record(other, world.alice.userId))).toBe("conflict");
  });
});

describe("sharing", () => {
  test("into a chat that takes no message is refused before the file is read", async () => {
    const { alice } = world;
    const path = join(world.folder, "photo.bin");
    await writeRandomFile(path, MiB);
    let read = 0;
    alice.files.onShareProgress(() => {
      read += 1;
    });
    alice.server.come();
    expect(errorType(await alice.files.share(chatIdOf(alice.userId), path))).toBe("unknown_chat");
    expect(read).toBe(0);
    expect(alice.server.asked).toEqual([]);
  });

  test("stops when it is taken back while it is read, and leaves nothing; so does a folder", async () => {
    const { alice, bob } = world;
    const folder = join(world.folder, "huge");
    await mkdir(folder);
    const path = join(folder, "huge.bin");
    // So large that it is not read before somebody can stop it; it is one hole.
    const file = await open(path, "w");
    await file.truncate(64 * 1024 * MiB);
    await file.close();
    for (const shared of [path, folder]) {
      let hashed = 0;
      let sizeBytes = 0;
      const cancels: unknown[] = [];
      const subscription = alice.files.onShareProgress((progress) => {
        hashed = progress.bytesHashed;
        sizeBytes = progress.sizeBytes;
        // Also in the middle: pages of hashes are stored by then.
        if (hashed >= 80 * MiB && cancels.length === 0) cancels.push(alice.files.cancelShare(progress.fileId));
      });
      const shares = await alice.files.share(chatIdOf(bob.userId), shared);
      subscription.dispose();
      expect(errorType(shares)).toBe("cancelled");
      expect(cancels).toEqual([{ ok: true, value: { fileId: expect.any(String) } }]);
      expect(sizeBytes).toBe(64 * 1024 * MiB);
      expect(hashed).toBeLessThan(sizeBytes / 10);
      const measured = await alice.worker.run("measure", {}).result;
      expect(measured.ok && measured.value.files).toEqual([]);
      expect(errorType(alice.files.cancelShare(freshFileId()))).toBe("unknown_file");
    }
    // Before anything was read, too.
    const soon = alice.files.onShareProgress(({ fileId }) => alice.files.cancelShare(fileId));
    expect(errorType(await alice.files.share(chatIdOf(bob.userId), path))).toBe("cancelled");
    soon.dispose();
    expect(alice.files.list()).toEqual([]);
    expect(alice.sent).toEqual([]);
  });

  test("goes on after the hashes of a file were lost: it is read again, unless it is another one now", async () => {
    const { alice, bob } = world;
    const paths = ["same.bin", "other.bin"].map((name) => join(world.folder, name));
    const ids: FileId[] = [];
    for (const path of paths) {
      await writeRandomFile(path, MiB);
      ids.push(v.parse(FileIdSchema, (await world.share(path)).fileId));
    }
    for (const fileId of ids) await alice.worker.run("drop", { fileId, directory: null, what: "everything" }).result;
    await appendFile(paths[1] ?? "", "more");
    await alice.files.repaired({ chunks: 0, bytes: 0, withoutHashes: ids });
    expect(alice.notices.map(({ type }) => type)).toEqual(["storage_repaired", "file_changed"]);
    expect(alice.files.get(ids[1] ?? "")).toMatchObject({ ok: true, value: { seeders: [] } });
    world.links.connect();
    await bob.transfers.start(ids[0] ?? "");
    await viewWhere(bob, ({ fileId, phase }) => fileId === ids[0] && phase === "complete");
  });

  test("is told to every server that is used, once", async () => {
    const { alice, bob } = world;
    const { server } = alice;
    server.answer = () => ok({ version: 1, published: true });
    const registered = async (): Promise<number> => {
      server.come();
      await nextPass(server);
      return server.asked.filter((name) => name === "files.register").length;
    };
    server.come();
    const path = join(world.folder, "photo.bin");
    await writeRandomFile(path, MiB);
    expect(errorType(await alice.files.share(chatIdOf(bob.userId), path))).toBeNull();
    await expect.poll(() => server.asked).toEqual(["files.register", "files.announce"]);
    expect(await registered()).toBe(1);
    server.serverId = "server-2";
    expect(await registered()).toBe(2);
    expect(await registered()).toBe(2);
  });

  test("is told to the server only when the message is queued", async () => {
    const { alice, bob } = world;
    const path = join(world.folder, "photo.bin");
    await writeRandomFile(path, MiB);
    alice.server.come();
    alice.server.messageRefusal = { type: "outbox_full", message: "full" };
    expect(errorType(await alice.files.share(chatIdOf(bob.userId), path))).toBe("outbox_full");
    expect(alice.server.asked).toEqual([]);
    expect(alice.files.list()).toEqual([]);
    alice.server.messageRefusal = null;
    expect(errorType(await alice.files.share(chatIdOf(bob.userId), path))).toBeNull();
    await expect.poll(() => alice.server.asked).toEqual(["files.register"]);
  });

  test("survives a database that fails while the server is told", async () => {
    const { alice } = world;
    await shareRandom(1000);
    alice.db.dispose();
    // An unhandled rejection would fail the run.
    alice.server.come();
    await new Promise((resolve) => setImmediate(resolve));
    expect(alice.server.asked).toEqual([]);
  });
});

describe("the owner of a file", () => {
  test("who is blocked ends the download with words; after unblocking it goes on with what it has", async () => {
    const { bob, alice } = world;
    const { file, sha256 } = await shareRandom(24 * MiB);
    const half = framesPassed(100);
    world.links.connect();
    await bob.transfers.start(file.fileId);
    await half;
    bob.transfers.contactGone(alice.userId, "blocked");
    expect(bob.transfers.list()[0]).toMatchObject({ phase: "failed", error: { type: "contact_blocked" } });
    world.links.cut();
    world.links.connect();
    expect(bob.transfers.retry(file.fileId).ok).toBe(true);
    const done = await viewWhere(bob, ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + REQUEST_WINDOW_CHUNKS);
    bob.transfers.contactGone(alice.userId, "blocked");
    expect(bob.transfers.list()[0]?.phase).toBe("complete");
  });

  test("while the owner is blocked nothing is tried; a changed key is said while it is waited for", async () => {
    const { bob } = world;
    const { file, sha256 } = await shareRandom(MiB);
    const blocked = { type: "contact_blocked", message: "blocked" };
    bob.hindrance.now = blocked;
    expect(errorType(await bob.transfers.start(file.fileId))).toBe("contact_blocked");
    expect(bob.transfers.list()).toEqual([]);
    bob.hindrance.now = { type: "key_changed", message: "Accept it." };
    expect(errorType(await bob.transfers.start(file.fileId))).toBeNull();
    const waiting = await viewWhere(bob, ({ waitingForSeeders }) => waitingForSeeders);
    expect(waiting.error).toEqual(bob.hindrance.now);
    bob.hindrance.now = null;
    bob.transfers.contactChanged(world.alice.userId);
    expect((await viewWhere(bob, ({ error }) => error === null)).waitingForSeeders).toBe(true);
    bob.hindrance.now = blocked;
    for (const refused of [bob.transfers.resume(file.fileId), bob.transfers.retry(file.fileId)])
      expect(errorType(refused)).toBe("contact_blocked");
    bob.hindrance.now = null;
    world.links.connect();
    const done = await viewWhere(bob, ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
  });

  test("who is removed takes downloads, keys and rows along; what was saved stays", async () => {
    const { bob, alice } = world;
    const saved = await shareRandom(1000, "saved.bin");
    world.links.connect();
    await bob.transfers.start(saved.file.fileId);
    const { savedPath } = await viewWhere(bob, ({ phase }) => phase === "complete");
    const running = await shareRandom(24 * MiB, "running.bin");
    const offered = await shareRandom(1000, "offered.bin");
    const half = framesPassed(100);
    await bob.transfers.start(running.file.fileId);
    await half;
    const others = addFileOf(bob, "c".repeat(32), 1000);
    bob.transfers.contactGone(alice.userId, "removed");
    expect(bob.views.at(-1)).toMatchObject({ fileId: running.file.fileId, error: { type: "cancelled" } });
    expect(bob.transfers.list()).toEqual([]);
    expect(bob.files.list().map(({ fileId }) => fileId)).toEqual([others]);
    for (const { file } of [saved, running, offered])
      expect(errorType(await bob.transfers.start(file.fileId))).toBe("unknown_file");
    await expect.poll(() => readdir(bob.downloads), { timeout: 20_000 }).toEqual(["saved.bin"]);
    expect(savedPath).toBe(join(bob.downloads, "saved.bin"));
    const db = new Sqlite(join(world.folder, "bob", "chunks.db"));
    await expect.poll(() => db.prepare("SELECT count(*) FROM files").pluck().get(), { timeout: 20_000 }).toBe(0);
    expect(db.prepare("SELECT count(*) FROM chunks").pluck().get()).toBe(0);
    db.close();
    expect(world.links.heldBytes).toBe(0);
  });

  test("removed while a download of theirs is being prepared leaves nothing behind", async () => {
    const { bob, alice } = world;
    const { file } = await shareRandom(MiB);
    const starting = bob.transfers.start(file.fileId, bob.downloads);
    bob.transfers.contactGone(alice.userId, "removed");
    expect(errorType(await starting)).toBe("unknown_file");
    await expect.poll(() => readdir(bob.downloads), { timeout: 20_000 }).toEqual([]);
    expect(bob.transfers.list()).toEqual([]);
  });
});

describe("the drain timeout of the settings", () => {
  test("holds for a download that runs already", async () => {
    await world.dispose();
    // Timers of a busy computer may also fire early.
    const setTimer = (ms: number, run: () => void) => systemClock.setTimer(Math.max(0, ms - 3), run);
    const env = { ...realEnv, clock: { ...systemClock, setTimer } };
    world = await createTransferWorld({ drainTimeoutMs: 600_000, env });
    const { bob } = world;
    const { file } = await shareRandom(24 * MiB);
    const half = framesPassed(100);
    world.links.connect();
    await bob.transfers.start(file.fileId);
    await half;
    // Nothing that is asked for comes any more, so only the timeout ends the pausing.
    world.links.tamper = () => [];
    world.links.losesControl = true;
    const limits = { downloadBytesPerSecond: null, uploadBytesPerSecond: null, chunkStorageBytes: null };
    bob.settingsChanged.emit({ drainTimeoutMs: 100, ...limits });
    bob.transfers.pause(file.fileId);
    const paused = await viewWhere(bob, ({ inFlight }) => inFlight === 0);
    expect(paused).toMatchObject({ paused: true, phase: "downloading" });
  });
});
