import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import {
  connect,
  createSessionPeer,
  openText,
  type SessionPeer,
  sealText,
  typeOf,
  unwrap,
} from "../support/session-peer.ts";

// Thousands of messages; a busy machine needs longer than the usual limit.
vi.setConfig({ testTimeout: 180_000 });

let alice: SessionPeer;
let bob: SessionPeer;
beforeEach(async () => {
  alice = await createSessionPeer({ fast: true });
  bob = await createSessionPeer({ fast: true });
});
afterEach(() => {
  alice.dispose();
  bob.dispose();
});

const acceptedOf = async (messages: readonly Sealed[]): Promise<number> => {
  let accepted = 0;
  for (const sealed of messages) if ((await openText(bob, alice, sealed)).ok) accepted++;
  return accepted;
};

test("no message is accepted twice: at once, 1,000 messages later, or after a restart", async () => {
  unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
  const recorded: Sealed[] = [];
  const exchange = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const sealed = await sealText(alice, bob, `message ${recorded.length}`);
      expect(unwrap(await openText(bob, alice, sealed))).toBe(`message ${recorded.length}`);
      recorded.push(sealed);
      expect(typeOf(await openText(bob, alice, sealed))).toBe("duplicate_message");
    }
  };
  // Prekey messages first: Bob has not answered yet. Then whisper messages, with the ratchet turning now and then.
  await exchange(20);
  expect(recorded.every((sealed) => sealed.kind === "prekey")).toBe(true);
  unwrap(await openText(alice, bob, await sealText(bob, alice, "answer")));
  for (let turn = 0; turn < 8; turn++) {
    await exchange(10);
    unwrap(await openText(alice, bob, await sealText(bob, alice, "turn")));
  }
  const early = [...recorded];
  await exchange(1000);
  expect(await acceptedOf(early)).toBe(0);
  await bob.reopen();
  expect(await acceptedOf(recorded)).toBe(0);
  expect(unwrap(await openText(bob, alice, await sealText(alice, bob, "goes on")))).toBe("goes on");
});

test("a first message is not accepted again after session and identity were forgotten", async () => {
  for (const bundle of [await bob.bundle(), await bob.bundleWithoutOneTimeKeys()]) {
    unwrap(await alice.sessions.start(bob.userId, bundle));
    const first = await sealText(alice, bob, "hello");
    expect(unwrap(await openText(bob, alice, first))).toBe("hello");
    await bob.sessions.forget(alice.userId);
    expect(typeOf(await openText(bob, alice, first))).toBe("undecryptable");
    await bob.reopen();
    expect(typeOf(await openText(bob, alice, first))).toBe("undecryptable");
    await alice.sessions.forget(bob.userId);
  }
});

test("500 messages in reverse order all open", async () => {
  await connect(alice, bob);
  const sealed: Sealed[] = [];
  for (let i = 0; i < 500; i++) sealed.push(await sealText(alice, bob, `message ${i}`));
  for (let i = 499; i >= 0; i--)
    expect(await openText(bob, alice, at(sealed, i))).toEqual({ ok: true, value: `message ${i}` });
});

test("2,000 skipped messages all open, after a restart too", async () => {
  await connect(alice, bob);
  const sealed: Sealed[] = [];
  for (let i = 0; i <= 2000; i++) sealed.push(await sealText(alice, bob, `message ${i}`));
  expect(unwrap(await openText(bob, alice, at(sealed, 2000)))).toBe("message 2000");
  await bob.reopen();
  for (let i = 0; i < 2000; i++)
    expect(await openText(bob, alice, at(sealed, i))).toEqual({ ok: true, value: `message ${i}` });
});

const at = (messages: readonly Sealed[], index: number): Sealed => {
  const sealed = messages[index];
  if (sealed === undefined) throw new Error(`no message ${index}`);
  return sealed;
};
