import * as v from "valibot";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  PREKEY_ARCHIVE_MS,
  PREKEY_BATCH,
  PREKEYS_KEPT,
  PREKEYS_UNUSED_MAX,
  SIGNED_PREKEY_ROTATE_MS,
  SIGNED_PREKEYS_KEPT,
} from "#shared/base/limits.ts";
import { deviceKeysSigningBytes, requests } from "#shared/rendezvous/protocol.ts";
import { verifyAccountSignature } from "../../src-main/crypto/identity.ts";
import { KeyUsedError, SignalRepository } from "../../src-main/store/signal.ts";
import {
  createSessionPeer,
  ONE_TIME_KEYS,
  openText,
  type SessionPeer,
  sealText,
  storedState,
  typeOf,
  unwrap,
} from "../support/session-peer.ts";

const DAY_MS = 24 * 3600 * 1000;
const EMPTY = { oneTimeEc: 0, oneTimeKyber: 0 };
const FULL = { oneTimeEc: PREKEY_BATCH, oneTimeKyber: PREKEY_BATCH };

let alice: SessionPeer;
let bob: SessionPeer;
beforeEach(async () => {
  [alice, bob] = await Promise.all([createSessionPeer(), createSessionPeer()]);
});
afterEach(() => {
  for (const peer of [alice, bob]) peer.dispose();
});

const count = (peer: SessionPeer, sql: string): number =>
  Number(peer.db.sql.prepare(`SELECT count(*) FROM ${sql}`).pluck().get());
const idsOf = (keys: readonly { id: number }[]): number[] => keys.map((key) => key.id);

describe("keys to publish", () => {
  test("are a whole valid publication at first, and the long-lived part only when the server is full", async () => {
    const first = await bob.sessions.keysToPublish(EMPTY);
    expect(v.is(requests["keys.publish"].input, first)).toBe(true);
    expect([first.oneTimeEc.length, first.oneTimeKyber.length]).toEqual([PREKEY_BATCH, PREKEY_BATCH]);
    const { signature, ...keys } = first.keys;
    expect(verifyAccountSignature(bob.account.accountKey, deviceKeysSigningBytes(keys, bob.userId, 1), signature)).toBe(
      true,
    );
    const second = await bob.sessions.keysToPublish(FULL);
    expect([second.oneTimeEc.length, second.oneTimeKyber.length]).toEqual([0, 0]);
    expect(second.keys).toEqual(first.keys);
  });

  test("fill the server up, never beyond a batch whatever the server says", async () => {
    const some = await bob.sessions.keysToPublish({ oneTimeEc: 93, oneTimeKyber: 40 });
    expect([some.oneTimeEc.length, some.oneTimeKyber.length]).toEqual([7, 60]);
    const absurd = await bob.sessions.keysToPublish({ oneTimeEc: -1000, oneTimeKyber: 1e9 });
    expect([absurd.oneTimeEc.length, absurd.oneTimeKyber.length]).toEqual([PREKEY_BATCH, 0]);
  });

  test("have their private halves stored before they are handed out", async () => {
    const keys = await bob.sessions.keysToPublish(EMPTY);
    await bob.reopen();
    const repository = new SignalRepository(bob.db, 1);
    for (const id of idsOf(keys.oneTimeEc)) expect(repository.preKey(id)).not.toBe(null);
    for (const id of idsOf(keys.oneTimeKyber)) expect(repository.kyberPreKey(id)?.lastResort).toBe(false);
    expect(repository.signedPreKey(keys.keys.signedPreKey.id)).not.toBe(null);
    expect(repository.kyberPreKey(keys.keys.lastResortKyber.id)?.lastResort).toBe(true);
  });

  test("asked for twice at once rotate once and share no id", async () => {
    const [a, b] = await Promise.all([bob.sessions.keysToPublish(EMPTY), bob.sessions.keysToPublish(EMPTY)]);
    expect(a.keys).toEqual(b.keys);
    expect(new Set(idsOf([...a.oneTimeEc, ...b.oneTimeEc])).size).toBe(2 * PREKEY_BATCH);
    expect(new Set(idsOf([...a.oneTimeKyber, ...b.oneTimeKyber])).size).toBe(2 * PREKEY_BATCH);
  });
});

