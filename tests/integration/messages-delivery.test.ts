import { randomBytes } from "node:crypto";
import * as v from "valibot";
import { afterEach, describe, expect, test } from "vitest";
import { toBase64Url } from "#shared/base/bytes.ts";
import { chatIdOf, EnvelopeIdSchema, FileIdSchema, MessageIdSchema } from "#shared/base/ids.ts";
import {
  EARLY_MESSAGE_WAIT_MS,
  HELD_ENVELOPES_MAX,
  LINK_ACK_TIMEOUT_MS,
  MAILBOX_PUSH_WINDOW,
  MAILBOX_TTL_MS,
  MESSAGE_TEXT_BYTES_MAX,
  OUTBOX_PER_PEER_MAX,
  TYPING_REPEAT_MS,
  TYPING_TTL_MS,
} from "#shared/base/limits.ts";
import { fail } from "#shared/base/result.ts";
import type { ChatView, MessageView } from "#shared/ipc/views.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import { type ChatPeer, ChatWorld, damage, pair, type WorldOptions } from "../support/chat-world.ts";
import { typeOf, unwrap } from "../support/session-peer.ts";

/** Messages over real libsignal sessions and real databases; only the server and the links are doubles. */
let world: ChatWorld;

const friends = async (options: WorldOptions = {}): Promise<{ alice: ChatPeer; bob: ChatPeer }> => {
  world = new ChatWorld({ crypto: "signal", ...options });
  const [alice, bob] = [await world.join("Alice"), await world.join("Bob")];
  await pair(world, alice, bob);
  return { alice, bob };
};
afterEach(() => world.dispose());

const statesOf = (peer: ChatPeer, other: ChatPeer) =>
  peer
    .shown(other)
    .filter((message) => message.senderId === peer.userId)
    .map((message) => message.state);
const mailFor = (peer: ChatPeer): number => world.mailboxes.get(peer.userId)?.length ?? 0;
const numbers = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `message ${from + i}`);

