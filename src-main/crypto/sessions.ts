import type { UserId } from "#shared/base/ids.ts";
import type { Result } from "#shared/base/result.ts";
import type { PreKeyBundle, RequestInput, Sealed } from "#shared/rendezvous/protocol.ts";

/**
 * Signal sessions, one per peer device. libsignal does not lock, so every operation of one address (seal, open, start)
 * waits in one queue for that address. What libsignal writes during one call is collected and committed in one SQLite
 * transaction together with whatever the caller's `commit` writes: ratchet, inbox or outbox row, and seen id move together.
 */
export type SessionError =
  | { type: "no_session"; message: string }
  /** The peer's identity key is another one than the accepted one; nothing was sealed or opened, the change is recorded. */
  | { type: "identity_changed"; message: string }
  /** Opened before, or so far behind (2,000 messages) that its key is gone: the caller's seen ids tell which. */
  | { type: "duplicate_message"; message: string }
  /** Damaged, sealed for a session that is gone, or more than 25,000 messages ahead of what was opened. */
  | { type: "undecryptable"; message: string }
  | { type: "bad_bundle"; message: string }
  | { type: "queue_full"; message: string };

/** What one message to a group is: its ciphertext, and the key that opens it and those after it, for whoever has none. */
export interface GroupSealed {
  readonly body: Uint8Array<ArrayBuffer>;
  readonly distribution: Uint8Array<ArrayBuffer>;
}

/** `unknown_key`: no key of the sender opens this; what its owner sends after a new one will. */
export type GroupOpenError =
  | { type: "unknown_key"; message: string }
  | { type: "duplicate_message"; message: string }
  | { type: "undecryptable"; message: string }
  | { type: "queue_full"; message: string };

/**
 * Sender keys (the Signal protocol for groups): one chain per sender and distribution id, which everybody who was given it
 * can follow and nobody can go back on. All operations of one sender wait in one queue, and what libsignal writes is
 * committed together with what `commit` writes, as with sessions. A throw of `commit` undoes both.
 */
export interface GroupSessions {
  /** With the own key of that id, which is made if there is none. */
  groupSeal<T>(
    groupId: string,
    distributionId: string,
    plaintext: Uint8Array,
    commit: (sealed: GroupSealed) => T,
  ): Promise<Result<T, GroupOpenError>>;
  /** Takes a key of `sender` in. */
  groupTake<T>(
    groupId: string,
    sender: UserId,
    distribution: Uint8Array,
    commit: () => T,
  ): Promise<Result<T, GroupOpenError>>;
  groupOpen<T>(
    sender: UserId,
    body: Uint8Array,
    commit: (plaintext: Uint8Array<ArrayBuffer>) => T,
  ): Promise<Result<T, GroupOpenError>>;
}

export interface Sessions extends GroupSessions {
  readonly localIdentityKey: Uint8Array<ArrayBuffer>;

  /** A session that can seal; one that the peer never answered expires after 30 days. */
  hasSession(peer: UserId): boolean;

  /**
   * Starts a session from a verified bundle (PQXDH). With `expectedIdentityKey` (from an invite link) any other identity
   * key is `bad_bundle`. A session that is already there is kept when the identity is the same, or with "renew" archived:
   * what the peer sealed for it still opens, and a peer that has forgotten it can follow.
   */
  start(
    peer: UserId,
    bundle: PreKeyBundle,
    expectedIdentityKey?: Uint8Array,
    existing?: "keep" | "renew",
  ): Promise<Result<void, SessionError>>;

  /** `commit` runs inside the transaction that stores the advanced ratchet; it must be synchronous. */
  seal<T>(peer: UserId, plaintext: Uint8Array, commit: (sealed: Sealed) => T): Promise<Result<T, SessionError>>;

  /**
   * `commit` runs inside the transaction that stores the advanced ratchet, used prekeys and new identity. When it throws,
   * nothing is stored and the ciphertext can be opened again. For an unknown peer's prekey message the session is made.
   * While a changed identity waits, messages of the trusted one still open; those of the changed one are
   * `identity_changed` and open after acceptance.
   */
  open<T>(
    peer: UserId,
    sealed: Sealed,
    commit: (plaintext: Uint8Array<ArrayBuffer>) => T,
  ): Promise<Result<T, SessionError>>;

  /** The identity key that is trusted for the peer, and one that was seen instead and waits for acceptance. */
  identity(peer: UserId): { trusted: Uint8Array<ArrayBuffer> | null; changedTo: Uint8Array<ArrayBuffer> | null };
  /** Trusts the changed key and ends the session that was agreed with the old one; ok when nothing had changed. */
  acceptChangedIdentity(peer: UserId): Promise<Result<void, SessionError>>;
  /**
   * 60 digits, the same on both sides (libsignal Fingerprint); null before an identity is known. While a changed
   * identity waits it is the number of the changed one: that is what the peer sees, and what is to be compared.
   */
  safetyNumber(peer: UserId): string | null;
  /** The same for a QR code: libsignal's scannable encoding, about 74 bytes, our half first. */
  safetyCode(peer: UserId): Uint8Array<ArrayBuffer> | null;
  /**
   * 32 bytes that only we and the peer can compute, the same on both sides for as long as both keep their identity keys:
   * for names and tags that others must not be able to make or recognise, never for contents. Null before an identity is
   * known, and while a changed one waits.
   */
  pairwiseSecret(peer: UserId): Uint8Array<ArrayBuffer> | null;
  /** Forgets session and identity, when a contact is removed. */
  forget(peer: UserId): Promise<void>;

  /**
   * Keys to publish: always the long-lived part (rotated when due, old ones kept), and as many one-time keys as bring
   * the server back to a full batch. The private halves are stored before this resolves.
   */
  keysToPublish(atServer: { oneTimeEc: number; oneTimeKyber: number }): Promise<RequestInput<"keys.publish">>;
  /** The server confirmed them: should unused keys ever exceed their limit, those it never confirmed go first. */
  published(keys: RequestInput<"keys.publish">): void;
}
