import type { MessageView } from "#shared/ipc/views.ts";
import { isSameDay } from "../format.ts";
import type { MessageLog } from "./message-log.ts";

/** What the conversation shows, top to bottom. */
export type MessageRow =
  | { kind: "intro"; key: string }
  | { kind: "day"; key: string; dayMs: number }
  | { kind: "message"; key: string; message: MessageView; mine: boolean; startsGroup: boolean; endsGroup: boolean };

/** Messages of one person within this time belong together. */
const GROUP_MS = 5 * 60 * 1000;

const sameGroup = (a: MessageView | undefined, b: MessageView | undefined): boolean =>
  a !== undefined &&
  b !== undefined &&
  a.senderId === b.senderId &&
  isSameDay(a.sentAtMs, b.sentAtMs) &&
  Math.abs(b.sentAtMs - a.sentAtMs) < GROUP_MS;

export const rowsOf = (log: MessageLog, ownUserId: string): MessageRow[] => {
  const rows: MessageRow[] = log.hasOlder ? [] : [{ kind: "intro", key: "intro" }];
  log.messages.forEach((message, index) => {
    const before = log.messages[index - 1];
    if (before === undefined || !isSameDay(before.sentAtMs, message.sentAtMs)) {
      rows.push({ kind: "day", key: `day-${message.messageId}`, dayMs: message.sentAtMs });
    }
    rows.push({
      kind: "message",
      key: message.messageId,
      message,
      mine: message.senderId === ownUserId,
      startsGroup: !sameGroup(before, message),
      endsGroup: !sameGroup(message, log.messages[index + 1]),
    });
  });
  return rows;
};
