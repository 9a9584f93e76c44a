import type { Bytes } from "#shared/base/bytes.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import type { Database } from "./database.ts";

/** What two people are to each other before one of them blocks. */
export type OpenRelation = "outgoing" | "incoming" | "accepted";
export type RelationState =
  | { readonly kind: OpenRelation }
  | { readonly kind: "blocked"; readonly before: OpenRelation };
/** `changed`: another identity key than the accepted one was seen and waits for the user. */
export type Trust = "unverified" | "verified" | "changed";

/** The two random numbers of a pairing by code, and the invitation that they belong to. */
export interface PairingNonces {
  readonly inviteId: Bytes;
  readonly inviter: Bytes;
  readonly requester: Bytes;
}

export interface ContactRecord {
  readonly userId: UserId;
  readonly accountKey: Bytes;
  readonly name: string;
  readonly relation: RelationState;
  readonly trust: Trust;
  /** The last invitation of theirs that we accepted. */
  readonly inviteId: Bytes | null;
  readonly nonces: PairingNonces | null;
  readonly addedAtMs: TimeMs;
}

export interface AwaitedReveal {
  readonly commitment: Bytes;
  readonly nonce: Bytes;
}

export interface InviteRecord {
  readonly inviteId: Bytes;
  readonly secret: Bytes;
  readonly nonce: Bytes;
  readonly expiresAtMs: TimeMs;
  readonly usedBy: UserId | null;
}

/** What a safety number is made from. */
export interface IdentityKeys {
  readonly own: Uint8Array;
  readonly theirs: Uint8Array;
}

interface ContactRow {
  user_id: UserId;
  account_key: Uint8Array;
  name: string;
  relation: OpenRelation | "blocked";
  before_block: OpenRelation | null;
  trust: Trust;
  invite_id: Uint8Array | null;
  words_invite_id: Uint8Array | null;
  inviter_nonce: Uint8Array | null;
  requester_nonce: Uint8Array | null;
  added_at: number;
}

interface InviteRow {
  invite_id: Uint8Array;
  secret: Uint8Array;
  nonce: Uint8Array;
  expires_at: number;
  used_by: UserId | null;
}

/** better-sqlite3 gives Buffers; the rest of the program sees plain arrays. */
const bytes = (value: Uint8Array): Bytes => new Uint8Array(value);
const bytesOrNull = (value: Uint8Array | null): Bytes | null => (value === null ? null : bytes(value));

const toContact = (row: ContactRow): ContactRecord => ({
  userId: row.user_id,
  accountKey: bytes(row.account_key),
  name: row.name,
  relation:
    row.relation === "blocked" ? { kind: "blocked", before: row.before_block ?? "incoming" } : { kind: row.relation },
  trust: row.trust,
  inviteId: bytesOrNull(row.invite_id),
  nonces:
    row.words_invite_id === null || row.inviter_nonce === null || row.requester_nonce === null
      ? null
      : {
          inviteId: bytes(row.words_invite_id),
          inviter: bytes(row.inviter_nonce),
          requester: bytes(row.requester_nonce),
        },
  addedAtMs: row.added_at,
});

/** Contacts, invitations and commitments that wait to be opened. */
export class ContactsTable {
  readonly #db: Database;
  readonly #get;
  readonly #list;
  readonly #put;
  readonly #remove;
  readonly #count;
  readonly #putReveal;
  readonly #getReveal;
  readonly #removeReveal;
  readonly #addInvite;
  readonly #getInvite;
  readonly #useInvite;
  readonly #countOpenInvites;
  readonly #pruneInvites;
  readonly #setInviteExpiry;
  readonly #removeInvite;
  readonly #endInvites;
  readonly #safetyNumber;
  readonly #keepSafetyNumber;

