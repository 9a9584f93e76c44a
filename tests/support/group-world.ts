import { defined } from "#shared/base/assert.ts";
import type { ChatId } from "#shared/base/ids.ts";
import type { GroupView, MessageView } from "#shared/ipc/views.ts";
import { eventWords } from "../../src-renderer/state/group-words.ts";
import { type ChatPeer, type ChatWorld, pair } from "./chat-world.ts";
import { unwrap } from "./session-peer.ts";

/** A group in a world of chats, as one of its people sees it. */
export const groupOf = (peer: ChatPeer, chatId: ChatId): GroupView => {
  const { group } = unwrap(peer.messages.chat(chatId));
  if (group === undefined) throw new Error("this is no group");
  return group;
};

export const memberIds = (peer: ChatPeer, chatId: ChatId): string[] =>
  groupOf(peer, chatId)
    .members.map(({ userId }) => userId)
    .sort();

export const groupMessages = (peer: ChatPeer, chatId: ChatId): MessageView[] =>
  unwrap(peer.messages.list(chatId, 10_000)).reverse();
export const messageIn = (peer: ChatPeer, chatId: ChatId, messageId: string): MessageView =>
  defined(
    groupMessages(peer, chatId).find((message) => message.messageId === messageId),
    "it",
  );

export const groupTexts = (peer: ChatPeer, chatId: ChatId): string[] =>
  groupMessages(peer, chatId).map(({ text }) => text);

export const say = (peer: ChatPeer, chatId: ChatId, text: string): MessageView =>
  unwrap(peer.messages.sendText(chatId, text));

/** The first one is in contact with all others, who do not know each other. */
export const circle = async (world: ChatWorld, names: readonly string[]): Promise<ChatPeer[]> => {
  const people: ChatPeer[] = [];
  for (const name of names) people.push(await world.join(name));
  const [first, ...others] = people;
  if (first !== undefined) for (const other of others) await pair(world, first, other);
  return people;
};

/** The chat as it is shown: what was written, and what became of the group, each in its place. */
export const groupStory = (peer: ChatPeer, chatId: ChatId): string[] => {
  const events = unwrap(peer.messages.groups.history(chatId));
  const lines = (afterId: string | null): string[] =>
    events.filter((event) => event.afterId === afterId).map((event) => `- ${eventWords(event)}`);
  return [...lines(null), ...groupMessages(peer, chatId).flatMap(({ messageId, text }) => [text, ...lines(messageId)])];
};
