/** Members who came into a group, or went, and for whom the access to files that we shared there is not settled yet. */
export const groupFilesSchema = {
  name: "0016-group-files",
  sql: `
    CREATE TABLE group_access_due (
      position INTEGER PRIMARY KEY AUTOINCREMENT,
      group_id TEXT NOT NULL REFERENCES groups (group_id) ON DELETE CASCADE,
      user_id TEXT NOT NULL,
      UNIQUE (group_id, user_id)
    ) STRICT;
  `,
};
