import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createActivity } from "../../src-main/activity/activity.ts";
import { Aggregation } from "../../src-main/activity/aggregation.ts";
import { checkSums } from "../../src-main/activity/replay.ts";
import { ActivityLogTable } from "../../src-main/store/activity.ts";
import { Database } from "../../src-main/store/database.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";
import { allGuards, PEERS, SELF } from "../support/activity-world.ts";
import { realEnv } from "../support/files.ts";
import { memoryOf, mib } from "./proc.ts";

/** Takes up a million events of everyday kinds, in an encrypted app.db, with the event loop watched. */
const EVENTS = 1_000_000;
const RESOLUTION_MS = 5;
const FILES = Array.from({ length: 50 }, (_, index) => `${index}`.padStart(22, "F"));

const fill = (db: Database): void => {
  const log = new ActivityLogTable(db);
  const startMs = Date.now() - 20 * 86_400_000;
  for (let seq = 0; seq < EVENTS; ) {
    db.transaction(() => {
      for (let i = 0; i < 50_000; i++, seq++) {
        const peer = PEERS[seq % PEERS.length] ?? SELF;
        const fileId = FILES[seq % FILES.length] ?? "";
        // A fifth are progress of downloads and what was served, with data; the rest is messages, presence and links.
        const kinds = [
          ["message.received", null],
          ["message.sent", null],
          ["contact.online", null],
          ["contact.offline", null],
          ["message.delivered", null],
          ["link.up", { path: "direct", generation: 1 }],
          ["link.down", { reason: "lost" }],
          ["transfer.served", { bytes: 65_536, chunks: 1, path: "lan" }],
          [
            "transfer.progress",
            { bytes: 9, ms: 9, sizeBytes: 1e9, shares: [{ peer, path: "lan", bytes: 9, chunks: 1 }] },
          ],
          ["message.received", null],
        ] as const;
        const [kind, data] = kinds[seq % kinds.length] ?? kinds[0];
        const at = startMs + seq * 1500;
        log.append({ at, kind, peer, fileId, data: data === null ? null : JSON.stringify(data) });
      }
    });
  }
};

export const measureActivity = async () => {
  const directory = await mkdtemp(join(tmpdir(), "weir-bench-"));
  const db = Database.openApp(join(directory, "app.db"), new Uint8Array(32).fill(7), appMigrations);
  try {
    fill(db);
    const activity = createActivity({ env: realEnv, db, self: SELF, guards: () => allGuards });
    const idle = memoryOf(process.pid, "VmRSS") ?? 0;
    let peak = idle;
    const aggregation = new Aggregation({ env: realEnv, db, self: SELF, owner: "bench" });
    let takenUpMs: number | null = null;
    const watch = setInterval(() => {
      peak = Math.max(peak, memoryOf(process.pid, "VmRSS") ?? 0);
      if (aggregation.sums.state().cursor === EVENTS) takenUpMs ??= performance.now() - start;
    }, 20);
    const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    delay.enable();
    const cpu = process.cpuUsage();
    const start = performance.now();
    const run = await activity.run();
    const ms = performance.now() - start;
    const used = process.cpuUsage(cpu);
    delay.disable();
    clearInterval(watch);
    if (!run.success || run.processedEvents !== EVENTS) throw new Error(`the run ended with ${JSON.stringify(run)}`);
    activity.dispose();
    const checkStart = performance.now();
    const check = await checkSums(aggregation, db, {
      pause: () => new Promise((resolve) => setImmediate(resolve)),
      nowMs: Date.now,
      repair: false,
    });
    if (check?.consistent !== true) throw new Error(`the sums are not those of the events: ${JSON.stringify(check)}`);
    return {
      events: EVENTS,
      eventsPerSecond: Math.round(EVENTS / ((takenUpMs ?? ms) / 1000)),
      // Of the whole run: on a busy machine this says more than the time that passed.
      cpuSeconds: Math.round((used.user + used.system) / 1e4) / 100,
      // With the deletion of what is more than the log may keep.
      runMs: Math.round(ms),
      loopDelayP99Ms: Math.round((delay.percentile(99) / 1e6 - RESOLUTION_MS) * 10) / 10,
      loopDelayMaxMs: Math.round((delay.max / 1e6 - RESOLUTION_MS) * 10) / 10,
      rssAboveIdleMiB: mib(peak - idle),
      checkEventsPerSecond: Math.round(check.events / ((performance.now() - checkStart) / 1000)),
      kept: check.events,
    };
  } finally {
    db.dispose();
    await rm(directory, { recursive: true, force: true });
  }
};
