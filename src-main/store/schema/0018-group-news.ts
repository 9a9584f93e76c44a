/**
 * Operations of ours that members were not told of yet: from the first to the last one, by their positions in the log. So
 * that a change of a large group is one short transaction, and telling everybody many.
 */
export const groupNewsSchema = {
  name: "0018-group-news",
  sql: `
    CREATE TABLE group_news (
      position INTEGER PRIMARY KEY,
      group_id TEXT NOT NULL REFERENCES groups (group_id) ON DELETE CASCADE,
      user_id TEXT NOT NULL,
      first INTEGER NOT NULL,
      last INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX group_news_by_person ON group_news (group_id, user_id);
  `,
};
