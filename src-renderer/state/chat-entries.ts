import type { ChatView, ContactView } from "#shared/ipc/views.ts";

/** One line of the chat list: a person, and the conversation with that person if there is one yet. */
export interface ChatEntry {
  contact: ContactView;
  chat: ChatView | null;
}

export interface ChatEntries {
  /** People who ask to connect and wait for an answer. */
  requests: ChatEntry[];
  chats: ChatEntry[];
}

const lastActivityMs = ({ contact, chat }: ChatEntry): number => chat?.lastMessage?.sentAtMs ?? contact.addedAtMs;

/** Case and accents do not matter when a person looks for a name. */
const folded = (text: string): string => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

export const matchesSearch = (name: string, search: string): boolean => folded(name).includes(folded(search.trim()));

/** Newest first. Blocked people appear only when they are searched for. */
export const chatEntriesOf = (
  contacts: Iterable<ContactView>,
  chatOf: (userId: string) => ChatView | undefined,
  search: string,
): ChatEntries => {
  const isSearch = search.trim() !== "";
  const entries = [...contacts]
    .filter((contact) => (isSearch ? matchesSearch(contact.name, search) : contact.state !== "blocked"))
    .map((contact): ChatEntry => ({ contact, chat: chatOf(contact.userId) ?? null }))
    .sort((a, b) => lastActivityMs(b) - lastActivityMs(a));
  return {
    requests: entries.filter((entry) => entry.contact.state === "incoming"),
    chats: entries.filter((entry) => entry.contact.state !== "incoming"),
  };
};
