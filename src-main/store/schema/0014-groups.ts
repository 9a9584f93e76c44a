/**
 * Tables of groups in app.db. `peer` and `sender` are user ids.
 *
 * - `groups.own_key`: the distribution id of our sender key; null means that the next message needs a new one.
 * - `group_operations`: the log, in the order in which it was taken in; parents always come first.
 * - `group_people`: everybody whom the log ever named. `keyed` is the sender key of ours that they were given last;
 *   `greeted` says that somebody who is no contact was shown why we write to them.
 * - `group_outgoing`: own messages, sealed or not; kept until everybody has them, for who could not read them. `repair_for`
 *   asks for one of them to be sealed again, for one person.
 * - `group_arrivals`: keys and messages, opened from their envelopes, that wait for the log or for their turn.
 * - `group_receipts`: how far an own message has come with each member.
 */
export const groupsSchema = {
  name: "0014-groups",
  sql: `
    CREATE TABLE groups (
      group_id TEXT PRIMARY KEY,
      own_key TEXT
    ) STRICT;

    CREATE TABLE group_operations (
      group_id TEXT NOT NULL REFERENCES groups (group_id) ON DELETE CASCADE,
      position INTEGER NOT NULL,
      hash TEXT NOT NULL,
      operation BLOB NOT NULL,
      PRIMARY KEY (group_id, position),
      UNIQUE (group_id, hash)
    ) STRICT;

    CREATE TABLE group_people (
      group_id TEXT NOT NULL REFERENCES groups (group_id) ON DELETE CASCADE,
      user_id TEXT NOT NULL,
      keyed TEXT,
      greeted INTEGER NOT NULL DEFAULT 0,
      PRIMARY KEY (group_id, user_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX group_people_by_user ON group_people (user_id);

    CREATE TABLE group_outgoing (
      position INTEGER PRIMARY KEY AUTOINCREMENT,
      group_id TEXT NOT NULL REFERENCES groups (group_id) ON DELETE CASCADE,
      message_id TEXT NOT NULL,
      repair_for TEXT,
      body BLOB NOT NULL,
      sealed INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX group_outgoing_unsealed ON group_outgoing (group_id, position) WHERE sealed = 0;
    CREATE INDEX group_outgoing_by_message ON group_outgoing (message_id);

    CREATE TABLE group_arrivals (
      position INTEGER PRIMARY KEY AUTOINCREMENT,
      group_id TEXT NOT NULL,
      sender TEXT NOT NULL,
      message_id TEXT, -- null: a key
      heads TEXT NOT NULL, -- hexadecimal, separated by spaces
      admitted INTEGER NOT NULL, -- 1: the sender was a member when it came
      body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX group_arrivals_by_sender ON group_arrivals (group_id, sender, position);

    CREATE TABLE group_receipts (
      message_id TEXT NOT NULL,
      peer TEXT NOT NULL,
      group_id TEXT NOT NULL,
      state TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'delivered', 'read')),
      PRIMARY KEY (message_id, peer)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE signal_sender_keys (
      position INTEGER PRIMARY KEY AUTOINCREMENT,
      group_id TEXT NOT NULL,
      sender TEXT NOT NULL,
      distribution_id TEXT NOT NULL,
      record BLOB NOT NULL,
      UNIQUE (sender, distribution_id)
    ) STRICT;
  `,
};
