import type { Result } from "#shared/base/result.ts";
import type { ChatView, GroupEventView, GroupRoleView, GroupView, MessageReceiptView } from "#shared/ipc/views.ts";
import type { FakeState, FakeWeir } from "./fake-weir.ts";

/** What the fake needs of groups: the owner's rules, in memory. */
type Outcome = { ok: true; value: ChatView } | { ok: false; error: { type: string; message: string } };

const refused = (message: string): Outcome => ({ ok: false, error: { type: "group_not_allowed", message } });

export const fakeGroups = (fake: FakeWeir) => {
  const { state } = fake;
  const nameOf = (userId: string): string => {
    if (userId === state.profile.userId) return "";
    const fellows = state.chats.flatMap(({ group }) => group?.members ?? []);
    return [...state.contacts, ...fellows].find((known) => known.userId === userId)?.name ?? "Somebody";
  };
  const member = (userId: string, role: GroupRoleView): GroupView["members"][number] => ({
    ...{ userId, name: nameOf(userId), role, sinceMs: state.nowMs },
  });
  /** A line behind the newest message; the number says that there is one more. */
  const tell = (
    chatId: string,
    kind: GroupEventView["kind"],
    userIds: readonly string[],
    name: string | null = null,
  ) => {
    const events = state.groupEvents[chatId] ?? [];
    state.groupEvents[chatId] = events;
    const afterId = state.messages.findLast((message) => message.chatId === chatId)?.messageId ?? null;
    const person = (userId: string) => ({ userId, name: nameOf(userId) });
    const people = userIds.map(person);
    const actor = person(state.profile.userId);
    events.push({ eventId: `${chatId} ${events.length}`, afterId, atMs: state.nowMs, kind, actor, people, name });
    return events.length;
  };
  const change = (chatId: string, changes: (group: GroupView) => Partial<GroupView>): Outcome => {
    const group = state.chats.find((chat) => chat.chatId === chatId)?.group;
    if (group === undefined) return { ok: false, error: { type: "unknown_chat", message: "There is no such group." } };
    if (group.role === "member") return refused("Only the owner and admins can change the group.");
    return { ok: true, value: fake.chat(chatId, { group: { ...group, ...changes(group) } }) };
  };
  return {
    create(name: string, userIds: readonly string[]): Outcome {
      const chatId = `g${name.toLowerCase().replace(/[^a-z]/g, "")}`.padEnd(33, "a");
      const self = state.profile.userId;
      const members = [member(self, "owner"), ...userIds.map((userId) => member(userId, "member"))];
      const changes = tell(chatId, "create", userIds, name);
      return {
        ok: true,
        value: fake.chat(chatId, { name, group: { ownerId: self, role: "owner", members, changes } }),
      };
    },
    add: (chatId: string, userIds: readonly string[]): Outcome =>
      change(chatId, ({ members }) => ({
        members: [...members, ...userIds.map((userId) => member(userId, "member"))],
        changes: tell(chatId, "add", userIds),
      })),
    remove: (chatId: string, userId: string): Outcome =>
      change(chatId, ({ members }) => ({
        members: members.filter((known) => known.userId !== userId),
        changes: tell(chatId, "remove", [userId]),
      })),
    settings(chatId: string, name?: string, role?: { userId: string; role: "admin" | "member" }): Outcome {
      const changed = change(chatId, ({ members }) => ({
        members: members.map((known) => (known.userId === role?.userId ? { ...known, role: role.role } : known)),
        changes: role === undefined ? tell(chatId, "rename", [], name) : tell(chatId, role.role, [role.userId]),
      }));
      return changed.ok && name !== undefined ? { ok: true, value: fake.chat(chatId, { name }) } : changed;
    },
    leave(chatId: string): { ok: true; value: { removed: boolean } } {
      const group = state.chats.find((chat) => chat.chatId === chatId)?.group;
      if (group === undefined || group.role === null) {
        state.chats = state.chats.filter((chat) => chat.chatId !== chatId);
        return { ok: true, value: { removed: true } };
      }
      const members = group.members.filter(({ userId }) => userId !== state.profile.userId);
      const sendBlocked = { type: "not_in_group", message: "You are not in this group any more." };
      const changes = tell(chatId, "leave", [state.profile.userId]);
      fake.chat(chatId, { group: { ...group, members, role: null, changes }, sendBlocked });
      return { ok: true, value: { removed: false } };
    },
  };
};

const MINUTE = 60_000;

/** As many of the others as the message says it has reached, from the first one on. */
export const fakeReceipts = (state: FakeState, chatId: string, messageId: string): Result<MessageReceiptView[]> => {
  const message = state.messages.find((known) => known.messageId === messageId);
  if (message === undefined)
    return { ok: false, error: { type: "unknown_message", message: "It is not in the chat." } };
  const people =
    state.chats.find((chat) => chat.chatId === chatId)?.group?.members ??
    state.contacts.filter(({ userId }) => userId === chatId);
  const others = people.filter(({ userId }) => userId !== state.profile.userId);
  const all = { delivered: others.length, read: others.length };
  const { delivered, read } = message.received ?? {
    read: message.state === "read" ? all.read : 0,
    delivered: message.state === "read" || message.state === "delivered" ? all.delivered : 0,
  };
  const made = others.map(({ userId, name }, i): MessageReceiptView => {
    const deliveredAtMs = i < delivered ? message.sentAtMs + (i + 1) * MINUTE : null;
    const readAtMs = i < read ? message.sentAtMs + (i + 4) * MINUTE : null;
    const reached = i < read ? "read" : i < delivered ? "delivered" : message.state === "queued" ? "queued" : "sent";
    return { userId, name, state: reached, deliveredAtMs, readAtMs };
  });
  return { ok: true, value: state.receipts[messageId] ?? made };
};
