import type { TimeMs } from "#shared/base/env.ts";
import type {
  ActivityContact,
  ActivityCounts,
  ActivityDay,
  ActivityPath,
  ActivitySummary,
  AvailabilityView,
  PathKind,
  TransferDetailsView,
  TransferRunView,
} from "#shared/ipc/views.ts";
import type { ActivitySumsTable, AggregateRow, SessionRow } from "../store/activity-sums.ts";
import { DAY_MS, DRAIN_CLASSES, dayOf, type TransferData, transferSlot } from "./fold.ts";

/** Read models of the sums. */
const TRANSFERS_MAX = 100;
const RUNS_MAX = 20;
const HOURS = 24;
/** Later than any day that a clock can tell. */
const LAST_DAY = 1e9;

export interface Period {
  readonly fromMs: TimeMs | undefined;
  readonly toMs: TimeMs | undefined;
  readonly userId: string | undefined;
}

type Metrics = Map<string, number>;

const byKey = (rows: readonly AggregateRow[], keyOf: (row: AggregateRow) => string): Map<string, Metrics> => {
  const result = new Map<string, Metrics>();
  for (const row of rows) {
    const metrics = result.get(keyOf(row)) ?? new Map<string, number>();
    metrics.set(row.metric, (metrics.get(row.metric) ?? 0) + row.value);
    result.set(keyOf(row), metrics);
  }
  return result;
};

const countsOf = (metrics: Metrics): ActivityCounts => ({
  bytesReceived: metrics.get("bytesReceived") ?? 0,
  bytesSent: metrics.get("bytesSent") ?? 0,
  messagesReceived: metrics.get("messagesReceived") ?? 0,
  messagesSent: metrics.get("messagesSent") ?? 0,
});

export const summaryOf = (
  sums: ActivitySumsTable,
  { fromMs, toMs, userId }: Period,
  nowMs: TimeMs,
): ActivitySummary => {
  const offsetAt = (ms: TimeMs): number => -new Date(ms).getTimezoneOffset();
  const from = fromMs === undefined ? 0 : dayOf(fromMs, offsetAt(fromMs));
  const to = toMs === undefined ? LAST_DAY : dayOf(toMs, offsetAt(toMs));
  // Of one contact, the keys of files and paths begin with it.
  const own = (scope: string, wide: string): { key: string; metrics: Metrics }[] => {
    const rows = sums.sums(userId === undefined ? wide : scope, from, to);
    const mine = userId === undefined ? rows : rows.filter(({ key }) => key.startsWith(`${userId} `));
    return [...byKey(mine, ({ key }) => key.split(" ").at(-1) ?? "")].map(([key, metrics]) => ({ key, metrics }));
  };
  const days = sums
    .byDay(userId === undefined ? "total" : "contact", from, to)
    .filter(({ key }) => userId === undefined || key === userId);
  const total = byKey(days, () => "").get("") ?? new Map<string, number>();
  const dayRows = [...byKey(days, ({ day }) => String(day))].map(([day, metrics]) => ({ day: Number(day), metrics }));
  const today = dayOf(nowMs, offsetAt(nowMs));
  return {
    fromDay: dayText(fromMs === undefined ? (dayRows[0]?.day ?? today) : from),
    toDay: dayText(toMs === undefined ? Math.max(today, dayRows.at(-1)?.day ?? 0) : to),
    ...countsOf(total),
    messagesDelivered: total.get("messagesDelivered") ?? 0,
    messagesFailed: total.get("messagesFailed") ?? 0,
    transfersCompleted: total.get("transfersCompleted") ?? 0,
    transfersFailed: total.get("transfersFailed") ?? 0,
    errors: total.get("errors") ?? 0,
    byDay: dayRows.map(({ day, metrics }): ActivityDay => ({ day: dayText(day), ...countsOf(metrics) })),
    byContact: contactsOf(sums, from, to, userId),
    byFile: own("contactFile", "file").map(({ key, metrics }) => {
      const { bytesReceived, bytesSent } = countsOf(metrics);
      return { fileId: key, bytesReceived, bytesSent };
    }),
    byPath: own("contactPath", "path").map(({ key, metrics }): ActivityPath => {
      const { bytesReceived, bytesSent } = countsOf(metrics);
      return { path: key, bytesReceived, bytesSent, linkMs: metrics.get("linkMs") ?? 0 };
    }),
    drains: drainsOf(sums.sums("drain", from, to)),
    transfers: sums
      .endedSessions("transfer", fromMs ?? 0, toMs ?? Number.MAX_SAFE_INTEGER, TRANSFERS_MAX)
      .filter(({ peer }) => userId === undefined || peer === userId)
      .flatMap(({ fileId, startedAt, endedAt, data }) => {
        const { outcome, bytes } = transferData(data);
        return fileId === null ? [] : [{ fileId, startedAtMs: startedAt, endedAtMs: endedAt, outcome, bytes }];
      }),
  };
};

