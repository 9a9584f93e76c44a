/**
 * Tables of messages in app.db.
 *
 * - `messages.position` is the order of display: our own in the order of sending, theirs in the order of `seq`.
 * - `streams` counts both directions of one peer. `next_in` null takes whatever comes next as the start.
 * - `outbox` keeps a content until the peer has it. `content` is its padded plaintext; `sealed_*` and `envelope_id` are
 *   set once, together with the ratchet step that made them; `stored_at` says that the mailbox has it.
 * - `seen_envelopes`: ids of everything opened or given up, per sender, so that nobody can occupy another's ids.
 * - `early_contents`: opened, but an earlier one of the same sender is missing.
 * - `held_envelopes`: sealed with a new identity key that the user has not accepted yet.
 * - `receipts_due`: ids that the peer must still be told about.
 */
export const messagesSchema = {
  name: "0004-messages",
  sql: `
    CREATE TABLE messages (
      position INTEGER PRIMARY KEY AUTOINCREMENT,
      chat_id TEXT NOT NULL,
      message_id TEXT NOT NULL,
      sender_id TEXT NOT NULL,
      sent_at INTEGER NOT NULL,
      text TEXT NOT NULL,
      file_id TEXT,
      state TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'delivered', 'read', 'failed')),
      UNIQUE (chat_id, message_id)
    ) STRICT;
    CREATE INDEX messages_by_chat ON messages (chat_id, position);
    CREATE INDEX messages_by_file ON messages (file_id) WHERE file_id IS NOT NULL;

    CREATE TABLE chats (
      chat_id TEXT PRIMARY KEY,
      read_up_to INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE streams (
      peer TEXT PRIMARY KEY,
      next_out INTEGER NOT NULL DEFAULT 1,
      next_in INTEGER DEFAULT 1
    ) STRICT;

    CREATE TABLE outbox (
      peer TEXT NOT NULL,
      seq INTEGER NOT NULL,
      content BLOB NOT NULL,
      message_id TEXT,
      envelope_id TEXT UNIQUE,
      sealed_kind TEXT,
      sealed_body BLOB,
      stored_at INTEGER,
      PRIMARY KEY (peer, seq)
    ) STRICT;
    CREATE INDEX outbox_unstored ON outbox (peer, seq) WHERE stored_at IS NULL;

    CREATE TABLE seen_envelopes (
      peer TEXT NOT NULL,
      envelope_id TEXT NOT NULL,
      seen_at INTEGER NOT NULL,
      PRIMARY KEY (peer, envelope_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX seen_envelopes_by_time ON seen_envelopes (seen_at);

    CREATE TABLE early_contents (
      peer TEXT NOT NULL,
      seq INTEGER NOT NULL,
      content BLOB NOT NULL,
      arrived_at INTEGER NOT NULL,
      PRIMARY KEY (peer, seq)
    ) STRICT;

    CREATE TABLE held_envelopes (
      position INTEGER PRIMARY KEY AUTOINCREMENT,
      peer TEXT NOT NULL,
      envelope_id TEXT NOT NULL,
      kind TEXT NOT NULL,
      body BLOB NOT NULL,
      arrived_at INTEGER NOT NULL,
      UNIQUE (peer, envelope_id)
    ) STRICT;

    CREATE TABLE receipts_due (
      peer TEXT NOT NULL,
      message_id TEXT NOT NULL,
      state TEXT NOT NULL CHECK (state IN ('delivered', 'read')),
      PRIMARY KEY (peer, message_id, state)
    ) STRICT, WITHOUT ROWID;
  `,
};
