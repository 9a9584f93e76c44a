import type { Bytes } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { PREKEY_BATCH, PREKEYS_KEPT, PREKEYS_UNUSED_MAX, SIGNED_PREKEYS_KEPT } from "#shared/base/limits.ts";
import type { Database } from "./database.ts";

/** What a last-resort key was used with. The same three again are a replayed message. */
export interface KyberUse {
  readonly kyberId: number;
  readonly signedId: number;
  readonly baseKey: Bytes;
}

/** Everything that one session operation changes; it is stored whole or not at all. */
export interface SessionChange {
  session: Bytes | null;
  /** The peer's identity key, when it was not known before. */
  identity: Bytes | null;
  readonly usedPreKeys: number[];
  readonly usedKyberPreKeys: number[];
  readonly lastResortUses: KyberUse[];
}

/** The key was there when the message was read, and another message has used it since. */
export class KeyUsedError extends Error {
  override readonly name = "KeyUsedError";
}

type Awaitable<T> = T | Promise<T>;

/** What a session operation reads. Promises are allowed so that a simulator can delay and interleave reads. */
export interface SignalReads {
  session(peer: UserId): Awaitable<Bytes | null>;
  trustedIdentity(peer: UserId): Awaitable<Bytes | null>;
  preKey(id: number): Awaitable<Bytes | null>;
  signedPreKey(id: number): Awaitable<Bytes | null>;
  kyberPreKey(id: number): Awaitable<{ record: Bytes; lastResort: boolean } | null>;
  kyberUseKnown(use: KyberUse): Awaitable<boolean>;
}

export type KeyKind = "ec" | "signed" | "kyber";
export interface StoredKey {
  readonly id: number;
  readonly record: Bytes;
}
export interface CurrentKey extends StoredKey {
  readonly createdAtMs: number;
}

const KEY_ID_MAX = 0xffffff;
type Row = { record: Buffer<ArrayBuffer> };
type CurrentRow = Row & { id: number; created_at_ms: number };
const bytesOf = (row: Row | undefined): Bytes | null => (row === undefined ? null : new Uint8Array(row.record));
const currentOf = (row: CurrentRow | undefined): CurrentKey | null =>
  row === undefined ? null : { id: row.id, record: new Uint8Array(row.record), createdAtMs: row.created_at_ms };

const prepareSessions = (db: Database) => ({
  session: db.sql.prepare<[string, number], Row>("SELECT record FROM signal_sessions WHERE peer = ? AND device = ?"),
  saveSession: db.sql.prepare<[string, number, Uint8Array]>(
    `INSERT INTO signal_sessions (peer, device, record) VALUES (?, ?, ?)
     ON CONFLICT (peer, device) DO UPDATE SET record = excluded.record`,
  ),
  deleteSession: db.sql.prepare<[string, number]>("DELETE FROM signal_sessions WHERE peer = ? AND device = ?"),
  identity: db.sql.prepare<[string, number], { trusted: Buffer<ArrayBuffer>; changed_to: Buffer<ArrayBuffer> | null }>(
    "SELECT trusted, changed_to FROM signal_identities WHERE peer = ? AND device = ?",
  ),
  insertIdentity: db.sql.prepare<[string, number, Uint8Array]>(
    "INSERT INTO signal_identities (peer, device, trusted) VALUES (?, ?, ?)",
  ),
  setChangedIdentity: db.sql.prepare<[Uint8Array, string, number]>(
    "UPDATE signal_identities SET changed_to = ? WHERE peer = ? AND device = ?",
  ),
  acceptIdentity: db.sql.prepare<[string, number]>(
    `UPDATE signal_identities SET trusted = changed_to, changed_to = NULL
     WHERE peer = ? AND device = ? AND changed_to IS NOT NULL`,
  ),
  deleteIdentity: db.sql.prepare<[string, number]>("DELETE FROM signal_identities WHERE peer = ? AND device = ?"),
  local: db.sql.prepare<[], { identity_key_pair: Buffer<ArrayBuffer>; registration_id: number }>(
    "SELECT identity_key_pair, registration_id FROM signal_local",
  ),
  insertLocal: db.sql.prepare<[Uint8Array, number]>(
    "INSERT INTO signal_local (id, identity_key_pair, registration_id) VALUES (1, ?, ?)",
  ),
});

