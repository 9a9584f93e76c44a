import { stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { utf8 } from "#shared/base/bytes.ts";
import type { FileView, NoticeView, TransferView } from "#shared/ipc/views.ts";
import { verifyBundle } from "#shared/shares/receipt.ts";
import { CommandError, type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { logCrypto } from "../../src-main/crypto/signed-log.ts";
import { sha256OfFile, writeRandomFile } from "../support/files.ts";
import { createWorld, type World } from "../support/profiles.ts";
import { SERVED_VARIABLE, servedAround } from "../support/served.ts";

/**
 * Whole programs: Alice owns a file, Bob and Carol may have it, Dave is in contact with Bob alone. One world for all of
 * it, because pairing four programs takes longer than what is tested.
 */
const SIZE = 96 * 1024 * 1024;
let world: World;
let [alice, bob, carol, dave]: HeadlessProfile[] = [];
const me = (profile: HeadlessProfile | undefined): HeadlessProfile => {
  if (profile === undefined) throw new Error("the world is not up");
  return profile;
};
let file: FileView;
let sha256: string;
const servedLog = (name: string): string => join(world.dir, `served by ${name}`);
const notices: { name: string; notice: NoticeView }[] = [];

const errorOf = (promise: Promise<unknown>): Promise<string | null> =>
  promise.then(
    () => null,
    (error: unknown) => (error instanceof CommandError ? error.type : String(error)),
  );
const fileOf = (profile: HeadlessProfile | undefined): Promise<FileView> =>
  me(profile).call("files.get", { fileId: file.fileId });
const fileWhere = (profile: HeadlessProfile | undefined, what: string, fits: (view: FileView) => boolean) =>
  me(profile).until(
    what,
    async () => {
      const view = (await me(profile).call("files.list", {})).find(({ fileId }) => fileId === file.fileId);
      return view !== undefined && fits(view) ? view : null;
    },
    120_000,
  );
const transferWhere = (profile: HeadlessProfile | undefined, what: string, fits: (view: TransferView) => boolean) =>
  me(profile).until(
    what,
    async () => {
      const view = (await me(profile).call("transfers.list", {})).find(({ fileId }) => fileId === file.fileId);
      return view !== undefined && fits(view) ? view : null;
    },
    180_000,
  );
const same = (list: string[], people: (HeadlessProfile | undefined)[]): boolean =>
  [...list].sort().join() ===
  people
    .map((p) => me(p).userId)
    .sort()
    .join();
/** The download runs when this resolves. */
const running = async (profile: HeadlessProfile | undefined): Promise<void> => {
  const begun = new Promise<void>((resolve) =>
    me(profile).on("transfer.changed", (view) => {
      if (view.chunksStored > 20) resolve();
    }),
  );
  await me(profile).call("transfers.start", { fileId: file.fileId });
  await begun;
};

beforeAll(async () => {
  world = await createWorld();
  // One after the other: four starts at once take longer than a start may.
  const profiles: HeadlessProfile[] = [];
  for (const name of ["alice", "bob", "carol", "dave"])
    profiles.push(
      await world.profile(name, {
        entry: "tests/support/served-headless-process.ts",
        env: { [SERVED_VARIABLE]: servedLog(name) },
      }),
    );
  [alice, bob, carol, dave] = profiles;
  for (const [name, profile] of [
    ["bob", bob],
    ["carol", carol],
    ["dave", dave],
  ] as const)
    me(profile).on("notice", (notice) => notices.push({ name, notice }));
  await pair(me(alice), me(bob));
  await pair(me(alice), me(carol));
  await pair(me(bob), me(dave));
  const path = join(world.dir, "big.bin");
  sha256 = await writeRandomFile(path, SIZE);
  file = await me(alice).call("files.share", { chatId: me(bob).userId, path });
}, 240_000);
afterAll(() => world[Symbol.asyncDispose]());

describe("access that holds", { timeout: 300_000 }, () => {
  test("existing seeder receives Signal and syncs sharedWith: a grant reaches everybody who has access", async () => {
    await fileWhere(bob, "the offer", () => true);
    const granted = await me(alice).call("files.grant", { fileId: file.fileId, userIds: [me(carol).userId] });
    expect(same(granted.sharedWith, [bob, carol])).toBe(true);
    expect(granted.version).toBe(2);
    await fileWhere(carol, "the key", ({ access }) => access === "granted");
    await fileWhere(
      bob,
      "the new member",
      ({ sharedWith, version }) => version === 2 && same(sharedWith, [bob, carol]),
    );
  });

  test("a member adds somebody whom the owner does not know; he gets key and access, and the owner's list shows him", async () => {
    expect(await errorOf(me(bob).call("files.grant", { fileId: file.fileId, userIds: ["z".repeat(32)] }))).toBe(
      "unknown_contact",
    );
    const granted = await me(bob).call("files.grant", { fileId: file.fileId, userIds: [me(dave).userId] });
    expect(same(granted.sharedWith, [bob, carol, dave])).toBe(true);
    for (const profile of [alice, carol, dave])
      await fileWhere(
        profile,
        "everybody",
        ({ sharedWith, version }) => version === 3 && same(sharedWith, [bob, carol, dave]),
      );
    const view = await fileOf(dave);
    expect(view).toMatchObject({ ownerId: me(alice).userId, access: "granted", name: file.name });
  });

  test("everybody may leave, and nobody but the owner takes access back", async () => {
    expect(await errorOf(me(bob).call("files.revoke", { fileId: file.fileId, userIds: [me(carol).userId] }))).toBe(
      "share_not_allowed",
    );
    expect(await errorOf(me(alice).call("files.leave", { fileId: file.fileId }))).toBe("share_not_allowed");
    const left = await me(dave).call("files.leave", { fileId: file.fileId });
    expect(left).toMatchObject({ access: "revoked", hasLeft: true });
    expect(await errorOf(me(dave).call("transfers.start", { fileId: file.fileId }))).toBe("access_revoked");
    await fileWhere(bob, "who left is gone", ({ sharedWith }) => same(sharedWith, [bob, carol]));
  });

  test("remaining seeders sync after a revoke; the revoked download ends, its data is deleted, the other completes", async () => {
    await Promise.all([running(bob), running(carol)]);
    const startedAt = performance.now();
    const revoked = await me(alice).call("files.revoke", { fileId: file.fileId, userIds: [me(carol).userId] });
    expect(same(revoked.sharedWith, [bob])).toBe(true);
    const ended = await transferWhere(
      carol,
      "the end of the download",
      (view) => view.error?.type === "access_revoked",
    );
    const stoppedMs = performance.now() - startedAt;
    // A refusal may come before the news of why.
    expect(ended.phase).toBe("failed");
    expect(ended.chunksStored).toBe(0);
    expect((await fileOf(carol)).access).toBe("revoked");
    expect(notices).toContainEqual({ name: "carol", notice: expect.objectContaining({ type: "access_revoked" }) });
    for (const command of ["transfers.start", "transfers.retry", "transfers.resume"] as const)
      expect(await errorOf(me(carol).call(command, { fileId: file.fileId }))).toBe("access_revoked");
    expect(await errorOf(stat(join(world.downloadsOf("carol"), file.name)))).toMatch(/ENOENT/);
    await fileWhere(bob, "the end of Carol's access", ({ sharedWith }) => same(sharedWith, [bob]));
    const done = await transferWhere(bob, "complete", ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    // Both who served her stopped in the very moment in which they knew.
    const served = ["alice", "bob"].map((name) => servedAround(servedLog(name), file.fileId, me(carol).userId));
    const sum = (when: "before" | "after"): number => served.reduce((chunks, by) => chunks + by[when], 0);
    process.stderr.write(
      `revoked with three programs: the download stopped ${(stoppedMs / 1000).toFixed(2)} s after the command; ${sum("before")} ` +
        `chunks served before the seeders saw it, ${sum("after")} after; the other download of ${done.chunkCount} chunks completed\n`,
    );
    expect(sum("before")).toBeGreaterThan(20);
    expect(sum("after")).toBe(0);
    // Whoever the owner revoked comes back through the owner alone.
    expect(await errorOf(me(bob).call("files.grant", { fileId: file.fileId, userIds: [me(carol).userId] }))).toBe(
      "unknown_contact",
    );
  });

  test("offline seeder syncs on reconnect: it comes back with the list as it is now", async () => {
    await me(bob).stop();
    await me(alice).call("files.grant", { fileId: file.fileId, userIds: [me(carol).userId] });
    const { version } = await fileOf(alice);
    bob = await world.profile("bob");
    await fileWhere(
      bob,
      "what happened meanwhile",
      (view) => view.version === version && same(view.sharedWith, [bob, carol]),
    );
    // The key is back as well, and the file can be fetched again.
    await fileWhere(carol, "the access", ({ access }) => access === "granted");
    await me(carol).call("transfers.start", { fileId: file.fileId });
    const done = await transferWhere(carol, "complete", ({ phase }) => phase === "complete");
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
  });

  test("what was saved stays saved when access ends, and nothing more can be had", async () => {
    await me(alice).call("files.revoke", { fileId: file.fileId, userIds: [me(carol).userId] });
    await fileWhere(carol, "the end of the access", ({ access }) => access === "revoked");
    const [transfer] = await me(carol).call("transfers.list", {});
    expect(transfer?.phase).toBe("complete");
    expect(await sha256OfFile(transfer?.savedPath ?? "")).toBe(sha256);
    expect(notices.filter(({ notice }) => notice.type.startsWith("share_"))).toEqual([]);
  });

  test("the owner sees who has the file and since when, from signed receipts that can be checked without Weir", async () => {
    const { fileId } = file;
    const access = await me(alice).until(
      "both confirmations",
      async () => {
        const view = await me(alice).call("files.access", { fileId });
        return view.formerHolders.length > 0 && view.members[0]?.completedAtMs != null ? view : null;
      },
      60_000,
    );
    expect(access.members).toMatchObject([{ userId: me(bob).userId, offeredAtMs: expect.any(Number) as number }]);
    // Dave left before he had it.
    expect(access.formerHolders.map(({ userId }) => userId)).toEqual([me(carol).userId]);
    // Members know it from the server; with Bob, who holds the whole log, the proof is as good.
    for (const profile of [alice, bob]) {
      const exported = await me(profile).call("files.receipts", { fileId });
      expect(exported.fileName).toBe(`${file.name}.receipts.json`);
      const proven = verifyBundle(utf8(exported.json), logCrypto);
      if (!proven.ok) throw new Error(proven.error.type);
      const has = proven.value.people.filter(({ completedAtMs }) => completedAtMs !== null);
      expect(proven.value.people.every(({ offeredAtMs }) => offeredAtMs !== null)).toBe(true);
      expect(
        same(
          has.map(({ userId }) => userId),
          [bob, carol],
        ),
      ).toBe(true);
      const tampered = exported.json.replace(/"completed"/, '"offered"');
      expect(verifyBundle(utf8(tampered), logCrypto).ok).toBe(false);
    }
  });

  test("a file that its owner withdraws is no longer available to anybody; what was saved stays, and the list ends", async () => {
    const { fileId } = file;
    const path = join(world.dir, "second.bin");
    await writeRandomFile(path, SIZE);
    const second = await me(alice).call("files.share", { chatId: me(bob).userId, path });
    await me(bob).until("the offer", async () => {
      const all = await me(bob).call("files.list", {});
      return all.some((view) => view.fileId === second.fileId) ? true : null;
    });
    const ended = new Promise<TransferView>((resolve) =>
      me(bob).on("transfer.changed", (view) => {
        if (view.fileId === second.fileId && view.error?.type === "file_withdrawn") resolve(view);
      }),
    );
    const begun = new Promise<void>((resolve) =>
      me(bob).on("transfer.changed", (view) => {
        if (view.fileId === second.fileId && view.chunksStored > 20) resolve();
      }),
    );
    await me(bob).call("transfers.start", { fileId: second.fileId });
    await begun;
    for (const id of [second.fileId, fileId])
      expect(await me(alice).call("files.withdraw", { fileId: id })).toMatchObject({ closed: "withdrawn" });
    expect((await ended).chunksStored).toBe(0);
    await fileWhere(bob, "the end of the file", ({ closed, access }) => closed === "withdrawn" && access === "revoked");
    const transfers = await me(bob).call("transfers.list", {});
    const kept = transfers.find((transfer) => transfer.fileId === fileId);
    expect(kept?.phase).toBe("complete");
    expect(await sha256OfFile(kept?.savedPath ?? "")).toBe(sha256);
    expect(await errorOf(me(bob).call("transfers.start", { fileId: second.fileId }))).toBe("file_withdrawn");
    expect(await errorOf(me(alice).call("files.grant", { fileId, userIds: [me(carol).userId] }))).toBe(
      "share_not_allowed",
    );
  });

  test("revoke and rekey half way: the other one completes under the new key with what it has, the revoked one never hears of it", async () => {
    for (const profile of [bob, carol]) await me(profile).call("settings.set", { downloadBytesPerSecond: 4_000_000 });
    const path = join(world.dir, "rekeyed.bin");
    const plain = await writeRandomFile(path, 16 * 1024 * 1024);
    const { fileId } = await me(alice).call("files.share", { chatId: me(bob).userId, path });
    await me(alice).call("files.grant", { fileId, userIds: [me(carol).userId] });
    const bobs: TransferView[] = [];
    me(bob).on("transfer.changed", (view) => void bobs.push(view));
    const carols: TransferView[] = [];
    me(carol).on("transfer.changed", (view) => void carols.push(view));
    for (const profile of [bob, carol]) {
      await me(profile).until("the offer", async () => {
        const all = await me(profile).call("files.list", {});
        return all.some((view) => view.fileId === fileId && view.access === "granted") ? true : null;
      });
      await me(profile).call("transfers.start", { fileId });
    }
    const isHalfWay = ({ fileId: of, chunksStored }: TransferView): boolean => of === fileId && chunksStored > 30;
    for (const views of [bobs, carols])
      await me(bob).until("half of it", async () => (views.some(isHalfWay) ? true : null), 120_000);

    const after = await me(alice).call("files.revoke", { fileId, userIds: [me(carol).userId], rekey: true });
    expect(after.fileId).not.toBe(fileId);
    expect(same(after.sharedWith, [bob])).toBe(true);
    const done = await me(bob).until(
      "the whole file under the new key",
      async () => bobs.findLast((view) => view.fileId === after.fileId && view.phase === "complete") ?? null,
      120_000,
    );
    expect(await sha256OfFile(done.savedPath ?? "")).toBe(plain);
    expect((await me(bob).call("transfers.list", {})).map((view) => view.fileId)).not.toContain(fileId);
    // What had been stored under the old key was there from the first moment, far before it could have come again.
    const stored = Math.max(...bobs.filter((view) => view.fileId === fileId).map((view) => view.chunksStored));
    expect(stored).toBeGreaterThan(30);
    expect(stored).toBeLessThan(done.chunkCount);
    const first = bobs.find((view) => view.fileId === after.fileId && view.chunksStored > 0);
    expect(first?.chunksStored).toBeGreaterThanOrEqual(stored);
    expect(first?.chunksStored).toBeLessThan(done.chunkCount);

    await me(carol).until("the end", async () => carols.find(({ error }) => error?.type === "access_revoked") ?? null);
    expect(await errorOf(me(carol).call("transfers.start", { fileId: after.fileId }))).toBe("unknown_file");
    expect((await me(carol).call("files.list", {})).map((view) => view.fileId)).not.toContain(after.fileId);
    const chat = await me(carol).call("messages.list", { chatId: me(alice).userId });
    expect(chat.map(({ file: shown }) => shown?.fileId)).not.toContain(after.fileId);
    expect(new Set(carols.map((view) => view.fileId))).toEqual(new Set([fileId]));
    for (const profile of [alice, bob])
      expect((await me(profile).call("files.get", { fileId })).closed).toBe("replaced");
  });
});
