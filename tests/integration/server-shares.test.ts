import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FileId, FileIdSchema } from "#shared/base/ids.ts";
import { type Receipt, receiptSigningBytes } from "#shared/shares/receipt.ts";
import {
  append,
  defaultTerms,
  emptyList,
  type ShareList,
  type ShareOperation,
  type ShareTerms,
} from "#shared/shares/share-log.ts";
import { logCrypto } from "../../src-main/crypto/signed-log.ts";
import {
  eventually,
  fileRecord,
  firstOperation,
  operationOn,
  plain,
  RawClient,
  startServer,
  type TestServer,
} from "../support/rendezvous.ts";

/** What the server does with the list of who may have a file; one server and four people for all of it. */
let server: TestServer;
let [owner, member, other, stranger]: RawClient[] = [];
const who = (client: RawClient | undefined): RawClient => {
  if (client === undefined) throw new Error("the world is not up");
  return client;
};
beforeAll(async () => {
  server = await startServer();
  [owner, member, other, stranger] = await Promise.all([0, 1, 2, 3].map(() => RawClient.loggedIn(server.url)));
});
afterAll(async () => {
  for (const client of [owner, member, other, stranger]) client?.close();
  await server.dispose();
});
const idOf = (client: RawClient | undefined) => who(client).identity.userId;

const extended = (list: ShareList, operation: ShareOperation): ShareList => {
  const next = append(list, operation, logCrypto);
  if (!next.ok) throw new Error(next.error.type);
  return next.value;
};

/** A file of the owner that `member` may have. */
const register = async (): Promise<{
  fileId: FileId;
  root: Uint8Array<ArrayBuffer>;
  list: ShareList;
  operations: ShareOperation[];
}> => {
  const { identity } = who(owner);
  const record = fileRecord(identity);
  const fileId = v.parse(FileIdSchema, record.fileId);
  const operations = [firstOperation(identity, fileId, [idOf(member)])];
  await who(owner).must("files.register", { record, operations });
  return {
    fileId,
    root: record.root,
    operations,
    list: extended(emptyList(fileId, identity.userId, logCrypto), operations[0] as ShareOperation),
  };
};
const add = (list: ShareList, actor: RawClient | undefined, whom: RawClient | undefined): ShareOperation =>
  operationOn(list, who(actor).identity, { kind: "add", userIds: [idOf(whom)] });
const revoke = (list: ShareList, whom: RawClient | undefined): ShareOperation =>
  operationOn(list, who(owner).identity, { kind: "revoke", userIds: [idOf(whom)] });
const operate = (client: RawClient | undefined, fileId: FileId, ...operations: ShareOperation[]): Promise<string> =>
  who(client).outcome("files.operate", { fileId, operations });
const membersOf = async (fileId: FileId): Promise<string[]> => (await who(owner).must("files.get", { fileId })).members;