const prepareKeys = (db: Database) => ({
  preKey: db.sql.prepare<[number], Row>("SELECT record FROM signal_prekeys WHERE id = ?"),
  insertPreKey: db.sql.prepare<[number, Uint8Array, number]>(
    "INSERT INTO signal_prekeys (id, record, created_at_ms) VALUES (?, ?, ?)",
  ),
  confirmPreKey: db.sql.prepare<[number]>("UPDATE signal_prekeys SET confirmed = 1 WHERE id = ?"),
  deletePreKey: db.sql.prepare<[number]>("DELETE FROM signal_prekeys WHERE id = ?"),

  signed: db.sql.prepare<[number], Row>("SELECT record FROM signal_signed_prekeys WHERE id = ?"),
  currentSigned: db.sql.prepare<[], CurrentRow>(
    "SELECT id, record, created_at_ms FROM signal_signed_prekeys WHERE retired_at_ms IS NULL",
  ),
  insertSigned: db.sql.prepare<[number, Uint8Array, number]>(
    "INSERT INTO signal_signed_prekeys (id, record, created_at_ms) VALUES (?, ?, ?)",
  ),
  retireSigned: db.sql.prepare<[number]>(
    "UPDATE signal_signed_prekeys SET retired_at_ms = ? WHERE retired_at_ms IS NULL",
  ),
  pruneSigned: db.sql.prepare<[number, number]>(
    `DELETE FROM signal_signed_prekeys WHERE retired_at_ms < ? AND id NOT IN
       (SELECT id FROM signal_signed_prekeys WHERE retired_at_ms IS NOT NULL ORDER BY retired_at_ms DESC LIMIT ?)`,
  ),

  kyber: db.sql.prepare<[number], Row & { last_resort: number }>(
    "SELECT record, last_resort FROM signal_kyber_prekeys WHERE id = ?",
  ),
  currentLastResort: db.sql.prepare<[], CurrentRow>(
    "SELECT id, record, created_at_ms FROM signal_kyber_prekeys WHERE last_resort = 1 AND retired_at_ms IS NULL",
  ),
  insertKyber: db.sql.prepare<[number, Uint8Array, number, number]>(
    "INSERT INTO signal_kyber_prekeys (id, record, last_resort, created_at_ms) VALUES (?, ?, ?, ?)",
  ),
  confirmKyber: db.sql.prepare<[number]>("UPDATE signal_kyber_prekeys SET confirmed = 1 WHERE id = ?"),
  deleteOneTimeKyber: db.sql.prepare<[number]>("DELETE FROM signal_kyber_prekeys WHERE id = ? AND last_resort = 0"),
  retireLastResort: db.sql.prepare<[number]>(
    "UPDATE signal_kyber_prekeys SET retired_at_ms = ? WHERE last_resort = 1 AND retired_at_ms IS NULL",
  ),
  pruneLastResort: db.sql.prepare<[number, number]>(
    `DELETE FROM signal_kyber_prekeys WHERE last_resort = 1 AND retired_at_ms < ? AND id NOT IN
       (SELECT id FROM signal_kyber_prekeys WHERE last_resort = 1 AND retired_at_ms IS NOT NULL
        ORDER BY retired_at_ms DESC LIMIT ?)`,
  ),
  kyberUse: db.sql.prepare<[number, number, Uint8Array]>(
    "SELECT 1 FROM signal_kyber_uses WHERE kyber_id = ? AND signed_id = ? AND base_key = ?",
  ),
  insertKyberUse: db.sql.prepare<[number, number, Uint8Array]>(
    "INSERT OR IGNORE INTO signal_kyber_uses (kyber_id, signed_id, base_key) VALUES (?, ?, ?)",
  ),

  nextId: db.sql.prepare<[string], { next: number }>("SELECT next FROM signal_key_ids WHERE kind = ?"),
  setNextId: db.sql.prepare<[string, number]>(
    "INSERT INTO signal_key_ids (kind, next) VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET next = excluded.next",
  ),

  // Too old and not among the newest; then whatever is over the limit, what the server never confirmed first.
  pruneOldPreKeys: db.sql.prepare<[number, number]>(
    `DELETE FROM signal_prekeys WHERE created_at_ms < ? AND id NOT IN
       (SELECT id FROM signal_prekeys ORDER BY created_at_ms DESC LIMIT ?)`,
  ),
  prunePreKeys: db.sql.prepare<[number]>(
    `DELETE FROM signal_prekeys WHERE id IN
       (SELECT id FROM signal_prekeys ORDER BY confirmed DESC, created_at_ms DESC LIMIT -1 OFFSET ?)`,
  ),
  pruneOldKyber: db.sql.prepare<[number, number]>(
    `DELETE FROM signal_kyber_prekeys WHERE last_resort = 0 AND created_at_ms < ? AND id NOT IN
       (SELECT id FROM signal_kyber_prekeys WHERE last_resort = 0 ORDER BY created_at_ms DESC LIMIT ?)`,
  ),
  pruneKyber: db.sql.prepare<[number]>(
    `DELETE FROM signal_kyber_prekeys WHERE id IN
       (SELECT id FROM signal_kyber_prekeys WHERE last_resort = 0
        ORDER BY confirmed DESC, created_at_ms DESC LIMIT -1 OFFSET ?)`,
  ),
});

