import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ChatView, MessageView, TransferView } from "#shared/ipc/views.ts";
import { CommandError, type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { sha256OfFile, writeRandomFile } from "../support/files.ts";
import { createWorld, type World } from "../support/profiles.ts";

/**
 * Whole programs: Alice makes a group with Bob and Carol, who do not know each other. One world for all of it, because
 * pairing takes longer than what is tested.
 */
let world: World;
let [alice, bob, carol]: HeadlessProfile[] = [];
const me = (profile: HeadlessProfile | undefined): HeadlessProfile => {
  if (profile === undefined) throw new Error("the world is not up");
  return profile;
};
let chatId: string;

const errorOf = (promise: Promise<unknown>): Promise<string | null> =>
  promise.then(
    () => null,
    (error: unknown) => (error instanceof CommandError ? error.type : String(error)),
  );
const chatWhere = (profile: HeadlessProfile | undefined, what: string, fits: (chat: ChatView) => boolean) =>
  me(profile).until(
    what,
    async () => {
      const chat = (await me(profile).call("chats.list", {})).find((known) => known.chatId === chatId);
      return chat !== undefined && fits(chat) ? chat : null;
    },
    120_000,
  );
const messageWhere = (profile: HeadlessProfile | undefined, what: string, fits: (message: MessageView) => boolean) =>
  me(profile).until(
    what,
    async () => (await me(profile).call("messages.list", { chatId, limit: 50 })).find(fits) ?? null,
    120_000,
  );
const says = (text: string) => (message: MessageView) => message.text === text;

beforeAll(async () => {
  world = await createWorld();
  const profiles: HeadlessProfile[] = [];
  for (const name of ["alice", "bob", "carol"]) profiles.push(await world.profile(name));
  [alice, bob, carol] = profiles;
  await pair(me(alice), me(bob));
  await pair(me(alice), me(carol));
}, 240_000);
afterAll(() => world[Symbol.asyncDispose]());

describe("a group of whole programs", { timeout: 300_000 }, () => {
  test("everybody sees it and reads everybody, over a restart, with receipts", async () => {
    const people = [me(bob).userId, me(carol).userId];
    const made = await me(alice).call("chats.createGroup", { name: "Expedition", userIds: people });
    chatId = made.chatId;
    expect(made).toMatchObject({ name: "Expedition", group: { role: "owner", ownerId: me(alice).userId } });
    await chatWhere(bob, "the group", (chat) => chat.group?.members.length === 3);
    await me(bob).call("messages.send", { chatId, text: "hello from Bob" });
    // Carol does not know Bob, and reads him all the same.
    const read = await messageWhere(carol, "Bob's message", says("hello from Bob"));
    expect(read).toMatchObject({ senderId: me(bob).userId, senderName: "bob" });
    await me(carol).stop();
    const { messageId } = await me(alice).call("messages.send", { chatId, text: "while Carol is away" });
    await messageWhere(bob, "Alice's message", says("while Carol is away"));
    carol = await world.profile("carol");
    await messageWhere(carol, "what was written meanwhile", says("while Carol is away"));
    await me(carol).call("chats.markRead", { chatId });
    await me(bob).call("chats.markRead", { chatId });
    await messageWhere(alice, "read by both", (message) => message.messageId === messageId && message.state === "read");
    const receipts = await me(alice).call("messages.receipts", { chatId, messageId });
    expect(receipts.map(({ name, state }) => `${name} ${state}`).sort()).toEqual(["bob read", "carol read"]);
    // What is written there is counted for the group, whoever wrote it.
    const { byContact, messagesSent } = await me(alice).call("activity.summary", { userId: chatId });
    expect(byContact.map((each) => each.userId)).toEqual([chatId]);
    expect([messagesSent, byContact[0]?.messagesReceived]).toEqual([1, 1]);
    const fromBob = await me(alice).call("activity.summary", { userId: me(bob).userId });
    expect(fromBob.messagesReceived).toBe(0);
  });

  test("roles: the owner makes an admin, who renames; a member may not; whoever is removed reads nothing more", async () => {
    const toCarol = { chatId, userId: me(carol).userId };
    expect(await errorOf(me(bob).call("chats.settings", { chatId, name: "Mine" }))).toBe("group_not_allowed");
    await me(alice).call("chats.settings", { chatId, role: { userId: me(bob).userId, role: "admin" } });
    await chatWhere(bob, "the role", (chat) => chat.group?.role === "admin");
    expect((await me(bob).call("chats.settings", { chatId, name: "Summit" })).name).toBe("Summit");
    await chatWhere(carol, "the name", (chat) => chat.name === "Summit");
    await me(bob).call("chats.removeMember", toCarol);
    await chatWhere(carol, "the end", (chat) => chat.group?.role === null && chat.sendBlocked?.type === "not_in_group");
    await chatWhere(alice, "two people", (chat) => chat.group?.members.length === 2);
    await me(alice).call("messages.send", { chatId, text: "without Carol" });
    await messageWhere(bob, "the message", says("without Carol"));
    expect((await me(carol).call("messages.list", { chatId })).map(({ text }) => text)).not.toContain("without Carol");
    expect(await errorOf(me(carol).call("messages.send", { chatId, text: "let me in" }))).toBe("not_in_group");
    await me(alice).call("chats.addMembers", { chatId, userIds: [me(carol).userId] });
    await chatWhere(carol, "the group again", (chat) => chat.group?.role === "member");
  });

  test("a file that is shared with the group is for everybody in it", async () => {
    const path = join(world.dir, "map.bin");
    const sha256 = await writeRandomFile(path, 3 * 1024 * 1024);
    const file = await me(alice).call("files.share", { chatId, path });
    expect([...file.sharedWith].sort()).toEqual([me(bob).userId, me(carol).userId].sort());
    for (const profile of [bob, carol]) {
      const message = await messageWhere(profile, "the file", (known) => known.file?.fileId === file.fileId);
      expect(message.file).toMatchObject({ name: "map.bin", ownerId: me(alice).userId, access: "granted" });
      await me(profile).call("transfers.start", { fileId: file.fileId });
      const done = await me(profile).until(
        "the file",
        async () =>
          (await me(profile).call("transfers.list", {})).find(
            (view: TransferView) => view.fileId === file.fileId && view.phase === "complete",
          ) ?? null,
        120_000,
      );
      expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
    }
  });

  test("its access follows the group: who is removed loses it, who comes gets it and sees the file there", async () => {
    const [shared] = (await me(alice).call("files.list", {})).filter(({ name }) => name === "map.bin");
    const fileId = shared?.fileId ?? "";
    const accessWhere = (profile: HeadlessProfile | undefined, what: string, access: "granted" | "revoked") =>
      me(profile).until(
        what,
        async () => {
          const file = (await me(profile).call("files.list", {})).find((known) => known.fileId === fileId);
          return file?.access === access ? file : null;
        },
        120_000,
      );
    const sharedWith = async () => (await me(alice).call("files.get", { fileId })).sharedWith;
    // Bob, an admin, removes her; the file is Alice's, and it is Alice's program that takes the access back.
    await me(bob).call("chats.removeMember", { chatId, userId: me(carol).userId });
    await accessWhere(carol, "the end of the access", "revoked");
    expect(await sharedWith()).toEqual([me(bob).userId]);
    const path = join(world.dir, "route.bin");
    await writeRandomFile(path, 64 * 1024);
    const second = await me(alice).call("files.share", { chatId, path });
    expect(second.sharedWith).toEqual([me(bob).userId]);
    await me(alice).call("chats.addMembers", { chatId, userIds: [me(carol).userId] });
    await accessWhere(carol, "the access again", "granted");
    // What was shared while she was away is there for her now, in the group and not in a chat of two.
    const later = await messageWhere(carol, "the second file", (message) => message.file?.fileId === second.fileId);
    expect(later).toMatchObject({ senderId: me(alice).userId, senderName: "alice" });
    const direct = await me(carol).call("messages.list", { chatId: me(alice).userId });
    expect(direct.filter(({ file }) => file !== null)).toEqual([]);
    await me(carol).call("transfers.start", { fileId: second.fileId });
    await me(carol).until(
      "the second file",
      async () =>
        (await me(carol).call("transfers.list", {})).find(
          (view) => view.fileId === second.fileId && view.phase === "complete",
        ) ?? null,
      120_000,
    );
    // While the owner is away nothing is forgotten: Carol goes, and the access follows when Alice is back.
    await me(alice).stop();
    await me(bob).call("chats.removeMember", { chatId, userId: me(carol).userId });
    alice = await world.profile("alice");
    await accessWhere(carol, "the end again", "revoked");
    await me(alice).call("chats.addMembers", { chatId, userIds: [me(carol).userId] });
    await accessWhere(carol, "the access once more", "granted");
  });

  test("who leaves is out, and can put the chat away", async () => {
    expect(await me(carol).call("chats.leave", { chatId })).toEqual({ removed: false });
    await chatWhere(alice, "Carol's leaving", (chat) => chat.group?.members.length === 2);
    expect(await me(carol).call("chats.leave", { chatId })).toEqual({ removed: true });
    expect((await me(carol).call("chats.list", {})).map((chat) => chat.chatId)).not.toContain(chatId);
    expect(await errorOf(me(carol).call("chats.leave", { chatId }))).toBe("unknown_chat");
  });
});
