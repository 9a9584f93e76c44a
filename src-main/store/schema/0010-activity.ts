/**
 * The activity log of this device and what is made of it, in app.db. No content and no names of files.
 *
 * - `activity_events`: what happened. AUTOINCREMENT makes `seq` gap-free: the next number is taken in the transaction that
 *   inserts the row, comes back when that rolls back, and is never given twice. `ref` is the position of the message
 *   that a message event is about; `offset_min` what the local time was ahead of UTC, so that a replay finds the same days.
 * - `activity_aggregates`, `activity_sessions`: sums, and spans with a beginning and an end. Side 'head' holds all events up
 *   to `cursor`; side 'base' those that were deleted (up to `base_cursor`), and the sessions that were open then. So
 *   base + a replay of the events that are left must give head.
 * - `activity_state`: one row. `lock_token` only grows; a run writes only while it holds the newest one.
 * - `activity_aside`: events of a kind that this version does not know, until one comes that does.
 * - `activity_gaps`: numbers that were missing from the log. `activity_marks`: bytes of a download that are in the log.
 */
export const activitySchema = {
  name: "0010-activity",
  sql: `
    CREATE TABLE activity_events (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      at INTEGER NOT NULL,
      offset_min INTEGER NOT NULL,
      kind TEXT NOT NULL,
      peer TEXT,
      file_id TEXT,
      ref INTEGER,
      data TEXT
    ) STRICT;
    CREATE INDEX activity_events_by_ref ON activity_events (ref, kind) WHERE ref IS NOT NULL;

    CREATE TABLE activity_aggregates (
      side TEXT NOT NULL CHECK (side IN ('head', 'base')),
      scope TEXT NOT NULL,
      key TEXT NOT NULL,
      day INTEGER NOT NULL,          -- days since 1970 in local time
      metric TEXT NOT NULL,
      value INTEGER NOT NULL,
      PRIMARY KEY (side, scope, key, day, metric)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE activity_sessions (
      side TEXT NOT NULL CHECK (side IN ('head', 'base')),
      id INTEGER NOT NULL,           -- seq of its first event
      slot TEXT NOT NULL,            -- only one session of a slot is open at a time
      kind TEXT NOT NULL,
      peer TEXT,
      file_id TEXT,
      started_at INTEGER NOT NULL,
      ended_at INTEGER,              -- null while it is open
      data TEXT NOT NULL,
      PRIMARY KEY (side, slot, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX activity_sessions_open ON activity_sessions (side) WHERE ended_at IS NULL;
    CREATE INDEX activity_sessions_by_end ON activity_sessions (side, ended_at);

    CREATE TABLE activity_state (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      cursor INTEGER NOT NULL DEFAULT 0,
      last_at INTEGER NOT NULL DEFAULT 0,
      base_cursor INTEGER NOT NULL DEFAULT 0,
      base_last_at INTEGER NOT NULL DEFAULT 0,
      lock_token INTEGER NOT NULL DEFAULT 0,
      lock_owner TEXT,
      lock_at INTEGER,
      last_run_at INTEGER,
      last_run_ms INTEGER,
      last_run_events INTEGER NOT NULL DEFAULT 0,
      last_error TEXT,
      recoveries INTEGER NOT NULL DEFAULT 0,
      checked_at INTEGER,
      checked_cursor INTEGER,
      consistent INTEGER NOT NULL DEFAULT 1
    ) STRICT;
    INSERT INTO activity_state (id) VALUES (1);

    CREATE TABLE activity_aside (
      seq INTEGER PRIMARY KEY,
      at INTEGER NOT NULL,
      offset_min INTEGER NOT NULL,
      kind TEXT NOT NULL,
      peer TEXT,
      file_id TEXT,
      ref INTEGER,
      data TEXT
    ) STRICT;

    CREATE TABLE activity_gaps (
      from_seq INTEGER PRIMARY KEY,
      to_seq INTEGER NOT NULL,
      found_at INTEGER NOT NULL,
      restored INTEGER NOT NULL      -- how many of them were made again from what they were about
    ) STRICT;

    CREATE TABLE activity_marks (
      file_id TEXT PRIMARY KEY,
      run_bytes INTEGER NOT NULL,    -- of the download as it stands
      total_bytes INTEGER NOT NULL   -- of all downloads of this file since the history begins
    ) STRICT, WITHOUT ROWID;
  `,
};
