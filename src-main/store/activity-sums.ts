import { defined } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { Database } from "./database.ts";

export type Side = "head" | "base";

/** One sum. `day`: days since 1970 in local time. */
export interface AggregateRow {
  readonly scope: string;
  readonly key: string;
  readonly day: number;
  readonly metric: string;
  readonly value: number;
}

export interface SessionRow {
  readonly id: number;
  readonly slot: string;
  readonly kind: string;
  readonly peer: string | null;
  readonly fileId: string | null;
  readonly startedAt: TimeMs;
  readonly endedAt: TimeMs | null;
  /** JSON. */
  readonly data: string;
}

export interface ActivityState {
  readonly cursor: number;
  readonly lastAt: TimeMs;
  readonly baseCursor: number;
  readonly baseLastAt: TimeMs;
  readonly lockToken: number;
  readonly lockOwner: string | null;
  readonly lockAt: TimeMs | null;
  readonly lastRunAt: TimeMs | null;
  readonly lastRunMs: number | null;
  readonly lastRunEvents: number;
  readonly lastError: string | null;
  readonly recoveries: number;
  readonly checkedAt: TimeMs | null;
  readonly checkedCursor: number | null;
  readonly consistent: number;
}

const STATE = `cursor, last_at AS lastAt, base_cursor AS baseCursor, base_last_at AS baseLastAt, lock_token AS lockToken,
  lock_owner AS lockOwner, lock_at AS lockAt, last_run_at AS lastRunAt, last_run_ms AS lastRunMs,
  last_run_events AS lastRunEvents, last_error AS lastError, recoveries, checked_at AS checkedAt,
  checked_cursor AS checkedCursor, consistent`;
const SESSION = "id, slot, kind, peer, file_id AS fileId, started_at AS startedAt, ended_at AS endedAt, data";

/** What is made of the log, and how far it got. */
export class ActivitySumsTable {
  readonly #db: Database;
  readonly #state;
  readonly #add;
  readonly #saveSession;
  readonly #open;
  readonly #all;
  readonly #days;
  readonly #sums;
  readonly #ended;
  readonly #ofFile;
  readonly #pruneSessions;
  readonly #dropBase;

  constructor(db: Database) {
    this.#db = db;
    const { sql } = db;
    this.#state = sql.prepare<[], ActivityState>(`SELECT ${STATE} FROM activity_state`);
    this.#add = sql.prepare<[Side, string, string, number, string, number]>(
      "INSERT INTO activity_aggregates VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
    );
    this.#saveSession = sql.prepare<SessionRow & { side: Side }>(
      `INSERT INTO activity_sessions VALUES (@side, @id, @slot, @kind, @peer, @fileId, @startedAt, @endedAt, @data)
       ON CONFLICT DO UPDATE SET ended_at = excluded.ended_at, data = excluded.data, started_at = excluded.started_at`,
    );
    this.#open = sql.prepare<[Side], SessionRow>(
      `SELECT ${SESSION} FROM activity_sessions WHERE side = ? AND ended_at IS NULL`,
    );
    this.#all = sql.prepare<[Side], AggregateRow>(
      "SELECT scope, key, day, metric, value FROM activity_aggregates WHERE side = ?",
    );
    this.#days = sql.prepare<[string, number, number], AggregateRow>(
      `SELECT scope, key, day, metric, value FROM activity_aggregates
       WHERE side = 'head' AND scope = ? AND day BETWEEN ? AND ? ORDER BY day, key, metric`,
    );
    this.#sums = sql.prepare<[string, number, number], AggregateRow>(
      `SELECT scope, key, 0 AS day, metric, sum(value) AS value FROM activity_aggregates
       WHERE side = 'head' AND scope = ? AND day BETWEEN ? AND ? GROUP BY key, metric ORDER BY key, metric`,
    );
    this.#ended = sql.prepare<[string, number, number, number], SessionRow>(
      `SELECT ${SESSION} FROM activity_sessions
       WHERE side = 'head' AND kind = ? AND ended_at BETWEEN ? AND ? ORDER BY ended_at DESC LIMIT ?`,
    );
    this.#ofFile = sql.prepare<[string, number], SessionRow>(
      `SELECT ${SESSION} FROM activity_sessions WHERE side = 'head' AND slot = ? ORDER BY id DESC LIMIT ?`,
    );
    this.#dropBase = sql.prepare<[string]>("DELETE FROM activity_sessions WHERE side = 'base' AND slot = ?");
    this.#pruneSessions = sql.prepare<[number]>(
      `DELETE FROM activity_sessions WHERE side = 'head' AND ended_at IS NOT NULL AND ended_at <
        (SELECT ended_at FROM activity_sessions WHERE side = 'head' AND ended_at IS NOT NULL
         ORDER BY ended_at DESC LIMIT 1 OFFSET ?)`,
    );
  }

  state(): ActivityState {
    return defined(this.#state.get(), "the state of the activity log");
  }

  update(change: Partial<ActivityState>): void {
    const names = Object.keys(change);
    const columns = names.map(
      (name) => `${name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)} = @${name}`,
    );
    this.#db.sql.prepare(`UPDATE activity_state SET ${columns.join(", ")}`).run(change);
  }

  add(side: Side, { scope, key, day, metric, value }: AggregateRow): void {
    this.#add.run(side, scope, key, day, metric, value);
  }

  saveSession(side: Side, session: SessionRow): void {
    // What ended before the retained events begin is of no use to a replay.
    if (side === "base" && session.endedAt !== null) this.#dropBase.run(session.slot);
    else this.#saveSession.run({ side, ...session });
  }

  openSessions(side: Side): SessionRow[] {
    return this.#open.all(side);
  }

  aggregates(side: Side): AggregateRow[] {
    return this.#all.all(side);
  }

  /** Row by row, of the days `from` to `to`. */
  byDay(scope: string, from: number, to: number): AggregateRow[] {
    return this.#days.all(scope, from, to);
  }

  /** Summed over the days `from` to `to`. */
  sums(scope: string, from: number, to: number): AggregateRow[] {
    return this.#sums.all(scope, from, to);
  }

  /** Newest first. */
  endedSessions(kind: string, fromMs: TimeMs, toMs: TimeMs, limit: number): SessionRow[] {
    return this.#ended.all(kind, fromMs, toMs, limit);
  }

  /** Newest first. */
  sessionsOf(slot: string, limit: number): SessionRow[] {
    return this.#ofFile.all(slot, limit);
  }

  /** Keeps the newest `limit` of those that have ended. */
  pruneSessions(limit: number): number {
    return this.#pruneSessions.run(limit).changes;
  }

  /** Puts what a replay found in the place of what is there. */
  replaceHead(aggregates: Iterable<AggregateRow>, open: Iterable<SessionRow>): void {
    this.#db.sql.exec(
      "DELETE FROM activity_aggregates WHERE side = 'head'; DELETE FROM activity_sessions WHERE side = 'head' AND ended_at IS NULL",
    );
    for (const row of aggregates) this.add("head", row);
    for (const session of open) this.saveSession("head", session);
  }

  deleteAll(): void {
    this.#db.sql.exec("DELETE FROM activity_aggregates; DELETE FROM activity_sessions");
  }
}
