import type { GroupEventView, MessageView } from "#shared/ipc/views.ts";
import { isSameDay } from "../format.ts";
import type { MessageLog } from "./message-log.ts";

/** What the conversation shows, top to bottom. */
export type MessageRow =
  | { kind: "intro"; key: string }
  | { kind: "day"; key: string; dayMs: number }
  | { kind: "event"; key: string; event: GroupEventView }
  | { kind: "message"; key: string; message: MessageView; mine: boolean; startsGroup: boolean; endsGroup: boolean };

/** Messages of one person within this time belong together. */
const GROUP_MS = 5 * 60 * 1000;

const sameGroup = (a: MessageView | undefined, b: MessageView | undefined): boolean =>
  a !== undefined &&
  b !== undefined &&
  a.senderId === b.senderId &&
  isSameDay(a.sentAtMs, b.sentAtMs) &&
  Math.abs(b.sentAtMs - a.sentAtMs) < GROUP_MS;

/** `events`: what became of the group; one stands behind the message that was the newest when it came. */
export const rowsOf = (log: MessageLog, ownUserId: string, events: readonly GroupEventView[] = []): MessageRow[] => {
  const rows: MessageRow[] = log.hasOlder ? [] : [{ kind: "intro", key: "intro" }];
  const eventsAfter = Map.groupBy(events, ({ afterId }) => afterId);
  let lastMs: number | null = null;
  const dayOf = (key: string, atMs: number): void => {
    if (lastMs === null || !isSameDay(lastMs, atMs)) rows.push({ kind: "day", key: `day-${key}`, dayMs: atMs });
    lastMs = atMs;
  };
  const addEvents = (afterId: string | null): void => {
    for (const event of eventsAfter.get(afterId) ?? []) {
      dayOf(event.eventId, event.atMs);
      rows.push({ kind: "event", key: event.eventId, event });
    }
  };
  if (!log.hasOlder) addEvents(null);
  log.messages.forEach((message, index) => {
    const { messageId } = message;
    const before = log.messages[index - 1];
    dayOf(messageId, message.sentAtMs);
    rows.push({
      kind: "message",
      key: messageId,
      message,
      mine: message.senderId === ownUserId,
      startsGroup: rows.at(-1)?.kind === "event" || !sameGroup(before, message),
      endsGroup: eventsAfter.has(messageId) || !sameGroup(message, log.messages[index + 1]),
    });
    addEvents(messageId);
  });
  return rows;
};
