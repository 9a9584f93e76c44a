/** Tables of files and downloads in app.db. Chunks and hashes are in chunks.db. */
export const filesSchema = {
  name: "0005-files",
  sql: `
    CREATE TABLE files (
      file_id TEXT PRIMARY KEY,
      owner_id TEXT NOT NULL,
      name TEXT NOT NULL,          -- made safe already
      size_bytes INTEGER NOT NULL,
      chunk_bytes INTEGER NOT NULL,
      chunk_count INTEGER NOT NULL,
      root BLOB NOT NULL,
      created_at_ms INTEGER NOT NULL,
      signature BLOB NOT NULL,     -- the owner's, over the manifest
      key BLOB NOT NULL,
      sha256 BLOB NOT NULL,
      shared_with TEXT NOT NULL,   -- JSON array of user ids
      version INTEGER NOT NULL,
      source_path TEXT,            -- where our own file lies; null for files of others
      registered INTEGER NOT NULL  -- 1 once the server has the record
    ) STRICT;

    CREATE TABLE transfers (
      file_id TEXT PRIMARY KEY REFERENCES files (file_id) ON DELETE CASCADE,
      directory TEXT NOT NULL,
      started_at_ms INTEGER NOT NULL,
      -- active: goes on by itself after a restart. cancelled: its chunks are still being deleted.
      status TEXT NOT NULL CHECK (status IN ('active', 'paused', 'failed', 'complete', 'cancelled')),
      error TEXT,                  -- JSON {type, message} when failed
      saved_path TEXT,             -- when complete
      stored INTEGER NOT NULL,     -- to show before chunks.db was scanned
      requested INTEGER NOT NULL,
      duplicate INTEGER NOT NULL,
      late INTEGER NOT NULL,
      rejected INTEGER NOT NULL,
      cleaned INTEGER NOT NULL     -- 1 once the chunk rows of a complete download were deleted
    ) STRICT;
  `,
};
