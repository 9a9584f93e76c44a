import { randomBytes } from "node:crypto";
import * as v from "valibot";
import { afterEach, describe, expect, test } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { toBase32, toBase64Url } from "#shared/base/bytes.ts";
import {
  type ChatId,
  type GroupId,
  GroupIdSchema,
  MessageIdSchema,
  type UserId,
  UserIdSchema,
} from "#shared/base/ids.ts";
import {
  GROUP_ARRIVALS_MAX,
  GROUP_GOODBYE_MS,
  GROUP_MEMBERS_MAX,
  GROUP_POSTED_PER_TURN,
  GROUP_TOLD_PER_TURN,
  OUTBOX_STEPS_PER_TURN,
} from "#shared/base/limits.ts";
import { decodeContent, encodeContent } from "#shared/wire/content.ts";
import { GroupMailTable } from "../../src-main/store/group-mail.ts";
import { OutboxTable } from "../../src-main/store/messages.ts";
import { type ChatPeer, ChatWorld, pair } from "../support/chat-world.ts";
import { counted } from "../support/counts.ts";
import {
  circle,
  groupMessages,
  groupOf,
  groupStory,
  groupTexts,
  memberIds,
  messageIn,
  say,
} from "../support/group-world.ts";
import { typeOf, unwrap } from "../support/session-peer.ts";

/** Groups over real libsignal sessions, sender keys and databases; only the server and the links are doubles. */
let world: ChatWorld;
afterEach(() => world.dispose());

const trio = async (): Promise<{ alice: ChatPeer; bob: ChatPeer; carol: ChatPeer; chat: ChatId }> => {
  world = new ChatWorld({ crypto: "signal" });
  const [alice, bob, carol] = (await circle(world, ["Alice", "Bob", "Carol"])) as [ChatPeer, ChatPeer, ChatPeer];
  const chat = unwrap(alice.messages.groups.create("Hikers", [bob.userId, carol.userId]));
  await world.runFor(1000);
  return { alice, bob, carol, chat };
};
const restart = async (peer: ChatPeer): Promise<void> => {
  await peer.stop();
  await peer.start();
};
/** The ciphertexts that everybody gets, as the sender makes them. */
const recordSealed = (peer: ChatPeer): Uint8Array[] => {
  const bodies: Uint8Array[] = [];
  const { sessions } = peer;
  const seal = sessions.groupSeal;
  sessions.groupSeal = (groupId, key, plaintext, commit) =>
    seal(groupId, key, plaintext, (sealed) => {
      const result = commit(sealed);
      bodies.push(sealed.body);
      return result;
    });
  return bodies;
};
/** In each turn of the event loop: how many contents came to the outboxes, and how many were begun to be sealed. */
const perTurn = (peer: ChatPeer, waiting: () => number) => {
  const begun: number[] = [];
  let came: number[] = [];
  let [before, now] = [waiting(), 0];
  const { sessions } = peer;
  const { seal } = sessions;
  sessions.seal = (...args) => {
    now += 1;
    return seal(...args);
  };
  const look = (): void => {
    begun.push(now);
    now = 0;
    came.push(waiting() - before);
    before = waiting();
    next = setImmediate(look);
  };
  let next = setImmediate(look);
  const stop = () => {
    clearImmediate(next);
    sessions.seal = seal;
    return begun;
  };
  /** The most that came in one turn since this was asked last. */
  const most = (): number => {
    const max = Math.max(...came);
    came = [];
    return max;
  };
  return { stop, most };
};
const fakeUserId = (n: number): UserId =>
  v.parse(
    UserIdSchema,
    [...String(n)]
      .map((digit) => "abcdefghij"[Number(digit)])
      .join("")
      .padEnd(32, "2"),
  );
const ids = (...people: ChatPeer[]): string[] => people.map(({ userId }) => userId).sort();

