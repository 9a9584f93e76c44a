import { mkdir, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { devNull } from "node:os";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { REQUEST_WINDOW_CHUNKS } from "#shared/base/limits.ts";
import type { MessageView, TransferView } from "#shared/ipc/views.ts";
import { follow, sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { CommandError, type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { createWorld, type World } from "../support/profiles.ts";

/**
 * The whole road with real processes: two headless profiles and a standalone server, driven only through the contract.
 */
const MiB = 1024 * 1024;

const received = (me: HeadlessProfile, from: HeadlessProfile, text: string): Promise<MessageView> =>
  me.until(
    `"${text}"`,
    async () =>
      (await me.call("messages.list", { chatId: from.userId, limit: 100 })).find((m) => m.text === text) ?? null,
  );

const transferOf = async (me: HeadlessProfile, fileId: string): Promise<TransferView | null> =>
  (await me.call("transfers.list", {})).find((t) => t.fileId === fileId) ?? null;

const shareRandom = async (
  world: World,
  from: HeadlessProfile,
  to: HeadlessProfile,
  name: string,
  sizeBytes: number,
) => {
  const path = join(world.dir, name);
  const sha256 = await writeRandomFile(path, sizeBytes);
  const file = await from.call("files.share", { chatId: to.userId, path });
  expect(file).toMatchObject({ name, sizeBytes, sha256, ownerId: from.userId });
  await to.until(
    "the offer",
    async () => (await to.call("files.list", {})).find((f) => f.fileId === file.fileId) ?? null,
  );
  return { file, sha256, path };
};

const failure = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
  } catch (error) {
    if (error instanceof CommandError) return error.type;
    throw error;
  }
  return "no error";
};

describe("two people", () => {
  test("pair by link, write both ways, and every state up to read is reached", { timeout: 60_000 }, async () => {
    await using world = await createWorld();
    const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
    await pair(alice, bob, "link");
    const [atAlice] = await alice.call("contacts.list", {});
    const [atBob] = await bob.call("contacts.list", {});
    expect(atAlice).toMatchObject({ userId: bob.userId, name: "bob", state: "accepted", keyChanged: false });
    expect(atBob).toMatchObject({ userId: alice.userId, name: "alice", state: "accepted" });
    expect(atAlice?.safetyNumber).toMatch(/^\d{60}$/);
    expect(atAlice?.safetyNumber).toBe(atBob?.safetyNumber);

    const sent = await alice.call("messages.send", { chatId: bob.userId, text: "Grüße 👋" });
    expect(sent).toMatchObject({ senderId: alice.userId, chatId: bob.userId });
    const there = await received(bob, alice, "Grüße 👋");
    expect(there).toMatchObject({ messageId: sent.messageId, senderId: alice.userId, chatId: alice.userId });
    await bob.call("chats.markRead", { chatId: alice.userId });
    await alice.until(
      "read",
      async () =>
        (await alice.call("messages.list", { chatId: bob.userId, limit: 5 })).find((m) => m.state === "read") ?? null,
    );
    await bob.call("messages.send", { chatId: alice.userId, text: "hi" });
    await received(alice, bob, "hi");
  });

  test("pair by code and see the same safety words; a used code is worth nothing", { timeout: 60_000 }, async () => {
    await using world = await createWorld();
    const [alice, bob, eve] = [await world.profile("alice"), await world.profile("bob"), await world.profile("eve")];
    const invite = await alice.call("invites.create", {});
    expect(invite.code).toMatch(/^[A-HJ-NP-Z2-9]{6}$/);
    await bob.call("invites.accept", { invite: invite.code.toLowerCase() });
    expect(await failure(eve.call("invites.accept", { invite: invite.code }))).toBe("unknown_code");
    const words = async (me: HeadlessProfile, other: HeadlessProfile) =>
      me.until(
        "safety words",
        async () => (await me.call("contacts.list", {})).find((c) => c.userId === other.userId)?.safetyWords ?? null,
      );
    expect(await words(alice, bob)).toEqual(await words(bob, alice));
    await alice.call("contacts.accept", { userId: bob.userId });
    await bob.until(
      "accepted",
      async () => (await bob.call("contacts.list", {})).find((c) => c.state === "accepted") ?? null,
    );
  });

  test("wrong codes are rate limited, malformed invitations are refused in words", { timeout: 60_000 }, async () => {
    await using world = await createWorld();
    const bob = await world.profile("bob");
    expect(await failure(bob.call("invites.accept", { invite: "weir://invite/AAAA" }))).toBe("invalid_invite");
    expect(await failure(bob.call("invites.accept", { invite: "hello" }))).toBe("invalid_invite");
    const answers: string[] = [];
    for (let i = 0; i < 7; i++) answers.push(await failure(bob.call("invites.accept", { invite: "ABCDE2" })));
    expect(answers.slice(0, 5)).toEqual(Array(5).fill("unknown_code"));
    expect(answers.slice(5)).toEqual(["rate_limited", "rate_limited"]);
  });

  test("messages written while the other is away arrive once, in order, after both restarted", {
    timeout: 90_000,
  }, async () => {
    await using world = await createWorld();
    let alice = await world.profile("alice");
    let bob = await world.profile("bob");
    await pair(alice, bob);
    await bob.kill();
    const texts = Array.from({ length: 30 }, (_, i) => `message ${i}`);
    for (const text of texts.slice(0, 20)) await alice.call("messages.send", { chatId: bob.userId, text });
    await alice.kill();
    alice = await world.profile("alice");
    for (const text of texts.slice(20)) await alice.call("messages.send", { chatId: bob.userId, text });
    bob = await world.profile("bob");
    await received(bob, alice, "message 29");
    const list = await bob.call("messages.list", { chatId: alice.userId, limit: 100 });
    expect(list.map((m) => m.text).reverse()).toEqual(texts);
    await alice.until("all delivered", async () =>
      (await alice.call("messages.list", { chatId: bob.userId, limit: 100 })).every((m) => m.state === "delivered")
        ? true
        : null,
    );
  });
});

describe("a file", () => {
  test("of 256 MiB survives kill -9 of the downloader at half and of the server meanwhile", {
    timeout: 300_000,
  }, async () => {
    await using world = await createWorld();
    const alice = await world.profile("alice");
    let bob = await world.profile("bob");
    await pair(alice, bob);
    const { file, sha256 } = await shareRandom(world, alice, bob, "big.bin", 256 * MiB);
    const half = new Promise<void>((resolve) =>
      bob.on("transfer.changed", (view) => {
        if (view.fileId === file.fileId && view.chunksStored >= view.chunkCount / 2) resolve();
      }),
    );
    await bob.call("transfers.start", { fileId: file.fileId });
    await half;
    await bob.kill();
    expect(await readdir(world.downloadsOf("bob"))).not.toContain("big.bin");
    await world.restartServer({ kill: true });
    bob = await world.profile("bob");
    const done = await bob.until(
      "complete",
      async () => {
        const view = await transferOf(bob, file.fileId);
        if (view?.phase === "failed") throw new Error(JSON.stringify(view.error));
        return view?.phase === "complete" ? view : null;
      },
      240_000,
    );
    expect(done.savedPath).toBe(join(world.downloadsOf("bob"), "big.bin"));
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    expect(done.chunksStored).toBe(file.chunkCount);
    expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + REQUEST_WINDOW_CHUNKS);
  });

  test("passes every phase in order, and a second one gets its own name", { timeout: 90_000 }, async () => {
    await using world = await createWorld();
    const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
    await pair(alice, bob);
    for (const expected of ["same.bin", "same (2).bin"]) {
      const dir = join(world.dir, expected.replace(/\W/g, ""));
      await mkdir(dir);
      const path = join(dir, "same.bin");
      const sha256 = await writeRandomFile(path, 3 * MiB + 17);
      const file = await alice.call("files.share", { chatId: bob.userId, path });
      await bob.until(
        "offer",
        async () => (await bob.call("files.list", {})).find((f) => f.fileId === file.fileId) ?? null,
      );
      const { view, phases } = await follow(bob, file.fileId, 60_000);
      expect(phases.map((p) => p.phase)).toEqual(["downloading", "draining", "assembling", "verifying", "complete"]);
      expect(Math.abs((view.drain?.startedAtMs ?? 0) - Date.now())).toBeLessThan(60_000);
      expect(view.savedPath).toBe(join(world.downloadsOf("bob"), expected));
      expect(await sha256OfFile(view.savedPath ?? "")).toBe(sha256);
    }
  });

  test("of no bytes at all arrives too", { timeout: 60_000 }, async () => {
    await using world = await createWorld();
    const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
    await pair(alice, bob);
    const { file } = await shareRandom(world, alice, bob, "empty.txt", 0);
    const { view, phases } = await follow(bob, file.fileId, 30_000);
    expect(phases.map((p) => p.phase)).toEqual(["downloading", "draining", "assembling", "verifying", "complete"]);
    expect((await stat(view.savedPath ?? "")).size).toBe(0);
  });

  test("that changed or vanished while it is sent is refused with words, and comes back when it is restored", {
    timeout: 90_000,
  }, async () => {
    await using world = await createWorld();
    let alice = await world.profile("alice");
    const bob = await world.profile("bob");
    await pair(alice, bob);
    const seedersAt = async (me: HeadlessProfile, seeders: readonly string[]) =>
      me.until(`seeders [${seeders}]`, async () =>
        (await me.call("files.get", { fileId: file.fileId })).seeders.toSorted().join() === seeders.toSorted().join()
          ? true
          : null,
      );
    const { file, path, sha256 } = await shareRandom(world, alice, bob, "moving.bin", 8 * MiB);
    await seedersAt(bob, [alice.userId]);
    const original = await readFile(path);
    await truncate(path, 5 * MiB);
    await bob.call("transfers.start", { fileId: file.fileId });
    const failed = await bob.until("an error", async () => {
      const view = await transferOf(bob, file.fileId);
      return view?.error ? view : null;
    });
    expect(failed.error?.type).toBe("file_changed");
    // Nobody is named as a source who is none.
    await seedersAt(alice, []);
    await seedersAt(bob, []);
    expect(await readdir(world.downloadsOf("bob"))).not.toContain("moving.bin");
    await writeFile(path, original);
    await bob.call("transfers.retry", { fileId: file.fileId });
    const done = await bob.until("complete", async () => {
      const view = await transferOf(bob, file.fileId);
      return view?.phase === "complete" ? view : null;
    });
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    await seedersAt(alice, [alice.userId]);
    // Who has received it has it to offer, too.
    await seedersAt(bob, [alice.userId, bob.userId]);

    // While Weir does not run, a file goes, and the next time it comes back: each start looks.
    for (const [change, seeders] of [
      [() => rm(path), []],
      [() => writeFile(path, original), [alice.userId]],
    ] as const) {
      await alice.stop();
      await change();
      alice = await world.profile("alice");
      await seedersAt(alice, seeders);
      await seedersAt(bob, [...seeders, bob.userId]);
    }
  });

  test("can be paused, resumed and cancelled", { timeout: 90_000 }, async () => {
    await using world = await createWorld();
    const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
    await pair(alice, bob);
    const { file, sha256 } = await shareRandom(world, alice, bob, "pause.bin", 48 * MiB);
    const some = new Promise<void>((resolve) =>
      bob.on("transfer.changed", (view) => {
        if (view.chunksStored > 20) resolve();
      }),
    );
    await bob.call("transfers.start", { fileId: file.fileId });
    await some;
    expect((await bob.call("transfers.pause", { fileId: file.fileId })).paused).toBe(true);
    const settled = await bob.until("nothing in flight", async () => {
      const view = await transferOf(bob, file.fileId);
      return view?.inFlight === 0 ? view : null;
    });
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await transferOf(bob, file.fileId))?.chunksStored).toBe(settled.chunksStored);
    await bob.call("transfers.resume", { fileId: file.fileId });
    const done = await bob.until("complete", async () => {
      const view = await transferOf(bob, file.fileId);
      return view?.phase === "complete" ? view : null;
    });
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);

    const second = await shareRandom(world, alice, bob, "cancel.bin", 8 * MiB);
    await bob.call("transfers.start", { fileId: second.file.fileId });
    await bob.call("transfers.cancel", { fileId: second.file.fileId });
    await bob.until("gone", async () => ((await transferOf(bob, second.file.fileId)) === null ? true : null));
    await bob.until("the part to be removed", async () =>
      (await readdir(world.downloadsOf("bob"))).join() === "pause.bin" ? true : null,
    );
  });
});

