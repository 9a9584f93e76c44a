import { randomBytes } from "node:crypto";
import { copyFileSync } from "node:fs";
import * as v from "valibot";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { toBase64Url, utf8 } from "#shared/base/bytes.ts";
import { EnvelopeIdSchema } from "#shared/base/ids.ts";
import {
  EARLY_MESSAGE_WAIT_MS,
  LINK_ACK_TIMEOUT_MS,
  OUTBOX_RETRY_MAX_MS,
  SESSION_RESET_WINDOW_MS,
  SESSION_RESETS_MAX,
} from "#shared/base/limits.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { type ChatPeer, ChatWorld, damage, pair } from "../support/chat-world.ts";
import { typeOf, unwrap } from "../support/session-peer.ts";

/** Sessions that are lost, damaged or out of step, over real libsignal and real databases. */
let world: ChatWorld;
let alice: ChatPeer;
let bob: ChatPeer;
/** How often each side took a bundle of prekeys. */
let fetches: Map<ChatPeer, number>;

const said: { alice: string[]; bob: string[] } = { alice: [], bob: [] };

beforeEach(async () => {
  said.alice = [];
  said.bob = [];
  world = new ChatWorld({ crypto: "signal" });
  [alice, bob] = [await world.join("Alice"), await world.join("Bob")];
  await pair(world, alice, bob);
  fetches = new Map();
  for (const peer of [alice, bob]) {
    peer.loseAnswer = (name) => {
      if (name === "keys.fetch") fetches.set(peer, (fetches.get(peer) ?? 0) + 1);
      return false;
    };
  }
  // Past the first messages of a session, which could make a lost one anew by themselves.
  await talk("before");
});
afterEach(() => world.dispose());

const say = (by: ChatPeer, text: string): void => {
  by.send(by === alice ? bob : alice, text);
  said[by === alice ? "alice" : "bob"].push(text);
};
const talk = async (what: string): Promise<void> => {
  for (const by of [alice, bob, alice]) {
    say(by, `${what} ${said.alice.length + said.bob.length}`);
    await world.runFor(1000);
  }
};
/** Exactly once, in its sender's order, and nobody was told of a loss. */
const expectNothingLost = (): void => {
  for (const peer of [alice, bob]) {
    const other = peer === alice ? bob : alice;
    expect(peer.texts(other, alice)).toEqual(said.alice);
    expect(peer.texts(other, bob)).toEqual(said.bob);
    expect(peer.notices).toEqual([]);
    const own = peer.shown(other).filter((message) => message.senderId === peer.userId);
    expect(own.filter(({ state }) => state !== "delivered" && state !== "read")).toEqual([]);
  }
};
const loseSession = (peer: ChatPeer): void => void peer.parts.db.sql.exec("DELETE FROM signal_sessions");
const damageSession = (peer: ChatPeer): void =>
  void peer.parts.db.sql.prepare("UPDATE signal_sessions SET record = ?").run(randomBytes(500));
/** As a repair stands whose answer is on its way. */
const ASKED = JSON.stringify({ kind: "asked", resetId: "A".repeat(22), received: 0 });
const sides = [["the sender"], ["the recipient"]] as const;

describe.each([
  ["lost", loseSession],
  ["damaged", damageSession],
] as const)("a session that is %s", (_, lose) => {
  test.each(sides)("at %s: everything arrives once, in order, both ways", async (side) => {
    lose(side === "the sender" ? alice : bob);
    for (let i = 0; i < 3; i++) say(alice, `first ${i}`);
    await world.runFor(1000);
    say(bob, "answer");
    await world.runFor(1000);
    await talk("after");
    expectNothingLost();
    expect((fetches.get(alice) ?? 0) + (fetches.get(bob) ?? 0)).toBe(1);
  });

  test.each(sides)("at %s, over a link", async (side) => {
    world.linkUp(alice, bob);
    await talk("linked");
    lose(side === "the sender" ? alice : bob);
    for (let i = 0; i < 3; i++) say(alice, `first ${i}`);
    // No time passes: it does not take the acknowledgement's timeout.
    await world.run();
    expect(bob.texts(alice, alice)).toEqual(said.alice);
    await talk("after");
    await world.advance(LINK_ACK_TIMEOUT_MS);
    expectNothingLost();
  });

  test("at both, with messages of both on their way", async () => {
    for (const peer of [alice, bob]) peer.setServer("disconnected");
    say(alice, "from Alice");
    say(bob, "from Bob");
    await world.settle();
    for (const peer of [alice, bob]) lose(peer);
    for (const peer of [alice, bob]) peer.setServer("connected");
    await world.runFor(1000);
    await talk("after");
    expectNothingLost();
    for (const peer of [alice, bob]) expect(fetches.get(peer) ?? 0).toBeLessThanOrEqual(2);
  });
});