describe("a group", () => {
  test("everybody has it, with names and roles, and reads what anybody writes, also those who do not know each other", async () => {
    const { alice, bob, carol, chat } = await trio();
    for (const peer of [alice, bob, carol]) {
      expect(unwrap(peer.messages.chat(chat)).name).toBe("Hikers");
      expect(memberIds(peer, chat)).toEqual(ids(alice, bob, carol));
    }
    expect(groupOf(bob, chat).members.find(({ userId }) => userId === carol.userId)).toMatchObject({
      name: "Carol",
      role: "member",
    });
    say(alice, chat, "from Alice");
    await world.runFor(1000);
    say(bob, chat, "from Bob");
    await world.runFor(1000);
    say(carol, chat, "from Carol");
    await world.runFor(1000);
    for (const peer of [alice, bob, carol])
      expect(groupTexts(peer, chat)).toEqual(["from Alice", "from Bob", "from Carol"]);
    expect(groupMessages(carol, chat).map(({ senderName }) => senderName)).toEqual(["Alice", "Bob", undefined]);
    // Fellows are no contacts: nothing but the group connects them.
    expect(bob.contacts.relationOf(carol.userId)).toBeNull();
    expect(bob.messages.chats().map(({ chatId }) => chatId)).not.toContain(carol.userId);
    for (const peer of [alice, bob, carol]) expect(peer.notices.filter(({ level }) => level !== "info")).toEqual([]);
  });

  test("delivered and read are told for each member, and a message is what it is with all of them", async () => {
    const { alice, bob, carol, chat } = await trio();
    carol.setServer("disconnected");
    const { messageId } = say(alice, chat, "hello");
    const sent = () => messageIn(alice, chat, messageId);
    await world.runFor(1000);
    expect(sent()).toMatchObject({ state: "sent", received: { delivered: 1, read: 0, of: 2 } });
    await world.runFor(60_000);
    unwrap(bob.messages.markRead(chat));
    await world.runFor(1000);
    expect(sent()).toMatchObject({ state: "sent", received: { delivered: 1, read: 1, of: 2 } });
    carol.setServer("connected");
    await world.runFor(1000);
    expect(sent()).toMatchObject({ state: "delivered", received: { delivered: 2, read: 1, of: 2 } });
    const told = (name: string) =>
      defined(
        unwrap(alice.messages.receipts(chat, messageId as never)).find((receipt) => receipt.name === name),
        name,
      );
    expect(told("Bob")).toMatchObject({ userId: bob.userId, state: "read" });
    expect(told("Carol")).toMatchObject({ userId: carol.userId, state: "delivered", readAtMs: null });
    // When we heard of it: of Bob at once and after a minute, of Carol when she was there again.
    const { deliveredAtMs, readAtMs } = told("Bob");
    expect(Number(readAtMs) - Number(deliveredAtMs)).toBeGreaterThanOrEqual(60_000);
    expect(told("Carol").deliveredAtMs).toBeGreaterThan(Number(readAtMs));
    // Of what others wrote there is nothing to tell.
    expect(unwrap(bob.messages.receipts(chat, messageId as never))).toEqual([]);
    expect(typeOf(alice.messages.receipts(chat, "no such message" as never))).toBe("unknown_message");
    unwrap(carol.messages.markRead(chat));
    await world.runFor(1000);
    expect(sent().state).toBe("read");
    // What was told twice has the time of the first.
    expect(told("Bob")).toMatchObject({ deliveredAtMs, readAtMs });
    expect(unwrap(carol.messages.chat(chat)).unreadCount).toBe(0);
    const next = say(alice, chat, "next").messageId;
    const waiting = unwrap(alice.messages.receipts(chat, next as never));
    expect(waiting.map(({ state }) => state)).toEqual(["queued", "queued"]);
    await world.runFor(1000);
  });

  test("nobody is waited for who went before a message reached them, or who came after it", async () => {
    const { alice, bob, carol, chat } = await trio();
    const dave = await world.join("Dave");
    await pair(world, alice, dave);
    carol.setServer("disconnected");
    const { messageId } = say(alice, chat, "hello");
    const sent = () => messageIn(alice, chat, messageId);
    await world.runFor(1000);
    expect(sent()).toMatchObject({ state: "sent", received: { delivered: 1, read: 0, of: 2 } });
    unwrap(alice.messages.groups.add(chat, [dave.userId]));
    unwrap(alice.messages.groups.wish(chat, { kind: "remove", userId: carol.userId }));
    await world.runFor(1000);
    expect(sent()).toMatchObject({ state: "delivered", received: { delivered: 1, read: 0, of: 1 } });
    unwrap(bob.messages.markRead(chat));
    await world.runFor(1000);
    expect(sent()).toMatchObject({ state: "read", received: { delivered: 1, read: 1, of: 1 } });
    const told = unwrap(alice.messages.receipts(chat, messageId as never));
    expect(told).toEqual([expect.objectContaining({ userId: bob.userId, name: "Bob", state: "read" })]);
  });

  test("a member who is away gets everything from the mailbox, in order and once, also over restarts", async () => {
    const { alice, bob, carol, chat } = await trio();
    carol.setServer("disconnected");
    for (let i = 0; i < 20; i++) {
      say(i % 2 === 0 ? alice : bob, chat, `${i % 2 === 0 ? "a" : "b"}${i}`);
      if (i === 10) {
        await world.run();
        await restart(alice);
        await restart(bob);
      }
    }
    await world.runFor(1000);
    await restart(carol);
    await world.runFor(1000);
    const texts = groupTexts(carol, chat);
    expect(texts.filter((text) => text.startsWith("a"))).toEqual(
      [0, 2, 4, 6, 8, 10, 12, 14, 16, 18].map((i) => `a${i}`),
    );
    expect(texts.filter((text) => text.startsWith("b"))).toEqual(
      [1, 3, 5, 7, 9, 11, 13, 15, 17, 19].map((i) => `b${i}`),
    );
  });

  test("what is written before the other side has heard of the group waits for it", async () => {
    const { alice, bob, carol, chat } = await trio();
    const dave = await world.join("Dave");
    await pair(world, alice, dave);
    carol.setServer("disconnected");
    unwrap(alice.messages.groups.add(chat, [dave.userId]));
    await world.runFor(1000);
    // Carol is told by Dave himself why he writes to her; she knows neither him nor that he was added.
    alice.setServer("disconnected");
    world.mailboxes.set(carol.userId, []);
    say(dave, chat, "I am new");
    await world.runFor(1000);
    carol.setServer("connected");
    await world.runFor(2000);
    expect(memberIds(carol, chat)).toEqual(ids(alice, bob, carol, dave));
    expect(groupTexts(carol, chat)).toEqual(["I am new"]);
    expect(groupTexts(bob, chat)).toEqual(["I am new"]);
  });

  test("a stranger who is in no group with us is not heard, whatever they claim", async () => {
    const { bob, chat } = await trio();
    const mallory = await world.join("Mallory");
    const accomplice = await world.join("Accomplice");
    await pair(world, mallory, accomplice);
    const fake = unwrap(mallory.messages.groups.create("Trap", [accomplice.userId]));
    await world.runFor(1000);
    const before = bob.messages.counters().fromStrangers;
    // Mallory lets the own program believe that Bob is a contact.
    const isAccepted = mallory.contacts.isAccepted.bind(mallory.contacts);
    mallory.contacts.isAccepted = (userId) => userId === bob.userId || isAccepted(userId);
    unwrap(mallory.messages.groups.add(fake, [bob.userId]));
    await world.runFor(2000);
    expect(bob.messages.counters().fromStrangers).toBeGreaterThan(before);
    expect(bob.messages.chats().map(({ chatId }) => chatId)).toContain(chat);
    expect(bob.messages.chats().map(({ chatId }) => chatId)).not.toContain(fake);
  });
});

