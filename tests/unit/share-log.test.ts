import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { FileIdSchema } from "#shared/base/ids.ts";
import {
  append,
  closingOf,
  decodeList,
  defaultTerms,
  draftFor,
  emptyList,
  encodeList,
  isMember,
  type Limits,
  type ShareDraft,
  type ShareList,
  type ShareOperation,
  type ShareWish,
} from "#shared/shares/share-log.ts";
import { logCrypto, signShareOperation } from "../../src-main/crypto/signed-log.ts";
import { createIdentity, type TestIdentity } from "../support/rendezvous.ts";

const [alice, bob, carol, dave, mallory] = ["alice", "bob", "carol", "dave", "mallory"].map(() => createIdentity()) as [
  TestIdentity,
  TestIdentity,
  TestIdentity,
  TestIdentity,
  TestIdentity,
];
const fileId = v.parse(FileIdSchema, "AAAAAAAAAAAAAAAAAAAAAA");
const empty = emptyList(fileId, alice.userId, logCrypto);

const operation = (list: ShareList, actor: TestIdentity, wish: ShareWish): ShareOperation => {
  const draft = draftFor(list, wish, actor.userId, 1000);
  if (!draft.ok) throw new Error(draft.error.type);
  return signShareOperation(draft.value, actor);
};
const grown = (list: ShareList, actor: TestIdentity, wish: ShareWish): ShareList => {
  const next = append(list, operation(list, actor, wish), logCrypto);
  if (!next.ok) throw new Error(next.error.type);
  return next.value;
};
const errorOf = (list: ShareList, made: ShareOperation): string | null => {
  const next = append(list, made, logCrypto);
  return next.ok ? null : next.error.type;
};
/** What somebody signs who does not ask whether it is allowed. */
const forced = (list: ShareList, actor: TestIdentity, change: Partial<ShareOperation>): ShareOperation => {
  const draft: ShareDraft = {
    ...{ fileId, version: list.version + 1, kind: "add", userIds: [], terms: null, actor: actor.userId, atMs: 1000 },
    ...{ previousHash: list.head, ...change },
  };
  return signShareOperation(draft, actor);
};
const wishToAdd = (...people: TestIdentity[]): ShareWish => ({ kind: "add", userIds: people.map((p) => p.userId) });
const wishToRevoke = (...people: TestIdentity[]): ShareWish => ({
  kind: "revoke",
  userIds: people.map((p) => p.userId),
});
const started = grown(empty, alice, wishToAdd(bob));