/** Sessions, identities and prekeys of the Signal protocol as rows; it knows nothing of what is inside the records. */
export class SignalRepository implements SignalReads {
  readonly #db: Database;
  /** The one device that each peer has. */
  readonly #device: number;
  readonly #sessions;
  readonly #keys;

  constructor(db: Database, device: number) {
    this.#db = db;
    this.#device = device;
    this.#sessions = prepareSessions(db);
    this.#keys = prepareKeys(db);
  }

  // ---- Peers ------------------------------------------------------------------------------------------------------

  session(peer: UserId): Bytes | null {
    return bytesOf(this.#sessions.session.get(peer, this.#device));
  }

  identity(peer: UserId): { trusted: Bytes; changedTo: Bytes | null } | null {
    const row = this.#sessions.identity.get(peer, this.#device);
    if (row === undefined) return null;
    return {
      trusted: new Uint8Array(row.trusted),
      changedTo: row.changed_to === null ? null : new Uint8Array(row.changed_to),
    };
  }

  trustedIdentity(peer: UserId): Bytes | null {
    return this.identity(peer)?.trusted ?? null;
  }

  setChangedIdentity(peer: UserId, key: Uint8Array): void {
    this.#sessions.setChangedIdentity.run(key, peer, this.#device);
  }

  /** Trusts the changed key and drops the session, which was agreed with the old one. False when none had changed. */
  acceptChangedIdentity(peer: UserId): boolean {
    return this.#db.transaction(() => {
      if (this.#sessions.acceptIdentity.run(peer, this.#device).changes === 0) return false;
      this.#sessions.deleteSession.run(peer, this.#device);
      return true;
    });
  }

