/** Which file this one takes the place of: the same plaintext, shared anew under another key. */
export const replacedFilesSchema = {
  name: "0017-replaced-files",
  sql: `
    ALTER TABLE files ADD COLUMN replaces TEXT;
    CREATE INDEX files_by_replaced ON files (replaces) WHERE replaces IS NOT NULL;
  `,
};