const contactsOf = (
  sums: ActivitySumsTable,
  from: number,
  to: number,
  userId: string | undefined,
): ActivityContact[] => {
  // Hours are summed by weeks that begin on the day below.
  const hours = byKey(sums.sums("hour", from - (from % 7), to), ({ key }) => key);
  const running = hours.get("");
  return [...byKey(sums.sums("contact", from, to), ({ key }) => key)]
    .filter(([key]) => userId === undefined || key === userId)
    .map(([key, metrics]) => ({
      userId: key,
      ...countsOf(metrics),
      linkUps: metrics.get("linkUps") ?? 0,
      linkDowns: metrics.get("linkDowns") ?? 0,
      linkFailures: metrics.get("linkFailures") ?? 0,
      linkMs: metrics.get("linkMs") ?? 0,
      onlineMs: metrics.get("onlineMs") ?? 0,
      onlineByHour: sharesOf(hours.get(key), running),
    }));
};

/** How much of the time that we could see it somebody was online, by hour of the day. */
const sharesOf = (online: Metrics | undefined, running: Metrics | undefined): (number | null)[] =>
  Array.from({ length: HOURS }, (_, hour) => {
    const seenMs = running?.get(`h${hour}`) ?? 0;
    if (seenMs <= 0) return null;
    return Math.min(1, Math.round(((online?.get(`h${hour}`) ?? 0) / seenMs) * 1000) / 1000);
  });

const drainsOf = (rows: readonly AggregateRow[]): ActivitySummary["drains"] => {
  const counts = byKey(rows, ({ metric }) => metric);
  return Array.from({ length: DRAIN_CLASSES.length + 1 }, (_, index) => {
    const count = [...(counts.get(`c${index}`)?.values() ?? [])].reduce((sum, value) => sum + value, 0);
    return { upToMs: DRAIN_CLASSES[index] ?? null, count };
  });
};

/** In local time, as 2026-11-21. */
const dayText = (day: number): string => new Date(Math.min(day, 1e8) * DAY_MS).toISOString().slice(0, 10);

const transferData = (json: string): TransferData => JSON.parse(json) as TransferData;

export const detailsOf = (sums: ActivitySumsTable, fileId: string): TransferDetailsView => ({
  fileId,
  runs: sums.sessionsOf(transferSlot(fileId), RUNS_MAX).map(runOf),
});

const runOf = ({ startedAt, endedAt, data }: SessionRow): TransferRunView => {
  const run = transferData(data);
  return {
    startedAtMs: startedAt,
    endedAtMs: endedAt ?? run.outcomeAt,
    outcome: run.outcome,
    error: run.error,
    bytes: run.bytes,
    sizeBytes: run.sizeBytes,
    steps: run.steps.map(({ at, what, ms }) => ({ atMs: at, what, ms })),
    samples: run.samples.map(([at, ms, bytes]) => ({
      atMs: at,
      bytesPerSecond: Math.round((bytes * 1000) / Math.max(1, ms)),
    })),
    shares: Object.entries(run.shares).map(([key, { bytes, chunks }]) => {
      const [userId = "", path = "direct"] = key.split(" ");
      return { userId, path: path as PathKind, bytes, chunks };
    }),
    drain: run.drain,
    counters: run.counters,
  };
};

/** Weeks that an estimate is made of: habits change. */
const AVAILABILITY_WEEKS = 8;
/** Less time than this in an hour of the day tells nothing about it. */
const SEEN_MIN_MS = 20 * 60_000;
/** Online for at least this share of the best hour counts as usual. */
const USUAL = 0.5;

/**
 * The longest stretch of hours in which somebody is usually online. Null when it is not known, when they hardly ever are,
 * or when they always are alike.
 */
export const availabilityOf = (sums: ActivitySumsTable, userId: string, nowMs: TimeMs): AvailabilityView => {
  const today = dayOf(nowMs, -new Date(nowMs).getTimezoneOffset());
  const from = today - AVAILABILITY_WEEKS * 7;
  const rows = byKey(sums.sums("hour", from - (from % 7), LAST_DAY), ({ key }) => key);
  const running = rows.get("");
  const seenEnough = Array.from({ length: HOURS }, (_, hour) => (running?.get(`h${hour}`) ?? 0) >= SEEN_MIN_MS);
  const shares = sharesOf(rows.get(userId), running).map((share, hour) => (seenEnough[hour] === true ? share : null));
  const last = sums.sessionsOf(`presence ${userId}`, 1)[0];
  return { userId, hours: usualHours(shares), lastOnlineMs: last?.endedAt ?? null };
};

export const usualHours = (shares: readonly (number | null)[]): AvailabilityView["hours"] => {
  const best = Math.max(0, ...shares.map((share) => share ?? 0));
  if (best < 0.1) return null;
  const usual = shares.map((share) => (share ?? 0) >= best * USUAL);
  if (usual.every(Boolean)) return null;
  let longest = { from: 0, length: 0 };
  for (let from = 0; from < HOURS; from++) {
    let length = 0;
    while (length < HOURS && usual[(from + length) % HOURS] === true) length += 1;
    if (length > longest.length) longest = { from, length };
  }
  return { from: longest.from, to: (longest.from + longest.length) % HOURS };
};
