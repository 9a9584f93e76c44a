import { describe, expect, test } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { GROUP_MEMBERS_MAX, GROUP_PAGE_BYTES } from "#shared/base/limits.ts";
import {
  append,
  decodeOperation,
  draftFor,
  draftOfCreate,
  emptyLog,
  encodeOperation,
  type GroupDraft,
  type GroupLog,
  type GroupOperation,
  type GroupWish,
  groupIdOf,
  headsOf,
  missingFor,
  ownerOf,
  replay,
  roleOf,
} from "#shared/groups/group-log.ts";
import { logCrypto, signGroupOperation } from "../../src-main/crypto/signed-log.ts";
import { createIdentity, type TestIdentity } from "../support/rendezvous.ts";

const [alice, bob, carol, mallory] = ["alice", "bob", "carol", "mallory"].map(() => createIdentity()) as [
  TestIdentity,
  TestIdentity,
  TestIdentity,
  TestIdentity,
];
let nonces = 0;
const place = () => ({ atMs: 1000, nonce: Uint8Array.from({ length: 16 }, () => nonces++ & 255) });
const person = (who: TestIdentity, name = "somebody") => ({ userId: who.userId, name });

const begun = (people: TestIdentity[]): GroupLog => {
  const draft = draftOfCreate(
    "group",
    people.map((who) => person(who)),
    person(alice, "Alice"),
    place(),
  );
  if (!draft.ok) throw new Error(draft.error.type);
  const create = signGroupOperation(draft.value, alice);
  return added(emptyLog(groupIdOf(create, logCrypto)), create);
};
const added = (log: GroupLog, operation: GroupOperation): GroupLog => {
  const next = append(log, operation, logCrypto);
  if (!next.ok) throw new Error(`${next.error.type}: ${next.error.message}`);
  return next.value;
};
const made = (log: GroupLog, who: TestIdentity, wish: GroupWish): GroupOperation => {
  const draft = draftFor(log, wish, who.userId, place());
  if (!draft.ok) throw new Error(draft.error.type);
  return signGroupOperation(draft.value, who);
};
const then = (log: GroupLog, who: TestIdentity, wish: GroupWish): GroupLog => added(log, made(log, who, wish));
const errorOf = (log: GroupLog, operation: GroupOperation): string | null => {
  const next = append(log, operation, logCrypto);
  return next.ok ? null : next.error.type;
};
/** What somebody signs who does not ask whether it is allowed. */
const forced = (log: GroupLog, who: TestIdentity, change: Partial<GroupDraft>): GroupOperation =>
  signGroupOperation(
    {
      ...{ kind: "add", name: null, people: [person(mallory)], role: null, parents: headsOf(log), actor: who.userId },
      ...{ ...place(), ...change },
    },
    who,
  );
const makeAdmin = (who: TestIdentity): GroupWish => ({ kind: "role", userId: who.userId, role: "admin" });

