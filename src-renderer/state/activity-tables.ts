import type { ActivitySummary, TransferRunView } from "#shared/ipc/views.ts";
import { formatBytes, formatCount, formatDuration, formatRate, formatTook } from "../format.ts";

/** One plot as a table: what the plot shows, what is read aloud, and what is exported. */
export interface DataTable {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
}

/** `text` for people, `value` for the plot and for other programs. */
export interface Cell {
  readonly text: string;
  readonly value: string | number;
}

const bytes = (value: number): Cell => ({ text: formatBytes(value), value });
const count = (value: number): Cell => ({ text: formatCount(value), value });
const span = (value: number): Cell => ({ text: value === 0 ? "0 s" : formatDuration(value), value });
const word = (text: string, value: string | number = text): Cell => ({ text, value });
const percent = (share: number | null): Cell =>
  share === null ? { text: "not known", value: "" } : { text: `${Math.round(share * 100)} %`, value: share };

const PATHS: Readonly<Record<string, string>> = {
  lan: "Local network",
  direct: "Direct",
  relay: "Relay",
  server: "Server",
  unknown: "Not known",
};

const dayFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
const dayMs = (day: string): number => Date.parse(`${day}T00:00:00Z`);
export const dayWord = (day: string): string => dayFormat.format(dayMs(day));

/** Every day from the first to the last, so that quiet days are seen as such; at most `limit`, the newest. */
export const everyDay = (summary: ActivitySummary, limit = 370): ActivitySummary["byDay"] => {
  const known = new Map(summary.byDay.map((entry) => [entry.day, entry]));
  const to = dayMs(summary.toDay);
  const from = Math.max(dayMs(summary.fromDay), to - (limit - 1) * 86_400_000);
  const days: ActivitySummary["byDay"] = [];
  for (let at = from; at <= to; at += 86_400_000) {
    const day = new Date(at).toISOString().slice(0, 10);
    days.push(known.get(day) ?? { day, bytesReceived: 0, bytesSent: 0, messagesReceived: 0, messagesSent: 0 });
  }
  return days;
};

export const bytesByDay = (summary: ActivitySummary): DataTable => ({
  title: "Data per day",
  columns: ["Day", "Received", "Sent"],
  rows: everyDay(summary).map((each) => [
    word(dayWord(each.day), each.day),
    bytes(each.bytesReceived),
    bytes(each.bytesSent),
  ]),
});

export const messagesByDay = (summary: ActivitySummary): DataTable => ({
  title: "Messages per day",
  columns: ["Day", "Received", "Sent"],
  rows: everyDay(summary).map((each) => [
    word(dayWord(each.day), each.day),
    count(each.messagesReceived),
    count(each.messagesSent),
  ]),
});

export const pathMix = (summary: ActivitySummary): DataTable => ({
  title: "Ways that were taken",
  columns: ["Way", "Received", "Sent", "Connected for"],
  rows: summary.byPath
    .toSorted((a, b) => b.bytesReceived + b.bytesSent - a.bytesReceived - a.bytesSent)
    .map((each) => [
      word(PATHS[each.path] ?? each.path, each.path),
      bytes(each.bytesReceived),
      bytes(each.bytesSent),
      span(each.linkMs),
    ]),
});

export const drainTimes = (summary: ActivitySummary): DataTable => {
  const bounds = summary.drains.map(({ upToMs }) => upToMs);
  const name = (index: number): string => {
    const upTo = bounds[index] ?? null;
    if (upTo === 0) return "At once";
    return upTo === null ? `Over ${formatTook(bounds[index - 1] ?? 0)}` : `Up to ${formatTook(upTo)}`;
  };
  return {
    title: "Time until nothing was in flight",
    columns: ["Took", "Downloads"],
    rows: summary.drains.map((each, index) => [word(name(index)), count(each.count)]),
  };
};

