import { assertNever, defined } from "#shared/base/assert.ts";
import { type Bytes, bytesEqual, toBase64Url } from "#shared/base/bytes.ts";
import { type Disposable, toDisposable } from "#shared/base/disposable.ts";
import { Emitter } from "#shared/base/emitter.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { CONTACT_REQUESTS_PENDING_MAX } from "#shared/base/limits.ts";
import { type AppError, err, fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type { ContractEvents } from "#shared/ipc/contract.ts";
import type { ContactView, InviteView, NoticeView, SafetyCodeView } from "#shared/ipc/views.ts";
import type { ContentDraft, ContentOf } from "#shared/wire/content.ts";
import { verifyAccountSignature } from "../crypto/identity.ts";
import { type ContactRecord, ContactsTable, type RelationState } from "../store/contacts.ts";
import { type Contact, type ContactEffect, type ContactEvent, type Refusal, step } from "./contact-machine.ts";
import type { ContactContent, ContactOutbox, Contacts, ContactsDeps } from "./contacts-interface.ts";
import { cleanName, nameFromUserId } from "./display-name.ts";
import { type Introduction, Invites } from "./invites.ts";
import { commitTo, identitySigningBytes, safetyWords } from "./pairing.ts";
import { SessionStarter } from "./session-starter.ts";

export type { Contacts, ContactsDeps } from "./contacts-interface.ts";

const REFUSALS: Record<Refusal, string> = {
  unknown_contact: "This person is not in your contacts. Invite them first.",
  waiting_for_contact: "Your request was sent. The other side has to accept it now.",
  contact_blocked: "You blocked this contact. Unblock it first.",
  key_changed: "The contact's key has changed. Accept the new key before you mark it as verified.",
};

class ContactBook implements Contacts {
  readonly #deps: ContactsDeps;
  readonly #table: ContactsTable;
  readonly #invites: Invites;
  readonly #starter: SessionStarter;
  readonly #changed: Emitter<ContractEvents["contact.changed"]>;
  readonly #notices: Emitter<NoticeView>;
  readonly #online = new Set<UserId>();
  /** Safety numbers take thousands of hashes each (see libsignal's Fingerprint), so they are made once per identity key and kept. */
  readonly #safetyNumbers = new Map<UserId, { identityKey: Bytes; digits: string | null }>();
  /** Told after the commit. */
  #touched = new Set<UserId>();
  #toForget = new Set<UserId>();
  #warnings: NoticeView[] = [];
  #outbox: ContactOutbox | null = null;

  constructor(deps: ContactsDeps) {
    this.#deps = deps;
    this.#table = new ContactsTable(deps.db);
    this.#invites = new Invites({ ...deps, table: this.#table });
    this.#starter = new SessionStarter(deps);
    const onError = (error: unknown): void =>
      deps.env.log.error("a listener of contacts failed", { error: messageOf(error) });
    this.#changed = new Emitter(onError);
    this.#notices = new Emitter(onError);
  }

  get onChanged(): Contacts["onChanged"] {
    return this.#changed.event;
  }

  get onNotice(): Contacts["onNotice"] {
    return this.#notices.event;
  }

  attachOutbox(outbox: ContactOutbox): Disposable {
    this.#outbox = outbox;
    return toDisposable(() => {
      this.#outbox = null;
    });
  }

  list(): ContactView[] {
    return this.#table.list().map((record) => this.#view(record));
  }

  get(userId: UserId): ContactView | null {
    const record = this.#table.get(userId);
    return record === null ? null : this.#view(record);
  }

  userIds(): UserId[] {
    return this.#table.list().map((record) => record.userId);
  }

  nameOf(userId: UserId): string | null {
    return this.#table.get(userId)?.name ?? null;
  }

  isAccepted(userId: UserId): boolean {
    return this.#table.get(userId)?.relation.kind === "accepted";
  }

  relationOf(userId: UserId): RelationState | null {
    return this.#table.get(userId)?.relation ?? null;
  }

  isKeyChanged(userId: UserId): boolean {
    return this.#table.get(userId)?.trust === "changed";
  }

  accountKeyOf(userId: UserId): Bytes | null {
    return this.#table.get(userId)?.accountKey ?? null;
  }

  createInvite(): Promise<Result<InviteView>> {
    return this.#invites.create();
  }

  async acceptInvite(text: string): Promise<Result<ContactView>> {
    const invite = await this.#invites.introduce(text);
    if (!invite.ok) return invite;
    const { peer } = invite.value;
    const known = this.#table.get(peer);
    // The same invitation again: the answer is the contact that it made.
    if (known?.inviteId != null && bytesEqual(known.inviteId, invite.value.inviteId)) return ok(this.#view(known));
    if (known?.relation.kind === "blocked") return fail("contact_blocked", REFUSALS.contact_blocked);
    const started = await this.#starter.introduce(invite.value, known);
    if (!started.ok) {
      if (started.error.type === "identity_changed" && known !== null) this.identityChanged(peer);
      return started;
    }
    return this.#update(peer, { type: "inviteAccepted" }, invite.value);
  }

  async accept(userId: UserId): Promise<Result<ContactView>> {
    const record = this.#table.get(userId);
    if (record?.trust === "changed" && record.relation.kind !== "blocked") {
      const accepted = await this.#deps.sessions.acceptChangedIdentity(userId);
      if (!accepted.ok) return accepted;
    }
    return this.#update(userId, { type: "userAccepted" });
  }

  verify(userId: UserId, verified: boolean): Result<ContactView> {
    return this.#update(userId, { type: "verified", verified });
  }

  safetyCode(userId: UserId): Result<SafetyCodeView> {
    const code = this.#table.get(userId) === null ? null : this.#deps.sessions.safetyCode(userId);
    return code === null
      ? fail("no_session", "The safety number is known as soon as both of you are connected.")
      : ok({ scannable: toBase64Url(code) });
  }

  block(userId: UserId): Result<ContactView> {
    return this.#update(userId, { type: "blocked" });
  }

  unblock(userId: UserId): Result<ContactView> {
    return this.#update(userId, { type: "unblocked" });
  }

  async remove(userId: UserId): Promise<Result<{ removed: boolean }>> {
    const removed = this.#table.transaction(() => this.#step(userId, { type: "removed" }, null)) === null;
    const forgotten = [...this.#toForget];
    this.#toForget.clear();
    this.settle();
    for (const peer of forgotten) await this.#deps.sessions.forget(peer);
    return ok({ removed });
  }

  setOnline(userId: UserId, online: boolean): void {
    if (online === this.#online.has(userId) || (online && !this.isAccepted(userId))) return;
    if (online) this.#online.add(userId);
    else this.#online.delete(userId);
    this.#touched.add(userId);
    this.settle();
  }

  endInvites(): void {
    this.#invites.end();
  }

  setAllOffline(): void {
    for (const userId of this.#online) this.#touched.add(userId);
    this.#online.clear();
    this.settle();
  }

  receive(peer: UserId, content: ContactContent, arrivedAtMs: TimeMs): "applied" | "refused" {
    switch (content.kind) {
      case "contactRequest":
        return this.#onRequest(peer, content, arrivedAtMs);
      case "contactReveal":
        return this.#onReveal(peer, content);
      case "contactAccept":
        return this.#onNamed(peer, content.name, { type: "peerAccepted" });
      case "profile":
        return this.#onNamed(peer, content.name, null);
      default:
        return assertNever(content);
    }
  }

  wrote(peer: UserId): void {
    if (this.relationOf(peer)?.kind === "outgoing") this.#step(peer, { type: "peerAccepted" }, null);
  }

  settle(): void {
    const touched = this.#touched;
    const warnings = this.#warnings;
    const forgotten = this.#toForget;
    this.#touched = new Set();
    this.#warnings = [];
    this.#toForget = new Set();
    for (const peer of forgotten) {
      this.#deps.sessions.forget(peer).catch((error: unknown) => {
        this.#deps.env.log.error("a session could not be forgotten", { error: messageOf(error) });
      });
    }
    for (const userId of touched) {
      this.#changed.emit(this.get(userId) ?? { userId, removed: true });
      this.#outbox?.wake(userId);
    }
    for (const warning of warnings) this.#notices.emit(warning);
  }

  identityChanged(userId: UserId): void {
    const record = this.#table.get(userId);
    if (record === null || record.trust === "changed") return;
    this.#table.transaction(() => this.#step(userId, { type: "identityChanged" }, null));
    this.#warn("warning", "identity_changed", `The key of ${record.name} has changed. Compare the safety number.`);
    this.settle();
  }

  startSession(userId: UserId, existing: "keep" | "renew" = "keep"): Promise<Result<void>> {
    return this.#starter.start(userId, existing);
  }

  dispose(): void {
    this.#changed.dispose();
    this.#notices.dispose();
    this.#outbox = null;
  }

  // ---- Contents of peers, inside their transaction ----

  #onRequest(peer: UserId, content: ContentOf<"contactRequest">, arrivedAtMs: TimeMs): "applied" | "refused" {
    const record = this.#table.get(peer);
    if (record?.relation.kind === "blocked" || !this.#vouches(peer, content)) return "refused";
    const invite = this.#invites.claim(peer, content, arrivedAtMs);
    if (invite === null) return "refused";
    if (record === null && this.#table.count("incoming") >= CONTACT_REQUESTS_PENDING_MAX) return "refused";
    const name = cleanName(content.name, nameFromUserId(peer));
    const byCode = content.proof.via === "code" ? content.proof : null;
    this.#step(peer, { type: "requested" }, { accountKey: content.accountKey, name });
    if (byCode !== null) {
      this.#rememberNonces(peer, invite.inviteId, invite.nonce, byCode.nonce);
      this.#send(peer, {
        kind: "contactReveal",
        name: this.#deps.self.name(),
        inviteId: invite.inviteId,
        nonce: invite.nonce,
      });
    }
    return "applied";
  }

  /** A first message makes its own session: only the account key's signature says whose identity key that is. */
  #vouches(peer: UserId, { accountKey, identitySignature }: ContentOf<"contactRequest">): boolean {
    const identityKey = this.#deps.sessions.identity(peer).trusted;
    return (
      identityKey !== null &&
      verifyAccountSignature(accountKey, identitySigningBytes(peer, identityKey), identitySignature)
    );
  }

  #onReveal(peer: UserId, content: ContentOf<"contactReveal">): "applied" | "refused" {
    const awaited = this.#table.awaitedReveal(peer, content.inviteId);
    if (awaited === null) return "refused";
    if (!bytesEqual(commitTo(content.nonce), awaited.commitment)) {
      this.#step(peer, { type: "tampered" }, null);
      return "applied";
    }
    this.#table.endReveal(peer, content.inviteId);
    this.#rememberNonces(peer, content.inviteId, content.nonce, awaited.nonce);
    return this.#onNamed(peer, content.name, null);
  }

  #onNamed(peer: UserId, name: string, event: ContactEvent | null): "applied" | "refused" {
    const record = this.#table.get(peer);
    if (record === null || record.relation.kind === "blocked") return "refused";
    if (event === null && record.relation.kind === "incoming") return "refused";
    this.#table.put({ ...record, name: cleanName(name, nameFromUserId(peer)) });
    this.#touched.add(peer);
    if (event !== null) this.#step(peer, event, null);
    return "applied";
  }

  /** Two pairings by code at once (each invited the other): both sides keep the words of the same one. */
  #rememberNonces(peer: UserId, inviteId: Bytes, inviter: Bytes, requester: Bytes): void {
    const record = this.#table.get(peer);
    if (record === null) return;
    if (record.nonces !== null && Buffer.compare(record.nonces.inviteId, inviteId) < 0) return;
    this.#table.put({ ...record, nonces: { inviteId, inviter, requester } });
    this.#touched.add(peer);
  }

  // ---- The machine ----

  #update(userId: UserId, event: ContactEvent, introduction: Introduction | null = null): Result<ContactView> {
    const refused = this.#table.transaction(() => {
      const problem = this.#step(userId, event, introduction);
      return problem;
    });
    this.settle();
    if (refused !== null) return err(refused);
    return ok(defined(this.get(userId), "contact"));
  }

  /** One event through the machine; stores the outcome and runs the effects. Inside a transaction. */
  #step(
    userId: UserId,
    event: ContactEvent,
    introduced: Introduction | { readonly accountKey: Bytes; readonly name: string } | null,
  ): AppError | null {
    const record = this.#table.get(userId);
    const before: Contact =
      record === null ? { kind: "none" } : { kind: "known", relation: record.relation, trust: record.trust };
    const [after, effects] = step(before, event);
    this.#store(userId, record, after, introduced);
    let refusal: AppError | null = null;
    for (const effect of effects) {
      if (effect.type === "refuse") refusal = { type: effect.reason, message: REFUSALS[effect.reason] };
      else this.#run(userId, effect, introduced, record);
    }
    this.#touched.add(userId);
    return refusal;
  }

  #store(
    userId: UserId,
    record: ContactRecord | null,
    after: Contact,
    introduced: Introduction | { readonly accountKey: Bytes; readonly name: string } | null,
  ): void {
    if (after.kind === "none") return;
    // Nobody watches them any more: what was last told would stay.
    if (after.relation.kind !== "accepted") this.#online.delete(userId);
    const base: ContactRecord = record ?? {
      userId,
      accountKey: defined(introduced, "introduction").accountKey,
      name: nameFromUserId(userId),
      relation: { kind: "incoming" },
      trust: "unverified",
      inviteId: null,
      nonces: null,
      addedAtMs: this.#deps.env.clock.now(),
    };
    const name = introduced !== null && "name" in introduced ? introduced.name : base.name;
    const inviteId = introduced !== null && "inviteId" in introduced ? introduced.inviteId : base.inviteId;
    // Words vouch for the identity key that they were made from, not for a later one.
    const nonces = base.trust === "changed" && after.trust !== "changed" ? null : base.nonces;
    this.#table.put({ ...base, name, inviteId, nonces, relation: after.relation, trust: after.trust });
  }

  #run(
    userId: UserId,
    effect: Exclude<ContactEffect, { type: "refuse" }>,
    introduced: Introduction | { readonly accountKey: Bytes } | null,
    record: ContactRecord | null,
  ): void {
    switch (effect.type) {
      case "sendRequest":
        if (introduced !== null && "peer" in introduced) this.#sendRequest(introduced);
        return;
      case "sendAccept":
        this.#send(userId, { kind: "contactAccept", name: this.#deps.self.name() });
        return;
      case "acceptIdentity":
        this.#outbox?.restartStream(userId);
        this.#outbox?.sealAgain(userId);
        return;
      case "restartStream":
        this.#outbox?.restartStream(userId);
        return;
      case "forget":
        this.#table.remove(userId);
        this.#outbox?.removed(userId);
        this.#online.delete(userId);
        this.#safetyNumbers.delete(userId);
        this.#invites.forget(userId);
        this.#toForget.add(userId);
        return;
      case "warnTampered":
        this.#warn(
          "error",
          "pairing_tampered",
          `Pairing with ${record?.name ?? nameFromUserId(userId)} was tampered with and has been undone. Use an invitation link instead of a code.`,
        );
        return;
      case "ignore":
        this.#deps.env.log.info("a contact event was ignored");
        return;
      default:
        assertNever(effect);
    }
  }

  #sendRequest(introduction: Introduction): void {
    const { self, sessions } = this.#deps;
    const request = this.#invites.requestFor(introduction);
    if (request.awaited !== null)
      this.#table.awaitReveal(
        introduction.peer,
        introduction.inviteId,
        request.awaited.commitment,
        request.awaited.nonce,
      );
    this.#send(introduction.peer, {
      kind: "contactRequest",
      name: self.name(),
      accountKey: self.accountKey,
      identitySignature: self.sign(identitySigningBytes(self.userId, sessions.localIdentityKey)),
      proof: request.proof,
    });
  }

  #send(peer: UserId, draft: ContentDraft): void {
    defined(this.#outbox, "the outbox of contacts").enqueue(peer, draft);
  }

  #warn(level: NoticeView["level"], type: string, message: string): void {
    this.#warnings.push({ level, type, message, atMs: this.#deps.env.clock.now() });
  }

  #view(record: ContactRecord): ContactView {
    const { sessions, self } = this.#deps;
    const { trusted: identityKey, changedTo } = sessions.identity(record.userId);
    // What the contact sees by now, and what is to be compared before a changed key is accepted.
    const comparedKey = changedTo ?? identityKey;
    return {
      userId: record.userId,
      name: record.name,
      state: record.relation.kind,
      verified: record.trust === "verified",
      online: record.relation.kind === "accepted" && this.#online.has(record.userId),
      keyChanged: record.trust === "changed",
      safetyWords:
        record.nonces === null || identityKey === null
          ? null
          : safetyWords(
              [
                { accountKey: self.accountKey, identityKey: sessions.localIdentityKey },
                { accountKey: record.accountKey, identityKey },
              ],
              record.nonces,
            ),
      safetyNumber: comparedKey === null ? null : this.#safetyNumber(record.userId, comparedKey),
      addedAtMs: record.addedAtMs,
    };
  }

  #safetyNumber(userId: UserId, identityKey: Bytes): string | null {
    const known = this.#safetyNumbers.get(userId);
    if (known !== undefined && bytesEqual(known.identityKey, identityKey)) return known.digits;
    const keys = { own: this.#deps.sessions.localIdentityKey, theirs: identityKey };
    const kept = this.#table.safetyNumber(userId, keys);
    const digits = kept ?? this.#deps.sessions.safetyNumber(userId);
    if (kept === null && digits !== null) this.#table.keepSafetyNumber(userId, keys, digits);
    this.#safetyNumbers.set(userId, { identityKey, digits });
    return digits;
  }
}

export const createContacts = (deps: ContactsDeps): Contacts => new ContactBook(deps);
