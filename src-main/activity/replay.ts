import { ACTIVITY_BATCH_EVENTS } from "#shared/base/limits.ts";
import type { AggregateRow, SessionRow } from "../store/activity-sums.ts";
import type { Database } from "../store/database.ts";
import type { Aggregation } from "./aggregation.ts";
import { decodeEvent } from "./events.ts";
import { ActivityFold } from "./fold.ts";
import { rowOf, sessionOf } from "./session-rows.ts";

export interface CheckResult {
  readonly consistent: boolean;
  /** Events that were replayed. */
  readonly events: number;
  /** Sums that were not what the events say. */
  readonly differences: number;
}

interface Replayed {
  readonly cursor: number;
  readonly baseCursor: number;
  readonly sums: Map<string, AggregateRow>;
  readonly sessions: Map<string, SessionRow>;
  readonly events: number;
}

const keyOf = ({ scope, key, day, metric }: AggregateRow): string => `${scope}\t${key}\t${day}\t${metric}`;

/**
 * What the sums must be: those of the events that were deleted, and a replay of all that are left. In slices, so that
 * nothing waits for it. Null when the log moved meanwhile: then it has to begin again.
 */
const replay = async (aggregation: Aggregation, pause: () => Promise<void>): Promise<Replayed | null> => {
  const { log, sums } = aggregation;
  const { cursor, baseCursor, baseLastAt } = sums.state();
  const result: Replayed = { cursor, baseCursor, sums: new Map(), sessions: new Map(), events: 0 };
  let events = 0;
  for (const row of sums.aggregates("base")) result.sums.set(keyOf(row), row);
  const base = sums.openSessions("base");
  for (const session of base) result.sessions.set(`${session.slot} ${session.id}`, session);
  const fold = new ActivityFold(baseLastAt, base.map(sessionOf));
  for (let at = baseCursor; at < cursor; ) {
    const batch = log.between(at, cursor, ACTIVITY_BATCH_EVENTS);
    const last = batch.at(-1);
    if (last === undefined) break;
    at = last.seq;
    events += batch.length;
    for (const stored of batch) {
      const event = decodeEvent(stored);
      if (event !== null) fold.apply(event);
    }
    const taken = fold.take();
    for (const row of taken.sums) {
      const before = result.sums.get(keyOf(row));
      result.sums.set(keyOf(row), { ...row, value: row.value + (before?.value ?? 0) });
    }
    for (const session of taken.sessions) result.sessions.set(`${session.slot} ${session.id}`, rowOf(session));
    await pause();
    const now = sums.state();
    if (now.cursor !== cursor || now.baseCursor !== baseCursor) return null;
  }
  return { ...result, events };
};

const textOf = ({ startedAt, peer, fileId, data }: SessionRow): string =>
  JSON.stringify([startedAt, peer, fileId, data]);

const compare = ({ sums }: Aggregation, expected: Replayed): number => {
  let differences = 0;
  const found = new Map(sums.aggregates("head").map((row) => [keyOf(row), row.value]));
  for (const [key, { value }] of expected.sums) if ((found.get(key) ?? 0) !== value) differences += 1;
  for (const [key, value] of found) if (value !== 0 && !expected.sums.has(key)) differences += 1;
  const open = new Map(sums.openSessions("head").map((row) => [`${row.slot} ${row.id}`, textOf(row)]));
  for (const [key, row] of expected.sessions) {
    if (row.endedAt !== null) continue;
    if (open.get(key) !== textOf(row)) differences += 1;
    open.delete(key);
  }
  return differences + open.size;
};

/** I10: compares the sums with the events. `repair` puts what the events say in their place. Null when it must be tried again. */
export const checkSums = async (
  aggregation: Aggregation,
  db: Database,
  { pause, nowMs, repair }: { pause: () => Promise<void>; nowMs: () => number; repair: boolean },
): Promise<CheckResult | null> => {
  const expected = await replay(aggregation, pause);
  if (expected === null) return null;
  return db.transaction(() => {
    const { sums } = aggregation;
    const state = sums.state();
    if (state.cursor !== expected.cursor || state.baseCursor !== expected.baseCursor) return null;
    const differences = compare(aggregation, expected);
    const isRepaired = repair && differences > 0;
    if (isRepaired) {
      sums.replaceHead(expected.sums.values(), expected.sessions.values());
      aggregation.forgetCached();
      sums.update({ recoveries: state.recoveries + 1 });
    }
    const consistent = differences === 0 || isRepaired;
    sums.update({ checkedAt: Math.round(nowMs()), checkedCursor: expected.cursor, consistent: consistent ? 1 : 0 });
    return { consistent, events: expected.events, differences };
  });
};