describe("who is in it", () => {
  test("admins add and remove members, the owner makes admins, and others are refused", async () => {
    const { alice, bob, carol, chat } = await trio();
    expect(typeOf(bob.messages.groups.wish(chat, { kind: "rename", name: "Mine" }))).toBe("group_not_allowed");
    expect(typeOf(alice.messages.groups.wish(chat, { kind: "leave" }))).toBe("group_not_allowed");
    unwrap(alice.messages.groups.wish(chat, { kind: "role", userId: bob.userId, role: "admin" }));
    await world.runFor(1000);
    expect(groupOf(bob, chat).role).toBe("admin");
    expect(typeOf(bob.messages.groups.wish(chat, { kind: "remove", userId: alice.userId }))).toBe("group_not_allowed");
    expect(typeOf(bob.messages.groups.add(chat, [carol.userId]))).toBe("unknown_contact");
    unwrap(bob.messages.groups.wish(chat, { kind: "rename", name: "Climbers" }));
    unwrap(bob.messages.groups.wish(chat, { kind: "remove", userId: carol.userId }));
    await world.runFor(1000);
    expect(unwrap(alice.messages.chat(chat)).name).toBe("Climbers");
    expect(memberIds(alice, chat)).toEqual(ids(alice, bob));
    expect(groupOf(carol, chat).role).toBeNull();
    expect(typeOf(carol.messages.sendText(chat, "still here?"))).toBe("not_in_group");
    expect(carol.notices).toContainEqual(expect.objectContaining({ type: "group_removed" }));
    unwrap(alice.messages.groups.leave(chat));
    await world.runFor(1000);
    expect(memberIds(bob, chat)).toEqual(ids(bob));
    // A group that was left before goes altogether.
    expect(unwrap(carol.messages.groups.leave(chat))).toEqual({ removed: true });
    expect(typeOf(carol.messages.list(chat, 10))).toBe("unknown_chat");
  });

  test("what became of it stands among the messages, in words and in its place, once, also over restarts", async () => {
    const { alice, bob, carol, chat } = await trio();
    const dave = await world.join("Dave");
    await pair(world, alice, dave);
    const { groups } = alice.messages;
    const settle = () => world.runFor(1000);
    const say1 = async (peer: ChatPeer, text: string): Promise<void> => {
      say(peer, chat, text);
      await settle();
    };
    await say1(bob, "one");
    unwrap(groups.wish(chat, { kind: "role", userId: bob.userId, role: "admin" }));
    await settle();
    unwrap(bob.messages.groups.wish(chat, { kind: "rename", name: "Climbers" }));
    await settle();
    unwrap(groups.add(chat, [dave.userId]));
    await settle();
    await say1(dave, "two");
    unwrap(bob.messages.groups.wish(chat, { kind: "remove", userId: dave.userId }));
    await settle();
    unwrap(carol.messages.groups.wish(chat, { kind: "leave" }));
    await settle();
    await say1(alice, "three");
    const story = [
      ...["- Alice created the group \u201cHikers\u201d with Bob and Carol", "one", "- Alice made Bob an admin"],
      ...["- Bob renamed the group to \u201cClimbers\u201d", "- Alice added Dave", "two", "- Bob removed Dave"],
      ...["- Carol left the group", "three"],
    ];
    const as = (name: string, lines: readonly string[]): string[] =>
      lines.map((line) =>
        line
          .replace(`- ${name} `, "- You ")
          .replace(
            / with (.*)$/,
            (_, who: string) =>
              ` with ${who === "Bob and Carol" && name !== "Alice" ? `you and ${name === "Bob" ? "Carol" : "Bob"}` : who}`,
          )
          .replace(new RegExp(`(made|added|removed) ${name}`), "$1 you"),
      );
    const check = (): void => {
      expect(groupStory(alice, chat)).toEqual(as("Alice", story));
      expect(groupStory(bob, chat)).toEqual(as("Bob", story));
      expect(groupStory(carol, chat)).toEqual(as("Carol", story.slice(0, -1)));
      // Who came later is told who began it, and what happened from then on.
      expect(groupStory(dave, chat)).toEqual([story[0], "- Alice added you", "two", "- Bob removed you"]);
    };
    check();
    for (const peer of [alice, bob, carol, dave]) await restart(peer);
    await settle();
    check();
    expect(typeOf(alice.messages.groups.history(bob.userId as string as ChatId))).toBe("unknown_chat");
  });

  test("two admins at once: everybody ends with the same group", async () => {
    const { alice, bob, carol, chat } = await trio();
    const [dave, erin] = [await world.join("Dave"), await world.join("Erin")];
    await pair(world, alice, dave);
    await pair(world, bob, erin);
    unwrap(alice.messages.groups.wish(chat, { kind: "role", userId: bob.userId, role: "admin" }));
    await world.runFor(1000);
    for (const peer of [alice, bob, carol]) peer.setServer("disconnected");
    unwrap(alice.messages.groups.add(chat, [dave.userId]));
    unwrap(alice.messages.groups.wish(chat, { kind: "rename", name: "By Alice" }));
    unwrap(bob.messages.groups.add(chat, [erin.userId]));
    unwrap(bob.messages.groups.wish(chat, { kind: "rename", name: "By Bob" }));
    unwrap(bob.messages.groups.wish(chat, { kind: "remove", userId: carol.userId }));
    for (const peer of [alice, bob, carol]) peer.setServer("connected");
    await world.runFor(5000);
    for (const peer of [alice, bob, dave, erin]) {
      expect(memberIds(peer, chat)).toEqual(ids(alice, bob, dave, erin));
      expect(unwrap(peer.messages.chat(chat)).name).toBe("By Alice");
    }
    say(dave, chat, "hello Erin");
    say(erin, chat, "hello Dave");
    await world.runFor(5000);
    for (const peer of [alice, bob, dave, erin])
      expect(groupTexts(peer, chat).sort()).toEqual(["hello Dave", "hello Erin"]);
    expect(groupTexts(carol, chat)).toEqual([]);
    // Done at the same time, heard of in another order, and told in the same one; a name that did not win is not told.
    const toldTo = (peer: ChatPeer) => unwrap(peer.messages.groups.history(chat)).map(({ eventId }) => eventId);
    expect(toldTo(bob)).toEqual(toldTo(alice));
    expect(new Set(toldTo(alice)).size).toBe(toldTo(alice).length);
    expect(groupStory(alice, chat)).toContain("- You renamed the group to \u201cBy Alice\u201d");
  });

  test("whoever is removed can open nothing that follows, with every key they were given", async () => {
    const { alice, bob, carol, chat } = await trio();
    say(alice, chat, "for Carol too");
    say(bob, chat, "for Carol as well");
    await world.runFor(1000);
    expect(groupTexts(carol, chat)).toHaveLength(2);
    unwrap(alice.messages.groups.wish(chat, { kind: "remove", userId: carol.userId }));
    // The removal races what follows at once.
    const count = counted(50, 1000);
    const sealedBy = [alice, bob].map((sender) => ({ sender, bodies: recordSealed(sender) }));
    for (let i = 0; i < count; i++) say(alice, chat, `after ${i}`);
    await world.runFor(1000);
    for (let i = 0; i < 5; i++) say(bob, chat, `bob after ${i}`);
    await world.runFor(1000);
    expect(groupTexts(bob, chat)).toHaveLength(2 + count + 5);
    expect(groupTexts(carol, chat)).toHaveLength(2);
    // Carol gets hold of the ciphertexts all the same.
    expect(sealedBy.map(({ bodies }) => bodies.length)).toEqual([count, 5]);
    for (const { sender, bodies } of sealedBy) {
      for (const body of bodies)
        expect(typeOf(await carol.sessions.groupOpen(sender.userId, body, () => undefined))).toBe("unknown_key");
    }
    // Whoever stays opens them: they are what they seem to be.
    const first = defined(sealedBy[0]?.bodies[0], "a ciphertext");
    expect(typeOf(await bob.sessions.groupOpen(alice.userId, first, () => undefined))).toBe("duplicate_message");
  });

  test("who comes later reads nothing of before, and who comes back gets a new key", async () => {
    const { alice, bob, carol, chat } = await trio();
    say(alice, chat, "one");
    await world.runFor(1000);
    unwrap(alice.messages.groups.wish(chat, { kind: "remove", userId: carol.userId }));
    say(alice, chat, "two");
    await world.runFor(1000);
    unwrap(alice.messages.groups.add(chat, [carol.userId]));
    await world.runFor(1000);
    say(alice, chat, "three");
    say(bob, chat, "four");
    await world.runFor(2000);
    expect(groupTexts(carol, chat).sort()).toEqual(["four", "one", "three"]);
    expect(groupTexts(bob, chat).sort()).toEqual(["four", "one", "three", "two"]);
  });
});

