import type {
  ActivityContact,
  ActivityDay,
  ActivityHealth,
  ActivitySummary,
  TransferDetailsView,
} from "#shared/ipc/views.ts";
import { seededNumbers } from "./seeded.ts";

/** What the fake program says about activity: made up, but whole, and the same each time. */
const MiB = 1024 * 1024;
const DAYS = 30;

const hours = (from: number, to: number): (number | null)[] =>
  Array.from({ length: 24 }, (_, hour) => (hour < 6 ? null : hour >= from && hour < to ? 0.85 : 0.08));

const contact = (userId: string, scale: number, change: Partial<ActivityContact>): ActivityContact => ({
  userId,
  bytesReceived: Math.round(scale * 830 * MiB),
  bytesSent: Math.round(scale * 310 * MiB),
  messagesReceived: Math.round(scale * 96),
  messagesSent: Math.round(scale * 120),
  linkUps: 14,
  linkDowns: 13,
  linkFailures: 2,
  linkMs: Math.round(scale * 32 * 3_600_000),
  onlineMs: Math.round(scale * 51 * 3_600_000),
  onlineByHour: hours(18, 23),
  ...change,
});

export const emptySummary = (nowMs: number): ActivitySummary => {
  const day = new Date(nowMs).toISOString().slice(0, 10);
  return {
    ...{ fromDay: day, toDay: day, bytesReceived: 0, bytesSent: 0, messagesReceived: 0, messagesSent: 0 },
    ...{ messagesDelivered: 0, messagesFailed: 0, transfersCompleted: 0, transfersFailed: 0, errors: 0 },
    ...{ byDay: [], byContact: [], byFile: [], byPath: [], drains: [], transfers: [] },
  };
};

export const sampleSummary = (
  nowMs: number,
  people: readonly string[],
  files: readonly { fileId: string; sizeBytes: number }[],
): ActivitySummary => {
  const number = seededNumbers(7);
  const byDay: ActivityDay[] = Array.from({ length: DAYS }, (_, index) => ({
    day: new Date(nowMs - (DAYS - 1 - index) * 86_400_000).toISOString().slice(0, 10),
    bytesReceived: number() < 0.3 ? 0 : Math.round(number() * 900 * MiB),
    bytesSent: number() < 0.4 ? 0 : Math.round(number() * 400 * MiB),
    messagesReceived: Math.round(number() * 24),
    messagesSent: Math.round(number() * 30),
  }));
  const sum = (metric: Exclude<keyof ActivityDay, "day">): number =>
    byDay.reduce((total, entry) => total + entry[metric], 0);
  return {
    fromDay: byDay[0]?.day ?? "",
    toDay: byDay.at(-1)?.day ?? "",
    bytesReceived: sum("bytesReceived"),
    bytesSent: sum("bytesSent"),
    messagesReceived: sum("messagesReceived"),
    messagesSent: sum("messagesSent"),
    messagesDelivered: sum("messagesSent") - 2,
    messagesFailed: 0,
    transfersCompleted: 17,
    transfersFailed: 1,
    errors: 1,
    byDay,
    byContact: people.map((userId, index) =>
      contact(userId, 1 / (index + 1), index === 1 ? { onlineByHour: hours(9, 17), linkFailures: 9 } : {}),
    ),
    byFile: files.map(({ fileId, sizeBytes }, index) => ({
      fileId,
      bytesReceived: index % 2 === 0 ? sizeBytes : 0,
      bytesSent: index % 2 === 0 ? 0 : sizeBytes,
    })),
    byPath: [
      { path: "lan", bytesReceived: 6200 * MiB, bytesSent: 900 * MiB, linkMs: 91 * 3_600_000 },
      { path: "direct", bytesReceived: 3100 * MiB, bytesSent: 1400 * MiB, linkMs: 48 * 3_600_000 },
      { path: "relay", bytesReceived: 240 * MiB, bytesSent: 60 * MiB, linkMs: 7 * 3_600_000 },
    ],
    drains: [
      ...[0, 1, 10, 50, 100, 250, 500].map((upToMs, index) => ({ upToMs, count: [4, 2, 6, 3, 1, 1, 0][index] ?? 0 })),
      { upToMs: null, count: 0 },
    ],
    transfers: files.map(({ fileId, sizeBytes }, index) => ({
      fileId,
      startedAtMs: nowMs - (index + 1) * 7_200_000,
      endedAtMs: nowMs - (index + 1) * 7_200_000 + 61_000,
      outcome: "completed" as const,
      bytes: sizeBytes,
    })),
  };
};

export const sampleHealth = (nowMs: number): ActivityHealth => ({
  consistent: true,
  checkedAtMs: nowMs - 40_000,
  lastRunAtMs: nowMs - 40_000,
  lastRunMs: 12,
  lastRunEvents: 31,
  lastError: null,
  backlog: 4,
  events: 8123,
  aside: 0,
  gaps: 0,
  recoveries: 0,
  dropped: 0,
  running: false,
  guards: { lock: true, batches: true, sequence: true },
});

export const sampleDetails = (
  fileId: string,
  nowMs: number,
  sizeBytes: number,
  userId: string,
): TransferDetailsView => {
  const number = seededNumbers(3);
  const startedAtMs = nowMs - 7_200_000;
  return {
    fileId,
    runs: [
      {
        startedAtMs,
        endedAtMs: startedAtMs + 61_000,
        outcome: "completed",
        error: null,
        bytes: sizeBytes,
        sizeBytes,
        steps: [
          { atMs: startedAtMs, what: "started", ms: null },
          { atMs: startedAtMs + 58_000, what: "draining", ms: 58_000 },
          { atMs: startedAtMs + 58_040, what: "assembling", ms: 40 },
          { atMs: startedAtMs + 60_000, what: "verifying", ms: 1960 },
          { atMs: startedAtMs + 61_000, what: "complete", ms: 1000 },
        ],
        samples: Array.from({ length: 58 }, (_, index) => ({
          atMs: startedAtMs + (index + 1) * 1000,
          bytesPerSecond: Math.round((sizeBytes / 58) * (0.7 + 0.6 * number())),
        })),
        shares: [{ userId, path: "lan", bytes: sizeBytes, chunks: Math.ceil(sizeBytes / 65_536) }],
        drain: { ms: 40, endedBy: "answered" },
        counters: { requested: Math.ceil(sizeBytes / 65_536), duplicate: 0, late: 0, rejected: 0 },
      },
    ],
  };
};
