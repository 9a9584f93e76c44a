import type { Env } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import {
  ACTIVITY_BATCH_EVENTS,
  ACTIVITY_BATCH_SUMS,
  ACTIVITY_EVENTS_MAX,
  ACTIVITY_RETENTION_MS,
  ACTIVITY_RUN_MS,
  ACTIVITY_SESSIONS_MAX,
} from "#shared/base/limits.ts";
import { ActivityFacts, ActivityLogTable, type SequenceGap, type StoredEvent } from "../store/activity.ts";
import { type ActivityState, ActivitySumsTable, type Side } from "../store/activity-sums.ts";
import type { Database } from "../store/database.ts";
import { decodeEvent, isKnownKind } from "./events.ts";
import { ActivityFold } from "./fold.ts";
import { rowOf, sessionOf } from "./session-rows.ts";

/** Each can be switched off in the settings, as a way back; each is on unless it is. */
export interface ActivityGuards {
  /** One run at a time. Without it runs may overlap; sums stay right, because each batch reads the cursor that it moves. */
  readonly lock: boolean;
  /** Bounded transactions. Without it everything that waits is one. */
  readonly batches: boolean;
  /** Missing numbers are looked for. */
  readonly sequence: boolean;
}

export interface AggregationDeps {
  readonly env: Env;
  readonly db: Database;
  readonly self: UserId;
  /** Names this process in the lock. */
  readonly owner: string;
  readonly retentionMs?: number;
  readonly eventsMax?: number;
}

export type BatchResult =
  | { readonly kind: "done"; readonly processed: number; readonly more: boolean }
  | { readonly kind: "fenced" };

/** The transactions of the aggregator. Every one is whole: sums, sessions, cursor and deletions together, or nothing. */
export class Aggregation {
  readonly log: ActivityLogTable;
  readonly sums: ActivitySumsTable;
  readonly #deps: AggregationDeps;
  readonly #facts: ActivityFacts;
  /** What is read and decoded again only when somebody else has written meanwhile. */
  #cached: { fold: ActivityFold; cursor: number; side: Side }[] = [];

  constructor(deps: AggregationDeps) {
    this.#deps = deps;
    this.log = new ActivityLogTable(deps.db);
    this.sums = new ActivitySumsTable(deps.db);
    this.#facts = new ActivityFacts(deps.db);
  }

  // ---- The lock -----------------------------------------------------------------------------------------------------

  /** The token; null while somebody else holds the lock who may still be alive. */
  takeLock(): number | null {
    const { db, env, owner } = this.#deps;
    return db.transaction(() => {
      const { lockOwner, lockAt, lockToken, recoveries } = this.sums.state();
      const nowMs = Math.round(env.clock.now());
      const isStale = lockAt !== null && Math.abs(nowMs - lockAt) > 2 * ACTIVITY_RUN_MS;
      if (lockOwner !== null && !isStale) return null;
      if (lockOwner !== null) this.sums.update({ recoveries: recoveries + 1 });
      this.sums.update({ lockOwner: owner, lockAt: nowMs, lockToken: lockToken + 1 });
      return lockToken + 1;
    });
  }

