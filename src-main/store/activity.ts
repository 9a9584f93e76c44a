import type { Clock, TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import type { Database } from "./database.ts";

/** One row of the log. */
export interface StoredEvent {
  readonly seq: number;
  readonly at: TimeMs;
  /** Minutes that the local time was ahead of UTC. */
  readonly offsetMin: number;
  readonly kind: string;
  readonly peer: string | null;
  readonly fileId: string | null;
  /** The position of a message. */
  readonly ref: number | null;
  /** JSON. */
  readonly data: string | null;
}

export type NewEvent = Omit<StoredEvent, "seq" | "ref" | "offsetMin">;

export interface SequenceGap {
  readonly from: number;
  readonly to: number;
}

export interface ActivityMark {
  readonly runBytes: number;
  readonly totalBytes: number;
}

const COLUMNS = "seq, at, offset_min AS offsetMin, kind, peer, file_id AS fileId, ref, data";
const INSERT =
  "INSERT INTO activity_events (at, offset_min, kind, peer, file_id, ref, data) VALUES (activity_now(), activity_offset()";

/** A state can be skipped (read before delivered was heard of), and is reached all the same. */
const stateEvent = (state: string, when: string): string => `
    INSERT INTO activity_events (at, offset_min, kind, peer, file_id, ref, data) SELECT activity_now(), activity_offset(),
      'message.${state}', new.chat_id, new.file_id, new.position, NULL WHERE ${when};`;

/**
 * Facts that have a row of their own are logged by triggers: in the same transaction, from whatever code the row comes.
 * They are temporary, so they belong to this program and not to the file: a migration never has to change them.
 * A message counts for its chat, whoever wrote it: for the other person, or for the group.
 */
const triggersFor = (self: UserId): string => `
  CREATE TEMP TRIGGER activity_message_added AFTER INSERT ON main.messages BEGIN
    ${INSERT}, CASE new.sender_id WHEN '${self}' THEN 'message.queued' ELSE 'message.received' END,
      new.chat_id, new.file_id, new.position, NULL);
  END;
  CREATE TEMP TRIGGER activity_message_changed AFTER UPDATE OF state ON main.messages
  WHEN new.sender_id = '${self}' AND old.state <> new.state BEGIN
    ${stateEvent("sent", "old.state = 'queued' AND new.state IN ('sent', 'delivered', 'read')")}
    ${stateEvent("delivered", "old.state IN ('queued', 'sent') AND new.state IN ('delivered', 'read')")}
    ${stateEvent("read", "new.state = 'read'")}
    ${stateEvent("failed", "new.state = 'failed'")}
  END;
  CREATE TEMP TRIGGER activity_transfer_added AFTER INSERT ON main.transfers BEGIN
    ${INSERT}, 'transfer.started', (SELECT owner_id FROM main.files WHERE file_id = new.file_id), new.file_id, NULL, NULL);
  END;
  CREATE TEMP TRIGGER activity_transfer_changed AFTER UPDATE OF status ON main.transfers WHEN old.status <> new.status BEGIN
    ${INSERT},
      CASE new.status WHEN 'complete' THEN 'transfer.completed' WHEN 'active' THEN 'transfer.resumed'
        ELSE 'transfer.' || new.status END,
      (SELECT owner_id FROM main.files WHERE file_id = new.file_id), new.file_id, NULL,
      CASE new.status
        WHEN 'complete' THEN json_object('requested', new.requested, 'duplicate', new.duplicate, 'late', new.late,
          'rejected', new.rejected)
        WHEN 'failed' THEN json_object('type', substr(coalesce(json_extract(new.error, '$.type'), 'unknown'), 1, 64))
      END);
  END;
  CREATE TEMP TRIGGER activity_transfer_removed AFTER DELETE ON main.transfers BEGIN
    UPDATE activity_marks SET run_bytes = 0 WHERE file_id = old.file_id;
    ${INSERT}, 'transfer.removed', NULL, old.file_id, NULL, NULL);
  END;
`;

/** The log itself: what is appended, read in order, kept aside and deleted. */
export class ActivityLogTable {
  readonly #db: Database;
  readonly #append;
  readonly #insertAt;
  readonly #after;
  readonly #between;
  readonly #top;
  readonly #count;
  readonly #last;
  readonly #deleteUpTo;
  readonly #delete;
  readonly #progressAfter;
  readonly #setAside;
  readonly #aside;
  readonly #dropAside;
  readonly #asideCount;
  readonly #addGap;
  readonly #gaps;
  readonly #knownGap;
  readonly #mark;
  readonly #saveMark;
  readonly #marks;

  constructor(db: Database) {
    this.#db = db;
    const { sql } = db;
    this.#append = sql.prepare<Omit<StoredEvent, "seq">>(
      "INSERT INTO activity_events (at, offset_min, kind, peer, file_id, ref, data) VALUES (@at, @offsetMin, @kind, @peer, @fileId, @ref, @data)",
    );
    this.#insertAt = sql.prepare<StoredEvent>(
      "INSERT INTO activity_events VALUES (@seq, @at, @offsetMin, @kind, @peer, @fileId, @ref, @data)",
    );
    this.#after = sql.prepare<[number, number], StoredEvent>(
      `SELECT ${COLUMNS} FROM activity_events WHERE seq > ? ORDER BY seq LIMIT ?`,
    );
    this.#between = sql.prepare<[number, number, number], StoredEvent>(
      `SELECT ${COLUMNS} FROM activity_events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?`,
    );
    this.#top = sql.prepare<[], { seq: number }>("SELECT seq FROM sqlite_sequence WHERE name = 'activity_events'");
    this.#count = sql.prepare<[], { n: number }>("SELECT count(*) AS n FROM activity_events");
    this.#last = sql.prepare<[number], StoredEvent>(`SELECT ${COLUMNS} FROM activity_events ORDER BY seq DESC LIMIT ?`);
    this.#deleteUpTo = sql.prepare<[number]>("DELETE FROM activity_events WHERE seq <= ?");
    this.#delete = sql.prepare<[number]>("DELETE FROM activity_events WHERE seq = ?");
    this.#progressAfter = sql.prepare<[number], { fileId: string; bytes: number }>(
      `SELECT file_id AS fileId, sum(json_extract(data, '$.bytes')) AS bytes FROM activity_events
       WHERE seq > ? AND kind = 'transfer.progress' AND file_id IS NOT NULL GROUP BY file_id`,
    );
    this.#setAside = sql.prepare<StoredEvent>(
      "INSERT OR IGNORE INTO activity_aside VALUES (@seq, @at, @offsetMin, @kind, @peer, @fileId, @ref, @data)",
    );
    this.#aside = sql.prepare<[], StoredEvent>(`SELECT ${COLUMNS} FROM activity_aside ORDER BY seq`);
    this.#asideCount = sql.prepare<[], { n: number }>("SELECT count(*) AS n FROM activity_aside");
    this.#dropAside = sql.prepare<[number]>("DELETE FROM activity_aside WHERE seq = ?");
    this.#addGap = sql.prepare<[number, number, number, number]>(
      "INSERT OR IGNORE INTO activity_gaps VALUES (?, ?, ?, ?)",
    );
    this.#knownGap = sql.prepare<[number, number]>("SELECT 1 FROM activity_gaps WHERE from_seq <= ? AND to_seq >= ?");
    this.#gaps = sql.prepare<[], { n: number }>("SELECT count(*) AS n FROM activity_gaps");
    this.#mark = sql.prepare<[string], { run_bytes: number; total_bytes: number }>(
      "SELECT run_bytes, total_bytes FROM activity_marks WHERE file_id = ?",
    );
    this.#saveMark = sql.prepare<[string, number, number]>(
      "INSERT INTO activity_marks VALUES (?, ?, ?) ON CONFLICT (file_id) DO UPDATE SET run_bytes = excluded.run_bytes, total_bytes = excluded.total_bytes",
    );
    this.#marks = sql.prepare<[], { fileId: string; totalBytes: number; owner: string | null }>(
      `SELECT file_id AS fileId, total_bytes AS totalBytes,
        (SELECT owner_id FROM files WHERE files.file_id = activity_marks.file_id) AS owner FROM activity_marks`,
    );
  }

  /** From now on messages and downloads are logged with the transaction that stores them. Once for each connection. */
  follow(self: UserId, clock: Pick<Clock, "now">): void {
    this.#db.sql.function("activity_now", () => Math.round(clock.now()));
    this.#db.sql.function("activity_offset", () => offsetMinOf(clock.now()));
    this.#db.sql.exec(triggersFor(self));
  }

  append(event: NewEvent): void {
    this.#append.run({ ...event, at: Math.round(event.at), offsetMin: offsetMinOf(event.at), ref: null });
  }

  /** Again, under a new number, an event that had been kept aside. */
  appendAgain({ seq: _, ...event }: StoredEvent): void {
    this.#append.run(event);
  }

  /** In a place that was found to be empty. */
  restore(event: StoredEvent): void {
    this.#insertAt.run(event);
  }

  after(seq: number, limit: number): StoredEvent[] {
    return this.#after.all(seq, limit);
  }

  /** Those with `from < seq <= to`. */
  between(from: number, to: number, limit: number): StoredEvent[] {
    return this.#between.all(from, to, limit);
  }

  /** The newest number that was ever given; 0 before the first. */
  top(): number {
    return this.#top.get()?.seq ?? 0;
  }

  count(): number {
    return this.#count.get()?.n ?? 0;
  }

  /** The newest, oldest of them first. */
  newest(limit: number): StoredEvent[] {
    return this.#last.all(limit).reverse();
  }

  deleteUpTo(seq: number): number {
    return this.#deleteUpTo.run(seq).changes;
  }

  delete(seq: number): void {
    this.#delete.run(seq);
  }

  /** Bytes of downloads in the events after that one, by file. */
  progressAfter(seq: number): { fileId: string; bytes: number }[] {
    return this.#progressAfter.all(seq);
  }

  setAside(event: StoredEvent): void {
    this.#setAside.run(event);
  }

  aside(): StoredEvent[] {
    return this.#aside.all();
  }

  asideCount(): number {
    return this.#asideCount.get()?.n ?? 0;
  }

  dropAside(seq: number): void {
    this.#dropAside.run(seq);
  }

  addGap(gap: SequenceGap, foundAt: TimeMs, restored: number): void {
    this.#addGap.run(gap.from, gap.to, Math.round(foundAt), restored);
  }

  /** Whether this number is one of those that are known to be missing. */
  isKnownGap(seq: number): boolean {
    return this.#knownGap.get(seq, seq) !== undefined;
  }

  gapCount(): number {
    return this.#gaps.get()?.n ?? 0;
  }

  mark(fileId: string): ActivityMark {
    const row = this.#mark.get(fileId);
    return { runBytes: row?.run_bytes ?? 0, totalBytes: row?.total_bytes ?? 0 };
  }

  saveMark(fileId: string, { runBytes, totalBytes }: ActivityMark): void {
    this.#saveMark.run(fileId, runBytes, totalBytes);
  }

  marks(): { fileId: string; totalBytes: number; owner: string | null }[] {
    return this.#marks.all();
  }

  /** Everything that happened up to now; what is known of downloads stays, so that nothing is counted again. */
  deleteAll(): void {
    this.#db.sql.exec(
      "DELETE FROM activity_events; DELETE FROM activity_aside; DELETE FROM activity_gaps; UPDATE activity_marks SET total_bytes = 0",
    );
  }
}

