/** What ends the sharing of a file, taken out of `shares.list` so that every file can be asked about. */
export const limitsSchema = {
  name: "0015-limits",
  sql: `
    ALTER TABLE shares ADD COLUMN expires_at_ms INTEGER;
    ALTER TABLE shares ADD COLUMN download_limit INTEGER;
    ALTER TABLE shares ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0;
    UPDATE shares SET expires_at_ms = json_extract(CAST(list AS TEXT), '$.terms.expiresAtMs'),
      download_limit = json_extract(CAST(list AS TEXT), '$.terms.downloadLimit');
    CREATE INDEX shares_by_expiry ON shares (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
  `,
};
