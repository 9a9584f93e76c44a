import type { Migration } from "../migrate.ts";

/** Everything in chunks.db. A chunk's id is file * 2^24 + index and a page's file * 2^14 + page: one B-tree each, in file order. */
export const chunksMigrations: readonly Migration[] = [
  {
    name: "0001-chunks",
    sql: `
      CREATE TABLE files (
        file INTEGER PRIMARY KEY,
        file_id TEXT NOT NULL UNIQUE,
        -- Counters of the download, committed with the chunks they count.
        requested INTEGER NOT NULL DEFAULT 0,
        duplicate INTEGER NOT NULL DEFAULT 0,
        late INTEGER NOT NULL DEFAULT 0,
        rejected INTEGER NOT NULL DEFAULT 0,
        -- Set before the rename to the final name, so that a crash in between is recognised.
        final_path TEXT,
        final_inode TEXT
      ) STRICT;
      CREATE TABLE leaf_pages (
        id INTEGER PRIMARY KEY,
        root BLOB NOT NULL,   -- 32 bytes, of the page's subtree
        leaves BLOB NOT NULL  -- 32 bytes each, proven
      ) STRICT;
      CREATE TABLE chunks (
        id INTEGER PRIMARY KEY,
        data BLOB NOT NULL    -- ciphertext and tag, proven before it was stored
      ) STRICT;
    `,
  },
  {
    name: "0002-folder-lists",
    sql: `
      CREATE TABLE folder_lists (
        file INTEGER PRIMARY KEY,
        sealed BLOB NOT NULL  -- names are content: encrypted with the folder's key, as the chunks are
      ) STRICT;
    `,
  },
];