describe("by mailbox", () => {
  test("queued, sent, delivered, read", async () => {
    const { alice, bob } = await friends();
    const told: MessageView[] = [];
    alice.messages.onMessageChanged((view) => told.push(view));
    alice.setServer("disconnected");
    expect(alice.send(bob, "hello")).toMatchObject({ state: "queued", text: "hello", senderId: alice.userId });
    await world.run();
    expect(statesOf(alice, bob)).toEqual(["queued"]);
    bob.setServer("disconnected");
    alice.setServer("connected");
    await world.run();
    expect(statesOf(alice, bob)).toEqual(["sent"]);
    bob.setServer("connected");
    await world.runFor(1000);
    expect(statesOf(alice, bob)).toEqual(["delivered"]);
    expect(unwrap(bob.messages.markRead(chatIdOf(alice.userId))).unreadCount).toBe(0);
    await world.runFor(1000);
    expect(statesOf(alice, bob)).toEqual(["read"]);
    expect(told.map((view) => view.state)).toEqual(["queued", "sent", "delivered", "read"]);
    expect([mailFor(alice), mailFor(bob)]).toEqual([0, 0]);
  });

  test("read receipts only if the reader wants to give them", async () => {
    const { alice, bob } = await friends();
    bob.preferences = { readReceipts: false, typingIndicators: false };
    alice.send(bob, "seen?");
    await world.runFor(1000);
    bob.messages.markRead(chatIdOf(alice.userId));
    await world.runFor(1000);
    expect(statesOf(alice, bob)).toEqual(["delivered"]);
  });

  test("an answer that is lost makes a repeat, not a second message", async () => {
    const { alice, bob } = await friends();
    let lost = 0;
    alice.loseAnswer = (name) => name === "mailbox.put" && lost++ < 3;
    for (const text of numbers(3)) alice.send(bob, text);
    for (let i = 0; i < 10; i++) await world.runFor(5000);
    expect(lost).toBeGreaterThanOrEqual(3);
    expect(bob.texts(alice)).toEqual(numbers(3));
    expect(statesOf(alice, bob)).toEqual(["delivered", "delivered", "delivered"]);
  });

  test("200 messages that arrive in reverse are shown in order", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    const count = 200;
    for (const text of numbers(count)) alice.send(bob, text);
    await world.run();
    world.mailboxes.get(bob.userId)?.reverse();
    bob.setServer("connected");
    await world.run();
    expect(bob.texts(alice)).toEqual(numbers(count));
    expect(bob.notices).toEqual([]);
  });

  test("what the mailbox threw away is put there again", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    alice.send(bob, "a month ago");
    await world.run();
    expect(statesOf(alice, bob)).toEqual(["sent"]);
    world.mailboxes.set(bob.userId, []);
    alice.setServer("disconnected");
    world.nowMs += MAILBOX_TTL_MS + 1;
    alice.setServer("connected");
    bob.setServer("connected");
    await world.runFor(1000);
    expect(bob.texts(alice)).toEqual(["a month ago"]);
  });

  test("what the mailbox of another server has is put again at the new one, and only then", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    alice.send(bob, "moved");
    await world.run();
    expect([statesOf(alice, bob), mailFor(bob)]).toEqual([["sent"], 1]);
    world.mailboxes.set(bob.userId, []);
    alice.setServer("disconnected");
    alice.setServer("connected");
    await world.runFor(1000);
    expect(mailFor(bob)).toBe(0);
    // The change of server outlives the end of the program.
    alice.setServer("disconnected");
    world.serverId = "server-2";
    await alice.restart();
    await world.runFor(1000);
    expect(mailFor(bob)).toBeGreaterThan(0);
    bob.setServer("connected");
    await world.runFor(1000);
    expect(bob.texts(alice)).toEqual(["moved"]);
    expect(statesOf(alice, bob)).toEqual(["delivered"]);
  });

  test("mayReceive gives the errors of sending", async () => {
    const { alice, bob } = await friends();
    const chatId = chatIdOf(bob.userId);
    expect(alice.messages.mayReceive(chatId)).toEqual({ ok: true, value: undefined });
    alice.contacts.block(bob.userId);
    expect(typeOf(alice.messages.mayReceive(chatId))).toBe("contact_blocked");
    await alice.contacts.remove(bob.userId);
    expect(typeOf(alice.messages.mayReceive(chatId))).toBe("unknown_chat");
    const carol = await world.join("Carol");
    const invite = unwrap(await carol.contacts.createInvite());
    await alice.contacts.acceptInvite(invite.link);
    expect(typeOf(alice.messages.mayReceive(chatIdOf(carol.userId)))).toBe("waiting_for_contact");
    await world.run();
    expect(typeOf(carol.messages.mayReceive(chatIdOf(alice.userId)))).toBe("contact_not_accepted");
  });

  test("a message that never comes is reported, and the later ones are shown", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    for (const text of numbers(4)) alice.send(bob, text);
    await world.run();
    world.mailboxes.get(bob.userId)?.splice(1, 1);
    bob.setServer("connected");
    await world.run();
    expect(bob.texts(alice)).toEqual(["message 0"]);
    await bob.restart();
    await world.advance(EARLY_MESSAGE_WAIT_MS + 1);
    expect(bob.texts(alice)).toEqual(["message 0", "message 2", "message 3"]);
    expect(bob.notices).toMatchObject([{ type: "message_missing", level: "warning" }]);
    expect(bob.notices[0]?.message).toMatch(/^A message from Alice did not arrive/);
  });

  test("a message that comes after it was given up is still shown", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    for (const text of numbers(3)) alice.send(bob, text);
    await world.run();
    const late = world.mailboxes.get(bob.userId)?.splice(0, 1)[0];
    bob.setServer("connected");
    await world.run();
    await world.advance(EARLY_MESSAGE_WAIT_MS + 1);
    if (late !== undefined) world.mailboxes.get(bob.userId)?.push(late);
    await world.run();
    expect(bob.texts(alice)).toEqual(["message 1", "message 2", "message 0"]);
  });

  test("replayed three times: now, after 1,000 messages, after a restart: nothing is shown twice", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    for (const text of numbers(10)) alice.send(bob, text);
    await world.run();
    const recorded = [...(world.mailboxes.get(bob.userId) ?? [])];
    const replay = async (): Promise<void> => {
      // Once as it was, once under another id: the seen ids and the ratchet must both hold.
      for (const mail of recorded)
        world.mailboxes.get(bob.userId)?.push({ ...mail }, { ...mail, id: freshEnvelopeId() });
      await world.run();
    };
    bob.setServer("connected");
    await world.run();
    await replay();
    for (const text of numbers(1000, 10)) alice.send(bob, text);
    await world.run();
    await replay();
    await bob.restart();
    await replay();
    expect(bob.texts(alice)).toEqual(numbers(1010));
    expect(bob.notices).toEqual([]);
    expect(mailFor(bob)).toBe(0);
  });

  test("an id that was seen is not decrypted again", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    alice.send(bob, "once");
    await world.run();
    const [mail] = world.mailboxes.get(bob.userId) ?? [];
    bob.setServer("connected");
    await world.run();
    // With the session gone, decrypting could only fail.
    bob.parts.db.sql.exec("DELETE FROM signal_sessions");
    if (mail !== undefined) world.mailboxes.get(bob.userId)?.push(mail);
    await world.run();
    expect(bob.messages.counters()).toMatchObject({ duplicates: 1, undecryptable: 0 });
    expect(bob.notices).toEqual([]);
  });

  test("what cannot be opened is removed from the mailbox, and what it held comes again", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    for (const text of numbers(3)) alice.send(bob, text);
    await world.run();
    const box = world.mailboxes.get(bob.userId) ?? [];
    for (const { sealed } of box.slice(0, 2)) damage(sealed);
    box.push({
      id: freshEnvelopeId(),
      from: alice.userId,
      sealed: { kind: "message", body: new Uint8Array([1, 2]) },
      receivedAtMs: 0,
    });
    bob.setServer("connected");
    await world.runFor(1000);
    expect(bob.texts(alice)).toEqual(numbers(3));
    expect(bob.messages.counters().undecryptable).toBe(3);
    await world.advance(EARLY_MESSAGE_WAIT_MS + 1);
    expect(bob.notices).toEqual([]);
    expect(mailFor(bob)).toBe(0);
  });

  test("contents that are acknowledged on the way back do not stay in the outbox", async () => {
    const { alice, bob } = await friends();
    for (let i = 0; i < 20; i++) {
      alice.send(bob, `to Bob ${i}`);
      await world.runFor(1000);
      bob.send(alice, `to Alice ${i}`);
      await world.runFor(1000);
    }
    const left = (peer: ChatPeer) =>
      peer.parts.db.sql.prepare<[], { n: number }>("SELECT count(*) AS n FROM outbox").get()?.n ?? 0;
    expect(left(alice)).toBeLessThanOrEqual(2);
    expect(left(bob)).toBeLessThanOrEqual(2);
  });
});