/**
 * Messages whose events are missing: those that are newer than the oldest message event that is left. `self` tells which
 * side wrote them.
 */
export class ActivityFacts {
  readonly #lost;

  constructor(db: Database) {
    // For each kind: rows whose state says that it happened, without an event that says so.
    const lost = (kind: string, when: string): string => `
      SELECT m.position AS ref, '${kind}' AS kind, m.file_id AS fileId, m.sent_at AS at, m.chat_id AS peer FROM messages m
      WHERE m.position > (SELECT min(ref) FROM activity_events WHERE ref IS NOT NULL) AND ${when} AND NOT EXISTS
        (SELECT 1 FROM activity_events e WHERE e.ref = m.position AND e.kind = '${kind}')`;
    this.#lost = db.sql.prepare<
      { self: string; limit: number },
      Pick<StoredEvent, "ref" | "kind" | "fileId" | "at" | "peer">
    >(
      `${[
        lost("message.received", "m.sender_id <> @self"),
        lost("message.queued", "m.sender_id = @self"),
        lost("message.sent", "m.sender_id = @self AND m.state IN ('sent', 'delivered', 'read')"),
        lost("message.delivered", "m.sender_id = @self AND m.state IN ('delivered', 'read')"),
        lost("message.read", "m.sender_id = @self AND m.state = 'read'"),
        lost("message.failed", "m.sender_id = @self AND m.state = 'failed'"),
      ].join(" UNION ALL ")} ORDER BY 1 LIMIT @limit`,
    );
  }

  lostMessages(self: UserId, limit: number): Pick<StoredEvent, "ref" | "kind" | "fileId" | "at" | "peer">[] {
    return this.#lost.all({ self, limit });
  }
}

/** The machine's own zone, at that time of the year. */
const offsetMinOf = (atMs: TimeMs): number => -new Date(atMs).getTimezoneOffset();