test("both ask at the same time, and agree", async () => {
  bob.setServer("disconnected");
  say(alice, "from Alice");
  await world.run();
  alice.setServer("disconnected");
  bob.parts.db.sql.exec("UPDATE outbox SET stored_at = NULL");
  loseSession(bob);
  loseSession(alice);
  const mail = { id: freshEnvelopeId(), from: bob.userId, sealed: garbage(), receivedAtMs: 0 };
  world.mailboxes.get(alice.userId)?.push(mail);
  bob.setServer("connected");
  alice.setServer("connected");
  await world.runFor(1000);
  expect([fetches.get(alice), fetches.get(bob)]).toEqual([1, 1]);
  await talk("after");
  await world.runFor(EARLY_MESSAGE_WAIT_MS);
  expectNothingLost();
  expect([fetches.get(alice), fetches.get(bob)]).toEqual([1, 1]);
});

test("a session that is lost again while its repair is under way", async () => {
  loseSession(bob);
  say(alice, "first");
  await world.run();
  bob.setServer("disconnected");
  say(alice, "second");
  await world.run();
  // What Alice sent for the session that Bob made is unreadable, too, and so is her answer.
  loseSession(bob);
  bob.parts.db.sql.exec(`UPDATE session_resets SET state = json_set(state, '$.phase', json('${ASKED}'))`);
  bob.setServer("connected");
  await world.runFor(1000);
  await talk("after");
  expectNothingLost();
});

test("a jump of more than 25,000 messages", { timeout: 180_000 }, async () => {
  let far: Sealed | null = null;
  for (let i = 0; i < 25_010; i++)
    far = unwrap(await alice.sessions.seal(bob.userId, utf8("never sent"), (sealed) => sealed));
  // Refused, and harmless to what is near and to the other direction.
  expect(typeOf(await bob.sessions.open(alice.userId, defined(far, "a message"), () => null))).toBe("undecryptable");
  say(bob, "the other way");
  await world.runFor(1000);
  say(alice, "far ahead");
  await world.run();
  expect(bob.messages.counters().undecryptable).toBeGreaterThan(0);
  await talk("after");
  expectNothingLost();
});

test("a profile that was restored from a backup", async () => {
  let lost: string[] = [];
  await restoreBob(async () => {
    await talk("after the backup");
    lost = bob.texts(alice);
  });
  // Steps of the ratchet and numbers that Alice has seen before: nothing of this may pass for a repetition.
  for (let i = 0; i < 3; i++) say(bob, `restored ${i}`);
  await world.runFor(1000);
  expect(alice.texts(bob, bob)).toEqual(said.bob);
  await talk("and on");
  await world.runFor(EARLY_MESSAGE_WAIT_MS);
  expect(alice.texts(bob, alice)).toEqual(said.alice);
  expect(alice.texts(bob, bob)).toEqual(said.bob);
  // What Bob had received after the backup was acknowledged then: it is gone with the newer database.
  const gone = lost.filter((text) => text.startsWith("after the backup"));
  expect(bob.texts(alice, alice)).toEqual(said.alice.filter((text) => !gone.includes(text)));
  expect([...alice.notices, ...bob.notices]).toEqual([]);
  expect((fetches.get(alice) ?? 0) + (fetches.get(bob) ?? 0)).toBeLessThanOrEqual(2);
});

/** Bob's profile as it was before `between`. */
const restoreBob = async (between: () => Promise<void>): Promise<void> => {
  await bob.stop();
  copyFileSync(bob.path, `${bob.path}.backup`);
  await bob.start();
  await between();
  await bob.stop();
  copyFileSync(`${bob.path}.backup`, bob.path);
  await bob.start();
};

test("a restored profile that repeats steps of the ratchet is not taken for a repetition", async () => {
  await restoreBob(async () => {
    for (let i = 0; i < 3; i++) say(bob, `before the restore ${i}`);
    await world.runFor(1000);
  });
  say(bob, "after the restore");
  await world.runFor(1000);
  expect(alice.messages.counters().duplicates).toBeGreaterThan(0);
  expect(alice.texts(bob, bob)).toEqual(said.bob);
  expect(alice.notices).toEqual([]);
});

test("a restored profile goes on with numbers that nobody knows yet", async () => {
  await restoreBob(async () => {
    for (let i = 0; i < 3; i++) await talk("between");
  });
  say(alice, "hello again");
  await world.runFor(2000);
  expect(bob.texts(alice, alice).at(-1)).toBe("hello again");
  alice.setServer("disconnected");
  for (let i = 0; i < 3; i++) say(bob, `restored ${i}`);
  await world.run();
  world.mailboxes.get(alice.userId)?.reverse();
  alice.setServer("connected");
  await world.runFor(1000);
  expect(alice.texts(bob, bob)).toEqual(said.bob);
});

