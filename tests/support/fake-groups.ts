import type { ChatView, GroupRoleView, GroupView } from "#shared/ipc/views.ts";
import type { FakeWeir } from "./fake-weir.ts";

/** What the fake needs of groups: the owner's rules, in memory. */
type Outcome = { ok: true; value: ChatView } | { ok: false; error: { type: string; message: string } };

const refused = (message: string): Outcome => ({ ok: false, error: { type: "group_not_allowed", message } });

export const fakeGroups = (fake: FakeWeir) => {
  const { state } = fake;
  const nameOf = (userId: string): string =>
    userId === state.profile.userId
      ? ""
      : (state.contacts.find((known) => known.userId === userId)?.name ?? "Somebody");
  const member = (userId: string, role: GroupRoleView): GroupView["members"][number] => ({
    ...{ userId, name: nameOf(userId), role, sinceMs: state.nowMs },
  });
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
      return { ok: true, value: fake.chat(chatId, { name, group: { ownerId: self, role: "owner", members } }) };
    },
    add: (chatId: string, userIds: readonly string[]): Outcome =>
      change(chatId, ({ members }) => ({
        members: [...members, ...userIds.map((userId) => member(userId, "member"))],
      })),
    remove: (chatId: string, userId: string): Outcome =>
      change(chatId, ({ members }) => ({ members: members.filter((known) => known.userId !== userId) })),
    settings(chatId: string, name?: string, role?: { userId: string; role: "admin" | "member" }): Outcome {
      const changed = change(chatId, ({ members }) => ({
        members: members.map((known) => (known.userId === role?.userId ? { ...known, role: role.role } : known)),
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
      fake.chat(chatId, { group: { ...group, members, role: null }, sendBlocked });
      return { ok: true, value: { removed: false } };
    },
  };
};