describe("share lists at the server", () => {
  test("compare-and-set: of two members who share at the same moment one is told to look again, and both get their way", async () => {
    const { fileId, list } = await register();
    const both = extended(list, add(list, owner, other));
    expect(await operate(owner, fileId, add(list, owner, other))).toBe("ok");
    const newcomers = [await RawClient.loggedIn(server.url), await RawClient.loggedIn(server.url)];
    const outcomes = await Promise.all([
      operate(member, fileId, add(both, member, newcomers[0])),
      operate(other, fileId, add(both, other, newcomers[1])),
    ]);
    expect([...outcomes].sort()).toEqual(["ok", "share_conflict"]);
    const { operations, version } = await who(owner).must("files.operations", { fileId, since: 2 });
    expect(version).toBe(3);
    const newest = operations.reduce(extended, both);
    const loser = outcomes[0] === "ok" ? [other, newcomers[1]] : [member, newcomers[0]];
    expect(await operate(loser[0], fileId, add(newest, loser[0], loser[1]))).toBe("ok");
    expect(await membersOf(fileId)).toEqual([idOf(member), idOf(other), ...newcomers.map(idOf)].sort());
    for (const client of newcomers) client.close();
  });

  test("takes a repeat as a success, and nothing from whom the list does not allow it", async () => {
    const { fileId, list } = await register();
    const added = add(list, member, other);
    expect(await operate(stranger, fileId, added)).toBe("unknown_file");
    expect(await operate(member, fileId, added)).toBe("ok");
    expect(await operate(member, fileId, added)).toBe("ok");
    const newest = extended(list, added);
    const forged = { ...revoke(newest, other), actor: idOf(member), actorKey: who(member).identity.accountKey };
    expect(await operate(member, fileId, forged)).toBe("share_not_allowed");
    expect(await operate(member, fileId, { ...revoke(newest, other), userIds: [idOf(member)] })).toBe("share_forged");
    expect(await operate(member, fileId, add(list, member, stranger))).toBe("share_conflict");
    // One that does not hold takes those before it back.
    const good = add(newest, member, stranger);
    expect(await operate(member, fileId, good, { ...good, version: 4, previousHash: new Uint8Array(32) })).toBe(
      "share_conflict",
    );
    expect(await membersOf(fileId)).toEqual([idOf(member), idOf(other)].sort());
  });

  test("self-leave: everybody may leave; whoever is gone reads the list up to that and no further, and seeds no more", async () => {
    const { fileId, list } = await register();
    await who(member).must("files.announce", { fileId, complete: true, chunksHeld: 4 });
    const left = operationOn(list, who(member).identity, { kind: "leave" });
    expect(await operate(member, fileId, left)).toBe("ok");
    const gone = extended(list, left);
    expect(await operate(owner, fileId, add(gone, owner, other))).toBe("ok");
    expect(await who(member).outcome("files.get", { fileId })).toBe("unknown_file");
    expect((await who(owner).must("files.get", { fileId })).seeders).toEqual([]);
    const seen = await who(member).must("files.operations", { fileId, since: 0 });
    expect(seen.version).toBe(2);
    expect(plain(seen.head)).toEqual(gone.head);
    expect(seen.operations.map(({ kind }) => kind)).toEqual(["add", "leave"]);
    expect(await who(stranger).outcome("files.operations", { fileId, since: 0 })).toBe("unknown_file");
  });

  test("stale seeder re-announces, a stranger announces himself: nobody comes back or gets in by that", async () => {
    const { fileId, list } = await register();
    await who(member).must("files.announce", { fileId, complete: true, chunksHeld: 4 });
    expect(await operate(owner, fileId, revoke(list, member))).toBe("ok");
    for (const client of [member, stranger])
      expect(await who(client).outcome("files.announce", { fileId, complete: true, chunksHeld: 4 })).toBe(
        "unknown_file",
      );
    expect(await membersOf(fileId)).toEqual([]);
    // Not even with an operation that was allowed to it once.
    expect(await operate(member, fileId, add(list, member, other))).toBe("unknown_file");
  });

  test("first announce after server restart: the lists are kept, and who announces first is still nobody", async () => {
    const { fileId, list } = await register();
    expect(await operate(member, fileId, add(list, member, other))).toBe("ok");
    const before = plain(await who(owner).must("files.operations", { fileId, since: 0 }));
    await server.restart();
    [owner, member, other, stranger] = await Promise.all(
      [owner, member, other, stranger].map((client) => RawClient.loggedIn(server.url, who(client).identity)),
    );
    expect(await who(stranger).outcome("files.announce", { fileId, complete: true, chunksHeld: 4 })).toBe(
      "unknown_file",
    );
    expect(plain(await who(owner).must("files.operations", { fileId, since: 0 }))).toEqual(before);
  });

  test("tells those who are online that a list has grown, also whom it leaves out", async () => {
    const { fileId, list } = await register();
    const told = (client: RawClient | undefined) => who(client).named("shareChanged");
    expect(await operate(owner, fileId, revoke(list, member))).toBe("ok");
    await eventually(() => told(member)).toContainEqual({ fileId, version: 2 });
    expect(told(stranger)).toEqual([]);
    expect(told(owner)).not.toContainEqual({ fileId, version: 2 });
  });

  test("keeps receipts of those who have, or had, the file, tells its owner, and takes none in another's name", async () => {
    const { fileId, list, root } = await register();
    const receipt = (actor: RawClient | undefined, subject: RawClient | undefined, change: Partial<Receipt> = {}) => {
      const { identity } = who(actor);
      const kind = actor === subject ? ("completed" as const) : ("offered" as const);
      const unsigned = {
        ...{ fileId, kind, subject: idOf(subject), root, atMs: 1000, actor: identity.userId },
        ...{ actorKey: identity.accountKey, ...change },
      };
      return { ...unsigned, signature: identity.sign(receiptSigningBytes(unsigned)) };
    };
    const keep = (client: RawClient | undefined, made: Receipt) =>
      who(client).outcome("files.receipt", { receipt: made });
    const completed = receipt(member, member);
    expect(await keep(stranger, receipt(stranger, stranger))).toBe("unknown_file");
    expect(await keep(other, completed)).toBe("unknown_file");
    expect(await keep(owner, completed)).toBe("receipt_unrelated");
    expect(await keep(owner, receipt(owner, stranger))).toBe("receipt_unrelated");
    expect(await keep(member, receipt(member, member, { root: new Uint8Array(32) }))).toBe("receipt_unrelated");
    expect(await keep(member, { ...completed, atMs: 2000 })).toBe("receipt_forged");
    expect(await keep(member, receipt(member, member, { kind: "offered" }))).toBe("receipt_malformed");
    expect((await who(owner).must("files.receipts", { fileId, after: 0 })).total).toBe(0);

    expect(await who(owner).must("files.receipt", { receipt: receipt(owner, member) })).toEqual({ stored: true });
    expect(await who(member).must("files.receipt", { receipt: completed })).toEqual({ stored: true });
    await eventually(() => who(owner).named("receiptAdded")).toContainEqual({ fileId });
    expect(await who(member).must("files.receipt", { receipt: receipt(member, member, { atMs: 9 }) })).toEqual({
      stored: false,
    });
    // Whose access was taken still has a copy, and may say so.
    expect(await operate(owner, fileId, add(list, owner, other))).toBe("ok");
    const both = extended(list, add(list, owner, other));
    expect(await operate(owner, fileId, revoke(both, other))).toBe("ok");
    expect(await keep(other, receipt(other, other))).toBe("ok");
    expect(await who(other).outcome("files.receipts", { fileId, after: 0 })).toBe("unknown_file");
    expect(plain(await who(owner).must("files.receipts", { fileId, after: 1 }))).toEqual({
      receipts: [completed, receipt(other, other)],
      total: 3,
    });
  });

  test("names nobody to ask for a file whose time is over, that was fetched often enough, or that was withdrawn", async () => {
    const { fileId, list, root } = await register();
    const announce = (client: RawClient | undefined) =>
      who(client).must("files.announce", { fileId, complete: true, chunksHeld: 4 });
    const seedersFor = async (client: RawClient | undefined) =>
      (await who(client).must("files.get", { fileId })).seeders.length;
    const by = (before: ShareList, wish: Parameters<typeof operationOn>[2]): ShareOperation =>
      operationOn(before, who(owner).identity, wish);
    await announce(owner);
    expect(await seedersFor(member)).toBe(1);
    const terms = (change: Partial<ShareTerms>) => ({ kind: "terms" as const, terms: { ...defaultTerms, ...change } });
    const past = by(list, terms({ expiresAtMs: Date.now() - 1 }));
    expect(await operate(owner, fileId, past)).toBe("ok");
    expect([await seedersFor(member), await seedersFor(owner)]).toEqual([0, 1]);
    const expired = extended(list, past);
    const extendedTime = by(expired, terms({ expiresAtMs: Date.now() + 3_600_000, downloadLimit: 1 }));
    expect(await operate(owner, fileId, extendedTime)).toBe("ok");
    expect(await seedersFor(member)).toBe(1);
    const limited = extended(expired, extendedTime);
    const added = add(limited, owner, other);
    expect(await operate(owner, fileId, added)).toBe("ok");
    const { identity } = who(other);
    const unsigned = {
      ...{ fileId, kind: "completed" as const, subject: identity.userId, root, atMs: 1, actor: identity.userId },
      actorKey: identity.accountKey,
    };
    const receipt = { ...unsigned, signature: identity.sign(receiptSigningBytes(unsigned)) };
    await who(other).must("files.receipt", { receipt });
    // Members count, too, so they hear of it.
    await eventually(() => who(member).named("receiptAdded")).toContainEqual({ fileId });
    expect([await seedersFor(member), await seedersFor(other)]).toEqual([0, 1]);

    const gone = by(extended(limited, added), { kind: "withdraw" });
    expect(await operate(owner, fileId, gone)).toBe("ok");
    expect(await who(member).outcome("files.get", { fileId })).toBe("unknown_file");
    const seen = await who(member).must("files.operations", { fileId, since: 0 });
    expect(seen.operations.at(-1)?.kind).toBe("withdraw");
    await announce(owner);
    expect(await seedersFor(owner)).toBe(0);
    const end = extended(extended(limited, added), gone);
    const late = { ...add(limited, owner, stranger), version: end.version + 1, previousHash: end.head };
    expect(await operate(owner, fileId, late)).toBe("share_not_allowed");
  });
});
