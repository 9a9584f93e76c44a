import { rmSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { chatIdOf } from "#shared/base/ids.ts";
import { INVITE_TTL_MS } from "#shared/base/limits.ts";
import { decodeInviteLink, encodeInviteLink } from "#shared/wire/invite.ts";
import { commitTo, identitySigningBytes } from "../../src-main/contacts/pairing.ts";
import { AccountTable } from "../../src-main/store/account.ts";
import { Database } from "../../src-main/store/database.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";
import { type ChatPeer, ChatWorld, pair, type WorldOptions } from "../support/chat-world.ts";
import { typeOf, unwrap } from "../support/session-peer.ts";

/** Pairing with real libsignal sessions and real databases; only the server and the links are doubles. */
let world: ChatWorld;

const meet = async (options: WorldOptions = {}): Promise<{ alice: ChatPeer; bob: ChatPeer }> => {
  world = new ChatWorld({ crypto: "signal", ...options });
  return { alice: await world.join("Alice"), bob: await world.join("Bob") };
};

afterEach(() => world.dispose());

const MINUTE = 60_000;
/** Nothing is left of a profile that does not run but its account key. */
const reinstall = (peer: ChatPeer): void => {
  const db = Database.openApp(peer.path, new Uint8Array(32).fill(7), appMigrations);
  const seed = defined(new AccountTable(db).seed(), "the account");
  db.dispose();
  for (const suffix of ["", "-wal", "-shm"]) rmSync(`${peer.path}${suffix}`, { force: true });
  const fresh = Database.openApp(peer.path, new Uint8Array(32).fill(7), appMigrations);
  new AccountTable(fresh).insert(seed, 0);
  fresh.dispose();
};
const stateOf = (peer: ChatPeer, of: ChatPeer) => peer.contacts.get(of.userId)?.state ?? null;
const inviteOf = async (peer: ChatPeer) => unwrap(await peer.contacts.createInvite());

describe("by link", () => {
  test("both sides must accept", async () => {
    const { alice, bob } = await meet();
    const { link } = await inviteOf(alice);
    const outgoing = unwrap(await bob.contacts.acceptInvite(link));
    expect(outgoing.state).toBe("outgoing");
    expect(typeOf(bob.messages.sendText(chatIdOf(alice.userId), "too early"))).toBe("waiting_for_contact");
    await world.run();
    expect(alice.contacts.get(bob.userId)).toMatchObject({ name: "Bob", state: "incoming", verified: false });
    expect(stateOf(bob, alice)).toBe("outgoing");
    expect(typeOf(alice.messages.sendText(chatIdOf(bob.userId), "too early"))).toBe("contact_not_accepted");
    expect(unwrap(await alice.contacts.accept(bob.userId)).state).toBe("accepted");
    await world.run();
    expect(bob.contacts.get(alice.userId)).toMatchObject({ name: "Alice", state: "accepted", safetyWords: null });
    expect(bob.contacts.accountKeyOf(alice.userId)).toEqual(alice.parts.account.accountKey);
    expect(alice.contacts.accountKeyOf(bob.userId)).toEqual(bob.parts.account.accountKey);
    const numbers = [alice.contacts.get(bob.userId), bob.contacts.get(alice.userId)].map((c) => c?.safetyNumber);
    expect(numbers[0]).toMatch(/^\d{60}$/);
    expect(numbers[0]).toBe(numbers[1]);
    bob.send(alice, "hello");
    await world.run();
    expect(alice.texts(bob)).toEqual(["hello"]);
  });

  test("the same invitation again answers the contact and sends nothing", async () => {
    const { alice, bob } = await meet();
    const { link } = await inviteOf(alice);
    await bob.contacts.acceptInvite(link);
    await world.run();
    await alice.contacts.accept(bob.userId);
    await world.run();
    const again = unwrap(await bob.contacts.acceptInvite(link));
    expect(again).toEqual(bob.contacts.get(alice.userId));
    expect(again.state).toBe("accepted");
    await world.settle();
    expect(world.mailboxes.get(alice.userId)).toEqual([]);
    // Accepting once more changes nothing either.
    expect(unwrap(await alice.contacts.accept(bob.userId)).state).toBe("accepted");
  });

  test("an invitation serves one person", async () => {
    const { alice, bob } = await meet();
    const carol = await world.join("Carol");
    const { link } = await inviteOf(alice);
    await bob.contacts.acceptInvite(link);
    await world.run();
    await carol.contacts.acceptInvite(link);
    await world.run();
    expect(alice.contacts.list().map((contact) => contact.name)).toEqual(["Bob"]);
    expect(alice.messages.counters().fromStrangers).toBe(1);
    expect(world.mailboxes.get(alice.userId)).toEqual([]);
    // Nothing of the stranger stays, not even a session.
    expect(alice.sessions.hasSession(carol.userId)).toBe(false);
  });

  test.each([
    ["a wrong secret", (link: string) => edit(link, { secret: new Uint8Array(32) })],
    ["an unknown invitation", (link: string) => edit(link, { inviteId: new Uint8Array(16) })],
  ])("%s is dropped and never shown", async (_, forge) => {
    const { alice, bob } = await meet();
    const { link } = await inviteOf(alice);
    unwrap(await bob.contacts.acceptInvite(forge(link)));
    await world.run();
    expect(alice.contacts.list()).toEqual([]);
    expect(alice.messages.counters().fromStrangers).toBe(1);
    expect(world.mailboxes.get(alice.userId)).toEqual([]);
  });

  test("an invitation that ran out is dropped; one that the server took in time is not", async () => {
    const { alice, bob } = await meet();
    const carol = await world.join("Carol");
    const [first, second] = [await inviteOf(alice), await inviteOf(alice)];
    alice.setServer("disconnected");
    await bob.contacts.acceptInvite(first.link);
    await world.run();
    world.nowMs = second.expiresAtMs + 1;
    await carol.contacts.acceptInvite(second.link);
    await world.run();
    alice.setServer("connected");
    await world.run();
    expect(alice.contacts.list().map((contact) => contact.name)).toEqual(["Bob"]);
  });

  test("both invite each other", async () => {
    const { alice, bob } = await meet();
    const [fromAlice, fromBob] = [await inviteOf(alice), await inviteOf(bob)];
    unwrap(await alice.contacts.acceptInvite(fromBob.link));
    unwrap(await bob.contacts.acceptInvite(fromAlice.link));
    await world.run();
    expect([stateOf(alice, bob), stateOf(bob, alice)]).toEqual(["accepted", "accepted"]);
    alice.send(bob, "a");
    bob.send(alice, "b");
    await world.run();
    expect([bob.texts(alice, alice), alice.texts(bob, bob)]).toEqual([["a"], ["b"]]);
  });

  test("using the invitation of somebody who asked us accepts them", async () => {
    const { alice, bob } = await meet();
    unwrap(await bob.contacts.acceptInvite((await inviteOf(alice)).link));
    await world.run();
    unwrap(await alice.contacts.acceptInvite((await inviteOf(bob)).link));
    await world.run();
    expect([stateOf(alice, bob), stateOf(bob, alice)]).toEqual(["accepted", "accepted"]);
  });

  test("typed errors for what cannot be used", async () => {
    const { alice, bob } = await meet();
    const { link } = await inviteOf(alice);
    expect(typeOf(await alice.contacts.acceptInvite(link))).toBe("own_invite");
    for (const text of ["", "hello", "weir://invite/", "weir://invite/AAAA", `${link}x`.slice(0, 60)])
      expect(typeOf(await bob.contacts.acceptInvite(text))).toBe("invalid_invite");
    const other = edit(link, { serverUrl: "wss://elsewhere.example" });
    expect(await bob.contacts.acceptInvite(other)).toMatchObject({
      ok: false,
      error: { type: "other_server", serverUrl: "wss://elsewhere.example" },
    });
    bob.setServer("disconnected");
    expect(typeOf(await bob.contacts.acceptInvite(link))).toBe("server_unreachable");
    expect(bob.contacts.list()).toEqual([]);
    bob.setServer("connected");
    // Nothing was lost: the same link still works.
    expect(unwrap(await bob.contacts.acceptInvite(`  ${link}\n`)).state).toBe("outgoing");
  });

  test("keys that the invitation does not name are refused", async () => {
    const { alice, bob } = await meet();
    const mallory = await world.join("Mallory");
    const { link } = await inviteOf(alice);
    const forged = edit(link, { identityKey: mallory.sessions.localIdentityKey });
    expect(typeOf(await bob.contacts.acceptInvite(forged))).toBe("pairing_tampered");
    expect(bob.contacts.list()).toEqual([]);
  });

  test("a request whose account does not vouch for its session's key is dropped", async () => {
    const { alice, bob } = await meet();
    const mallory = await world.join("Mallory");
    bob.toSign = () => identitySigningBytes(bob.userId, mallory.sessions.localIdentityKey);
    const { link } = await inviteOf(alice);
    await bob.contacts.acceptInvite(link);
    await world.run();
    expect(alice.contacts.list()).toEqual([]);
    expect(alice.sessions.identity(bob.userId).trusted).toBeNull();
  });

  test("a request survives the end of either side", async () => {
    const { alice, bob } = await meet();
    const { link } = await inviteOf(alice);
    bob.loseAnswer = (name) => name === "mailbox.put";
    unwrap(await bob.contacts.acceptInvite(link));
    await world.settle();
    await bob.restart();
    bob.loseAnswer = () => false;
    await alice.restart();
    await world.run();
    expect([stateOf(alice, bob), stateOf(bob, alice)]).toEqual(["incoming", "outgoing"]);
  });

  test("harmful characters of a name are not shown", async () => {
    const { alice, bob } = await meet();
    Object.assign(bob, { name: "\u202eB\u0000o\u200bb   \n Smith\u2066" });
    await bob.contacts.acceptInvite((await inviteOf(alice)).link);
    await world.run();
    expect(alice.contacts.get(bob.userId)?.name).toBe("Bob Smith");
  });
});

describe("by code", () => {
  test("both sides show the same words", async () => {
    const { alice, bob } = await meet();
    const { code } = await inviteOf(alice);
    expect(unwrap(await bob.contacts.acceptInvite(` ${code.slice(0, 3)}-${code.slice(3).toLowerCase()}`)).state).toBe(
      "outgoing",
    );
    await world.run();
    const words = alice.contacts.get(bob.userId)?.safetyWords;
    expect(words).toHaveLength(4);
    expect(bob.contacts.get(alice.userId)).toMatchObject({ name: "Alice", safetyWords: words, state: "outgoing" });
    await alice.contacts.accept(bob.userId);
    await world.run();
    expect(stateOf(bob, alice)).toBe("accepted");
    // Words are for people: the program trusts the contact only when one says so.
    expect(bob.contacts.get(alice.userId)?.verified).toBe(false);
    expect(unwrap(bob.contacts.verify(alice.userId, true)).verified).toBe(true);
    expect(unwrap(bob.contacts.verify(alice.userId, false)).verified).toBe(false);
    await bob.restart();
    expect(bob.contacts.get(alice.userId)?.safetyWords).toEqual(words);
  });

  test("a commitment that does not fit undoes the pairing", async () => {
    const { alice, bob } = await meet();
    const { code } = await inviteOf(alice);
    world.tamper = (invite) => ({ ...invite, commitment: commitTo(new Uint8Array(32)) });
    unwrap(await bob.contacts.acceptInvite(code));
    await world.run();
    expect(bob.notices).toMatchObject([{ level: "error", type: "pairing_tampered" }]);
    expect(bob.contacts.list()).toEqual([]);
    expect(bob.sessions.hasSession(alice.userId)).toBe(false);
    // The inviter may accept; nothing of it arrives at the other side.
    await alice.contacts.accept(bob.userId);
    await world.run();
    expect(bob.contacts.list()).toEqual([]);
  });

  test("a server in the middle makes other words", async () => {
    const { alice, bob } = await meet();
    const mallory = await world.join("Mallory");
    const { code } = await inviteOf(alice);
    const real = defined(world.codes.get(code), "invite");
    const own = defined(world.codes.get((await inviteOf(mallory)).code), "invite");
    world.tamper = () => own;
    unwrap(await bob.contacts.acceptInvite(code));
    await world.run();
    world.codes.set(code, real);
    world.tamper = (invite) => invite;
    unwrap(await mallory.contacts.acceptInvite(code));
    await world.run();
    const seenByAlice = alice.contacts.get(mallory.userId)?.safetyWords;
    const seenByBob = bob.contacts.get(mallory.userId)?.safetyWords;
    expect(seenByAlice).toHaveLength(4);
    expect(seenByBob).toHaveLength(4);
    expect(seenByAlice).not.toEqual(seenByBob);
  });

  test("an answer of the server that contradicts itself is refused", async () => {
    const { alice, bob } = await meet();
    const { code } = await inviteOf(alice);
    world.tamper = (invite) => ({ ...invite, userId: bob.userId });
    expect(typeOf(await bob.contacts.acceptInvite(code))).toBe("pairing_tampered");
  });

  test("both answer each other's code: the words agree", async () => {
    const { alice, bob } = await meet();
    const [fromAlice, fromBob] = [await inviteOf(alice), await inviteOf(bob)];
    unwrap(await alice.contacts.acceptInvite(fromBob.code));
    unwrap(await bob.contacts.acceptInvite(fromAlice.code));
    await world.run();
    expect([stateOf(alice, bob), stateOf(bob, alice)]).toEqual(["accepted", "accepted"]);
    const words = alice.contacts.get(bob.userId)?.safetyWords;
    expect(words).toHaveLength(4);
    expect(bob.contacts.get(alice.userId)?.safetyWords).toEqual(words);
  });

  test("a code works once, and a wrong one says so", async () => {
    const { alice, bob } = await meet();
    const { code } = await inviteOf(alice);
    expect(typeOf(await bob.contacts.acceptInvite("ZZZZZZ"))).toBe("unknown_code");
    const made = unwrap(await bob.contacts.acceptInvite(code));
    // To the same person it answers the contact that it made.
    expect(unwrap(await bob.contacts.acceptInvite(code))).toEqual(made);
    const carol = await world.join("Carol");
    expect(typeOf(await carol.contacts.acceptInvite(code))).toBe("unknown_code");
  });

  test("a code that was resolved is not burnt by what fails after it", async () => {
    const { alice, bob } = await meet();
    const { code } = await inviteOf(alice);
    let lost = 0;
    bob.loseAnswer = (name) => name === "keys.fetch" && lost++ < 2;
    expect(typeOf(await bob.contacts.acceptInvite(code))).toBe("timeout");
    expect(typeOf(await bob.contacts.acceptInvite(code))).toBe("timeout");
    expect(unwrap(await bob.contacts.acceptInvite(code)).state).toBe("outgoing");
    await world.run();
    expect(stateOf(alice, bob)).toBe("incoming");
    // Once the contact is gone, so is the code.
    await bob.contacts.remove(alice.userId);
    expect(typeOf(await bob.contacts.acceptInvite(code))).toBe("unknown_code");
  });

  test("a resolved code is forgotten when it runs out", async () => {
    const { alice, bob } = await meet();
    const { code } = await inviteOf(alice);
    bob.loseAnswer = (name) => name === "keys.fetch";
    expect(typeOf(await bob.contacts.acceptInvite(code))).toBe("timeout");
    await world.advance(INVITE_TTL_MS + 1);
    bob.loseAnswer = () => false;
    expect(typeOf(await bob.contacts.acceptInvite(code))).toBe("unknown_code");
  });

  test("a code that lives at the server leads to its invitation even if we died before we heard of it", async () => {
    const { alice, bob } = await meet();
    const newCode = world.newCode.bind(world);
    world.newCode = (invite) => {
      alice.kill();
      return newCode(invite);
    };
    void alice.contacts.createInvite();
    await world.settle();
    expect(alice.alive).toBe(false);
    await alice.start();
    const [code] = [...world.codes.keys()];
    unwrap(await bob.contacts.acceptInvite(code ?? ""));
    await world.run();
    expect(stateOf(alice, bob)).toBe("incoming");
  });
});

describe("afterwards", () => {
  test("blocked: nothing arrives, nothing is sent; unblocked: it goes on", async () => {
    const { alice, bob } = await meet();
    await pair(world, alice, bob);
    expect(unwrap(alice.contacts.block(bob.userId)).state).toBe("blocked");
    bob.send(alice, "unheard");
    expect(typeOf(alice.messages.sendText(chatIdOf(bob.userId), "no"))).toBe("contact_blocked");
    await world.runFor(1000);
    expect(alice.texts(bob)).toEqual([]);
    expect(alice.messages.counters().fromBlocked).toBe(1);
    expect(world.mailboxes.get(alice.userId)).toEqual([]);
    expect(unwrap(alice.contacts.unblock(bob.userId)).state).toBe("accepted");
    bob.send(alice, "heard");
    alice.send(bob, "me too");
    await world.run();
    expect(alice.texts(bob, bob)).toEqual(["heard"]);
    expect(bob.texts(alice, alice)).toEqual(["me too"]);
    expect(alice.notices).toEqual([]);
  });

  test("removed: later envelopes are dropped; a new invitation brings both together again", async () => {
    const { alice, bob } = await meet();
    await pair(world, alice, bob);
    bob.send(alice, "before");
    await world.run();
    expect(unwrap(await alice.contacts.remove(bob.userId))).toEqual({ removed: true });
    expect(unwrap(await alice.contacts.remove(bob.userId))).toEqual({ removed: false });
    expect(alice.contacts.list()).toEqual([]);
    expect(alice.messages.chats()).toEqual([]);
    expect(alice.sessions.hasSession(bob.userId)).toBe(false);
    expect(typeOf(alice.messages.list(chatIdOf(bob.userId), 10))).toBe("unknown_chat");
    bob.send(alice, "into the void");
    await world.run();
    expect(alice.contacts.list()).toEqual([]);
    expect(world.mailboxes.get(alice.userId)).toEqual([]);
    // Bob never noticed: for him Alice is a contact all the time.
    unwrap(await bob.contacts.acceptInvite((await inviteOf(alice)).link));
    await world.run();
    expect(stateOf(alice, bob)).toBe("incoming");
    await alice.contacts.accept(bob.userId);
    bob.send(alice, "again");
    await world.run();
    alice.send(bob, "welcome back");
    await world.run();
    expect(alice.texts(bob, bob)).toEqual(["again"]);
    expect(bob.texts(alice, alice)).toEqual(["welcome back"]);
  });

  test("who comes back with a new key gets what waited, in order, when that is accepted", async () => {
    const { alice, bob } = await meet();
    await pair(world, alice, bob);
    unwrap(alice.contacts.verify(bob.userId, true));
    // Says that he has the acceptance, so that it does not come again.
    bob.send(alice, "hello");
    await world.run();
    bob.kill();
    for (const text of ["one", "two"]) alice.send(bob, text);
    await world.settle();
    reinstall(bob);
    world.keys.delete(bob.userId);
    await bob.start();
    // Sealed for the old key, from somebody whom the new program does not know.
    await world.run();
    const { link } = await inviteOf(alice);
    unwrap(await bob.contacts.acceptInvite(link));
    await world.run();
    expect(alice.contacts.get(bob.userId)).toMatchObject({ state: "accepted", verified: false, keyChanged: true });
    alice.send(bob, "three");
    await world.runFor(MINUTE);
    expect(bob.texts(alice)).toEqual([]);
    // What waited is older than the acceptance, and comes before it.
    unwrap(await alice.contacts.accept(bob.userId));
    await world.runFor(MINUTE);
    expect(stateOf(bob, alice)).toBe("accepted");
    expect(bob.texts(alice)).toEqual(["one", "two", "three"]);
  });

  test("a removed contact cannot use its old invitation again", async () => {
    const { alice, bob } = await meet();
    const { link } = await inviteOf(alice);
    await bob.contacts.acceptInvite(link);
    await world.run();
    await alice.contacts.remove(bob.userId);
    await bob.contacts.remove(alice.userId);
    await bob.contacts.acceptInvite(link);
    await world.run();
    expect(alice.contacts.list()).toEqual([]);
  });

  test("unknown people answer unknown_contact", async () => {
    const { alice, bob } = await meet();
    for (const result of [
      await alice.contacts.accept(bob.userId),
      alice.contacts.verify(bob.userId, true),
      alice.contacts.block(bob.userId),
      alice.contacts.unblock(bob.userId),
    ])
      expect(typeOf(result)).toBe("unknown_contact");
  });

  test("an invitation is not made for a server that is not in use any more", async () => {
    const { alice, bob } = await meet();
    const asked = alice.contacts.createInvite();
    alice.serverUrl = "ws://127.0.0.1:4001";
    expect(typeOf(await asked)).toBe("server_changed");
    const [code] = [...world.codes.keys()];
    await bob.contacts.acceptInvite(code ?? "");
    await world.run();
    expect(alice.contacts.list()).toEqual([]);
  });

  test("another server ends the open invitations", async () => {
    const { alice, bob } = await meet();
    const { link } = await inviteOf(alice);
    alice.setServer("disconnected");
    world.serverId = "server-2";
    world.nowMs += 1000;
    alice.setServer("connected");
    world.nowMs += 1000;
    unwrap(await bob.contacts.acceptInvite(link));
    await world.run();
    expect(alice.contacts.list()).toEqual([]);
  });

  test("a safety number is computed once for each identity key, also over restarts", async () => {
    const { alice, bob } = await meet();
    await pair(world, alice, bob);
    const number = alice.contacts.get(bob.userId)?.safetyNumber;
    expect(number).toMatch(/^\d{60}$/);
    expect(alice.safetyNumbersMade).toBe(1);
    for (let i = 0; i < 3; i++) {
      await alice.restart();
      expect(alice.contacts.list().map((contact) => contact.safetyNumber)).toEqual([number]);
    }
    expect(alice.safetyNumbersMade).toBe(1);
  });

  test("presence of anybody but an accepted contact changes nothing", async () => {
    const { alice, bob } = await meet();
    const carol = await world.join("Carol");
    const told: unknown[] = [];
    bob.contacts.onChanged((payload) => told.push(payload));
    bob.contacts.setOnline(carol.userId, true);
    bob.contacts.setOnline(carol.userId, false);
    expect(told).toEqual([]);
    unwrap(await bob.contacts.acceptInvite((await inviteOf(alice)).link));
    told.splice(0);
    bob.contacts.setOnline(alice.userId, true);
    expect([told, bob.contacts.get(alice.userId)?.online]).toEqual([[], false]);
    await world.run();
    await alice.contacts.accept(bob.userId);
    await world.run();
    bob.contacts.setOnline(alice.userId, true);
    expect(bob.contacts.get(alice.userId)?.online).toBe(true);
    bob.contacts.block(alice.userId);
    expect(bob.contacts.get(alice.userId)?.online).toBe(false);
    bob.contacts.unblock(alice.userId);
    expect(bob.contacts.get(alice.userId)?.online).toBe(false);
  });

  test("too many open invitations", async () => {
    const { alice } = await meet();
    for (let i = 0; i < 16; i++) unwrap(await alice.contacts.createInvite());
    expect(typeOf(await alice.contacts.createInvite())).toBe("too_many_invites");
  });

  test("presence is told and forgotten with the server", async () => {
    const { alice, bob } = await meet();
    await pair(world, alice, bob);
    const seen: boolean[] = [];
    alice.contacts.onChanged((view) => "online" in view && seen.push(view.online));
    alice.contacts.setOnline(bob.userId, true);
    alice.contacts.setOnline(bob.userId, true);
    alice.contacts.setAllOffline();
    expect(seen).toEqual([true, false]);
  });
});

const edit = (link: string, change: Partial<Parameters<typeof encodeInviteLink>[0]>): string =>
  encodeInviteLink({ ...unwrap(decodeInviteLink(link)), ...change });
