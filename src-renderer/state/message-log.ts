import type { MessageView } from "#shared/ipc/views.ts";

/**
 * What is known of one chat, oldest first. The order is the main process's (arrival, not the sender's clock),
 * so nothing is sorted here: pages and changes are only put together.
 */
export interface MessageLog {
  readonly messages: readonly MessageView[];
  /** Whether there may be older messages than the first one here. */
  readonly hasOlder: boolean;
}

export const emptyLog: MessageLog = { messages: [], hasOlder: true };

const indexOfId = (messages: readonly MessageView[], messageId: string): number =>
  messages.findLastIndex((message) => message.messageId === messageId);

/** The newest page (newest first, as the contract has it) replaces what it overlaps; older ones stay in front of it. */
export const withNewestPage = (log: MessageLog, page: readonly MessageView[], limit: number): MessageLog => {
  const newest = page.toReversed();
  const first = newest[0];
  if (first === undefined) return { messages: [], hasOlder: false };
  const overlap = indexOfId(log.messages, first.messageId);
  // Without an overlap there is a gap of unknown size, so what was known before is dropped and can be loaded again.
  if (overlap === -1) return { messages: newest, hasOlder: page.length === limit };
  const inPage = new Set(newest.map((message) => message.messageId));
  return {
    // What stands in front may belong into the page too, when it came as a change and out of order.
    messages: [...log.messages.slice(0, overlap).filter((message) => !inPage.has(message.messageId)), ...newest],
    hasOlder: overlap > 0 ? log.hasOlder : page.length === limit,
  };
};

/** A page from before the first known message (newest first). */
export const withOlderPage = (log: MessageLog, page: readonly MessageView[], limit: number): MessageLog => {
  const known = new Set(log.messages.map((message) => message.messageId));
  const older = page.filter((message) => !known.has(message.messageId)).toReversed();
  return { messages: [...older, ...log.messages], hasOlder: page.length === limit };
};

/** A snapshot of one message: replaces it, or is new at the end, or belongs to a page that is not loaded. */
export const withChange = (log: MessageLog, message: MessageView): MessageLog => {
  const index = indexOfId(log.messages, message.messageId);
  if (index !== -1) return { ...log, messages: log.messages.with(index, message) };
  const first = log.messages[0];
  const isOlder = first !== undefined && log.hasOlder && message.sentAtMs < first.sentAtMs;
  return isOlder ? log : { ...log, messages: [...log.messages, message] };
};