describe("by link", () => {
  test("messages go over the link, are acknowledged, and never touch the mailbox", async () => {
    const { alice, bob } = await friends();
    world.linkUp(alice, bob);
    alice.setServer("disconnected");
    bob.setServer("disconnected");
    for (const text of numbers(100)) alice.send(bob, text);
    await world.runFor(1000);
    expect(bob.texts(alice)).toEqual(numbers(100));
    expect(new Set(statesOf(alice, bob))).toEqual(new Set(["delivered"]));
    expect([mailFor(alice), mailFor(bob)]).toEqual([0, 0]);
  });

  test("a link that comes up overtakes the mailbox; both copies make one message", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    for (const text of numbers(5)) alice.send(bob, text);
    await world.run();
    expect(mailFor(bob)).toBe(5);
    world.linkUp(alice, bob);
    await world.run();
    expect(bob.texts(alice)).toEqual(numbers(5));
    bob.setServer("connected");
    await world.runFor(1000);
    expect(bob.texts(alice)).toEqual(numbers(5));
    expect(mailFor(bob)).toBe(0);
  });

  test("a link that breaks loses nothing: the rest goes to the mailbox, in order", async () => {
    const { alice, bob } = await friends();
    world.linkUp(alice, bob);
    for (const text of numbers(40)) alice.send(bob, text);
    await world.settle();
    for (let i = 0; i < 7; i++) world.deliver(0);
    await world.settle();
    world.linkDown(alice, bob);
    await world.runFor(1000);
    expect(bob.texts(alice)).toEqual(numbers(40));
    expect(new Set(statesOf(alice, bob))).toEqual(new Set(["delivered"]));
  });

  test("an envelope that a live link does not acknowledge is sent again", async () => {
    const { alice, bob } = await friends();
    alice.setServer("disconnected");
    world.linkUp(alice, bob);
    alice.send(bob, "swallowed");
    await world.settle();
    world.wire.splice(0);
    await world.run();
    expect(bob.texts(alice)).toEqual([]);
    await world.advance(LINK_ACK_TIMEOUT_MS + 1);
    expect(bob.texts(alice)).toEqual(["swallowed"]);
  });

  test("an envelope that a live link lost is sent again in time, however much else is acknowledged meanwhile", async () => {
    const { alice, bob } = await friends();
    alice.setServer("disconnected");
    world.linkUp(alice, bob);
    await world.run();
    alice.send(bob, "message 0");
    await world.settle();
    world.wire.splice(0);
    for (let n = 1; n <= 20; n += 1) {
      alice.send(bob, `message ${n}`);
      await world.advance(LINK_ACK_TIMEOUT_MS / 15);
    }
    expect(bob.texts(alice)).toEqual(numbers(21));
    expect(bob.notices).toEqual([]);
  });

  test("typing is shown, ends by itself, and with a message", async () => {
    const { alice, bob } = await friends();
    const told: ChatView[] = [];
    bob.messages.onChatChanged((view) => told.push(view));
    const type = (typing: boolean) => unwrap(alice.messages.typing(chatIdOf(bob.userId), typing)).sent;
    expect(type(true)).toBe(false);
    world.linkUp(alice, bob);
    expect(type(true)).toBe(true);
    expect(type(true)).toBe(false);
    await world.run();
    expect(told.at(-1)?.typing).toBe(true);
    await world.advance(TYPING_TTL_MS);
    expect(told.at(-1)?.typing).toBe(false);
    expect(type(true)).toBe(true);
    alice.send(bob, "done");
    await world.run();
    expect(told.at(-1)).toMatchObject({ typing: false, unreadCount: 1 });
    await world.advance(TYPING_REPEAT_MS);
    alice.preferences = { readReceipts: true, typingIndicators: false };
    expect(type(true)).toBe(false);
  });
});

