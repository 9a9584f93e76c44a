import fc from "fast-check";
import { expect, test } from "vitest";
import { checkSums } from "../../src-main/activity/replay.ts";
import type { NewEvent } from "../../src-main/store/activity.ts";
import { ActivityWorld, PEERS, sumsOf } from "../support/activity-world.ts";
import { counted } from "../support/counts.ts";

/**
 * Random streams of events against a reference that reads them once, from first to last, and knows nothing of batches,
 * sessions tables or cursors. Between events: runs, runs that end half way, crashes in the middle of a transaction.
 */
type Step =
  | { readonly type: "event"; readonly event: (at: number) => NewEvent }
  | { readonly type: "pass"; readonly ms: number }
  | { readonly type: "run" }
  | { readonly type: "batch" }
  | { readonly type: "crash"; readonly afterWrites: number };

const FILES = ["F".repeat(22), "G".repeat(22)] as const;
const peer = fc.constantFrom(...PEERS);
const fileId = fc.constantFrom(...FILES);
const path = fc.constantFrom("lan", "direct", "relay");
const bytes = fc.integer({ min: 0, max: 1e9 });

const of = (kind: string, columns: object = {}, json?: object): Step => ({
  type: "event",
  event: (at) => ({
    ...{ at, kind, peer: null, fileId: null, data: json === undefined ? null : JSON.stringify(json) },
    ...columns,
  }),
});

const anEvent: fc.Arbitrary<Step> = fc.oneof(
  fc.constantFrom(of("app.started"), of("app.stopped"), of("unheard.of")),
  fc
    .tuple(
      fc.constantFrom("message.received", "message.sent", "message.failed", "contact.online", "contact.offline"),
      peer,
    )
    .map(([kind, who]) => of(kind, { peer: who })),
  fc.tuple(peer, path).map(([who, way]) => of("link.up", { peer: who }, { path: way, generation: 1 })),
  fc.tuple(peer, path).map(([who, way]) => of("link.path", { peer: who }, { path: way })),
  peer.map((who) => of("link.down", { peer: who }, { reason: "lost" })),
  fc
    .tuple(fileId, peer, path, bytes)
    .map(([file, who, way, size]) =>
      of("transfer.served", { peer: who, fileId: file }, { bytes: size, chunks: 1, path: way }),
    ),
  fc
    .tuple(fileId, peer, path, bytes)
    .map(([file, who, way, size]) =>
      of(
        "transfer.progress",
        { peer: who, fileId: file },
        { bytes: size, ms: 5, sizeBytes: 1e9, shares: [{ peer: who, path: way, bytes: size, chunks: 2 }] },
      ),
    ),
  fc
    .tuple(fileId, fc.constantFrom("started", "paused", "resumed", "cancelled", "removed"))
    .map(([file, what]) => of(`transfer.${what}`, { fileId: file, peer: PEERS[0] })),
  fileId.map((file) => of("transfer.failed", { fileId: file }, { type: "disk_full" })),
  fileId.map((file) =>
    of("transfer.completed", { fileId: file }, { requested: 9, duplicate: 1, late: 0, rejected: 0 }),
  ),
  fileId.map((file) => of("transfer.phase", { fileId: file }, { phase: "complete", from: "verifying", ms: 3 })),
  fileId.map((file) => of("transfer.drained", { fileId: file }, { ms: 7, endedBy: "answered" })),
);

const aStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: anEvent },
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 30 * 3_600_000 }).map((ms): Step => ({ type: "pass", ms })) },
  { weight: 2, arbitrary: fc.constantFrom<Step>({ type: "run" }, { type: "batch" }) },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 1, max: 12 }).map((afterWrites): Step => ({ type: "crash", afterWrites })),
  },
);