  constructor(db: Database) {
    this.#db = db;
    const { sql } = db;
    this.#get = sql.prepare<[string], ContactRow>("SELECT * FROM contacts WHERE user_id = ?");
    this.#list = sql.prepare<[], ContactRow>("SELECT * FROM contacts ORDER BY added_at, user_id");
    this.#put = sql.prepare<ContactRow>(`
      INSERT INTO contacts VALUES (@user_id, @account_key, @name, @relation, @before_block, @trust, @invite_id,
        @words_invite_id, @inviter_nonce, @requester_nonce, @added_at)
      ON CONFLICT (user_id) DO UPDATE SET account_key = excluded.account_key, name = excluded.name,
        relation = excluded.relation, before_block = excluded.before_block, trust = excluded.trust,
        invite_id = excluded.invite_id, words_invite_id = excluded.words_invite_id,
        inviter_nonce = excluded.inviter_nonce, requester_nonce = excluded.requester_nonce`);
    this.#remove = sql.prepare<[string]>("DELETE FROM contacts WHERE user_id = ?");
    this.#count = sql.prepare<[string], { n: number }>("SELECT count(*) AS n FROM contacts WHERE relation = ?");
    this.#putReveal = sql.prepare<[string, Uint8Array, Uint8Array, Uint8Array]>(
      "INSERT OR REPLACE INTO awaited_reveals VALUES (?, ?, ?, ?)",
    );
    this.#getReveal = sql.prepare<[string, Uint8Array], { commitment: Uint8Array; nonce: Uint8Array }>(
      "SELECT commitment, nonce FROM awaited_reveals WHERE user_id = ? AND invite_id = ?",
    );
    this.#removeReveal = sql.prepare<[string, Uint8Array]>(
      "DELETE FROM awaited_reveals WHERE user_id = ? AND invite_id = ?",
    );
    this.#addInvite = sql.prepare<InviteRow>(
      "INSERT INTO invites VALUES (@invite_id, @secret, @nonce, @expires_at, @used_by)",
    );
    this.#getInvite = sql.prepare<[Uint8Array], InviteRow>("SELECT * FROM invites WHERE invite_id = ?");
    this.#useInvite = sql.prepare<[string, Uint8Array]>(
      "UPDATE invites SET used_by = ? WHERE invite_id = ? AND used_by IS NULL",
    );
    this.#countOpenInvites = sql.prepare<[number], { n: number }>(
      "SELECT count(*) AS n FROM invites WHERE used_by IS NULL AND expires_at > ?",
    );
    this.#setInviteExpiry = sql.prepare<[number, Uint8Array]>("UPDATE invites SET expires_at = ? WHERE invite_id = ?");
    this.#removeInvite = sql.prepare<[Uint8Array]>("DELETE FROM invites WHERE invite_id = ? AND used_by IS NULL");
    this.#endInvites = sql.prepare<[number, number]>("UPDATE invites SET expires_at = ? WHERE expires_at > ?");
    this.#safetyNumber = sql.prepare<[string, Uint8Array, Uint8Array], { digits: string }>(
      "SELECT digits FROM safety_numbers WHERE user_id = ? AND own_identity_key = ? AND identity_key = ?",
    );
    this.#keepSafetyNumber = sql.prepare<[string, Uint8Array, Uint8Array, string]>(
      "INSERT OR REPLACE INTO safety_numbers VALUES (?, ?, ?, ?)",
    );
    this.#pruneInvites = sql.prepare<[number]>("DELETE FROM invites WHERE expires_at < ?");
  }

  transaction<T>(body: () => T): T {
    return this.#db.transaction(body);
  }

  get(userId: UserId): ContactRecord | null {
    const row = this.#get.get(userId);
    return row === undefined ? null : toContact(row);
  }

  list(): ContactRecord[] {
    return this.#list.all().map(toContact);
  }

  put(contact: ContactRecord): void {
    this.#put.run({
      user_id: contact.userId,
      account_key: contact.accountKey,
      name: contact.name,
      relation: contact.relation.kind,
      before_block: contact.relation.kind === "blocked" ? contact.relation.before : null,
      trust: contact.trust,
      invite_id: contact.inviteId,
      words_invite_id: contact.nonces?.inviteId ?? null,
      inviter_nonce: contact.nonces?.inviter ?? null,
      requester_nonce: contact.nonces?.requester ?? null,
      added_at: contact.addedAtMs,
    });
  }

  remove(userId: UserId): boolean {
    return this.#remove.run(userId).changes > 0;
  }

  count(relation: OpenRelation | "blocked"): number {
    return this.#count.get(relation)?.n ?? 0;
  }

  awaitReveal(userId: UserId, inviteId: Bytes, commitment: Bytes, nonce: Bytes): void {
    this.#putReveal.run(userId, inviteId, commitment, nonce);
  }

  awaitedReveal(userId: UserId, inviteId: Bytes): AwaitedReveal | null {
    const row = this.#getReveal.get(userId, inviteId);
    return row === undefined ? null : { commitment: bytes(row.commitment), nonce: bytes(row.nonce) };
  }

  endReveal(userId: UserId, inviteId: Bytes): void {
    this.#removeReveal.run(userId, inviteId);
  }

  addInvite(invite: Omit<InviteRecord, "usedBy">): void {
    this.#addInvite.run({
      invite_id: invite.inviteId,
      secret: invite.secret,
      nonce: invite.nonce,
      expires_at: invite.expiresAtMs,
      used_by: null,
    });
  }

  invite(inviteId: Bytes): InviteRecord | null {
    const row = this.#getInvite.get(inviteId);
    if (row === undefined) return null;
    return {
      inviteId: bytes(row.invite_id),
      secret: bytes(row.secret),
      nonce: bytes(row.nonce),
      expiresAtMs: row.expires_at,
      usedBy: row.used_by,
    };
  }

  /** False when it was used before: an invitation serves one person. */
  useInvite(inviteId: Bytes, by: UserId): boolean {
    return this.#useInvite.run(by, inviteId).changes === 1;
  }

  setInviteExpiry(inviteId: Bytes, expiresAtMs: TimeMs): void {
    this.#setInviteExpiry.run(expiresAtMs, inviteId);
  }

  removeInvite(inviteId: Bytes): void {
    this.#removeInvite.run(inviteId);
  }

  /** Requests that arrived before can still be honoured, later ones not. */
  endInvites(nowMs: TimeMs): void {
    this.#endInvites.run(nowMs, nowMs);
  }

  /** Null when none was kept for these identity keys. */
  safetyNumber(userId: UserId, keys: IdentityKeys): string | null {
    return this.#safetyNumber.get(userId, keys.own, keys.theirs)?.digits ?? null;
  }

  keepSafetyNumber(userId: UserId, keys: IdentityKeys, digits: string): void {
    this.#keepSafetyNumber.run(userId, keys.own, keys.theirs, digits);
  }

  openInvites(nowMs: TimeMs): number {
    return this.#countOpenInvites.get(nowMs)?.n ?? 0;
  }

  pruneInvites(expiredBeforeMs: TimeMs): void {
    this.#pruneInvites.run(expiredBeforeMs);
  }
}