describe("another identity key", () => {
  /** Alice's profile is lost but for her account: the same person with another identity key. */
  const reinstall = async (alice: ChatPeer): Promise<void> => {
    const { sql } = alice.parts.db;
    const tables = sql
      .prepare<[], { name: string }>("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'signal%'")
      .all();
    for (const { name } of tables) sql.exec(`DELETE FROM "${name}"`);
    await alice.restart();
    await alice.publish(alice.parts.account, alice.sessions);
  };

  test("is shown, blocks sending, holds what arrives; accepting lets both go on", async () => {
    const { alice, bob } = await friends();
    unwrap(bob.contacts.verify(alice.userId, true));
    bob.send(alice, "before");
    await world.runFor(1000);
    await reinstall(alice);
    alice.send(bob, "with my new key");
    await world.runFor(1000);
    // The number to compare before the new key is accepted is the new one.
    const safetyNumber = alice.contacts.get(bob.userId)?.safetyNumber;
    expect(bob.contacts.get(alice.userId)).toMatchObject({ keyChanged: true, verified: false, safetyNumber });
    expect(bob.texts(alice, alice)).toEqual([]);
    expect(bob.notices.map((notice) => notice.type)).toEqual(["identity_changed"]);
    expect(bob.messages.chats()[0]?.sendBlocked?.type).toBe("key_changed");
    expect(typeOf(bob.contacts.verify(alice.userId, true))).toBe("key_changed");
    bob.send(alice, "waits");
    await world.runFor(5000);
    expect(statesOf(bob, alice).at(-1)).toBe("queued");
    // Neither the mailbox nor a restart lets anything through.
    expect(mailFor(bob)).toBe(0);
    await bob.restart();
    await world.runFor(5000);
    expect(alice.texts(bob, bob)).not.toContain("waits");
    const accepted = unwrap(await bob.contacts.accept(alice.userId));
    expect(accepted).toMatchObject({ keyChanged: false, verified: false });
    await world.runFor(5000);
    expect(bob.texts(alice, alice)).toEqual(["with my new key"]);
    expect(alice.texts(bob, bob)).toContain("waits");
    expect(bob.messages.chats()[0]?.sendBlocked).toBe(null);
    expect(bob.contacts.get(alice.userId)?.safetyNumber).toBe(alice.contacts.get(bob.userId)?.safetyNumber);
  });

  test("what was sealed for the old key and not delivered is sealed again", async () => {
    const { alice, bob } = await friends();
    alice.setServer("disconnected");
    for (const text of numbers(3)) bob.send(alice, text);
    await world.run();
    expect(statesOf(bob, alice)).toEqual(["sent", "sent", "sent"]);
    world.mailboxes.set(alice.userId, []);
    await reinstall(alice);
    alice.send(bob, "new key");
    await world.runFor(1000);
    unwrap(await bob.contacts.accept(alice.userId));
    await world.runFor(1000);
    expect(alice.texts(bob, bob)).toEqual(numbers(3));
  });

  test("more than can be held stays at the server", async () => {
    const { alice, bob } = await friends();
    await reinstall(alice);
    const carol = await world.join("Carol");
    await pair(world, carol, bob);
    const over = MAILBOX_PUSH_WINDOW + 20;
    const count = HELD_ENVELOPES_MAX + over;
    for (const text of numbers(count)) alice.send(bob, text);
    await world.run();
    expect(mailFor(bob)).toBe(over);
    // Nobody else's mail waits for it.
    carol.send(bob, "past them");
    await world.run();
    expect(bob.texts(carol)).toEqual(["past them"]);
    // After the acceptance the rest comes by itself.
    unwrap(await bob.contacts.accept(alice.userId));
    await world.run();
    expect(mailFor(bob)).toBe(0);
    expect(bob.texts(alice, alice)).toEqual(numbers(count));
  });
});