describe("ids of keys", () => {
  test("never repeat, skip 0 at the wrap of 24 bits, and skip keys that are still there", () => {
    const repository = new SignalRepository(bob.db, 1);
    repository.insertOneTimeKeys([{ id: 2, record: new Uint8Array(1) }], [], 0);
    expect(repository.takeKeyIds("ec", 5, () => 0xfffffe)).toEqual([0xfffffe, 0xffffff, 1, 3, 4]);
    expect(repository.takeKeyIds("ec", 2, () => 0xfffffe)).toEqual([5, 6]);
    expect(repository.takeKeyIds("kyber", 1, () => 9)).toEqual([9]);
  });

  test("are not given again after a restart or after the key was used", async () => {
    const seen = new Set<number>();
    for (let round = 0; round < 5; round++) {
      for (const id of idsOf((await bob.sessions.keysToPublish(EMPTY)).oneTimeEc)) {
        expect(seen.has(id)).toBe(false);
        seen.add(id);
      }
      bob.db.sql.exec("DELETE FROM signal_prekeys");
      await bob.reopen();
    }
    expect(seen.size).toBe(5 * PREKEY_BATCH);
  });
});

describe("rotation", () => {
  test("comes when due and not before, also when the clock was set back", async () => {
    const first = await bob.sessions.keysToPublish(FULL);
    bob.advance(SIGNED_PREKEY_ROTATE_MS - 1);
    expect((await bob.sessions.keysToPublish(FULL)).keys).toEqual(first.keys);
    bob.advance(1);
    const second = await bob.sessions.keysToPublish(FULL);
    expect(second.keys.signedPreKey.id).not.toBe(first.keys.signedPreKey.id);
    expect(second.keys.lastResortKyber.id).not.toBe(first.keys.lastResortKyber.id);
    bob.advance(-10 * SIGNED_PREKEY_ROTATE_MS);
    expect((await bob.sessions.keysToPublish(FULL)).keys).not.toEqual(second.keys);
  });

  test("keeps old keys for messages on their way, at least the newest few, and not for ever", async () => {
    const bundle = await bob.bundleWithoutOneTimeKeys();
    unwrap(await alice.sessions.start(bob.userId, bundle));
    const late = await sealText(alice, bob, "three weeks in the mailbox");
    for (let days = 0; days < 21; days += 1.5) {
      bob.advance(SIGNED_PREKEY_ROTATE_MS);
      await bob.sessions.keysToPublish(FULL);
    }
    expect(unwrap(await openText(bob, alice, late))).toBe("three weeks in the mailbox");

    bob.advance(60 * DAY_MS);
    await bob.sessions.keysToPublish(FULL);
    await bob.sessions.keysToPublish(FULL);
    expect(count(bob, "signal_signed_prekeys")).toBe(1 + SIGNED_PREKEYS_KEPT);
    expect(count(bob, "signal_kyber_prekeys WHERE last_resort = 1")).toBe(1 + SIGNED_PREKEYS_KEPT);
    expect(count(bob, "signal_kyber_uses")).toBe(0);
  });
});