describe("two hundred people", () => {
  test("a message is sealed once and put into each outbox; keys go once to everybody, and anew when somebody has gone", async () => {
    world = new ChatWorld({ crypto: "signal" });
    const [alice, bob] = (await circle(world, ["Alice", "Bob"])) as [ChatPeer, ChatPeer];
    // The others are names of contacts that the server does not know: what is meant for them waits.
    const others = Array.from({ length: GROUP_MEMBERS_MAX - 2 }, (_, n) => fakeUserId(n));
    const knowOthers = (): void => {
      const isAccepted = alice.contacts.isAccepted.bind(alice.contacts);
      alice.contacts.isAccepted = (userId) => others.includes(userId) || isAccepted(userId);
    };
    knowOthers();
    const waiting = (): number =>
      alice.parts.db.sql.prepare<[], number>("SELECT count(*) FROM outbox").pluck().get() ?? 0;
    const added = async (act: () => unknown): Promise<number> => {
      const before = waiting();
      act();
      // Bob's are gone as soon as the server has them confirmed; the others stay.
      alice.setServer("disconnected");
      await world.run();
      const after = waiting();
      alice.setServer("connected");
      await world.runFor(1000);
      return after - before;
    };
    let chat = "" as ChatId;
    const sealed = recordSealed(alice);
    const turns = perTurn(alice, waiting);
    expect(typeOf(alice.messages.groups.create("Too many", [bob.userId, ...others, fakeUserId(999)]))).toBe(
      "unknown_contact",
    );
    alice.setServer("disconnected");
    expect(await added(() => (chat = unwrap(alice.messages.groups.create("All", [bob.userId, ...others]))))).toBe(199);
    expect(groupOf(bob, chat).members).toHaveLength(GROUP_MEMBERS_MAX);
    // Whatever is to be done for everybody is done for a few in each turn.
    expect(turns.most()).toBe(GROUP_TOLD_PER_TURN);
    expect(typeOf(alice.messages.groups.add(chat, [bob.userId]))).toBe("group_no_change");
    alice.setServer("disconnected");
    expect(await added(() => say(alice, chat, "first"))).toBe(2 * 199);
    expect(turns.most()).toBe(2 * GROUP_POSTED_PER_TURN);
    alice.setServer("disconnected");
    expect(await added(() => say(alice, chat, "second"))).toBe(199);
    expect(turns.most()).toBe(GROUP_POSTED_PER_TURN);
    expect(sealed).toHaveLength(2);
    const begun = turns.stop();
    expect(Math.max(...begun)).toBeGreaterThan(1);
    expect(Math.max(...begun)).toBeLessThanOrEqual(OUTBOX_STEPS_PER_TURN);
    const gone = defined(others[0], "somebody");
    alice.setServer("disconnected");
    expect(await added(() => unwrap(alice.messages.groups.wish(chat, { kind: "remove", userId: gone })))).toBe(199);
    alice.setServer("disconnected");
    expect(await added(() => say(alice, chat, "third"))).toBe(2 * 198);
    expect(sealed).toHaveLength(3);
    expect(groupTexts(bob, chat)).toEqual(["first", "second", "third"]);
    expect(groupOf(bob, chat).members).toHaveLength(GROUP_MEMBERS_MAX - 1);
    expect(defined(groupMessages(alice, chat)[2], "third").received).toEqual({ delivered: 1, read: 0, of: 198 });

    // The program ends while the outboxes are being filled; then, in the same way, we leave.
    const last = defined(others.at(-1), "somebody");
    /** What waits for the one who is the last to be given anything. */
    const waitingFor = (peer: UserId) =>
      alice.parts.db.sql
        .prepare<[string], Uint8Array>("SELECT content FROM outbox WHERE peer = ? ORDER BY seq")
        .pluck()
        .all(peer)
        .map((bytes) => unwrap(decodeContent(bytes)))
        .filter(({ kind }) => kind === "groupMessage" || kind === "groupOps");
    const idsFor = (peer: UserId) =>
      waitingFor(peer).flatMap((content) => (content.kind === "groupMessage" ? [content.messageId] : []));
    alice.setServer("disconnected");
    const before = idsFor(last);
    const next = ["fourth", "fifth"].map((text) => say(alice, chat, text).messageId);
    const seen = sealed.length;
    while (sealed.length < seen + 2) await new Promise((resolve) => setImmediate(resolve));
    expect(idsFor(last)).toEqual([...before, next[0]]);
    alice.kill();
    await alice.start();
    knowOthers();
    alice.setServer("disconnected");
    await world.run();
    for (const peer of others.slice(1)) expect(idsFor(peer).slice(-2)).toEqual(next);
    expect(idsFor(last)).toEqual([...before, ...next]);
    unwrap(alice.messages.groups.wish(chat, { kind: "role", userId: bob.userId, role: "admin" }));
    await world.run();
    const again = recordSealed(alice);
    const sixth = say(alice, chat, "sixth").messageId;
    while (again.length === 0) await new Promise((resolve) => setImmediate(resolve));
    unwrap(alice.messages.groups.leave(chat));
    // Whoever heard of that first would not take the message any more.
    await world.run();
    const [message, leave] = waitingFor(last).slice(-2);
    expect(message).toMatchObject({ kind: "groupMessage", messageId: sixth });
    expect(leave).toMatchObject({ kind: "groupOps", operations: [{ kind: "leave" }] });
  });
});

