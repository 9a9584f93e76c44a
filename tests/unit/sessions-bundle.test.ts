import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { PreKeyBundle } from "#shared/rendezvous/protocol.ts";
import { deviceKeysSigningBytes } from "#shared/rendezvous/protocol.ts";
import {
  createSessionPeer,
  openText,
  type SessionPeer,
  sealText,
  storedState,
  typeOf,
  unwrap,
} from "../support/session-peer.ts";

let alice: SessionPeer;
let bob: SessionPeer;
let mallory: SessionPeer;
beforeEach(async () => {
  [alice, bob, mallory] = await Promise.all([createSessionPeer(), createSessionPeer(), createSessionPeer()]);
});
afterEach(() => {
  for (const peer of [alice, bob, mallory]) peer.dispose();
});

type Change = (bundle: PreKeyBundle, others: PreKeyBundle) => PreKeyBundle;
const flipped = (bytes: Uint8Array, at: number): Uint8Array<ArrayBuffer> => {
  const copy = new Uint8Array(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
};
const withKeys = (bundle: PreKeyBundle, keys: Partial<PreKeyBundle["keys"]>): PreKeyBundle => ({
  ...bundle,
  keys: { ...bundle.keys, ...keys },
});
const oneTimeKyber = (bundle: PreKeyBundle) => {
  if (bundle.oneTimeKyber === null) throw new Error("the test needs a one-time key");
  return bundle.oneTimeKyber;
};

/** What a hostile server could change. Signatures by the account that it does not have stay as they are. */
const changes: [string, Change][] = [
  ["userId", (b, m) => ({ ...b, userId: m.userId })],
  ["deviceId", (b) => ({ ...b, deviceId: 2 })],
  ["accountKey", (b, m) => ({ ...b, accountKey: m.accountKey })],
  ["accountKey that is no key", (b) => ({ ...b, accountKey: new Uint8Array(32).fill(0xff) })],
  ["accountKey of another length", (b) => ({ ...b, accountKey: new Uint8Array(0) })],
  ["keys", (b, m) => ({ ...b, keys: m.keys })],
  ["keys.registrationId", (b) => withKeys(b, { registrationId: (b.keys.registrationId % 0x3fff) + 1 })],
  ["keys.identityKey", (b, m) => withKeys(b, { identityKey: m.keys.identityKey })],
  ["keys.signature", (b) => withKeys(b, { signature: flipped(b.keys.signature, 5) })],
  ["keys.signature of another account", (b, m) => withKeys(b, { signature: m.keys.signature })],
  ["keys.signedPreKey", (b, m) => withKeys(b, { signedPreKey: m.keys.signedPreKey })],
  ["keys.signedPreKey.id", (b) => withKeys(b, { signedPreKey: { ...b.keys.signedPreKey, id: 77 } })],
  [
    "keys.signedPreKey.key",
    (b) => withKeys(b, { signedPreKey: { ...b.keys.signedPreKey, key: flipped(b.keys.signedPreKey.key, 9) } }),
  ],
  [
    "keys.signedPreKey.signature",
    (b) =>
      withKeys(b, { signedPreKey: { ...b.keys.signedPreKey, signature: flipped(b.keys.signedPreKey.signature, 9) } }),
  ],
  ["keys.lastResortKyber", (b, m) => withKeys(b, { lastResortKyber: m.keys.lastResortKyber })],
  ["keys.lastResortKyber.id", (b) => withKeys(b, { lastResortKyber: { ...b.keys.lastResortKyber, id: 77 } })],
  [
    "keys.lastResortKyber.key",
    (b) =>
      withKeys(b, { lastResortKyber: { ...b.keys.lastResortKyber, key: flipped(b.keys.lastResortKyber.key, 99) } }),
  ],
  [
    "keys.lastResortKyber.signature",
    (b) =>
      withKeys(b, {
        lastResortKyber: { ...b.keys.lastResortKyber, signature: flipped(b.keys.lastResortKyber.signature, 9) },
      }),
  ],
  ["oneTimeKyber", (b, m) => ({ ...b, oneTimeKyber: m.oneTimeKyber })],
  ["oneTimeKyber.key", (b) => ({ ...b, oneTimeKyber: { ...oneTimeKyber(b), key: flipped(oneTimeKyber(b).key, 99) } })],
  [
    "oneTimeKyber.signature",
    (b) => ({ ...b, oneTimeKyber: { ...oneTimeKyber(b), signature: flipped(oneTimeKyber(b).signature, 0) } }),
  ],
  ["oneTimeKyber.key that is no key", (b) => ({ ...b, oneTimeKyber: { ...oneTimeKyber(b), key: new Uint8Array(3) } })],
  ["oneTimeEc.key that is no key", (b) => ({ ...b, oneTimeEc: { id: 1, key: new Uint8Array(33) } })],
];

describe("a bundle", () => {
  test.each(changes)("with a changed %s is refused, and nothing is stored", async (_name, change) => {
    const bundle = await bob.bundle();
    const before = storedState(alice);
    const tampered = change(bundle, await mallory.bundle());
    expect(typeOf(await alice.sessions.start(bob.userId, tampered))).toBe("bad_bundle");
    expect(storedState(alice)).toEqual(before);
    expect(alice.sessions.hasSession(bob.userId)).toBe(false);
    unwrap(await alice.sessions.start(bob.userId, bundle));
    expect(unwrap(await openText(bob, alice, await sealText(alice, bob, "genuine")))).toBe("genuine");
  });

  test("of another person is not one of this person", async () => {
    expect(typeOf(await alice.sessions.start(bob.userId, await mallory.bundle()))).toBe("bad_bundle");
  });

  test("that is signed throughout, but by another account than the user id says, is refused", async () => {
    const bundle = await mallory.bundle();
    const signature = mallory.account.sign(deviceKeysSigningBytes(bundle.keys, bob.userId, 1));
    const forged = { ...withKeys(bundle, { signature }), userId: bob.userId };
    expect(typeOf(await alice.sessions.start(bob.userId, forged))).toBe("bad_bundle");
    expect(alice.sessions.hasSession(bob.userId)).toBe(false);
  });

  test("whose account vouches for a foreign prekey is refused by the identity key's signature", async () => {
    const bundle = await bob.bundle();
    const keys = { ...bundle.keys, signedPreKey: (await mallory.bundle()).keys.signedPreKey };
    const signature = bob.account.sign(deviceKeysSigningBytes(keys, bob.userId, 1));
    expect(typeOf(await alice.sessions.start(bob.userId, withKeys(bundle, { ...keys, signature })))).toBe("bad_bundle");
  });

  test("with a swapped one-time EC key, which nobody signs, makes a message that does not open and can be sent anew", async () => {
    const bundle = await bob.bundle();
    const swapped = {
      ...bundle,
      oneTimeEc: { id: bundle.oneTimeEc?.id ?? 1, key: (await mallory.bundle()).keys.signedPreKey.key },
    };
    unwrap(await alice.sessions.start(bob.userId, swapped));
    const before = storedState(bob);
    expect(typeOf(await openText(bob, alice, await sealText(alice, bob, "lost")))).toBe("undecryptable");
    expect(storedState(bob)).toEqual(before);
    await alice.sessions.forget(bob.userId);
    unwrap(await alice.sessions.start(bob.userId, bundle));
    expect(unwrap(await openText(bob, alice, await sealText(alice, bob, "again")))).toBe("again");
  });

  test("without one-time keys works with the last-resort key", async () => {
    unwrap(await alice.sessions.start(bob.userId, await bob.bundleWithoutOneTimeKeys()));
    expect(unwrap(await openText(bob, alice, await sealText(alice, bob, "last resort")))).toBe("last resort");
  });
});
