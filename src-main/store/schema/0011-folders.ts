/** Shared folders: what an offer says of one, and what was chosen of it. */
export const foldersSchema = {
  name: "0011-folders",
  sql: `
    ALTER TABLE files ADD COLUMN list_bytes INTEGER;   -- null: a file
    ALTER TABLE files ADD COLUMN folder_files INTEGER;
    ALTER TABLE transfers ADD COLUMN folder TEXT;      -- JSON, see transfers.ts; null: a file
  `,
};
