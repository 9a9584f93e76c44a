/**
 * Members of a group that was forgotten here, for whom something of it still waited in their outbox: so that they are told
 * that we left, though they are no contacts and no group says any more who they are.
 */
export const groupGoodbyesSchema = {
  name: "0022-group-goodbyes",
  sql: `
    CREATE TABLE group_goodbyes (
      user_id TEXT PRIMARY KEY,
      since INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
  `,
};
