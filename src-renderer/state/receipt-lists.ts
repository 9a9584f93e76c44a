import type { MessageReceiptView } from "#shared/ipc/views.ts";
import { formatClock, formatDay, isSameDay } from "../format.ts";

/** People by how far a message has come with them. */
interface ReceiptLists {
  readonly read: MessageReceiptView[];
  readonly delivered: MessageReceiptView[];
  readonly notYet: MessageReceiptView[];
}

const byName = (a: MessageReceiptView, b: MessageReceiptView): number => a.name.localeCompare(b.name);

/** Whose time is not known comes first: it is from before times were kept. */
const byTime =
  (timeOf: (receipt: MessageReceiptView) => number | null) =>
  (a: MessageReceiptView, b: MessageReceiptView): number =>
    (timeOf(a) ?? 0) - (timeOf(b) ?? 0) || byName(a, b);

/** Whoever had or read it first stands first. */
export const receiptLists = (receipts: readonly MessageReceiptView[]): ReceiptLists => ({
  read: receipts.filter(({ state }) => state === "read").sort(byTime(({ readAtMs }) => readAtMs)),
  delivered: receipts.filter(({ state }) => state === "delivered").sort(byTime(({ deliveredAtMs }) => deliveredAtMs)),
  notYet: receipts.filter(({ state }) => state === "queued" || state === "sent").sort(byName),
});

const timeWords = (atMs: number, nowMs: number): string => `${formatDay(atMs, nowMs)}, ${formatClock(atMs)}`;

/** The line under a name: when it was read and when it arrived, as far as that is known. */
export const receiptWords = ({ state, deliveredAtMs, readAtMs }: MessageReceiptView, nowMs: number): string => {
  switch (state) {
    case "queued":
      return "Waiting to be sent";
    case "sent":
      return "Sent, and not on their device yet";
    default: {
      const atMs = state === "read" ? readAtMs : deliveredAtMs;
      if (atMs === null) return "At a time that was not kept";
      const words = timeWords(atMs, nowMs);
      if (deliveredAtMs === null || timeWords(deliveredAtMs, nowMs) === words) return words;
      const delivered = isSameDay(deliveredAtMs, atMs) ? formatClock(deliveredAtMs) : timeWords(deliveredAtMs, nowMs);
      return `${words} \u00b7 delivered ${delivered}`;
    }
  }
};
