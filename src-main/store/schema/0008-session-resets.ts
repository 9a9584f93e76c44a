/** How the session with each peer is being repaired, as JSON (see messages/reset-machine.ts). */
export const sessionResetsSchema = {
  name: "0008-session-resets",
  sql: `
    CREATE TABLE session_resets (
      peer TEXT PRIMARY KEY,
      state TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
  `,
};
