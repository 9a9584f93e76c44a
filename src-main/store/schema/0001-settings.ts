/** One JSON value per key: profile, settings, and other single values. */
export const settingsSchema = {
  name: "0001-settings",
  sql: `
    CREATE TABLE settings (
      key TEXT PRIMARY KEY,
      value TEXT NOT NULL -- JSON
    ) STRICT;
  `,
};