describe("files", () => {
  const offerBy = (owner: ChatPeer): FileOffer => ({
    signed: {
      manifest: {
        fileId: v.parse(FileIdSchema, toBase64Url(randomBytes(16))),
        ownerId: owner.userId,
        sizeBytes: 0,
        chunkBytes: 65536,
        chunkCount: 0,
        root: new Uint8Array(32),
        createdAtMs: 0,
      },
      signature: new Uint8Array(64),
    },
    name: "report.pdf",
    key: new Uint8Array(32),
    sha256: new Uint8Array(32),
  });

  test("an offer is recorded in the transaction of its message", async () => {
    const { alice, bob } = await friends();
    const recorded: string[] = [];
    bob.files = {
      record: (offer, from) => {
        expect(from).toBe(alice.userId);
        expect(bob.parts.db.sql.inTransaction).toBe(true);
        recorded.push(offer.signed.manifest.fileId);
        return { ok: true, value: undefined };
      },
      view: () => null,
    };
    const offer = offerBy(alice);
    unwrap(alice.messages.sendFile(chatIdOf(bob.userId), offer));
    await world.runFor(1000);
    expect(recorded).toEqual([offer.signed.manifest.fileId]);
    expect(statesOf(alice, bob)).toEqual(["delivered"]);
    expect(bob.shown(alice)).toHaveLength(1);
  });

  test("somebody else's file and a file that is not genuine are refused", async () => {
    const { alice, bob } = await friends();
    unwrap(alice.messages.sendFile(chatIdOf(bob.userId), offerBy(bob)));
    await world.run();
    bob.files = { record: () => fail("bad_signature", "forged"), view: () => null };
    unwrap(alice.messages.sendFile(chatIdOf(bob.userId), offerBy(alice)));
    alice.send(bob, "still here");
    await world.run();
    expect(bob.texts(alice)).toEqual(["still here"]);
    expect(bob.notices.map((notice) => notice.type)).toEqual(["file_refused", "file_refused"]);
  });
});

