import { join } from "node:path";
import * as v from "valibot";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { chatIdOf, type FileId, type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { ok } from "#shared/base/result.ts";
import { receiptSigningBytes } from "#shared/shares/receipt.ts";
import { append, draftFor, emptyList, type ShareList, type ShareWish } from "#shared/shares/share-log.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import type { Account } from "../../src-main/crypto/identity.ts";
import { logCrypto, signShareOperation } from "../../src-main/crypto/signed-log.ts";
import { KeyRequests } from "../../src-main/shares/key-requests.ts";
import { noDownloads } from "../../src-main/shares/share-machine.ts";
import { createShares, type Shares } from "../../src-main/shares/shares.ts";
import { FilesTable } from "../../src-main/store/files.ts";
import { counted } from "../support/counts.ts";
import { freshFileId, realEnv, writeRandomFile } from "../support/files.ts";
import { createIdentity } from "../support/rendezvous.ts";
import { createTransferWorld, type TransferPeer, type TransferWorld } from "../support/transfer-world.ts";

/** One profile and its lists, with a server that is away, or that says what a test wants. */
let world: TransferWorld;
beforeEach(async () => {
  world = await createTransferWorld();
});
afterEach(() => world.dispose());
const person = (letter: string): UserId => v.parse(UserIdSchema, letter.repeat(32));
const CAROL = person("c");

const shared = async (): Promise<FileId> => {
  const path = join(world.folder, "file.bin");
  await writeRandomFile(path, 200_000);
  await world.share(path);
  return fileOf(world.alice.sent.at(-1)?.offer);
};
const fileOf = (offer: FileOffer | undefined): FileId => {
  if (offer === undefined) throw new Error("nothing was shared");
  return offer.signed.manifest.fileId;
};
const signed = (list: ShareList, actor: Account, wish: ShareWish) => {
  const draft = draftFor(list, wish, actor.userId, 1000);
  if (!draft.ok) throw new Error(draft.error.type);
  return signShareOperation(draft.value, actor);
};
/** The same profile's lists as the next start finds them. */
const sharesOf = ({ db, account, server }: TransferPeer): Shares =>
  createShares({
    ...{ env: realEnv, db, account, signaling: server, isContact: () => true, nameOf: () => null },
    ...{ post: () => undefined, sendKey: () => ok(null), registerAgain: () => undefined },
    ...{ onOffered: () => undefined, downloads: () => noDownloads },
  });
const listOf = (fileId: FileId): ShareList => world.alice.shares.list(fileId);

describe("without a server", () => {
  test("what the owner takes back holds at once, and after a restart; nobody else is served by it", async () => {
    const fileId = await shared();
    const { alice, bob } = world;
    expect(alice.shares.mayServe(fileId, bob.userId)).toBe(true);
    expect(alice.shares.mayServe(fileId, CAROL)).toBe(false);
    expect((await alice.shares.revoke(fileId, [bob.userId])).ok).toBe(true);
    expect(alice.shares.mayServe(fileId, bob.userId)).toBe(false);
    expect(alice.files.mayFetch(bob.userId, fileId)).toBe("refuse");
    expect(alice.files.view(fileId)?.sharedWith).toEqual([]);
    const again = sharesOf(alice);
    expect(again.mayServe(fileId, bob.userId)).toBe(false);
    again.dispose();
    expect(await alice.shares.grant(fileId, [bob.userId])).toMatchObject({ error: { type: "server_unreachable" } });
  });

  test("a seeder who is not the owner serves the owner only, because it cannot know what it missed", async () => {
    const fileId = await shared();
    const { alice, bob } = world;
    expect(bob.shares.verdict(fileId, CAROL)).not.toBe("serve");
    expect(bob.shares.verdict(fileId, bob.userId)).not.toBe("serve");
    expect(alice.shares.members(fileId)).toEqual([alice.userId, bob.userId]);
  });

  test("revoke while the download runs: the seeder that has seen it sends not one frame more", async () => {
    const { alice, bob, links } = world;
    const path = join(world.folder, "large.bin");
    await writeRandomFile(path, 64 * 1024 * 1024);
    const { fileId } = await world.share(path);
    const frames = { before: 0, after: 0 };
    let revoked = false;
    const send = links.a.sendBulk.bind(links.a);
    links.a.sendBulk = (...frame) => {
      frames[revoked ? "after" : "before"] += 1;
      return send(...frame);
    };
    links.connect();
    await bob.transfers.start(fileId);
    await expect.poll(() => frames.before, { timeout: 60_000, interval: 1 }).toBeGreaterThan(30);
    // With chunks that are read, queued and asked for.
    const asked = alice.shares.revoke(fileOf(alice.sent.at(-1)?.offer), [bob.userId]);
    revoked = true;
    await asked;
    await expect.poll(() => bob.transfers.list()[0]?.error?.type, { timeout: 60_000 }).toBe("no_access");
    expect(frames.after).toBe(0);
    expect(bob.transfers.list()[0]?.chunksStored).toBeLessThan(1024);
  });

  // Row 25 of the reliability plan: 200 races in the full run.
  const RACES = counted(3, 200);
  test(
    `${RACES} races of a revocation and a download: not one frame after it was seen`,
    async () => {
      const { alice, bob, links } = world;
      const path = join(world.folder, "raced.bin");
      await writeRandomFile(path, 8 * 1024 * 1024);
      links.connect();
      let revoked = false;
      const frames = { before: 0, after: 0 };
      let until = 0;
      let reached = (): void => undefined;
      const send = links.a.sendBulk.bind(links.a);
      links.a.sendBulk = (...frame) => {
        frames[revoked ? "after" : "before"] += 1;
        if (frames.before === until) reached();
        return send(...frame);
      };
      for (let race = 0; race < RACES; race += 1) {
        const { fileId } = await world.share(path);
        revoked = false;
        until = frames.before + 1 + Math.floor(Math.random() * 100);
        const atRandom = new Promise<void>((resolve) => {
          // In the middle of a step of the seeder, or between two.
          reached = () => (race % 2 === 0 ? queueMicrotask(resolve) : setImmediate(resolve));
        });
        await bob.transfers.start(fileId);
        await atRandom;
        const asked = alice.shares.revoke(fileOf(alice.sent.at(-1)?.offer), [bob.userId]);
        revoked = true;
        await asked;
        const view = () => bob.transfers.list().find((transfer) => transfer.fileId === fileId);
        await expect.poll(() => view()?.error?.type, { timeout: 60_000, interval: 5 }).toBe("no_access");
        bob.transfers.cancel(fileId);
      }
      expect(frames.after).toBe(0);
      expect(frames.before).toBeGreaterThan(RACES);
    },
    counted(120_000, 1_800_000),
  );

  test("request without membership: not one chunk leaves, however often it is asked", async () => {
    const fileId = await shared();
    await world.alice.shares.revoke(fileId, [world.bob.userId]);
    world.links.connect();
    await world.bob.transfers.start(fileId);
    await expect.poll(() => world.bob.transfers.list()[0]?.phase).toBe("failed");
    world.bob.transfers.retry(fileId);
    await expect.poll(() => world.bob.transfers.list()[0]?.error?.type).toBe("no_access");
    expect(world.bob.transfers.list()[0]).toMatchObject({ chunksStored: 0, requestedChunks: 0 });
  });
});

describe("limits", () => {
  /** A download that runs, and how many frames leave before and after the moment that a test makes. */
  const running = async (act: (fileId: FileId) => Promise<unknown>) => {
    const { alice, bob, links } = world;
    const path = join(world.folder, "large.bin");
    await writeRandomFile(path, 64 * 1024 * 1024);
    await world.share(path);
    const fileId = fileOf(alice.sent.at(-1)?.offer);
    const frames = { before: 0, after: 0 };
    let isAfter = false;
    const send = links.a.sendBulk.bind(links.a);
    links.a.sendBulk = (...frame) => {
      frames[isAfter ? "after" : "before"] += 1;
      return send(...frame);
    };
    links.connect();
    await bob.transfers.start(fileId);
    await expect.poll(() => frames.before, { timeout: 60_000, interval: 1 }).toBeGreaterThan(30);
    const done = act(fileId);
    isAfter = true;
    await done;
    return { fileId, frames };
  };
  const expectRefused = async ({ fileId, frames }: Awaited<ReturnType<typeof running>>): Promise<void> => {
    await expect.poll(() => world.bob.transfers.list()[0]?.phase, { timeout: 60_000 }).toBe("failed");
    expect(frames.after).toBe(0);
    expect(world.alice.files.mayFetch(world.bob.userId, fileId)).toBe("refuse");
  };
  const carolHasIt = (fileId: FileId): void => {
    const { alice } = world;
    const identity = createIdentity();
    const root = alice.files.find(fileId)?.offer.signed.manifest.root ?? new Uint8Array(32);
    const unsigned = {
      ...{ fileId, kind: "completed" as const, subject: identity.userId, root, atMs: 1, actor: identity.userId },
      actorKey: identity.accountKey,
    };
    alice.receipts.received(identity.userId, { ...unsigned, signature: identity.sign(receiptSigningBytes(unsigned)) });
  };

  test("an end in a running download: not one frame more, and it goes on when the owner moves the end", async () => {
    const { alice, bob } = world;
    const run = await running((fileId) => alice.shares.setTerms(fileId, { expiresAtMs: Date.now() - 1 }));
    await expectRefused(run);
    // As the owner wants it, though no server has heard of it yet.
    expect(alice.files.view(run.fileId)?.closed).toBe("expired");
    expect(alice.shares.verdict(run.fileId, alice.userId)).toBe("serve");
    await alice.shares.setTerms(run.fileId, { expiresAtMs: Date.now() + 3_600_000 });
    const { chunksStored = 0 } = bob.transfers.list()[0] ?? {};
    expect(chunksStored).toBeGreaterThan(0);
    expect(bob.transfers.retry(run.fileId).ok).toBe(true);
    await expect.poll(() => bob.transfers.list()[0]?.phase, { timeout: 60_000 }).toBe("complete");
  });

  test("the end comes by the clock of whichever is ahead, this computer's or the server's, and can only come earlier by that", async () => {
    const fileId = await shared();
    const { alice, bob } = world;
    const start = Date.now();
    const given = await alice.files.share(chatIdOf(bob.userId), join(world.folder, "file.bin"), {
      expiresAtMs: start + 3_600_000,
    });
    if (!given.ok) throw new Error(given.error.type);
    const limited = fileOf(alice.sent.at(-1)?.offer);
    const verdicts = () => [alice.shares.verdict(limited, bob.userId), alice.shares.verdict(fileId, bob.userId)];
    expect(verdicts()).toEqual(["serve", "serve"]);
    // A server that is behind extends nothing.
    for (const [serverTimeMs, expected] of [
      [0, "serve"],
      [start + 3_590_000, "serve"],
      [start + 3_600_001, "refuse"],
    ] as const) {
      alice.server.serverTimeMs = serverTimeMs;
      expect(verdicts()).toEqual([expected, "serve"]);
    }
    expect(alice.files.view(limited)?.closed).toBe("expired");
  });

  test("everybody hears of the end when it comes, also after a restart", async () => {
    const { alice, bob } = world;
    await shared();
    const given = await alice.files.share(chatIdOf(bob.userId), join(world.folder, "file.bin"), {
      expiresAtMs: Date.now() + 1500,
    });
    if (!given.ok) throw new Error(given.error.type);
    expect(given.value.closed).toBeUndefined();
    const again = sharesOf(alice);
    const told: FileId[][] = [[], []];
    alice.shares.onChanged((id) => told[0]?.push(id));
    again.onChanged((id) => told[1]?.push(id));
    const limited = fileOf(alice.sent.at(-1)?.offer);
    for (const list of told) await expect.poll(() => list, { timeout: 20_000 }).toContain(limited);
    expect(alice.files.view(limited)?.closed).toBe("expired");
    again.dispose();
  });

  test("as many confirmed downloads as allowed: nobody else is served, and who has it may fetch it again", async () => {
    const { alice, bob } = world;
    const run = await running(async (fileId) => {
      await alice.shares.setTerms(fileId, { downloadLimit: 1 });
      carolHasIt(fileId);
      // Taken in with the next turn.
      await expect.poll(() => alice.receipts.completedBy(fileId).size).toBe(1);
    });
    await expect.poll(() => bob.transfers.list()[0]?.phase, { timeout: 60_000 }).toBe("failed");
    const { fileId } = run;
    expect(alice.files.mayFetch(bob.userId, fileId)).toBe("refuse");
    await alice.shares.setTerms(fileId, { downloadLimit: 2 });
    bob.transfers.retry(fileId);
    await expect.poll(() => bob.transfers.list()[0]?.phase, { timeout: 60_000 }).toBe("complete");
    const [receipt] = bob.receipts.of(fileId);
    expect(receipt).toMatchObject({ kind: "completed", subject: bob.userId });
    if (receipt !== undefined) alice.receipts.received(bob.userId, receipt);
    await expect.poll(() => alice.receipts.completedBy(fileId).size).toBe(2);
    expect(alice.files.mayFetch(bob.userId, fileId)).toBe("serve");
    expect(alice.files.mayFetch(CAROL, fileId)).toBe("refuse");
  });

  test("withdrawn in a running download: not one frame more, also after a restart and without a server", async () => {
    const { alice } = world;
    const run = await running((fileId) => alice.shares.withdraw(fileId));
    await expectRefused(run);
    const again = sharesOf(alice);
    expect(again.mayServe(run.fileId, world.bob.userId)).toBe(false);
    again.dispose();
    expect(await world.bob.shares.withdraw(run.fileId)).toMatchObject({ error: { type: "share_not_allowed" } });
  });
});

test("a file from before there were lists gets the owner's first operation at the next start", async () => {
  const fileId = await shared();
  const { alice, bob } = world;
  alice.db.sql.exec("DELETE FROM shares");
  const offer = alice.files.find(fileId)?.offer;
  if (offer === undefined) throw new Error("no file");
  const old = { ...offer, signed: { ...offer.signed, manifest: { ...offer.signed.manifest, fileId: freshFileId() } } };
  new FilesTable(alice.db).insert({
    ...{ offer: old, sharedWith: [bob.userId, CAROL], version: 1, sourcePath: "/gone", registered: true },
  });
  const shares = sharesOf(alice);
  const list = shares.list(old.signed.manifest.fileId);
  expect(list.version).toBe(1);
  expect([...list.members.keys()].sort()).toEqual([bob.userId, CAROL].sort());
  expect(shares.mayServe(fileId, bob.userId)).toBe(true);
  shares.dispose();
});

describe("a server that lies", () => {
  /** Bob's server answers with these operations from now on. */
  const answers = (list: ShareList, operations: unknown[]): void => {
    world.bob.server.answer = (name) =>
      name === "files.operations" ? ok({ operations, version: list.version, head: list.head }) : ok({});
    world.bob.server.come();
  };

  test("orders a delete: without the owner's signature nothing is deleted", async () => {
    const fileId = await shared();
    const { alice, bob } = world;
    const list = listOf(fileId);
    const first = world.alice.shares.operations(fileId, 1);
    const revoke = signed(list, alice.account, { kind: "revoke", userIds: [bob.userId] });
    bob.shares.follow(fileId);
    const notices: string[] = [];
    bob.shares.onNotice(({ type }) => notices.push(type));
    answers({ ...list, version: 2 }, [...first, { ...revoke, signature: new Uint8Array(64) }]);
    await expect.poll(() => notices).toContain("share_forged");
    expect(bob.files.find(fileId)?.access).toBe("granted");
    expect(bob.files.find(fileId)?.offer.key.some((byte) => byte !== 0)).toBe(true);
  });

  test("the owner's signature deletes key and access", async () => {
    const fileId = await shared();
    const { alice, bob } = world;
    const list = listOf(fileId);
    const revoke = signed(list, alice.account, { kind: "revoke", userIds: [bob.userId] });
    const after = append(list, revoke, logCrypto);
    if (!after.ok) throw new Error(after.error.type);
    bob.shares.follow(fileId);
    answers(after.value, [...world.alice.shares.operations(fileId, 1), revoke]);
    await expect.poll(() => bob.files.find(fileId)?.access).toBe("revoked");
    expect(bob.files.find(fileId)?.offer.key.every((byte) => byte === 0)).toBe(true);
    expect(await bob.transfers.start(fileId)).toMatchObject({ error: { type: "access_revoked" } });
  });

  test("checksum mismatch: a server that describes another file is reported, and nothing is fetched", async () => {
    const fileId = await shared();
    const { bob } = world;
    const manifest = bob.files.find(fileId)?.offer.signed.manifest;
    const record = { ...manifest, root: new Uint8Array(32), signature: new Uint8Array(64) };
    bob.server.answer = (name) =>
      name === "files.get" ? ok({ record, members: [], version: 1, seeders: [] }) : ok({});
    bob.server.come();
    expect(await bob.files.checkRecord(fileId)).toMatchObject({ error: { type: "record_mismatch" } });
    expect(bob.notices.map(({ type }) => type)).toEqual(["record_mismatch"]);
    const honest = { ...manifest, signature: new Uint8Array(64) };
    bob.server.answer = (name) =>
      name === "files.get" ? ok({ record: honest, members: [], version: 1, seeders: [] }) : ok({});
    expect((await bob.files.checkRecord(fileId)).ok).toBe(true);
  });
});

test("key request without membership: no key, and no answer", () => {
  const fileId = freshFileId();
  const list = emptyList(fileId, person("a"), logCrypto);
  const posted: { peer: UserId; kind: string }[] = [];
  let verdict: "serve" | "later" | "refuse" = "later";
  const offered: UserId[] = [];
  let freshened = 0;
  const keys = new KeyRequests({
    post: (peer, { kind }) => posted.push({ peer, kind }),
    verdict: () => verdict,
    freshen: () => {
      freshened += 1;
    },
    onOffered: (_fileId, userId) => offered.push(userId),
    keyOf: () => ({ offer: {} as FileOffer, start: { fileId: list.fileId } as never }),
  });
  keys.wanted(CAROL, fileId, true);
  keys.answer(fileId);
  expect({ posted, freshened }).toEqual({ posted: [], freshened: 1 });
  verdict = "refuse";
  keys.answer(fileId);
  keys.wanted(CAROL, freshFileId(), false);
  expect({ posted, refused: keys.refused }).toEqual({ posted: [], refused: 2 });
  verdict = "serve";
  keys.wanted(CAROL, fileId, true);
  expect(posted).toEqual([{ peer: CAROL, kind: "fileKey" }]);
  expect(offered).toEqual([CAROL]);
});
