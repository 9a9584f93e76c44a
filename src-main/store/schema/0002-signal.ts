/**
 * Keys and sessions in app.db. A peer is addressed by user id and device. Key ids are those of the Signal protocol:
 * 24 bits, never 0. The key of a kind that is being published now has no `retired_at_ms`; the unique indices allow one.
 */
export const signalSchema = {
  name: "0002-signal",
  sql: `
    CREATE TABLE account (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      private_key BLOB NOT NULL CHECK (length(private_key) = 32), -- Ed25519 seed (RFC 8032)
      created_at_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE signal_local (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      identity_key_pair BLOB NOT NULL,
      registration_id INTEGER NOT NULL CHECK (registration_id BETWEEN 1 AND 16383)
    ) STRICT;

    CREATE TABLE signal_sessions (
      peer TEXT NOT NULL,
      device INTEGER NOT NULL,
      record BLOB NOT NULL,
      PRIMARY KEY (peer, device)
    ) STRICT;

    CREATE TABLE signal_identities (
      peer TEXT NOT NULL,
      device INTEGER NOT NULL,
      trusted BLOB NOT NULL,
      changed_to BLOB, -- seen instead of the trusted one, waits for acceptance
      PRIMARY KEY (peer, device),
      CHECK (changed_to IS NULL OR changed_to <> trusted)
    ) STRICT;

    CREATE TABLE signal_prekeys (
      id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 16777215),
      record BLOB NOT NULL,
      confirmed INTEGER NOT NULL DEFAULT 0, -- 1: the server said that it has the public half
      created_at_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE signal_signed_prekeys (
      id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 16777215),
      record BLOB NOT NULL,
      created_at_ms INTEGER NOT NULL,
      retired_at_ms INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX signal_signed_prekeys_current ON signal_signed_prekeys ((1)) WHERE retired_at_ms IS NULL;

    CREATE TABLE signal_kyber_prekeys (
      id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 16777215),
      record BLOB NOT NULL,
      last_resort INTEGER NOT NULL, -- 0: one-time
      confirmed INTEGER NOT NULL DEFAULT 0,
      created_at_ms INTEGER NOT NULL,
      retired_at_ms INTEGER -- last-resort keys only
    ) STRICT;
    CREATE UNIQUE INDEX signal_kyber_prekeys_current ON signal_kyber_prekeys ((1))
      WHERE last_resort = 1 AND retired_at_ms IS NULL;

    -- What a last-resort key was used with; a repetition is a replay.
    CREATE TABLE signal_kyber_uses (
      kyber_id INTEGER NOT NULL REFERENCES signal_kyber_prekeys (id) ON DELETE CASCADE,
      signed_id INTEGER NOT NULL,
      base_key BLOB NOT NULL,
      PRIMARY KEY (kyber_id, signed_id, base_key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE signal_key_ids (
      kind TEXT PRIMARY KEY CHECK (kind IN ('ec', 'signed', 'kyber')),
      next INTEGER NOT NULL CHECK (next BETWEEN 1 AND 16777215)
    ) STRICT;
  `,
};