describe("unused one-time keys", () => {
  test("are bounded when a server never confirms, and what it confirmed stays", async () => {
    const confirmed = await bob.sessions.keysToPublish(EMPTY);
    bob.sessions.published(confirmed);
    for (let round = 0; round < 2 * (PREKEYS_UNUSED_MAX / PREKEY_BATCH); round++) {
      bob.advance(1000);
      await bob.sessions.keysToPublish({ ...EMPTY, oneTimeKyber: round < 30 ? PREKEY_BATCH : 0 });
    }
    expect(count(bob, "signal_prekeys")).toBe(PREKEYS_UNUSED_MAX);
    expect(count(bob, "signal_kyber_prekeys WHERE last_resort = 0")).toBeLessThanOrEqual(PREKEYS_UNUSED_MAX);
    const repository = new SignalRepository(bob.db, 1);
    for (const id of idsOf(confirmed.oneTimeEc)) expect(repository.preKey(id)).not.toBe(null);
    for (const id of idsOf(confirmed.oneTimeKyber)) expect(repository.kyberPreKey(id)).not.toBe(null);
  });

  test("go after 90 days, but never the newest", async () => {
    for (let round = 0; round < 4; round++) {
      bob.sessions.published(await bob.sessions.keysToPublish(EMPTY));
      bob.advance(1000);
    }
    bob.advance(PREKEY_ARCHIVE_MS - 3000);
    await bob.sessions.keysToPublish(FULL);
    expect(count(bob, "signal_prekeys")).toBe(3 * PREKEY_BATCH);
    bob.advance(PREKEY_ARCHIVE_MS);
    await bob.sessions.keysToPublish(FULL);
    expect(count(bob, "signal_prekeys")).toBe(PREKEYS_KEPT);
    expect(count(bob, "signal_kyber_prekeys WHERE last_resort = 0")).toBe(PREKEYS_KEPT);
  });
});

describe("a used key", () => {
  test("that is one-time is gone, both kinds", async () => {
    const bundle = await bob.bundle();
    unwrap(await alice.sessions.start(bob.userId, bundle));
    unwrap(await openText(bob, alice, await sealText(alice, bob, "hello")));
    const repository = new SignalRepository(bob.db, 1);
    expect(repository.preKey(bundle.oneTimeEc?.id ?? 0)).toBe(null);
    expect(repository.kyberPreKey(bundle.oneTimeKyber?.id ?? 0)).toBe(null);
    expect(count(bob, "signal_prekeys")).toBe(ONE_TIME_KEYS - 1);
  });

  test("that the server gave to two people opens for one of them, also when both messages come at once", async () => {
    const carol = await createSessionPeer();
    try {
      const bundle = await bob.bundle();
      const messages = [];
      for (const peer of [alice, carol]) {
        unwrap(await peer.sessions.start(bob.userId, bundle));
        messages.push(await sealText(peer, bob, "hello"));
      }
      const [fromAlice, fromCarol] = messages;
      if (fromAlice === undefined || fromCarol === undefined) throw new Error("two messages");
      const results = await Promise.all([openText(bob, alice, fromAlice), openText(bob, carol, fromCarol)]);
      expect(results.map(typeOf).sort()).toEqual(["ok", "undecryptable"]);
      const refused = results[0]?.ok ? carol : alice;
      expect(bob.sessions.identity(refused.userId).trusted).toBe(null);
      expect(bob.sessions.hasSession(refused.userId)).toBe(false);
    } finally {
      carol.dispose();
    }
  });

  test("is refused by the store when another message took it after it was read", () => {
    const repository = new SignalRepository(bob.db, 1);
    const change = {
      session: new Uint8Array(1),
      identity: null,
      usedPreKeys: [5],
      usedKyberPreKeys: [],
      lastResortUses: [],
    };
    const before = storedState(bob);
    expect(() => bob.db.transaction(() => repository.apply(alice.userId, change))).toThrow(KeyUsedError);
    expect(storedState(bob)).toEqual(before);
  });

  test("of last resort is refused with the same keys again, 50 times of 50, over restarts", async () => {
    for (let round = 0; round < 50; round++) {
      unwrap(await alice.sessions.start(bob.userId, await bob.bundleWithoutOneTimeKeys()));
      const first = await sealText(alice, bob, "last resort");
      expect(unwrap(await openText(bob, alice, first))).toBe("last resort");
      await bob.sessions.forget(alice.userId);
      await alice.sessions.forget(bob.userId);
      if (round % 10 === 0) await bob.reopen();
      expect(typeOf(await openText(bob, alice, first))).toBe("undecryptable");
    }
    expect(count(bob, "signal_kyber_uses")).toBe(50);
  });
});
