import { assert } from "#shared/base/assert.ts";
import { fromBase64Url, fromUtf8, toBase64Url, utf8 } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { fail, ok } from "#shared/base/result.ts";
import type { Sessions } from "../../src-main/crypto/sessions.ts";
import type { Database } from "../../src-main/store/database.ts";

export const COUNTING_IDENTITY_KEY = utf8("counting identity key of 33 bytes");

/**
 * Sessions without cryptography for simulations with many runs: a counter in place of the ratchet, kept in the same
 * database and advanced in the same transaction, so that a counter used twice or opened twice shows.
 */
export const createCountingSessions = (db: Database, self: UserId): Sessions => {
  db.sql.exec(`
    CREATE TABLE IF NOT EXISTS counting_sessions (peer TEXT PRIMARY KEY, next_out INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS counting_opened (peer TEXT, n INTEGER, PRIMARY KEY (peer, n)) STRICT;`);
  const begin = db.sql.prepare<[string]>("INSERT OR IGNORE INTO counting_sessions VALUES (?, 1)");
  const take = db.sql.prepare<[string], { n: number }>(
    "UPDATE counting_sessions SET next_out = next_out + 1 WHERE peer = ? RETURNING next_out - 1 AS n",
  );
  const exists = db.sql.prepare<[string]>("SELECT 1 FROM counting_sessions WHERE peer = ?");
  const open = db.sql.prepare<[string, number]>("INSERT OR IGNORE INTO counting_opened VALUES (?, ?)");
  const isOpened = db.sql.prepare<[string, number]>("SELECT 1 FROM counting_opened WHERE peer = ? AND n = ?");
  return {
    localIdentityKey: COUNTING_IDENTITY_KEY,
    hasSession: (peer) => exists.get(peer) !== undefined,
    start: async (peer) => {
      begin.run(peer);
      return ok(undefined);
    },
    seal: async (peer, plaintext, commit) => {
      await Promise.resolve();
      if (exists.get(peer) === undefined) return fail("no_session", "no session");
      return ok(
        db.transaction(() => {
          const row = take.get(peer);
          assert(row !== undefined, "no counter");
          const body = utf8(JSON.stringify({ from: self, n: row.n, text: toBase64Url(plaintext) }));
          return commit({ kind: "prekey", body });
        }),
      );
    },
    open: async (peer, sealed, commit) => {
      await Promise.resolve();
      const text = fromUtf8(sealed.body);
      assert(text.ok, "not made by counting sessions");
      const message: { from: string; n: number; text: string } = JSON.parse(text.value);
      assert(message.from === peer, "an envelope came under another name");
      if (isOpened.get(peer, message.n) !== undefined) return fail("duplicate_message", "opened before");
      const plaintext = fromBase64Url(message.text);
      assert(plaintext.ok, "not made by counting sessions");
      return ok(
        db.transaction(() => {
          begin.run(peer);
          open.run(peer, message.n);
          return commit(plaintext.value);
        }),
      );
    },
    groupSeal: () => Promise.reject(new Error("no groups")),
    groupTake: () => Promise.reject(new Error("no groups")),
    groupOpen: () => Promise.reject(new Error("no groups")),
    identity: () => ({ trusted: COUNTING_IDENTITY_KEY, changedTo: null }),
    acceptChangedIdentity: async () => ok(undefined),
    safetyNumber: () => null,
    safetyCode: () => null,
    pairwiseSecret: () => null,
    forget: async () => undefined,
    keysToPublish: () => Promise.reject(new Error("nothing to publish")),
    published: () => undefined,
  };
};
