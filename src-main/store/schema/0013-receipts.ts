/**
 * Signed receipts of files in app.db (src-shared/shares/receipt): who was sent a file's key, and who says to have it.
 * `sent_to` is the server that has confirmed one of ours.
 */
export const receiptsSchema = {
  name: "0013-receipts",
  sql: `
    CREATE TABLE share_receipts (
      file_id TEXT NOT NULL REFERENCES files (file_id) ON DELETE CASCADE,
      kind TEXT NOT NULL CHECK (kind IN ('offered', 'completed')),
      subject TEXT NOT NULL,
      actor TEXT NOT NULL,
      receipt BLOB NOT NULL,
      sent_to TEXT,
      PRIMARY KEY (file_id, kind, subject)
    ) STRICT;
    CREATE INDEX share_receipts_by_actor ON share_receipts (actor, sent_to);
  `,
};
