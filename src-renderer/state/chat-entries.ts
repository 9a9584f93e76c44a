import type { ChatView, ContactView } from "#shared/ipc/views.ts";

/** One line of the chat list: a person, with the conversation if there is one yet, or a group. */
export interface ChatEntry {
  /** Of the chat, whether there is one yet or not. */
  id: string;
  name: string;
  /** Null for a group. */
  contact: ContactView | null;
  chat: ChatView | null;
}

export interface ChatEntries {
  /** People who ask to connect and wait for an answer. */
  requests: ChatEntry[];
  chats: ChatEntry[];
}

const sinceMs = ({ contact, chat }: ChatEntry): number =>
  contact?.addedAtMs ?? Math.max(0, ...(chat?.group?.members ?? []).map((member) => member.sinceMs));
const lastActivityMs = (entry: ChatEntry): number => entry.chat?.lastMessage?.sentAtMs ?? sinceMs(entry);

/** Case and accents do not matter when a person looks for a name. */
const folded = (text: string): string => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

export const matchesSearch = (name: string, search: string): boolean => folded(name).includes(folded(search.trim()));

/** Newest first. Blocked people appear only when they are searched for. */
export const chatEntriesOf = (
  contacts: Iterable<ContactView>,
  chats: Iterable<ChatView>,
  search: string,
): ChatEntries => {
  const isSearch = search.trim() !== "";
  const all = [...chats];
  const people = [...contacts]
    .filter((contact) => isSearch || contact.state !== "blocked")
    .map((contact): ChatEntry => {
      const { userId: id, name } = contact;
      return { id, name, contact, chat: all.find((chat) => chat.chatId === id) ?? null };
    });
  const groups = all
    .filter((chat) => chat.group !== undefined)
    .map((chat): ChatEntry => ({ id: chat.chatId, name: chat.name, contact: null, chat }));
  const entries = [...people, ...groups]
    .filter(({ name }) => !isSearch || matchesSearch(name, search))
    .sort((a, b) => lastActivityMs(b) - lastActivityMs(a));
  const isRequest = ({ contact }: ChatEntry): boolean => contact?.state === "incoming";
  return { requests: entries.filter(isRequest), chats: entries.filter((entry) => !isRequest(entry)) };
};
