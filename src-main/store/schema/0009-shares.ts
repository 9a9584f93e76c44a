/**
 * Share lists in app.db (src-shared/shares): who may have a file.
 *
 * - `shares.list` is the end of the list, computed from the operations; `owner_version` the newest version that the owner
 *   spoke of. An own file from before there were lists gets its row at the first start.
 * - `share_wishes`: changes that the person made and that the server has not ordered yet.
 * - `share_due`: contacts that have to be told of the end of a list.
 * - `files.access` says why nothing of the file may be had any more; its key is overwritten with zeros then.
 */
export const sharesSchema = {
  name: "0009-shares",
  sql: `
    CREATE TABLE shares (
      file_id TEXT PRIMARY KEY REFERENCES files (file_id) ON DELETE CASCADE,
      list BLOB NOT NULL,
      owner_version INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE share_operations (
      file_id TEXT NOT NULL REFERENCES shares (file_id) ON DELETE CASCADE,
      version INTEGER NOT NULL,
      head BLOB NOT NULL,
      operation BLOB NOT NULL,
      PRIMARY KEY (file_id, version)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE share_wishes (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      file_id TEXT NOT NULL REFERENCES files (file_id) ON DELETE CASCADE,
      wish TEXT NOT NULL -- JSON
    ) STRICT;

    CREATE TABLE share_due (
      peer TEXT NOT NULL,
      file_id TEXT NOT NULL REFERENCES files (file_id) ON DELETE CASCADE,
      PRIMARY KEY (peer, file_id)
    ) STRICT, WITHOUT ROWID;

    ALTER TABLE files ADD COLUMN access TEXT NOT NULL DEFAULT 'granted'
      CHECK (access IN ('granted', 'revoked', 'left'));
    -- The server has their members unsigned; it gets the list with the next registration.
    UPDATE files SET registered = 0 WHERE source_path IS NOT NULL;
  `,
};
