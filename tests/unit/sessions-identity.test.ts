import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { toHex } from "#shared/base/bytes.ts";
import {
  connect,
  createSessionPeer,
  openText,
  type SessionPeer,
  sealText,
  storedState,
  text,
  typeOf,
  unwrap,
} from "../support/session-peer.ts";

let alice: SessionPeer;
let bob: SessionPeer;
/** Bob's account on a new installation: another identity key. */
let newBob: SessionPeer;
beforeEach(async () => {
  alice = await createSessionPeer();
  bob = await createSessionPeer();
  newBob = await createSessionPeer({ sameAccountAs: bob });
  expect(newBob.userId).toBe(bob.userId);
});
afterEach(() => {
  for (const peer of [alice, bob, newBob]) peer.dispose();
});

const hexOf = (key: Uint8Array | null): string | null => (key === null ? null : toHex(key));
const identityOf = (peer: SessionPeer, of: SessionPeer) => {
  const { trusted, changedTo } = peer.sessions.identity(of.userId);
  return { trusted: hexOf(trusted), changedTo: hexOf(changedTo) };
};
const keyOf = (peer: SessionPeer): string => toHex(peer.sessions.localIdentityKey);
const trySeal = async (): Promise<string> => {
  let called = false;
  const result = await alice.sessions.seal(bob.userId, text("secret"), () => {
    called = true;
  });
  expect(called).toBe(result.ok);
  return typeOf(result);
};
const firstMessageOf = async (peer: SessionPeer, value: string) => {
  unwrap(await peer.sessions.start(alice.userId, await alice.bundle()));
  return sealText(peer, alice, value);
};

describe("an identity key", () => {
  test("is trusted on first use by start", async () => {
    expect(identityOf(alice, bob)).toEqual({ trusted: null, changedTo: null });
    unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
    expect(identityOf(alice, bob)).toEqual({ trusted: keyOf(bob), changedTo: null });
  });

  test("gives two people one secret that nobody else has, until one of them has another key", async () => {
    expect(alice.sessions.pairwiseSecret(bob.userId)).toBeNull();
    unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
    unwrap(await openText(bob, alice, await sealText(alice, bob, "hello")));
    const secret = hexOf(alice.sessions.pairwiseSecret(bob.userId));
    expect(secret).toMatch(/^[0-9a-f]{64}$/);
    expect(hexOf(bob.sessions.pairwiseSecret(alice.userId))).toBe(secret);

    const changed = await firstMessageOf(newBob, "from another computer");
    expect(hexOf(newBob.sessions.pairwiseSecret(alice.userId))).not.toBe(secret);
    expect(typeOf(await openText(alice, bob, changed))).toBe("identity_changed");
    expect(alice.sessions.pairwiseSecret(bob.userId)).toBeNull();
  });

  test("is trusted on first use by the first message that opens, and not by one that does not", async () => {
    const first = await firstMessageOf(bob, "hello");
    const broken = { kind: first.kind, body: new Uint8Array(first.body) };
    broken.body[broken.body.length - 1] = (broken.body.at(-1) ?? 0) ^ 1;
    expect(typeOf(await openText(alice, bob, broken))).toBe("undecryptable");
    expect(identityOf(alice, bob)).toEqual({ trusted: null, changedTo: null });
    expect(unwrap(await openText(alice, bob, first))).toBe("hello");
    expect(identityOf(alice, bob)).toEqual({ trusted: keyOf(bob), changedTo: null });
  });

  test("that is another one than in the invitation is refused", async () => {
    const bundle = await newBob.bundle();
    const started = await alice.sessions.start(bob.userId, bundle, bob.sessions.localIdentityKey);
    expect(typeOf(started)).toBe("bad_bundle");
    expect(identityOf(alice, bob)).toEqual({ trusted: null, changedTo: null });
    unwrap(await alice.sessions.start(bob.userId, bundle, newBob.sessions.localIdentityKey));
  });
});

