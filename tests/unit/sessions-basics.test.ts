import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  connect,
  createSessionPeer,
  openText,
  type SessionPeer,
  sealText,
  typeOf,
  unwrap,
} from "../support/session-peer.ts";

let alice: SessionPeer;
let bob: SessionPeer;
beforeEach(async () => {
  alice = await createSessionPeer();
  bob = await createSessionPeer();
});
afterEach(() => {
  alice.dispose();
  bob.dispose();
});

describe("a session", () => {
  test("goes both ways and outlives restarts of both sides", async () => {
    expect(alice.sessions.hasSession(bob.userId)).toBe(false);
    await connect(alice, bob);
    expect(alice.sessions.hasSession(bob.userId)).toBe(true);
    for (let round = 0; round < 5; round++) {
      const first = await sealText(alice, bob, `to bob ${round}`);
      await bob.reopen();
      expect(unwrap(await openText(bob, alice, first))).toBe(`to bob ${round}`);
      const second = await sealText(bob, alice, `to alice ${round}`);
      await alice.reopen();
      expect(unwrap(await openText(alice, bob, second))).toBe(`to alice ${round}`);
      expect(second.kind).toBe("message");
    }
  });

  test("has no ciphertext without a start", async () => {
    let called = false;
    const sealed = await alice.sessions.seal(bob.userId, new Uint8Array(1), () => {
      called = true;
    });
    expect(typeOf(sealed)).toBe("no_session");
    expect(called).toBe(false);
  });

  test("is needed for a message that is no prekey message", async () => {
    await connect(alice, bob);
    const sealed = await sealText(alice, bob, "after the session");
    expect(sealed.kind).toBe("message");
    await bob.sessions.forget(alice.userId);
    expect(typeOf(await openText(bob, alice, sealed))).toBe("no_session");
  });

  test("started by both sides at once becomes one", async () => {
    unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
    unwrap(await bob.sessions.start(alice.userId, await alice.bundle()));
    const [fromAlice, fromBob] = [await sealText(alice, bob, "a"), await sealText(bob, alice, "b")];
    expect(unwrap(await openText(bob, alice, fromAlice))).toBe("a");
    expect(unwrap(await openText(alice, bob, fromBob))).toBe("b");
    for (let round = 0; round < 5; round++) {
      expect(unwrap(await openText(bob, alice, await sealText(alice, bob, `a${round}`)))).toBe(`a${round}`);
      expect(unwrap(await openText(alice, bob, await sealText(bob, alice, `b${round}`)))).toBe(`b${round}`);
    }
  });

  test("that is there is kept when a bundle comes again", async () => {
    await connect(alice, bob);
    unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
    expect((await sealText(alice, bob, "same session")).kind).toBe("message");
  });

  test("that the peer never answered ends after 30 days and can be started again", async () => {
    unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
    alice.advance(31 * 24 * 3600 * 1000);
    expect(alice.sessions.hasSession(bob.userId)).toBe(false);
    expect(typeOf(await alice.sessions.seal(bob.userId, new Uint8Array(1), () => undefined))).toBe("no_session");
    unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
    expect(unwrap(await openText(bob, alice, await sealText(alice, bob, "again")))).toBe("again");
  });

  test("is gone after forget, and so is the identity", async () => {
    await connect(alice, bob);
    await alice.sessions.forget(bob.userId);
    expect(alice.sessions.hasSession(bob.userId)).toBe(false);
    expect(alice.sessions.identity(bob.userId)).toEqual({ trusted: null, changedTo: null });
    expect(alice.sessions.safetyNumber(bob.userId)).toBe(null);
  });
});

describe("a safety number", () => {
  test("is 60 digits, the same on both sides, and another one for each pair", async () => {
    const carol = await createSessionPeer();
    try {
      expect(alice.sessions.safetyNumber(bob.userId)).toBe(null);
      expect(alice.sessions.safetyCode(bob.userId)).toBe(null);
      await connect(alice, bob);
      await connect(alice, carol);
      const number = alice.sessions.safetyNumber(bob.userId);
      expect(number).toMatch(/^[0-9]{60}$/);
      expect(bob.sessions.safetyNumber(alice.userId)).toBe(number);
      expect(alice.sessions.safetyNumber(carol.userId)).not.toBe(number);

      // As protocol buffer: version, then 32 bytes of ours, then 32 bytes of theirs.
      const halves = (code: Uint8Array | null): string[] =>
        [code?.subarray(6, 38), code?.subarray(42)].map((half) => Buffer.from(half ?? []).toString("hex"));
      const [ours, theirs] = halves(alice.sessions.safetyCode(bob.userId));
      expect(ours).toMatch(/^[0-9a-f]{64}$/);
      expect(halves(bob.sessions.safetyCode(alice.userId))).toEqual([theirs, ours]);
      expect(halves(alice.sessions.safetyCode(carol.userId))[1]).not.toBe(theirs);
    } finally {
      carol.dispose();
    }
  });
});

describe("bytes that are no message", () => {
  test.each(["prekey", "message"] as const)("of kind %s are undecryptable and change nothing", async (kind) => {
    await connect(alice, bob);
    for (const body of [new Uint8Array(0), new Uint8Array(40), new Uint8Array(2000).fill(0x44)])
      expect(typeOf(await openText(bob, alice, { kind, body }))).toBe("undecryptable");
    expect(unwrap(await openText(bob, alice, await sealText(alice, bob, "still works")))).toBe("still works");
  });

  test("with one bit flipped are undecryptable, and the whole message opens afterwards", async () => {
    await connect(alice, bob);
    const sealed = await sealText(alice, bob, "whole");
    for (let at = 0; at < sealed.body.length; at++) {
      const body = new Uint8Array(sealed.body);
      body[at] = (body[at] ?? 0) ^ 1;
      expect(["undecryptable", "duplicate_message"]).toContain(
        typeOf(await openText(bob, alice, { kind: "message", body })),
      );
    }
    expect(unwrap(await openText(bob, alice, sealed))).toBe("whole");
  });
});
