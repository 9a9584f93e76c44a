import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { REQUEST_WINDOW_CHUNKS, SHUTDOWN_TIMEOUT_MS } from "#shared/base/limits.ts";
import type { FileView, TransferView } from "#shared/ipc/views.ts";
import { CommandError, type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { sha256OfFile, writeRandomFile } from "../support/files.ts";
import { changeProfile } from "../support/profile-database.ts";
import { createWorld, type World } from "../support/profiles.ts";

/** What happens to a running transfer between two whole programs when the two people, or a program, do something else. */
const SIZE = 96 * 1024 * 1024;

const viewOf = async (me: HeadlessProfile, fileId: string): Promise<TransferView | undefined> =>
  (await me.call("transfers.list", {})).find((view) => view.fileId === fileId);

const viewWhere = (me: HeadlessProfile, file: FileView, what: string, fits: (view: TransferView) => boolean) =>
  me.until(
    what,
    async () => {
      const view = await viewOf(me, file.fileId);
      return view !== undefined && fits(view) ? view : null;
    },
    120_000,
  );

/** Alice shares a file with Bob, and its download runs when this resolves. */
const startDownload = async (world: World, alice: HeadlessProfile, bob: HeadlessProfile) => {
  await pair(alice, bob);
  const path = join(world.dir, "big.bin");
  const sha256 = await writeRandomFile(path, SIZE);
  const file = await alice.call("files.share", { chatId: bob.userId, path });
  await bob.until("the offer", async () =>
    (await bob.call("files.list", {})).some(({ fileId }) => fileId === file.fileId) ? true : null,
  );
  const running = new Promise<void>((resolve) =>
    bob.on("transfer.changed", (view) => {
      if (view.chunksStored > 20) resolve();
    }),
  );
  await bob.call("transfers.start", { fileId: file.fileId });
  await running;
  return { file, sha256 };
};

const expectComplete = async (world: World, bob: HeadlessProfile, file: FileView, sha256: string, stops = 1) => {
  const done = await viewWhere(bob, file, "complete", ({ phase }) => phase === "complete");
  expect(done.savedPath).toBe(join(world.downloadsOf("bob"), "big.bin"));
  expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
  expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + stops * REQUEST_WINDOW_CHUNKS);
};

const errorOf = (promise: Promise<unknown>): Promise<string | null> =>
  promise.then(
    () => null,
    (error: unknown) => (error instanceof CommandError ? error.type : String(error)),
  );

test("the downloader blocks the owner: it says why, and goes on after unblocking", { timeout: 240_000 }, async () => {
  await using world = await createWorld();
  const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
  const { file, sha256 } = await startDownload(world, alice, bob);
  await bob.call("contacts.block", { userId: alice.userId });
  const failed = await viewWhere(bob, file, "failed", ({ phase }) => phase === "failed");
  expect(failed.error?.type).toBe("contact_blocked");
  expect(failed.chunksStored).toBeLessThan(file.chunkCount);
  const again = { fileId: file.fileId };
  for (const command of ["transfers.retry", "transfers.resume", "transfers.start"] as const)
    expect(await errorOf(bob.call(command, again))).toBe("contact_blocked");
  expect((await viewOf(bob, file.fileId))?.error?.message).toMatch(/Unblock them/);
  await bob.call("contacts.unblock", { userId: alice.userId });
  await bob.call("transfers.retry", again);
  await expectComplete(world, bob, file, sha256);
});

test("the owner blocks the downloader: nothing more is served until it is undone", { timeout: 240_000 }, async () => {
  await using world = await createWorld();
  const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
  const { file, sha256 } = await startDownload(world, alice, bob);
  await alice.call("contacts.block", { userId: bob.userId });
  const stopped = await viewWhere(bob, file, "nobody serves", (view) => view.waitingForSeeders && view.inFlight === 0);
  expect(stopped.chunksStored).toBeLessThan(file.chunkCount);
  // Asked again, over and over: not one more chunk.
  await bob.call("transfers.retry", { fileId: file.fileId });
  await bob.call("links.reconnect", { peerId: alice.userId });
  await bob.call("messages.send", { chatId: alice.userId, text: "are you there?" });
  expect(await viewOf(bob, file.fileId)).toMatchObject({ chunksStored: stopped.chunksStored, phase: "downloading" });
  expect((await alice.call("links.list", {})).filter(({ state }) => state === "connected")).toEqual([]);
  await alice.call("contacts.unblock", { userId: bob.userId });
  await bob.call("transfers.retry", { fileId: file.fileId });
  await expectComplete(world, bob, file, sha256);
});

test("the owner comes back with another key: the download waits, says why, and goes on when it is accepted", {
  timeout: 240_000,
}, async () => {
  await using world = await createWorld();
  let alice = await world.profile("alice");
  const bob = await world.profile("bob");
  const { file, sha256 } = await startDownload(world, alice, bob);
  await alice.kill();
  await forgetSignalKeys(world.dataOf("alice"));
  alice = await world.profile("alice");
  const waiting = await viewWhere(bob, file, "the key has changed", ({ error }) => error?.type === "key_changed");
  expect(waiting).toMatchObject({ phase: "downloading", waitingForSeeders: true });
  expect(waiting.error?.message).toMatch(/accept it/);
  const [contact] = await bob.call("contacts.list", {});
  expect(contact).toMatchObject({ keyChanged: true, verified: false });
  // Nothing leaves, and nothing is fetched, before the person has decided.
  const { state } = await bob.call("messages.send", { chatId: alice.userId, text: "is this you?" });
  expect(state).toBe("queued");
  await bob.call("transfers.retry", { fileId: file.fileId });
  expect(await viewOf(bob, file.fileId)).toMatchObject({ chunksStored: waiting.chunksStored, error: waiting.error });
  await bob.call("contacts.accept", { userId: alice.userId });
  // Twice on the way: when the owner was killed, and when a direct path replaced the relay that stood first.
  await expectComplete(world, bob, file, sha256, 2);
  await alice.until("the message", async () =>
    (await alice.call("messages.list", { chatId: bob.userId, limit: 10 })).some(({ text }) => text === "is this you?")
      ? true
      : null,
  );
});

test("quitting while a download runs ends in order, and the next start completes it", {
  timeout: 240_000,
}, async () => {
  await using world = await createWorld();
  const alice = await world.profile("alice");
  let bob = await world.profile("bob");
  const { file, sha256 } = await startDownload(world, alice, bob);
  const startedAt = performance.now();
  expect(await bob.stop()).toBe(0);
  expect(performance.now() - startedAt).toBeLessThan(SHUTDOWN_TIMEOUT_MS);
  expect(await readdir(world.downloadsOf("bob"))).not.toContain("big.bin");
  bob = await world.profile("bob");
  await expectComplete(world, bob, file, sha256);
});

/** As after a new installation with the same account: another identity key, no sessions. */
const SIGNAL_KEYS = ["local", "sessions", "prekeys", "signed_prekeys", "kyber_prekeys"];
const forgetSignalKeys = (dataDir: string): Promise<void> =>
  changeProfile(dataDir, ...SIGNAL_KEYS.map((table) => `DELETE FROM signal_${table}`));