describe("a changed identity", () => {
  test("seen in a message blocks both directions until it is accepted, loses nothing, and outlives a restart", async () => {
    await connect(alice, bob);
    const oldNumber = alice.sessions.safetyNumber(bob.userId);
    const first = await firstMessageOf(newBob, "it is me, with a new computer");
    for (let tries = 0; tries < 2; tries++) {
      expect(typeOf(await openText(alice, bob, first))).toBe("identity_changed");
      expect(await trySeal()).toBe("identity_changed");
      expect(identityOf(alice, bob)).toEqual({ trusted: keyOf(bob), changedTo: keyOf(newBob) });
      expect(alice.sessions.safetyNumber(bob.userId)).not.toBe(oldNumber);
      expect(alice.sessions.safetyNumber(bob.userId)).toBe(newBob.sessions.safetyNumber(alice.userId));
      await alice.reopen();
    }

    unwrap(await alice.sessions.acceptChangedIdentity(bob.userId));
    expect(identityOf(alice, bob)).toEqual({ trusted: keyOf(newBob), changedTo: null });
    expect(await trySeal()).toBe("no_session");
    expect(unwrap(await openText(alice, bob, first))).toBe("it is me, with a new computer");
    expect(unwrap(await openText(newBob, alice, await sealText(alice, newBob, "welcome back")))).toBe("welcome back");
    expect(alice.sessions.safetyNumber(bob.userId)).not.toBe(oldNumber);
    expect(newBob.sessions.safetyNumber(alice.userId)).toBe(alice.sessions.safetyNumber(bob.userId));
  });

  test("seen in a bundle blocks in the same way", async () => {
    await connect(alice, bob);
    expect(typeOf(await alice.sessions.start(bob.userId, await newBob.bundle()))).toBe("identity_changed");
    expect(identityOf(alice, bob)).toEqual({ trusted: keyOf(bob), changedTo: keyOf(newBob) });
    expect(await trySeal()).toBe("identity_changed");
    expect(typeOf(await alice.sessions.start(bob.userId, await bob.bundle()))).toBe("identity_changed");

    unwrap(await alice.sessions.acceptChangedIdentity(bob.userId));
    unwrap(await alice.sessions.start(bob.userId, await newBob.bundle()));
    expect(unwrap(await openText(newBob, alice, await sealText(alice, newBob, "hello")))).toBe("hello");
  });

  test("does not lose what the trusted key had sent before", async () => {
    await connect(alice, bob);
    const onItsWay = await sealText(bob, alice, "sent before the change");
    expect(typeOf(await openText(alice, bob, await firstMessageOf(newBob, "new")))).toBe("identity_changed");
    expect(unwrap(await openText(alice, bob, onItsWay))).toBe("sent before the change");
  });

  test.each([["one-time keys"], ["the last-resort key"]])(
    "cannot be made up by a message that does not open, nor by an old one (with %s) after acceptance",
    async (kind) => {
      const bundle = kind === "one-time keys" ? await alice.bundle() : await alice.bundleWithoutOneTimeKeys();
      unwrap(await bob.sessions.start(alice.userId, bundle));
      const old = await sealText(bob, alice, "old");
      expect(unwrap(await openText(alice, bob, old))).toBe("old");
      const first = await firstMessageOf(newBob, "new");
      const broken = { kind: first.kind, body: new Uint8Array(first.body) };
      broken.body[broken.body.length - 1] = (broken.body.at(-1) ?? 0) ^ 1;
      const before = storedState(alice);
      expect(typeOf(await openText(alice, bob, broken))).toBe("undecryptable");
      expect(storedState(alice)).toEqual(before);

      expect(typeOf(await openText(alice, bob, first))).toBe("identity_changed");
      unwrap(await alice.sessions.acceptChangedIdentity(bob.userId));
      expect(unwrap(await openText(alice, bob, first))).toBe("new");
      expect(typeOf(await openText(alice, bob, old))).toBe("undecryptable");
      expect(identityOf(alice, bob)).toEqual({ trusted: keyOf(newBob), changedTo: null });
    },
  );

  test("in the middle of 200 messages lets nothing through to the new key", async () => {
    await connect(alice, bob);
    const bundle = await newBob.bundle();
    const results = await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        if (i === 100) return typeOf(await alice.sessions.start(bob.userId, bundle));
        return trySeal();
      }),
    );
    const changedAt = results.indexOf("identity_changed");
    expect(changedAt).toBe(100);
    expect(results.slice(changedAt).filter((type) => type === "ok")).toEqual([]);
    expect(await trySeal()).toBe("identity_changed");
  });

  test("that did not happen cannot be accepted", async () => {
    await connect(alice, bob);
    const before = storedState(alice);
    unwrap(await alice.sessions.acceptChangedIdentity(bob.userId));
    expect(storedState(alice)).toEqual(before);
    expect(await trySeal()).toBe("ok");
  });
});
