/**
 * Numbers and times in words. Time is an input, so that everything here can be tested.
 * Formatter objects are made once: making one costs more than using it a hundred times.
 */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const clockSecondsFormat = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const weekdayFormat = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const dayOfYearFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const shortDateFormat = new Intl.DateTimeFormat(undefined, { day: "2-digit", month: "2-digit", year: "2-digit" });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const countFormat = new Intl.NumberFormat(undefined);

const unitOf = (bytes: number): number => {
  let unit = 0;
  for (let rest = bytes; rest >= 999.5 && unit < UNITS.length - 1; rest /= 1000) unit += 1;
  return unit;
};

const inUnit = (bytes: number, unit: number): string => {
  const value = bytes / 1000 ** unit;
  return value.toFixed(unit === 0 ? 0 : value >= 99.95 ? 0 : 1);
};

/** Decimal units, as file managers and network speeds use them: "67.1 MB". */
export const formatBytes = (bytes: number): string => {
  const unit = unitOf(bytes);
  return `${inUnit(bytes, unit)} ${UNITS[unit]}`;
};

/** "23.4 of 67.1 MB": both in the unit of the total, so that the text keeps its width. */
export const formatBytesOf = (done: number, total: number): string => {
  const unit = unitOf(total);
  return `${inUnit(done, unit)} of ${inUnit(total, unit)} ${UNITS[unit]}`;
};

export const formatRate = (bytesPerSecond: number): string => `${formatBytes(bytesPerSecond)}/s`;

export const formatCount = (count: number): string => countFormat.format(count);

export const plural = (count: number, one: string, many: string): string =>
  `${formatCount(count)} ${count === 1 ? one : many}`;

/** "8 s", "2 min 5 s", "1 h 20 min": two units at most, rounded up so that "0 s" is never shown for what is not over. */
export const formatDuration = (ms: number): string => {
  const seconds = Math.ceil(ms / SECOND);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) {
    const rest = seconds % 60;
    return rest === 0 || seconds >= 600
      ? `${Math.round(seconds / 60)} min`
      : `${Math.floor(seconds / 60)} min ${rest} s`;
  }
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60)
    return minutes % 60 === 0 ? `${minutes / 60} h` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  const hours = Math.round(minutes / 60);
  return hours % 24 === 0 ? `${hours / 24} d` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
};

/** "0.8 ms", "24 ms": a round trip. */
export const formatRtt = (ms: number): string => (ms < 9.95 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`);

/** "340 ms", "2.4 s": how long something took. */
export const formatTook = (ms: number): string => (ms < 999.5 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** "9:05" for a countdown. */
export const formatCountdown = (ms: number): string => {
  const seconds = Math.max(0, Math.ceil(ms / SECOND));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
};

const startOfDay = (ms: number): number => new Date(ms).setHours(0, 0, 0, 0);

/** Whole calendar days from `ms` to `nowMs`; rounding absorbs the hour of a daylight saving change. */
const daysAgo = (ms: number, nowMs: number): number => Math.round((startOfDay(nowMs) - startOfDay(ms)) / DAY);

export const isSameDay = (aMs: number, bMs: number): boolean => startOfDay(aMs) === startOfDay(bMs);

export const formatClock = (ms: number): string => clockFormat.format(ms);

export const formatClockSeconds = (ms: number): string => clockSecondsFormat.format(ms);

export const formatFullTime = (ms: number): string => fullFormat.format(ms);

/** For the chat list: the clock today, then "Yesterday", the weekday, the date. */
export const formatListTime = (ms: number, nowMs: number): string => {
  const days = daysAgo(ms, nowMs);
  if (days <= 0) return formatClock(ms);
  if (days === 1) return "Yesterday";
  return days < 7 ? weekdayFormat.format(ms) : shortDateFormat.format(ms);
};

/** For the separators between days. */
export const formatDay = (ms: number, nowMs: number): string => {
  const days = daysAgo(ms, nowMs);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return days > 0 && days < 180 ? dayFormat.format(ms) : dayOfYearFormat.format(ms);
};

/** One or two letters for an avatar. Splits by code point, so that an emoji is not cut in half. */
export const initialsOf = (name: string): string => {
  const words = name
    .trim()
    .split(/\s+/)
    .filter((word) => word !== "");
  const first = [...(words[0] ?? "?")][0] ?? "?";
  const last = words.length > 1 ? ([...(words.at(-1) ?? "")][0] ?? "") : "";
  return (first + last).toUpperCase();
};

/** A stable small number from an id, for colours. */
export const hueIndexOf = (id: string, count: number): number => {
  let sum = 7;
  for (const letter of id) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 1_000_003;
  return sum % count;
};

/** "ABCDEF" as "ABC DEF": easier to read aloud. */
export const spacedCode = (code: string): string => `${code.slice(0, 3)} ${code.slice(3)}`;

/** 60 digits in 12 groups of 5. */
export const digitGroups = (safetyNumber: string): string[] => safetyNumber.match(/\d{1,5}/g) ?? [];

/** Bytes of a text as it travels. */
const encoder = new TextEncoder();
export const textBytes = (text: string): number => encoder.encode(text).length;

/** The folder of a path, for "Saved in ...", with either kind of separator. */
export const folderNameOf = (path: string): string => {
  const parts = path.split(/[\\/]/).filter((part) => part !== "");
  return parts.at(-2) ?? path;
};

/** Whether a server's address is one of this machine only. */
export const isLoopbackUrl = (url: string): boolean => {
  if (!URL.canParse(url)) return false;
  const { hostname } = new URL(url);
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
};