/** Totals and times of presence, as anybody would add them up. */
const reference = (events: readonly NewEvent[]): Map<string, number> => {
  const sums = new Map<string, number>();
  const online = new Map<string, number>();
  let lastAt = 0;
  const add = (name: string, value: number): void => {
    if (value !== 0) sums.set(name, (sums.get(name) ?? 0) + value);
  };
  const leave = (who: string, at: number): void => {
    const since = online.get(who);
    online.delete(who);
    // As long as a span may be; see ACTIVITY_SPAN_MAX_MS.
    if (since !== undefined) add(`onlineMs ${who}`, Math.min(Math.max(0, at - since), 31 * 86_400_000));
  };
  for (const { kind, at, peer: who, data } of events) {
    const json = (data === null ? {} : JSON.parse(data)) as { bytes?: number };
    if (kind === "message.received") add(`messagesReceived ${who}`, 1);
    if (kind === "message.sent") add(`messagesSent ${who}`, 1);
    if (kind === "transfer.served") add(`bytesSent ${who}`, json.bytes ?? 0);
    if (kind === "transfer.progress") add(`bytesReceived ${who}`, json.bytes ?? 0);
    if (kind === "contact.online" && who !== null && !online.has(who)) online.set(who, at);
    if (kind === "contact.offline" && who !== null) leave(who, at);
    if (kind === "app.started") for (const each of [...online.keys()]) leave(each, Math.min(at, lastAt));
    if (kind === "app.stopped") for (const each of [...online.keys()]) leave(each, at);
    // What nobody understands tells nothing, not even the time.
    if (kind !== "unheard.of") lastAt = Math.max(lastAt, at);
  }
  return sums;
};

const METRICS = new Set(["messagesReceived", "messagesSent", "bytesSent", "bytesReceived", "onlineMs"]);

test(
  "whatever runs, ends half way or dies, the sums are those of one pass over the events",
  async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(aStep, { maxLength: 120 }),
        fc.record({ retentionMs: fc.constantFrom(0, 3_600_000, 1e12), eventsMax: fc.constantFrom(5, 1e6) }),
        fc.boolean(),
        async (steps, limits, lock) => {
          const world = new ActivityWorld(limits);
          try {
            world.guards = { ...world.guards, lock };
            let aggregation = world.aggregation();
            const events: NewEvent[] = [];
            for (const step of steps) {
              switch (step.type) {
                case "event": {
                  const event = step.event(world.clock.now());
                  aggregation.log.append(event);
                  events.push(event);
                  break;
                }
                case "pass":
                  world.clock.advance(step.ms);
                  break;
                case "run":
                  await world.aggregator(aggregation).run();
                  break;
                case "batch": {
                  // A run that goes no further, as when it is cut off.
                  const token = aggregation.takeLock();
                  aggregation.batch(token, world.guards);
                  if (token !== null) aggregation.releaseLock(token, true);
                  break;
                }
                case "crash": {
                  // The n-th write of the run fails, and with it the process: it leaves its lock.
                  world.db.sql.exec(`CREATE TEMP TABLE writes (n INTEGER); INSERT INTO writes VALUES (0);
                  CREATE TEMP TRIGGER dies BEFORE INSERT ON main.activity_aggregates BEGIN
                    UPDATE writes SET n = n + 1;
                    SELECT raise(ABORT, 'killed') FROM writes WHERE n >= ${step.afterWrites};
                  END`);
                  const token = aggregation.takeLock();
                  try {
                    while (aggregation.batch(token, world.guards).kind === "done") {
                      const { cursor } = aggregation.sums.state();
                      if (cursor === aggregation.log.top()) break;
                    }
                  } catch {
                    // What the next start has to live with.
                  }
                  world.reopen();
                  aggregation = world.aggregation();
                  aggregation.recover();
                  break;
                }
              }
            }
            await world.aggregator(aggregation).run();
            const found = new Map(
              aggregation.sums
                .sums("contact", 0, 1e9)
                .filter(({ metric }) => METRICS.has(metric))
                .map(({ metric, key, value }) => [`${metric} ${key}`, value]),
            );
            expect([...found].sort()).toEqual([...reference(events)].sort());

            // And everything there is, against the same events in a fresh profile in one run.
            const fresh = new ActivityWorld();
            try {
              const once = fresh.aggregation();
              fresh.db.transaction(() => {
                for (const event of events) once.log.append(event);
              });
              once.batch(null, { lock: false, batches: false, sequence: true });
              expect(sumsOf(aggregation)).toEqual(sumsOf(once));
            } finally {
              fresh.dispose();
            }
            const check = await checkSums(aggregation, world.db, {
              pause: () => Promise.resolve(),
              nowMs: () => world.clock.now(),
              repair: false,
            });
            expect(check).toMatchObject({ consistent: true, differences: 0 });
            expect(aggregation.log.gapCount()).toBe(0);
          } finally {
            world.dispose();
          }
        },
      ),
      { numRuns: counted(25, 3000) },
    );
  },
  counted(60_000, 3_600_000),
);