describe("an upload", () => {
  test("that was shared stays where it is; one that never was is removed at a later start", {
    timeout: 60_000,
  }, async () => {
    await using world = await createWorld();
    let alice = await world.profile("alice");
    const bob = await world.profile("bob");
    await pair(alice, bob);
    const upload = async (name: string): Promise<string> => {
      const headers = { authorization: `Bearer ${alice.ready.token}` };
      const answer = await fetch(`${alice.ready.url}upload?name=${name}`, { method: "POST", headers, body: name });
      return v.parse(v.object({ path: v.string() }), await answer.json()).path;
    };
    const [shared, left] = [await upload("shared.txt"), await upload("left.txt")];
    const file = await alice.call("files.share", { chatId: bob.userId, path: shared });
    await alice.stop();
    const longAgo = new Date(Date.now() - 48 * 60 * 60 * 1000);
    for (const path of [shared, left, dirname(shared), dirname(left)]) await utimes(path, longAgo, longAgo);
    alice = await world.profile("alice");
    await expect.poll(() => readdir(join(world.dataOf("alice"), "uploads"))).toEqual([basename(dirname(shared))]);
    const { view } = await follow(bob, file.fileId, 30_000);
    expect(await readFile(view.savedPath ?? "", "utf8")).toBe("shared.txt");
  });
});