  forget(peer: UserId): void {
    this.#db.transaction(() => {
      this.#sessions.deleteSession.run(peer, this.#device);
      this.#sessions.deleteIdentity.run(peer, this.#device);
    });
  }

  /** Must run inside a transaction. @throws KeyUsedError when another message took one of the keys meanwhile. */
  apply(peer: UserId, change: SessionChange): void {
    const used = (changes: number): void => {
      if (changes === 0) throw new KeyUsedError("a key of this message was used by another message");
    };
    for (const id of change.usedPreKeys) used(this.#keys.deletePreKey.run(id).changes);
    for (const id of change.usedKyberPreKeys) used(this.#keys.deleteOneTimeKyber.run(id).changes);
    for (const use of change.lastResortUses)
      used(this.#keys.insertKyberUse.run(use.kyberId, use.signedId, use.baseKey).changes);
    if (change.identity !== null) this.#sessions.insertIdentity.run(peer, this.#device, change.identity);
    if (change.session !== null) this.#sessions.saveSession.run(peer, this.#device, change.session);
  }

  // ---- This device ------------------------------------------------------------------------------------------------

  local(): { identityKeyPair: Bytes; registrationId: number } | null {
    const row = this.#sessions.local.get();
    if (row === undefined) return null;
    return { identityKeyPair: new Uint8Array(row.identity_key_pair), registrationId: row.registration_id };
  }

  insertLocal(identityKeyPair: Uint8Array, registrationId: number): void {
    this.#sessions.insertLocal.run(identityKeyPair, registrationId);
  }

  preKey(id: number): Bytes | null {
    return bytesOf(this.#keys.preKey.get(id));
  }

  signedPreKey(id: number): Bytes | null {
    return bytesOf(this.#keys.signed.get(id));
  }

  kyberPreKey(id: number): { record: Bytes; lastResort: boolean } | null {
    const row = this.#keys.kyber.get(id);
    return row === undefined ? null : { record: new Uint8Array(row.record), lastResort: row.last_resort === 1 };
  }

  kyberUseKnown(use: KyberUse): boolean {
    return this.#keys.kyberUse.get(use.kyberId, use.signedId, use.baseKey) !== undefined;
  }

  currentSignedPreKey(): CurrentKey | null {
    return currentOf(this.#keys.currentSigned.get());
  }

  currentLastResort(): CurrentKey | null {
    return currentOf(this.#keys.currentLastResort.get());
  }

  /** Both are replaced together; what they replace stays readable for messages that are still on their way. */
  rotate(signed: StoredKey, lastResort: StoredKey, nowMs: number): void {
    this.#db.transaction(() => {
      this.#keys.retireSigned.run(nowMs);
      this.#keys.insertSigned.run(signed.id, signed.record, nowMs);
      this.#keys.retireLastResort.run(nowMs);
      this.#keys.insertKyber.run(lastResort.id, lastResort.record, 1, nowMs);
    });
  }

  insertOneTimeKeys(ec: readonly StoredKey[], kyber: readonly StoredKey[], nowMs: number): void {
    this.#db.transaction(() => {
      for (const key of ec) this.#keys.insertPreKey.run(key.id, key.record, nowMs);
      for (const key of kyber) this.#keys.insertKyber.run(key.id, key.record, 0, nowMs);
    });
  }

  confirm(ecIds: readonly number[], kyberIds: readonly number[]): void {
    this.#db.transaction(() => {
      for (const id of ecIds) this.#keys.confirmPreKey.run(id);
      for (const id of kyberIds) this.#keys.confirmKyber.run(id);
    });
  }

  /** Deletes replaced keys of before `retiredBeforeMs` and unused ones of before `unusedBeforeMs`; makes room for a batch. */
  prune(retiredBeforeMs: number, unusedBeforeMs: number): void {
    this.#db.transaction(() => {
      this.#keys.pruneSigned.run(retiredBeforeMs, SIGNED_PREKEYS_KEPT);
      this.#keys.pruneLastResort.run(retiredBeforeMs, SIGNED_PREKEYS_KEPT);
      this.#keys.pruneOldPreKeys.run(unusedBeforeMs, PREKEYS_KEPT);
      this.#keys.pruneOldKyber.run(unusedBeforeMs, PREKEYS_KEPT);
      this.#keys.prunePreKeys.run(PREKEYS_UNUSED_MAX - PREKEY_BATCH);
      this.#keys.pruneKyber.run(PREKEYS_UNUSED_MAX - PREKEY_BATCH);
    });
  }

  /**
   * Ids that no stored key has and that are not given out again before all 2^24 - 1 were. `first` is where a new
   * profile begins; a random start says nothing about how many keys were used.
   */
  takeKeyIds(kind: KeyKind, count: number, first: () => number): number[] {
    return this.#db.transaction(() => {
      const ids: number[] = [];
      let next = this.#keys.nextId.get(kind)?.next ?? first();
      while (ids.length < count) {
        if (!this.#idInUse(kind, next)) ids.push(next);
        next = next === KEY_ID_MAX ? 1 : next + 1;
      }
      this.#keys.setNextId.run(kind, next);
      return ids;
    });
  }

  #idInUse(kind: KeyKind, id: number): boolean {
    switch (kind) {
      case "ec":
        return this.#keys.preKey.get(id) !== undefined;
      case "signed":
        return this.#keys.signed.get(id) !== undefined;
      case "kyber":
        return this.#keys.kyber.get(id) !== undefined;
    }
  }
}
