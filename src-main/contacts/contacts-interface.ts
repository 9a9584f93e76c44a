import type { Bytes } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Event } from "#shared/base/emitter.ts";
import type { Env, TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import type { Result } from "#shared/base/result.ts";
import type { ContractEvents } from "#shared/ipc/contract.ts";
import type { ContactView, InviteView, NoticeView, SafetyCodeView } from "#shared/ipc/views.ts";
import type { ContentDraft, ContentOf } from "#shared/wire/content.ts";
import type { Sessions } from "../crypto/sessions.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { RelationState } from "../store/contacts.ts";
import type { Database } from "../store/database.ts";

/** Contents that make, change or name contacts. */
export type ContactContent = ContentOf<"contactRequest" | "contactReveal" | "contactAccept" | "profile">;

/** What contacts need of the outbox; messages implement it. All but `wake` run inside the caller's transaction. */
export interface ContactOutbox {
  enqueue(peer: UserId, draft: ContentDraft): void;
  /** The peer's numbers have a hole that nobody will fill: whatever comes next is the start. */
  restartStream(peer: UserId): void;
  /** Ciphertexts for the old identity key cannot be opened any more: their contents are sealed again. */
  sealAgain(peer: UserId): void;
  /** Deletes the conversation and everything that waits. */
  removed(peer: UserId): void;
  /** After the commit: what may be sent to, or opened from, this peer has changed. */
  wake(peer: UserId): void;
}

export interface ContactsDeps {
  readonly env: Env;
  readonly db: Database;
  readonly self: {
    readonly userId: UserId;
    readonly accountKey: Bytes;
    sign(bytes: Uint8Array): Bytes;
    name(): string;
  };
  readonly sessions: Sessions;
  readonly signaling: Signaling;
}

export interface Contacts extends Disposable {
  readonly onChanged: Event<ContractEvents["contact.changed"]>;
  readonly onNotice: Event<NoticeView>;

  list(): ContactView[];
  get(userId: UserId): ContactView | null;
  /** Everybody, blocked people and requests included, in the order of adding. */
  userIds(): UserId[];
  /** The name to show; null for somebody who is no contact. */
  nameOf(userId: UserId): string | null;
  isAccepted(userId: UserId): boolean;
  /** Null for somebody who is no contact. */
  relationOf(userId: UserId): RelationState | null;
  isKeyChanged(userId: UserId): boolean;
  accountKeyOf(userId: UserId): Bytes | null;

  createInvite(): Promise<Result<InviteView>>;
  /**
   * `text` is a link or a code. Errors: `invalid_invite`, `own_invite`, `other_server` (with `serverUrl`), `contact_blocked`,
   * `too_many_contacts`, `pairing_tampered`, `key_changed`, and those of the server.
   */
  acceptInvite(text: string): Promise<Result<ContactView>>;
  /** Accepts an incoming request, or the new key of a contact whose key changed. */
  accept(userId: UserId): Promise<Result<ContactView>>;
  verify(userId: UserId, verified: boolean): Result<ContactView>;
  /** Error: `no_session` while the contact's identity key is not known. */
  safetyCode(userId: UserId): Result<SafetyCodeView>;
  block(userId: UserId): Result<ContactView>;
  unblock(userId: UserId): Result<ContactView>;
  /** Forgets contact, session and conversation. */
  remove(userId: UserId): Promise<Result<{ removed: boolean }>>;
  /** For anybody but an accepted contact nothing is kept and nothing told: the server is not believed about strangers. */
  setOnline(userId: UserId, online: boolean): void;
  /** The server is gone: nobody is known to be online. */
  setAllOffline(): void;

  // ---- For messages ----
  /** Inside a transaction: another server is in use now, where nobody can answer the open invitations. */
  endInvites(): void;
  attachOutbox(outbox: ContactOutbox): Disposable;
  /**
   * Takes in a content of `peer`, inside the transaction that stores it. `arrivedAtMs` is when the server, or this
   * device, received it. "refused": it has no place here (no valid invitation, say) and changed nothing.
   */
  receive(peer: UserId, content: ContactContent, arrivedAtMs: TimeMs): "applied" | "refused";
  /**
   * A message of `peer`, inside the transaction that stores it: whoever writes one has accepted us. It can come before the
   * acceptance itself, when it waited for longer than that (for a new key of ours to be accepted).
   */
  wrote(peer: UserId): void;
  /** After the transaction of `receive` or `wrote` has ended, whatever its outcome: tells everybody who listens. */
  settle(): void;
  identityChanged(userId: UserId): void;
  /** Fetches the peer's keys and starts a session with a contact that has none, or with "renew" a fresh one in any case. */
  startSession(userId: UserId, existing?: "keep" | "renew"): Promise<Result<void>>;
}
