/**
 * Safety numbers in app.db: thousands of hashes each, so they are computed once per contact and pair of
 * identity keys. Only of
 * contacts; gone with them.
 */
export const safetyNumbersSchema = {
  name: "0006-safety-numbers",
  sql: `
    CREATE TABLE safety_numbers (
      user_id TEXT PRIMARY KEY REFERENCES contacts (user_id) ON DELETE CASCADE,
      -- What the digits were made from: ours and the peer's.
      own_identity_key BLOB NOT NULL,
      identity_key BLOB NOT NULL,
      digits TEXT NOT NULL
    ) STRICT;
  `,
};