describe("when something breaks", () => {
  test("what one person sends for groups that nobody knows is bounded over all of them", async () => {
    world = new ChatWorld({ crypto: "signal" });
    const [alice, bob] = (await circle(world, ["Alice", "Bob"])) as [ChatPeer, ChatPeer];
    const arrivals = new GroupMailTable(alice.parts.db);
    const unknown = (): GroupId => v.parse(GroupIdSchema, `g${toBase32(new Uint8Array(randomBytes(20)))}`);
    const body = new Uint8Array(32);
    alice.parts.db.transaction(() => {
      for (let n = 1; n < GROUP_ARRIVALS_MAX; n++)
        arrivals.addArrival(unknown(), bob.userId, { messageId: null, heads: [], admitted: false, body });
    });
    const [last, tooMuch] = [unknown(), unknown()];
    const outbox = new OutboxTable(bob.parts.db);
    bob.parts.db.transaction(() => {
      for (const groupId of [last, tooMuch]) {
        const seq = outbox.takeSeq(alice.userId);
        const messageId = v.parse(MessageIdSchema, toBase64Url(new Uint8Array(randomBytes(16))));
        const draft = { kind: "groupMessage" as const, groupId, heads: [body], messageId, body };
        outbox.insert(alice.userId, seq, encodeContent({ ...draft, seq, received: 0, oldest: 1 }), null);
      }
    });
    await bob.restart();
    await world.runFor(1000);
    expect(arrivals.arrivalCount(last, bob.userId)).toBe(1);
    expect(arrivals.arrivalCount(tooMuch, bob.userId)).toBe(0);
    expect(alice.notices.map(({ type }) => type)).toEqual(["message_missing"]);
    // A group that is known is none of them.
    const chat = unwrap(bob.messages.groups.create("Hikers", [alice.userId]));
    await world.runFor(1000);
    say(bob, chat, "hello");
    await world.runFor(1000);
    expect(groupTexts(alice, chat)).toEqual(["hello"]);
  });

  test("whoever was not told of a change before the program ended, or before the group was forgotten, is told all the same", async () => {
    world = new ChatWorld({ crypto: "signal" });
    const [alice, bob, carol] = (await circle(world, ["Alice", "Bob", "Carol"])) as [ChatPeer, ChatPeer, ChatPeer];
    const chat = unwrap(alice.messages.groups.create("Hikers", [bob.userId, carol.userId]));
    // At once: nobody was told yet.
    alice.kill();
    await alice.start();
    await world.runFor(1000);
    for (const peer of [bob, carol]) expect(memberIds(peer, chat)).toEqual(ids(alice, bob, carol));
    expect(unwrap(bob.messages.groups.leave(chat))).toEqual({ removed: false });
    expect(unwrap(bob.messages.groups.leave(chat))).toEqual({ removed: true });
    bob.kill();
    await bob.start();
    await world.runFor(1000);
    // Carol is no contact of his, and no group says any more who she is.
    for (const peer of [alice, carol]) expect(memberIds(peer, chat)).toEqual(ids(alice, carol));
    // She never answered: what the mailbox may lose waits for as long as it would keep it.
    const waiting = () =>
      bob.parts.db.sql
        .prepare<[string], number>("SELECT count(*) FROM outbox WHERE peer = ?")
        .pluck()
        .get(carol.userId);
    expect(waiting()).toBeGreaterThan(0);
    await world.runFor(GROUP_GOODBYE_MS);
    await bob.restart();
    expect(waiting()).toBe(0);
    expect(bob.contacts.relationOf(carol.userId)).toBeNull();
  });

  test("a crash at any point of receiving loses nothing and shows nothing twice", async () => {
    const { alice, bob, carol, chat } = await trio();
    const points = ["read", "decrypt", "commit", "process", "render", "ack"] as const;
    for (const [i, point] of points.entries()) {
      let crashed = false;
      carol.checkpoint = (at) => {
        if (at !== point || crashed) return;
        crashed = true;
        carol.kill();
        throw new Error("killed");
      };
      say(i % 2 === 0 ? alice : bob, chat, `message ${i}`);
      await world.runFor(1000).catch(() => undefined);
      carol.checkpoint = () => undefined;
      if (!carol.alive) await carol.start();
      await world.runFor(20_000);
    }
    const expected = points.map((_, i) => `message ${i}`);
    expect(groupTexts(carol, chat)).toEqual(expected);
    // And between the envelope and the message in it, before and after the step of the sender's key is stored.
    for (const when of ["before", "after"] as const) {
      const { groupOpen } = carol.sessions;
      carol.sessions.groupOpen = async (sender, body, commit) => {
        if (when === "after") await groupOpen(sender, body, commit);
        carol.kill();
        throw new Error("killed");
      };
      say(alice, chat, `killed ${when}`);
      expected.push(`killed ${when}`);
      await world.runFor(1000).catch(() => undefined);
      expect(carol.alive).toBe(false);
      await carol.start();
      await world.runFor(20_000);
      expect(groupTexts(carol, chat)).toEqual(expected);
    }
  });

  test("who is no contact any more is still heard in the group, and who is blocked is not", async () => {
    const { alice, bob, carol, chat } = await trio();
    say(bob, chat, "one");
    await world.runFor(1000);
    unwrap(await alice.contacts.remove(bob.userId));
    await world.runFor(1000);
    say(alice, chat, "two");
    await world.runFor(5000);
    say(bob, chat, "three");
    await world.runFor(30_000);
    for (const peer of [alice, bob, carol]) expect(groupTexts(peer, chat)).toEqual(["one", "two", "three"]);
    unwrap(alice.contacts.block(carol.userId));
    say(carol, chat, "four");
    say(alice, chat, "five");
    await world.runFor(30_000);
    expect(groupTexts(alice, chat)).toEqual(["one", "two", "three", "five"]);
    expect(groupTexts(carol, chat)).toEqual(["one", "two", "three", "four"]);
    expect(groupTexts(bob, chat).sort()).toEqual(["five", "four", "one", "three", "two"]);
  });

  test("a sender whose keys went back to a backup is read all the same", async () => {
    const { alice, bob, chat } = await trio();
    say(alice, chat, "before");
    await world.runFor(1000);
    const keys = alice.parts.db.sql.prepare("SELECT * FROM signal_sender_keys").all();
    say(alice, chat, "between");
    await world.runFor(1000);
    const put = alice.parts.db.sql.prepare(
      "UPDATE signal_sender_keys SET record = @record WHERE distribution_id = @distribution_id",
    );
    for (const row of keys) put.run(row as { record: unknown; distribution_id: unknown });
    say(alice, chat, "after");
    await world.runFor(2000);
    expect(groupTexts(bob, chat)).toEqual(["before", "between", "after"]);
  });

  test("a member who lost the keys of others gets what could not be read once more", async () => {
    const { alice, bob, chat } = await trio();
    say(alice, chat, "before");
    await world.runFor(1000);
    bob.parts.db.sql.exec("DELETE FROM signal_sender_keys");
    say(alice, chat, "after");
    await world.runFor(2000);
    expect(groupTexts(bob, chat)).toEqual(["before", "after"]);
  });
});