export const topContacts = (summary: ActivitySummary, nameOf: (userId: string) => string): DataTable => ({
  title: "People and groups",
  columns: ["With", "Received", "Sent", "Messages received", "Messages sent"],
  rows: summary.byContact
    .toSorted((a, b) => b.bytesReceived + b.bytesSent - a.bytesReceived - a.bytesSent)
    .slice(0, 20)
    .map((each) => [
      word(nameOf(each.userId)),
      bytes(each.bytesReceived),
      bytes(each.bytesSent),
      count(each.messagesReceived),
      count(each.messagesSent),
    ]),
});

/** Of all attempts and links: how many connections there were, and how many were lost or did not come to be. */
export const reliability = (summary: ActivitySummary, nameOf: (userId: string) => string): DataTable => ({
  title: "Connections",
  columns: ["Person", "Made", "Lost", "Failed", "Worked", "Connected for"],
  rows: summary.byContact
    .filter((each) => each.linkUps + each.linkFailures > 0)
    .map((each) => [
      word(nameOf(each.userId)),
      count(each.linkUps),
      count(each.linkDowns),
      count(each.linkFailures),
      percent(each.linkUps / (each.linkUps + each.linkFailures)),
      span(each.linkMs),
    ]),
});

export const bestHours = (summary: ActivitySummary, nameOf: (userId: string) => string): DataTable => ({
  title: "Online by hour of the day",
  columns: ["Person", ...Array.from({ length: 24 }, (_, hour) => `${hour}`)],
  rows: summary.byContact
    .filter((each) => each.onlineByHour.some((share) => share !== null && share > 0))
    .map((each) => [word(nameOf(each.userId)), ...each.onlineByHour.map(percent)]),
});

export const filesMoved = (summary: ActivitySummary, nameOfFile: (fileId: string) => string): DataTable => ({
  title: "Files",
  columns: ["File", "Received", "Sent"],
  rows: summary.byFile
    .toSorted((a, b) => b.bytesReceived + b.bytesSent - a.bytesReceived - a.bytesSent)
    .slice(0, 50)
    .map((each) => [word(nameOfFile(each.fileId)), bytes(each.bytesReceived), bytes(each.bytesSent)]),
});

const secondsFormat = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

export const speedOf = (run: TransferRunView): DataTable => ({
  title: "Speed",
  columns: ["Time", "Speed"],
  rows: run.samples.map(({ atMs, bytesPerSecond }) => [
    { text: secondsFormat.format(atMs), value: atMs },
    { text: formatRate(bytesPerSecond), value: bytesPerSecond },
  ]),
});

export const sharesOf = (run: TransferRunView, nameOf: (userId: string) => string): DataTable => ({
  title: "Who gave how much",
  columns: ["Person", "Way", "Bytes", "Parts", "Share"],
  rows: run.shares.map((share) => [
    word(nameOf(share.userId)),
    word(PATHS[share.path] ?? share.path, share.path),
    bytes(share.bytes),
    count(share.chunks),
    percent(run.bytes === 0 ? null : share.bytes / run.bytes),
  ]),
});

/** The whole summary, with the name that the page shows beside each id. */
export const jsonOf = (
  summary: ActivitySummary,
  nameOf: (userId: string) => string,
  nameOfFile: (fileId: string) => string,
): string => {
  const ofFile = <T extends { fileId: string }>(each: T) => ({ name: nameOfFile(each.fileId), ...each });
  const named = {
    ...summary,
    byContact: summary.byContact.map((each) => ({ name: nameOf(each.userId), ...each })),
    byFile: summary.byFile.map(ofFile),
    transfers: summary.transfers.map(ofFile),
  };
  return JSON.stringify(named, null, 2);
};

/** One table below the other, in the manner of RFC 4180; a name that a spreadsheet would run as a formula is defused. */
export const csvOf = (tables: readonly DataTable[]): string => {
  const field = (value: string | number): string => {
    if (typeof value === "number") return String(value);
    const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const line = (values: readonly (string | number)[]): string => values.map(field).join(",");
  return tables
    .map(({ title, columns, rows }) =>
      [line([title]), line(columns), ...rows.map((row) => line(row.map(({ value }) => value)))].join("\r\n"),
    )
    .join("\r\n\r\n")
    .concat("\r\n");
};