describe("the share list", () => {
  test("begins with its owner's operation and with nobody else's", () => {
    expect([...started.members.keys()]).toEqual([bob.userId]);
    expect(isMember(started, alice.userId)).toBe(true);
    expect(errorOf(empty, forced(empty, bob, { userIds: [bob.userId], terms: defaultTerms }))).toBe(
      "share_not_allowed",
    );
    expect(errorOf(empty, forced(empty, alice, { kind: "terms", terms: defaultTerms }))).toBe("share_not_allowed");
  });

  test("grows by members' operations while the owner allows it, and lets everybody leave", () => {
    const added = grown(started, bob, wishToAdd(carol));
    expect(added.members.get(carol.userId)).toEqual({ sinceMs: 1000, addedBy: bob.userId });
    expect([...grown(added, carol, { kind: "leave" }).members.keys()]).toEqual([bob.userId]);
    const terms = { ...defaultTerms, membersMayAdd: false };
    const closed = grown(added, alice, { kind: "terms", terms });
    expect(errorOf(closed, forced(closed, bob, { userIds: [dave.userId] }))).toBe("share_not_allowed");
    expect(isMember(grown(closed, alice, wishToAdd(dave)), dave.userId)).toBe(true);
    expect(errorOf(added, forced(added, bob, { kind: "terms", terms }))).toBe("share_not_allowed");
  });

  test("lets only the owner take access back, and only the owner give it again", () => {
    const both = grown(started, alice, wishToAdd(carol));
    const revoked = grown(both, alice, wishToRevoke(carol));
    expect(isMember(revoked, carol.userId)).toBe(false);
    expect(errorOf(revoked, forced(revoked, bob, { userIds: [carol.userId] }))).toBe("share_not_allowed");
    expect(errorOf(both, forced(both, bob, { kind: "revoke", userIds: [carol.userId] }))).toBe("share_not_allowed");
    // A revoked member has no say any more, not even about others.
    expect(errorOf(revoked, forced(revoked, carol, { userIds: [dave.userId] }))).toBe("share_not_allowed");
    const again = grown(revoked, alice, wishToAdd(carol));
    expect(isMember(again, carol.userId)).toBe(true);
    // Whoever left may be added by anybody again: it was nobody's decision but theirs.
    const left = grown(again, carol, { kind: "leave" });
    expect(isMember(grown(left, bob, wishToAdd(carol)), carol.userId)).toBe(true);
  });

  test.each<[string, (list: ShareList) => ShareOperation, string]>([
    ["a stranger adds himself", (l) => forced(l, mallory, { userIds: [mallory.userId] }), "share_not_allowed"],
    ["a stranger leaves", (l) => forced(l, mallory, { kind: "leave", userIds: [mallory.userId] }), "share_no_change"],
    [
      "somebody leaves for another",
      (l) => forced(l, mallory, { kind: "leave", userIds: [bob.userId] }),
      "share_not_allowed",
    ],
    ["the owner leaves", (l) => forced(l, alice, { kind: "leave", userIds: [] }), "share_not_allowed"],
    ["an older version comes again", () => operation(empty, alice, wishToAdd(bob)), "share_conflict"],
    ["a version is left out", (l) => forced(l, alice, { version: 3, userIds: [carol.userId] }), "share_conflict"],
    [
      "another history",
      (l) => forced(l, alice, { previousHash: new Uint8Array(32), userIds: [carol.userId] }),
      "share_conflict",
    ],
    ["people twice", (l) => forced(l, alice, { userIds: [carol.userId, carol.userId] }), "share_malformed"],
    ["the owner is named", (l) => forced(l, alice, { userIds: [alice.userId] }), "share_malformed"],
    [
      "terms in another operation",
      (l) => forced(l, alice, { userIds: [carol.userId], terms: defaultTerms }),
      "share_malformed",
    ],
    ["nobody is added", (l) => forced(l, alice, {}), "share_no_change"],
    [
      "another file",
      (l) => forced(l, alice, { fileId: v.parse(FileIdSchema, "BBBBBBBBBBBBBBBBBBBBBA") }),
      "share_malformed",
    ],
  ])("refuses: %s", (_what, make, expected) => {
    expect(errorOf(started, make(started))).toBe(expected);
  });

  test("refuses an operation whose signature or key is another's, or that was altered", () => {
    const good = operation(started, alice, wishToAdd(carol));
    expect(errorOf(started, good)).toBeNull();
    expect(errorOf(started, { ...good, userIds: [dave.userId] })).toBe("share_forged");
    expect(errorOf(started, { ...good, atMs: 2000 })).toBe("share_forged");
    // Mallory signs in Alice's name with his own key.
    expect(errorOf(started, signShareOperation({ ...good }, mallory))).toBe("share_forged");
    expect(errorOf(started, { ...good, actorKey: mallory.accountKey })).toBe("share_forged");
  });

  test("crossing race: of two members who share at the same moment both get their way, one after the other", () => {
    const both = grown(started, alice, wishToAdd(carol));
    const first = operation(both, bob, wishToAdd(dave));
    const second = operation(both, carol, wishToAdd(mallory));
    const list = defined(append(both, first, logCrypto).ok ? grown(both, bob, wishToAdd(dave)) : null, "list");
    expect(errorOf(list, second)).toBe("share_conflict");
    const merged = grown(list, carol, wishToAdd(mallory));
    expect([...merged.members.keys()].sort()).toEqual([bob, carol, dave, mallory].map((p) => p.userId).sort());
  });

  test("ends when its owner withdraws the file: everybody is out, and nothing follows", () => {
    const both = grown(started, alice, wishToAdd(carol));
    expect(errorOf(both, forced(both, bob, { kind: "withdraw" }))).toBe("share_not_allowed");
    expect(errorOf(both, forced(both, alice, { kind: "withdraw", userIds: [bob.userId] }))).toBe("share_malformed");
    const withdrawn = grown(both, alice, { kind: "withdraw" });
    expect(withdrawn).toMatchObject({ withdrawn: true, members: new Map() });
    expect(decodeList(encodeList(withdrawn))).toEqual({ ok: true, value: withdrawn });
    for (const [actor, wish] of [
      [alice, wishToAdd(dave)],
      [alice, { kind: "terms", terms: defaultTerms }],
      [alice, { kind: "withdraw" }],
    ] as const)
      expect(draftFor(withdrawn, wish, actor.userId, 1000)).toMatchObject({ error: { type: "share_not_allowed" } });
    expect(errorOf(withdrawn, forced(withdrawn, bob, { userIds: [dave.userId] }))).toBe("share_not_allowed");
  });

  test.each<[Partial<Limits>, number, number, boolean, ReturnType<typeof closingOf>]>([
    [{}, 1e15, 1000, false, null],
    [{ expiresAtMs: 2000 }, 1999, 0, false, null],
    [{ expiresAtMs: 2000 }, 2000, 0, true, "expired"],
    [{ downloadLimit: 2 }, 0, 1, false, null],
    [{ downloadLimit: 2 }, 0, 2, false, "limit_reached"],
    // Whoever is one of them may fetch it again.
    [{ downloadLimit: 2 }, 0, 2, true, null],
    [{ withdrawn: true, expiresAtMs: 2000 }, 1, 0, true, "withdrawn"],
  ])("%j at %d with %d downloads, own one %s: %s", (limits, nowMs, downloads, hasIt, expected) => {
    const all = { withdrawn: false, expiresAtMs: null, downloadLimit: null, ...limits };
    expect(closingOf(all, nowMs, downloads, hasIt)).toBe(expected);
  });

  test("is the same after it was written down", () => {
    const list = grown(grown(started, alice, wishToAdd(carol)), alice, wishToRevoke(bob));
    expect(decodeList(encodeList(list))).toEqual({ ok: true, value: list });
  });
});