describe("bad input", () => {
  test("from the user gets a typed error", { timeout: 60_000 }, async () => {
    await using world = await createWorld();
    const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
    await pair(alice, bob);
    const chatId = bob.userId;
    expect(await failure(alice.call("files.share", { chatId, path: join(world.dir, "nothing") }))).toBe("file_missing");
    expect(await failure(alice.call("files.share", { chatId, path: devNull }))).toBe("not_a_file");
    expect(await failure(alice.call("transfers.start", { fileId: "A".repeat(22) }))).toBe("unknown_file");
    expect(await failure(alice.call("messages.send", { chatId: "a".repeat(32), text: "x" }))).toBe("unknown_chat");
    expect(await failure(alice.call("messages.send", { chatId, text: "" }))).toBe("bad_input");
    expect(await failure(alice.call("messages.send", { chatId, text: "x".repeat(40_000) }))).toBe("bad_input");
    const { file } = await shareRandom(world, alice, bob, "x.bin", 100);
    expect(
      await failure(bob.call("transfers.start", { fileId: file.fileId, directory: join(world.dir, "nope") })),
    ).toBe("not_writable");
    const downloadDirectory = join(world.dir, "made", "on", "demand");
    expect(await failure(bob.call("settings.set", { downloadDirectory: file.fileId }))).toBe("not_a_folder");
    expect(await failure(bob.call("settings.set", { downloadDirectory: join(world.dir, "x.bin", "y") }))).toBe(
      "not_a_folder",
    );
    expect(await bob.call("settings.set", { downloadDirectory })).toMatchObject({ downloadDirectory });
    expect(await readdir(downloadDirectory)).toEqual([]);
    alice.sendRaw("not json");
    alice.sendRaw(JSON.stringify({ id: 1e9, call: "no.such", input: {} }));
    expect(await alice.call("chats.list", {})).toHaveLength(1);
  });

  test("an unreachable server is told, and nothing written meanwhile is lost", { timeout: 90_000 }, async () => {
    await using world = await createWorld();
    const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
    await pair(alice, bob);
    await bob.kill();
    const down = alice.until("server down", async () =>
      (await alice.call("profile.get", {})).server.state === "connected" ? null : true,
    );
    const restart = world.restartServer({ kill: true, downMs: 1500 });
    await down;
    const queued = await alice.call("messages.send", { chatId: bob.userId, text: "while it was down" });
    expect(queued.state).toBe("queued");
    await restart;
    const again = await world.profile("bob");
    await received(again, alice, "while it was down");
  });
});