describe("the log of a group", () => {
  test("begins with its owner, and the id says with which operation", () => {
    const log = begun([bob]);
    expect(ownerOf(log)).toBe(alice.userId);
    expect([roleOf(log, alice.userId), roleOf(log, bob.userId)]).toEqual(["owner", "member"]);
    const other = begun([bob]);
    expect(other.groupId).not.toBe(log.groupId);
    expect(errorOf(emptyLog(log.groupId), defined(other.nodes[0], "a beginning").operation)).toBe("group_malformed");
    expect(errorOf(log, defined(other.nodes[0], "a beginning").operation)).toBe("group_malformed");
  });

  test("takes nothing that is forged, out of place, or beyond what its actor was ever given", () => {
    const log = begun([bob, carol]);
    const add = made(log, alice, { kind: "add", people: [person(mallory)] });
    const flipped = new Uint8Array(add.signature);
    flipped[0] = (flipped[0] ?? 0) ^ 1;
    expect(errorOf(log, { ...add, signature: flipped })).toBe("group_forged");
    expect(errorOf(log, { ...add, people: [person(carol)] })).toBe("group_forged");
    expect(errorOf(log, { ...add, actor: bob.userId, actorKey: bob.accountKey })).toBe("group_not_allowed");
    expect(errorOf(log, forced(log, bob, {}))).toBe("group_not_allowed");
    expect(errorOf(log, forced(log, mallory, { kind: "leave", people: [person(mallory)] }))).toBe("group_not_allowed");
    expect(errorOf(log, forced(log, alice, { parents: [new Uint8Array(32)] }))).toBe("group_missing");
    expect(errorOf(emptyLog(log.groupId), add)).toBe("group_missing");
    for (const change of [
      { name: "named" },
      { role: "admin" as const },
      { people: [] },
      { parents: [] },
      { people: [person(mallory), person(mallory)] },
      { people: [person(alice)] },
      { people: [] },
      { kind: "leave" as const },
      { kind: "rename" as const },
    ])
      expect(errorOf(log, forced(log, alice, change))).toBe("group_malformed");
    expect(errorOf(log, add)).toBeNull();
    expect(added(added(log, add), add).nodes).toHaveLength(2);
  });

  test("an admin works within bounds: members come and go, admins and roles are the owner's", () => {
    const log = [bob, carol].reduce((grown, who) => then(grown, alice, makeAdmin(who)), begun([bob, carol]));
    const grown = added(log, made(log, bob, { kind: "add", people: [person(mallory)] }));
    expect(roleOf(grown, mallory.userId)).toBe("member");
    // Kept, because Bob was an admin, and of no effect, because it is not for admins.
    const coup = added(grown, forced(grown, bob, { kind: "remove", people: [person(carol)] }));
    expect(roleOf(coup, carol.userId)).toBe("admin");
    const attack = added(grown, forced(grown, bob, { kind: "remove", people: [person(alice)] }));
    expect(roleOf(attack, alice.userId)).toBe("owner");
    expect(errorOf(grown, forced(grown, bob, { kind: "role", role: "admin" }))).toBe("group_not_allowed");
  });

  test("whoever was removed cannot bring anybody in with an operation that pretends to be older", () => {
    const before = then(begun([bob, carol]), alice, makeAdmin(bob));
    const removed = then(before, alice, { kind: "remove", userId: bob.userId });
    const backdated = made(before, bob, { kind: "add", people: [person(mallory)] });
    expect(roleOf(added(before, backdated), mallory.userId)).toBe("member");
    expect(roleOf(added(removed, backdated), mallory.userId)).toBeNull();
    expect(roleOf(added(removed, backdated), bob.userId)).toBeNull();
  });

  test("removing wins over adding at the same time, the owner's name over an admin's", () => {
    const base = then(begun([bob, carol]), alice, makeAdmin(bob));
    const gone = then(base, alice, { kind: "remove", userId: carol.userId });
    const [back, out] = [
      made(gone, bob, { kind: "add", people: [person(carol)] }),
      made(gone, alice, { kind: "rename", name: "of Alice" }),
    ];
    const named = made(gone, bob, { kind: "rename", name: "of Bob" });
    const all = [back, out, named].reduce(added, gone);
    expect(roleOf(all, carol.userId)).toBe("member");
    expect(all.view.name).toBe("of Alice");
    const removals = [made(all, alice, { kind: "remove", userId: carol.userId }), made(all, bob, makeRename("x"))];
    expect(roleOf(removals.reduce(added, all), carol.userId)).toBeNull();
  });

  test("tells what somebody lacks, and is the same when it is read back", () => {
    const short = begun([bob]);
    const long = then(then(short, alice, makeRename("a")), alice, makeRename("b"));
    expect(missingFor(long, short.heads).map(({ name }) => name)).toEqual(["a", "b"]);
    expect(missingFor(long, long.heads)).toEqual([]);
    expect(missingFor(long, ["unknown"])).toHaveLength(3);
    const stored = long.nodes.map(({ hash, operation }) => {
      const read = decodeOperation(encodeOperation(operation));
      if (!read.ok) throw new Error(read.error.message);
      return { hash, operation: read.value };
    });
    const again = replay(long.groupId, stored);
    expect(again.heads).toEqual(long.heads);
    expect([...again.view.members]).toEqual([...long.view.members]);
  });

  test("two hundred people: made at once it fits one envelope, added one by one it is read back in a moment", () => {
    const people = Array.from({ length: GROUP_MEMBERS_MAX - 1 }, () => createIdentity());
    const whole = begun(people);
    expect(whole.view.members.size).toBe(GROUP_MEMBERS_MAX);
    const create = defined(whole.nodes[0], "a beginning").operation;
    expect(
      encodeOperation({ ...create, people: create.people.map((p) => ({ ...p, name: "n".repeat(64) })) }).length,
    ).toBeLessThan(GROUP_PAGE_BYTES);
    const draft = draftFor(whole, { kind: "add", people: [person(bob)] }, alice.userId, place());
    expect(draft.ok ? null : draft.error.type).toBe("group_full");
    const grown = people.reduce((log, who) => then(log, alice, { kind: "add", people: [person(who)] }), begun([]));
    const startedAt = performance.now();
    const again = replay(grown.groupId, grown.nodes);
    expect(again.view.members.size).toBe(GROUP_MEMBERS_MAX);
    const bytes = grown.nodes.reduce((sum, { operation }) => sum + encodeOperation(operation).length, 0);
    process.stderr.write(
      `a group of ${GROUP_MEMBERS_MAX}, added one by one: ${Math.round(bytes / 1024)} KiB, read back in ${(performance.now() - startedAt).toFixed(1)} ms\n`,
    );
  });
});

const makeRename = (name: string): GroupWish => ({ kind: "rename", name });
