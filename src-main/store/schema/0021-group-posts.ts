/**
 * Messages to large groups that not all outboxes have yet: `group_sealed` is a message of ours, sealed with `key`, and
 * `group_posts` who is still to be given it. So that the step of the key is one short transaction, and filling two hundred
 * outboxes is many.
 */
export const groupPostsSchema = {
  name: "0021-group-posts",
  sql: `
    CREATE TABLE group_sealed (
      position INTEGER PRIMARY KEY REFERENCES group_outgoing (position) ON DELETE CASCADE,
      group_id TEXT NOT NULL,
      message_id TEXT NOT NULL,
      key TEXT NOT NULL,
      heads BLOB NOT NULL, -- 32 bytes each
      distribution BLOB NOT NULL,
      body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX group_sealed_by_group ON group_sealed (group_id, position);

    CREATE TABLE group_posts (
      position INTEGER NOT NULL REFERENCES group_sealed (position) ON DELETE CASCADE,
      user_id TEXT NOT NULL,
      PRIMARY KEY (position, user_id)
    ) STRICT, WITHOUT ROWID;
  `,
};