describe("what people ask for", () => {
  test("pages, newest first", async () => {
    const { alice, bob } = await friends();
    for (const text of numbers(7)) alice.send(bob, text);
    await world.run();
    const chat = chatIdOf(alice.userId);
    const first = unwrap(bob.messages.list(chat, 3));
    expect(first.map((message) => message.text)).toEqual(["message 6", "message 5", "message 4"]);
    const before = v.parse(MessageIdSchema, first.at(-1)?.messageId);
    expect(unwrap(bob.messages.list(chat, 100, before)).map((message) => message.text)).toEqual(numbers(4).reverse());
    expect(typeOf(bob.messages.list(chat, 3, v.parse(MessageIdSchema, "A".repeat(22))))).toBe("unknown_message");
    expect(bob.messages.chats()).toMatchObject([{ name: "Alice", unreadCount: 7, lastMessage: { text: "message 6" } }]);
  });

  test("limits answer with typed errors and lose nothing", async () => {
    const { alice, bob } = await friends();
    const chat = chatIdOf(bob.userId);
    expect(typeOf(alice.messages.sendText(chat, ""))).toBe("empty_message");
    expect(typeOf(alice.messages.sendText(chat, "x".repeat(MESSAGE_TEXT_BYTES_MAX + 1)))).toBe("message_too_long");
    // 32 KiB of control characters are 192 KiB of JSON: they cannot fit an envelope.
    expect(typeOf(alice.messages.sendText(chat, "\u0001".repeat(MESSAGE_TEXT_BYTES_MAX)))).toBe("message_too_long");
    expect(typeOf(alice.messages.sendText(chatIdOf(alice.userId), "me"))).toBe("unknown_chat");
    expect(typeOf(alice.messages.markRead(chatIdOf(alice.userId)))).toBe("unknown_chat");
    expect(typeOf(alice.messages.typing(chatIdOf(alice.userId), true))).toBe("unknown_chat");
    const longest = "ä".repeat(MESSAGE_TEXT_BYTES_MAX / 2);
    unwrap(alice.messages.sendText(chat, longest));
    await world.run();
    expect(bob.texts(alice)).toEqual([longest]);
  });

  test("a full outbox says so", async () => {
    const { alice, bob } = await friends();
    alice.setServer("disconnected");
    alice.parts.db.transaction(() => {
      const insert = alice.parts.db.sql.prepare("INSERT INTO outbox (peer, seq, content) VALUES (?, ?, x'80')");
      for (let i = 0; i < OUTBOX_PER_PEER_MAX; i++) insert.run(bob.userId, 1000 + i);
    });
    expect(typeOf(alice.messages.sendText(chatIdOf(bob.userId), "one more"))).toBe("outbox_full");
    expect(typeOf(alice.messages.mayReceive(chatIdOf(bob.userId)))).toBe("outbox_full");
    expect(alice.texts(bob)).toEqual([]);
  });

  test("a new name reaches every accepted contact", async () => {
    const { alice, bob } = await friends();
    alice.messages.broadcastProfile("Alice Liddell");
    await world.run();
    expect(bob.contacts.get(alice.userId)?.name).toBe("Alice Liddell");
  });

  test("a clock that is ahead does not put messages into the future", async () => {
    const { alice, bob } = await friends();
    bob.setServer("disconnected");
    world.nowMs += 3_600_000;
    alice.send(bob, "from later");
    await world.run();
    world.nowMs -= 3_600_000;
    bob.setServer("connected");
    await world.run();
    expect(bob.shown(alice)[0]?.sentAtMs).toBeLessThanOrEqual(world.nowMs);
  });
});

const freshEnvelopeId = () => v.parse(EnvelopeIdSchema, toBase64Url(randomBytes(16)));