  /** `seize`: whoever may still be at work with this token is locked out for good. */
  releaseLock(token: number, seize: boolean): void {
    this.#deps.db.transaction(() => {
      if (this.sums.state().lockToken !== token) return;
      this.sums.update({ lockOwner: null, lockAt: null, lockToken: seize ? token + 1 : token });
    });
  }

  /**
   * At the start of the program, which is the only one of this profile: a lock that is held belongs to a process that died.
   * What it was doing was rolled back, or is whole.
   */
  recover(): boolean {
    return this.#deps.db.transaction(() => {
      const { lockOwner, lockToken, recoveries } = this.sums.state();
      if (lockOwner === null) return false;
      this.sums.update({ lockOwner: null, lockAt: null, lockToken: lockToken + 1, recoveries: recoveries + 1 });
      return true;
    });
  }

  // ---- Batches ------------------------------------------------------------------------------------------------------

  /** Takes up the next events, or when there are none, deletes the next that are old enough. Null as token: no lock. */
  batch(token: number | null, guards: ActivityGuards): BatchResult {
    try {
      // Cursor and sums are written together, so a batch that the power takes is a batch that was not run.
      return this.#deps.db.repeatableTransaction(() => {
        const state = this.sums.state();
        if (token !== null && (state.lockToken !== token || state.lockOwner !== this.#deps.owner))
          return { kind: "fenced" };
        const { processed, more } = this.#takeUp(state, guards);
        return { kind: "done", processed, more: more || this.#deleteOld(state, guards) };
      });
    } catch (error) {
      // Nothing was written, so what is in memory is ahead of the tables.
      this.#cached = [];
      throw error;
    }
  }

  /** Events that were kept aside and that this version knows are events again. */
  takeBackAside(): number {
    const known = this.log.aside().filter((event) => isKnownKind(event.kind) && decodeEvent(event) !== null);
    if (known.length === 0) return 0;
    return this.#deps.db.transaction(() => {
      for (const event of known) {
        // Under a new number: a replay of the old one would count it twice.
        this.log.appendAgain(event);
        this.log.dropAside(event.seq);
        this.log.delete(event.seq);
      }
      return known.length;
    });
  }

  #takeUp(state: ActivityState, guards: ActivityGuards): { processed: number; more: boolean } {
    const limit = guards.batches ? ACTIVITY_BATCH_EVENTS : Number.MAX_SAFE_INTEGER;
    const events = this.log.after(state.cursor, limit);
    const fold = this.#foldOf("head", state.cursor, state.lastAt);
    let { cursor } = state;
    let processed = 0;
    // What a gap gives back comes before the next event, so it is read anew.
    let isInterrupted = false;
    for (const event of events) {
      isInterrupted = guards.sequence && event.seq !== cursor + 1 && this.#meetGap(cursor + 1, event.seq - 1) > 0;
      if (isInterrupted) break;
      this.#apply(fold, event, "head");
      cursor = event.seq;
      processed += 1;
      if (guards.batches && fold.pending >= ACTIVITY_BATCH_SUMS) break;
    }
    const isAtEnd = !isInterrupted && processed === events.length && events.length < limit;
    const top = isAtEnd ? this.log.top() : cursor;
    if (guards.sequence && cursor < top) {
      if (this.#meetGap(cursor + 1, top) > 0) isInterrupted = true;
      // Numbers at the end that no row has are passed, or they would be met again and again.
      else cursor = top;
    }
    if (cursor > state.cursor) {
      this.#write("head", fold);
      this.sums.update({ cursor, lastAt: fold.lastAt });
      this.#remember("head", fold, cursor);
    }
    return { processed, more: isInterrupted || cursor > state.cursor };
  }

  #apply(fold: ActivityFold, stored: StoredEvent, side: Side): void {
    const event = decodeEvent(stored);
    if (event !== null) fold.apply(event);
    else if (side === "head") this.log.setAside(stored);
  }

  #write(side: Side, fold: ActivityFold): void {
    const { sums, sessions } = fold.take();
    for (const row of sums) this.sums.add(side, row);
    for (const session of sessions) this.sums.saveSession(side, rowOf(session));
  }

  #foldOf(side: Side, cursor: number, lastAt: number): ActivityFold {
    const cached = this.#cached.find((entry) => entry.side === side && entry.cursor === cursor);
    return cached?.fold ?? new ActivityFold(lastAt, this.sums.openSessions(side).map(sessionOf));
  }

  #remember(side: Side, fold: ActivityFold, cursor: number): void {
    this.#cached = [...this.#cached.filter((entry) => entry.side !== side), { side, fold, cursor }];
  }

  /** Deletes up to a batch of what is old, or too much, and was taken up. True when there may be more. */
  #deleteOld(state: ActivityState, guards: ActivityGuards): boolean {
    const { env, retentionMs = ACTIVITY_RETENTION_MS, eventsMax = ACTIVITY_EVENTS_MAX } = this.#deps;
    const oldest = env.clock.now() - retentionMs;
    // Not counted: that would read all of the log in every batch.
    const surplus = state.cursor - state.baseCursor - eventsMax;
    const limit = guards.batches ? ACTIVITY_BATCH_EVENTS : Number.MAX_SAFE_INTEGER;
    const events = this.log.between(state.baseCursor, state.cursor, limit);
    const fold = this.#foldOf("base", state.baseCursor, state.baseLastAt);
    let deleted = 0;
    let last = state.baseCursor;
    for (const event of events) {
      if (event.at >= oldest && deleted >= surplus) break;
      this.#apply(fold, event, "base");
      last = event.seq;
      deleted += 1;
      if (guards.batches && fold.pending >= ACTIVITY_BATCH_SUMS) break;
    }
    if (deleted === 0) {
      this.sums.pruneSessions(ACTIVITY_SESSIONS_MAX);
      return false;
    }
    this.#write("base", fold);
    this.log.deleteUpTo(last);
    this.sums.update({ baseCursor: last, baseLastAt: fold.lastAt });
    this.#remember("base", fold, last);
    return true;
  }

  // ---- Gaps ---------------------------------------------------------------------------------------------------------

  /**
   * Numbers without a row: something outside this program has damaged the log. What messages and downloads tell is put in
   * their place; the rest stays missing, and is counted. Returns how many events are there again.
   */
  #meetGap(from: number, to: number): number {
    if (this.log.isKnownGap(from)) return 0;
    const gap: SequenceGap = { from, to };
    const { env, self } = this.#deps;
    const room = gap.to - gap.from + 1;
    const offsetMin = -new Date(env.clock.now()).getTimezoneOffset();
    let seq = gap.from;
    for (const lost of this.#facts.lostMessages(self, Math.min(room, ACTIVITY_BATCH_EVENTS)))
      this.log.restore({ ...lost, seq: seq++, offsetMin, data: null });
    for (const lost of this.#lostBytes()) {
      if (seq > gap.to) break;
      const data = JSON.stringify({ bytes: lost.bytes, ms: 0, sizeBytes: lost.bytes, shares: [] });
      const { fileId, peer } = lost;
      const at = Math.round(env.clock.now());
      this.log.restore({ seq: seq++, at, offsetMin, kind: "transfer.progress", peer, fileId, ref: null, data });
    }
    const restored = seq - gap.from;
    this.log.addGap(gap, env.clock.now(), restored);
    this.sums.update({ recoveries: this.sums.state().recoveries + 1 });
    env.log.warn("the activity log has a gap", { events: room, restored });
    return restored;
  }

  /** Bytes that were logged once, by file, and are neither in the sums nor in events that were not taken up yet. */
  *#lostBytes(): Iterable<{ fileId: string; peer: string | null; bytes: number }> {
    const counted = new Map(
      this.log.progressAfter(this.sums.state().cursor).map(({ fileId, bytes }) => [fileId, bytes]),
    );
    for (const { key, metric, value } of this.sums.sums("file", 0, Number.MAX_SAFE_INTEGER))
      if (metric === "bytesReceived") counted.set(key, (counted.get(key) ?? 0) + value);
    for (const { fileId, totalBytes, owner } of this.log.marks()) {
      const bytes = totalBytes - (counted.get(fileId) ?? 0);
      if (bytes > 0) yield { fileId, peer: owner, bytes };
    }
  }

  /** Somebody else wrote the sums. */
  forgetCached(): void {
    this.#cached = [];
  }

  /** Everything that happened is forgotten. */
  deleteHistory(): void {
    this.#deps.db.transaction(() => {
      const top = this.log.top();
      const { lockToken } = this.sums.state();
      this.log.deleteAll();
      this.sums.deleteAll();
      // A run that is under way knows what is gone: it must not write again.
      this.sums.update({ cursor: top, baseCursor: top, lastAt: 0, baseLastAt: 0, lockToken: lockToken + 1 });
      this.sums.update({ lockOwner: null, lockAt: null, checkedAt: null, checkedCursor: null, consistent: 1 });
    });
    this.#cached = [];
  }
}