test("what is missing is not confirmed while it cannot be asked for", async () => {
  bob.setServer("disconnected");
  for (const text of ["damaged", "fine"]) say(alice, text);
  await world.run();
  const [first] = world.mailboxes.get(bob.userId) ?? [];
  if (first !== undefined) damage(first.sealed);
  let isServerDeaf = true;
  bob.loseAnswer = (name) => isServerDeaf && name === "keys.fetch";
  bob.setServer("connected");
  await world.runFor(EARLY_MESSAGE_WAIT_MS + 1);
  say(bob, "something is missing");
  await world.runFor(1000);
  isServerDeaf = false;
  await world.runFor(OUTBOX_RETRY_MAX_MS);
  expect(bob.texts(alice, alice).sort()).toEqual([...said.alice].sort());
});

test("while the sender is away, what came later is shown in time, and the rest still comes", async () => {
  bob.setServer("disconnected");
  for (const text of ["damaged", "fine"]) say(alice, text);
  await world.run();
  alice.setServer("disconnected");
  const [first] = world.mailboxes.get(bob.userId) ?? [];
  if (first !== undefined) damage(first.sealed);
  bob.setServer("connected");
  await world.runFor(EARLY_MESSAGE_WAIT_MS + 1);
  expect(bob.texts(alice, alice).at(-1)).toBe("fine");
  expect(bob.notices.map(({ type }) => type)).toEqual(["message_missing"]);
  say(bob, "something is missing");
  await world.run();
  alice.setServer("connected");
  await world.runFor(1000);
  expect(bob.texts(alice, alice).sort()).toEqual([...said.alice].sort());
  expect(alice.texts(bob, bob)).toEqual(said.bob);
});

describe("hostile", () => {
  test("a storm of garbage costs a bounded number of prekeys, over restarts, and the chat goes on", async () => {
    for (let round = 0; round < SESSION_RESETS_MAX + 2; round++) {
      for (let i = 0; i < 100; i++) await push({ from: alice.userId, sealed: garbage() });
      await world.runFor(1000);
      await bob.restart();
    }
    expect(fetches.get(bob)).toBe(SESSION_RESETS_MAX);
    expect(bob.notices.map(({ type }) => type)).toContain("undecryptable");
    say(alice, "still here");
    await world.runFor(1000);
    expect(bob.texts(alice, alice)).toEqual(said.alice);
    // The last word is one more attempt, when the hour is over.
    await world.runFor(SESSION_RESET_WINDOW_MS);
    expect(fetches.get(bob)).toBe(SESSION_RESETS_MAX + 1);
    await talk("after");
    expect(bob.texts(alice, alice)).toEqual(said.alice);
  });

  test("garbage of strangers and of blocked people costs nothing", async () => {
    const carol = await world.join("Carol");
    await push({ from: carol.userId, sealed: garbage() });
    await push({ from: carol.userId, sealed: { kind: "prekey", body: randomBytes(300) } });
    bob.contacts.block(alice.userId);
    await push({ from: alice.userId, sealed: garbage() });
    await world.runFor(SESSION_RESET_WINDOW_MS);
    expect(fetches.get(bob)).toBeUndefined();
  });

  test("another identity key is never trusted in silence", async () => {
    const published = world.keys.get(alice.userId);
    for (const table of ["local", "sessions", "identities", "prekeys", "signed_prekeys", "kyber_prekeys"])
      alice.parts.db.sql.exec(`DELETE FROM signal_${table}`);
    await alice.restart();
    await alice.publish(alice.parts.account, alice.sessions);
    expect(world.keys.get(alice.userId)).not.toEqual(published);
    await push({ from: alice.userId, sealed: garbage() });
    await world.runFor(1000);
    expect(bob.contacts.get(alice.userId)).toMatchObject({ keyChanged: true });
    expect(bob.notices.map(({ type }) => type)).toEqual(["identity_changed"]);
    say(bob, "waits");
    await world.runFor(SESSION_RESET_WINDOW_MS);
    expect(alice.texts(bob, bob)).not.toContain("waits");
    unwrap(await bob.contacts.accept(alice.userId));
    await world.runFor(1000);
    expect(alice.texts(bob, bob)).toEqual(said.bob);
  });
});

const freshEnvelopeId = () => v.parse(EnvelopeIdSchema, toBase64Url(new Uint8Array(randomBytes(16))));
const garbage = () => ({ kind: "message" as const, body: new Uint8Array(randomBytes(200)) });
const push = async ({
  from,
  sealed,
}: {
  from: ChatPeer["userId"];
  sealed: { kind: "message" | "prekey"; body: Uint8Array };
}) => {
  await bob.handle({
    ...{ id: freshEnvelopeId(), from, receivedAtMs: world.nowMs },
    sealed: { kind: sealed.kind, body: new Uint8Array(sealed.body) },
  });
};
