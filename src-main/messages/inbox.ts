import { assertNever } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env, TimeMs } from "#shared/base/env.ts";
import { chatIdOf, type MessageId, type UserId } from "#shared/base/ids.ts";
import { EARLY_MESSAGE_WAIT_MS, HELD_ENVELOPES_MAX, INBOX_PENDING_MAX } from "#shared/base/limits.ts";
import { messageOf, type Result } from "#shared/base/result.ts";
import type { FileView } from "#shared/ipc/views.ts";
import type { Receipt } from "#shared/shares/receipt.ts";
import type { ShareOperation } from "#shared/shares/share-log.ts";
import { type Content, type ContentOf, type DurableContent, decodeContent } from "#shared/wire/content.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import { nameFromUserId } from "../contacts/display-name.ts";
import { createKeyedQueue } from "../crypto/keyed-queue.ts";
import type { SessionError, Sessions } from "../crypto/sessions.ts";
import type { Database } from "../store/database.ts";
import { type EnvelopeRecord, InboxTable, MessagesTable, OutboxTable } from "../store/messages.ts";
import { Changes } from "./changes.ts";
import type { Correspondents } from "./correspondents.ts";
import type { GroupMail } from "./group-mail.ts";
import type { Groups } from "./groups.ts";
import { type OrderEvent, step } from "./order-machine.ts";
import type { Outbox } from "./outbox.ts";
import type { Resets } from "./resets.ts";

/** Where files that messages offer are kept. */
export interface FilesPort {
  /** Inside the transaction that stores the message. An error refuses the message: the manifest is not genuine, say. */
  record(offer: FileOffer, from: UserId, start?: ShareOperation): Result<void>;
  view(fileId: string): FileView | null;
}

/** Who keeps the share lists of files. */
export interface SharesPort {
  /** Inside the transaction that takes the content in; it acts on it afterwards. */
  received(from: UserId, content: ContentOf<"shareNotice" | "keyRequest">): void;
}

/** Who keeps people's signed word that they have a file. */
export interface ReceiptsPort {
  /** As with {@link SharesPort}. */
  received(from: UserId, receipt: Receipt): void;
}

/**
 * "ack": it is stored for good, or of no use. "retry": it must be delivered again. "unreadable": this ciphertext is of no
 * use, but what is in it was not received; the sender keeps it until it is asked for it.
 */
export type Reception = "ack" | "retry" | "unreadable";

/** Points at which the life of the process may end; for tests that end it there. */
export type ReceivePoint = "read" | "decrypt" | "commit" | "process" | "render" | "ack";

export interface InboxDeps {
  readonly env: Env;
  readonly db: Database;
  readonly self: UserId;
  readonly sessions: Sessions;
  readonly contacts: Correspondents;
  readonly groups: Pick<Groups, "take" | "asked" | "vouches">;
  readonly groupMail: Pick<GroupMail, "arrive" | "repair" | "raise" | "receiptsChanged">;
  readonly files: Pick<FilesPort, "record">;
  readonly shares: SharesPort;
  readonly fileReceipts: ReceiptsPort;
  readonly tell: (changes: Changes) => void;
  /** The peer is to be told that messages arrived. */
  readonly receiptsDue: (peer: UserId) => void;
  readonly outbox: Pick<Outbox, "confirmed" | "resend">;
  readonly resets: Pick<Resets, "unreadable" | "requested" | "receipted">;
  readonly checkpoint: (point: ReceivePoint) => void;
}

export interface InboxCounters {
  opened: number;
  duplicates: number;
  undecryptable: number;
  refused: number;
  fromStrangers: number;
  fromBlocked: number;
  held: number;
  missing: number;
}

/** A stranger's envelope that holds no valid request: not even the session that it would make may stay. */
class Refused extends Error {
  override readonly name = "Refused";
}

/**
 * Receives sealed envelopes: drops what was seen, opens the rest, and stores what they say in the transaction that
 * advances the ratchet. Envelopes of one peer are taken one at a time, in order of arrival.
 */
export class Inbox implements Disposable {
  readonly counters: InboxCounters = {
    opened: 0,
    duplicates: 0,
    undecryptable: 0,
    refused: 0,
    fromStrangers: 0,
    fromBlocked: 0,
    held: 0,
    missing: 0,
  };
  readonly #deps: InboxDeps;
  readonly #table: InboxTable;
  readonly #messages: MessagesTable;
  readonly #outbox: OutboxTable;
  readonly #queue = createKeyedQueue(INBOX_PENDING_MAX);
  readonly #gapTimers = new Map<UserId, Disposable>();
  readonly #running = new Set<Promise<unknown>>();
  /** Changes of a transaction that somebody else commits; told by `wake`. */
  #deferred = new Changes();
  #disposed = false;

  constructor(deps: InboxDeps) {
    this.#deps = deps;
    this.#table = new InboxTable(deps.db);
    this.#messages = new MessagesTable(deps.db);
    this.#outbox = new OutboxTable(deps.db);
  }

  /** Takes up what an earlier run left. */
  start(): void {
    for (const peer of this.#table.peersWithEarly()) this.#watchGap(peer);
  }

  receive(peer: UserId, envelope: EnvelopeRecord): Promise<Reception> {
    return this.#inTurn(peer, async () => {
      await this.#openHeld(peer);
      return this.#take(peer, envelope, false);
    });
  }

  /** What may be opened from the peer has changed. */
  wake(peer: UserId): void {
    const changes = this.#deferred;
    this.#deferred = new Changes();
    this.#deps.tell(changes);
    if (this.#table.heldCount(peer) === 0) return;
    void this.#inTurn(peer, async () => {
      await this.#openHeld(peer);
      return "ack";
    });
  }

  /** Inside a transaction: whatever comes next of this peer is the start. */
  restart(peer: UserId): void {
    this.#advance(peer, { type: "restarted" }, null, this.#deferred);
  }

  /** Inside a transaction: the contact is gone. */
  clear(peer: UserId): void {
    this.#table.clear(peer);
    this.#table.setNextIn(peer, null);
  }

  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  dispose(): void {
    this.#disposed = true;
    for (const timer of this.#gapTimers.values()) timer.dispose();
    this.#gapTimers.clear();
  }

  async #inTurn(peer: UserId, task: () => Promise<Reception>): Promise<Reception> {
    if (this.#disposed) return "retry";
    const work = this.#queue.run(peer, task).then(
      (result) => (result.ok ? result.value : "retry"),
      (error: unknown) => {
        this.#deps.env.log.error("an envelope could not be taken in", { error: messageOf(error) });
        return "retry" as const;
      },
    );
    this.#running.add(work);
    return work.finally(() => this.#running.delete(work));
  }

  async #openHeld(peer: UserId): Promise<void> {
    while (!this.#deps.contacts.isKeyChanged(peer)) {
      const envelope = this.#table.firstHeld(peer);
      if (envelope === null || (await this.#take(peer, envelope, true)) === "retry") return;
      this.#table.release(peer, envelope.id);
    }
  }

  async #take(peer: UserId, envelope: EnvelopeRecord, held: boolean): Promise<Reception> {
    this.#deps.checkpoint("read");
    if (!this.#isWelcome(peer, envelope, held)) return "ack";
    const { kind, body } = envelope;
    const changes = new Changes();
    try {
      const opened = await this.#deps.sessions.open(peer, { kind, body }, (plaintext) => {
        this.#deps.checkpoint("decrypt");
        this.#store(peer, envelope, plaintext, changes);
      });
      if (!opened.ok) return this.#onFailure(peer, envelope, held, opened.error);
    } catch (error) {
      this.#deps.contacts.settle();
      if (!(error instanceof Refused)) throw error;
      this.counters.fromStrangers += 1;
      return "ack";
    }
    this.#deps.checkpoint("commit");
    this.counters.opened += 1;
    this.#afterCommit(peer, changes);
    return "ack";
  }

  #isWelcome(peer: UserId, envelope: EnvelopeRecord, held: boolean): boolean {
    const relation = this.#deps.contacts.relationOf(peer);
    // Only a first message can be a request; anything else of somebody unknown is from a contact that was removed.
    if (relation === null && envelope.kind !== "prekey") {
      this.counters.fromStrangers += 1;
      return false;
    }
    if (relation?.kind === "blocked") {
      this.counters.fromBlocked += 1;
      return false;
    }
    const known = this.#table.isSeen(peer, envelope.id) || (!held && this.#table.isHeld(peer, envelope.id));
    if (known) this.counters.duplicates += 1;
    return !known;
  }

  #afterCommit(peer: UserId, changes: Changes): void {
    this.#deps.checkpoint("process");
    this.#deps.contacts.settle();
    this.#deps.tell(changes);
    this.#deps.checkpoint("render");
    if (changes.messages.length > 0 || changes.resealed.size > 0) this.#deps.receiptsDue(peer);
    this.#watchGap(peer);
  }

  #onFailure(peer: UserId, envelope: EnvelopeRecord, held: boolean, error: SessionError): Reception {
    this.#deps.contacts.settle();
    switch (error.type) {
      case "identity_changed":
        this.#deps.contacts.identityChanged(peer);
        if (held) return "retry";
        return this.#hold(peer, envelope);
      case "duplicate_message":
        // Not one of the ids seen: a step of the ratchet that was used before, by a sender who went back to a backup.
        this.counters.duplicates += 1;
        return this.#repair(peer, false);
      case "no_session":
      case "undecryptable":
      case "bad_bundle":
        this.counters.undecryptable += 1;
        return this.#repair(peer, error.type === "no_session");
      case "queue_full":
        return "retry";
      default:
        return assertNever(error);
    }
  }

  /** The envelope stays sealed, durably, until the user has decided about the new key. */
  #hold(peer: UserId, envelope: EnvelopeRecord): "ack" | "retry" {
    if (this.#deps.contacts.relationOf(peer) === null) return "ack";
    if (this.#table.heldCount(peer) >= HELD_ENVELOPES_MAX) return "retry";
    this.#table.hold(peer, envelope);
    this.counters.held += 1;
    return "ack";
  }

  #repair(peer: UserId, lost: boolean): Reception {
    if (this.#deps.contacts.relationOf(peer) === null) return "ack";
    this.#deps.resets.unreadable(peer, lost);
    return "unreadable";
  }

  // ---- Inside the transaction ----

  #store(peer: UserId, envelope: EnvelopeRecord, plaintext: Uint8Array, changes: Changes): void {
    const nowMs = this.#deps.env.clock.now();
    const decoded = decodeContent(plaintext);
    const content = decoded.ok && decoded.value.kind !== "link" ? decoded.value : null;
    if (this.#deps.contacts.relationOf(peer) === null) {
      if (!this.#deps.groups.vouches(content, peer)) {
        this.#storeRequest(peer, envelope, content);
        return;
      }
      // Of somebody who was a contact once it need not be the first.
      this.#table.setNextIn(peer, null);
    }
    this.#table.see(peer, envelope.id, nowMs);
    if (content === null) {
      this.counters.refused += 1;
      changes.notice("warning", "bad_message", `${this.#nameOf(peer)} sent something that this version cannot read.`);
      return;
    }
    if (content.kind === "sessionReset") this.#resend(peer, content, changes);
    else if (this.#deps.outbox.confirmed(peer, content.received)) changes.resealed.add(peer);
    this.#advance(peer, { type: "skipped", oldest: content.oldest }, null, changes);
    this.#advance(peer, { type: "arrived", seq: content.seq }, { content, plaintext, envelope }, changes);
  }

  /** At once, whatever its place: what is missing before it may be what it asks for. */
  #resend(peer: UserId, { resetId, received }: ContentOf<"sessionReset">, changes: Changes): void {
    if (!this.#deps.resets.requested(peer, resetId)) return;
    this.#deps.outbox.resend(peer, received);
    changes.resealed.add(peer);
  }

  #storeRequest(peer: UserId, envelope: EnvelopeRecord, content: DurableContent | null): void {
    if (content?.kind !== "contactRequest") throw new Refused();
    if (this.#deps.contacts.receive(peer, content, envelope.arrivedAtMs) === "refused") throw new Refused();
    this.#table.see(peer, envelope.id, this.#deps.env.clock.now());
    this.#table.setNextIn(peer, content.seq + 1);
  }

  /** One event through the order of the sender, with everything that it lets through. */
  #advance(
    peer: UserId,
    event: OrderEvent,
    arrival: { content: DurableContent; plaintext: Uint8Array; envelope: EnvelopeRecord } | null,
    changes: Changes,
  ): void {
    const nowMs = this.#deps.env.clock.now();
    const before = { next: this.#table.nextIn(peer), early: this.#table.earlySeqs(peer) };
    const [after, effects] = step(before, event);
    // Before the contents are applied: one of them may remove the contact, which starts the numbers anew.
    if (after.next !== before.next) this.#table.setNextIn(peer, after.next);
    for (const effect of effects) {
      switch (effect.type) {
        case "apply":
          if (arrival !== null && effect.seq === arrival.content.seq)
            this.#apply(peer, arrival.content, arrival.envelope.arrivedAtMs, changes);
          else this.#applyEarly(peer, effect.seq, nowMs, changes);
          break;
        case "keep":
          if (arrival !== null) this.#table.keepEarly(peer, effect.seq, arrival.plaintext, nowMs);
          break;
        case "drop":
          this.counters.duplicates += 1;
          break;
        case "missing":
          this.#reportMissing(peer, effect.count, changes);
          break;
        default:
          assertNever(effect);
      }
    }
  }

  #applyEarly(peer: UserId, seq: number, nowMs: TimeMs, changes: Changes): void {
    const plaintext = this.#table.early(peer, seq);
    this.#table.removeEarly(peer, seq);
    const content = plaintext === null ? null : decodeContent(plaintext);
    if (content?.ok) this.#apply(peer, content.value, nowMs, changes);
  }

  #apply(peer: UserId, content: Content, arrivedAtMs: TimeMs, changes: Changes): void {
    switch (content.kind) {
      case "contactRequest":
      case "contactReveal":
      case "contactAccept":
      case "profile":
        if (this.#deps.contacts.receive(peer, content, arrivedAtMs) === "refused") this.counters.refused += 1;
        return;
      case "text":
        this.#deps.contacts.wrote(peer);
        this.#addMessage(peer, content, content.text, null, changes);
        return;
      case "file":
        this.#deps.contacts.wrote(peer);
        this.#addFile(peer, content, changes);
        return;
      case "receipt":
        this.#deps.resets.receipted(peer, content.messageIds);
        for (const messageId of content.messageIds) this.#raise(peer, messageId, content.state, changes);
        return;
      case "shareNotice":
      case "keyRequest":
        if (this.#isHeardOnFiles(peer)) this.#deps.shares.received(peer, content);
        else this.counters.refused += 1;
        return;
      case "fileReceipt":
        if (this.#deps.contacts.isAccepted(peer)) this.#deps.fileReceipts.received(peer, content.receipt);
        else this.counters.refused += 1;
        return;
      case "fileKey": {
        const { offer, start } = content;
        const taken = this.#isHeardOnFiles(peer) && this.#deps.files.record(offer, peer, start).ok;
        if (!taken) this.counters.refused += 1;
        return;
      }
      case "groupOps":
      case "groupAsk":
      case "groupKey":
      case "groupMessage":
        this.#applyGroup(peer, content, changes);
        return;
      case "sessionReset":
        // Done when it came.
        return;
      case "link":
        this.counters.refused += 1;
        return;
      default:
        assertNever(content);
    }
  }

  /** An accepted contact, or somebody in a group with us. */
  #isHeardOnFiles(peer: UserId): boolean {
    return this.#deps.contacts.relationOf(peer)?.kind === "accepted";
  }

  #raise(peer: UserId, messageId: MessageId, state: "delivered" | "read", changes: Changes): void {
    const chatId = chatIdOf(peer);
    if (this.#deps.groupMail.raise(peer, messageId, state, changes)) return;
    const { self, env } = this.#deps;
    if (this.#messages.raiseState(chatId, messageId, self, state, env.clock.now())) changes.message(chatId, messageId);
  }

  #applyGroup(
    peer: UserId,
    content: ContentOf<"groupOps" | "groupAsk" | "groupKey" | "groupMessage">,
    changes: Changes,
  ): void {
    const { groups, groupMail } = this.#deps;
    switch (content.kind) {
      case "groupOps":
        groups.take(content, peer, changes);
        groupMail.receiptsChanged(changes);
        return;
      case "groupAsk":
        groups.asked(content, peer, changes);
        groupMail.repair(content.groupId, peer, content.unread);
        if (content.unread.length > 0) changes.groups.add(content.groupId);
        return;
      default:
        if (!groupMail.arrive(peer, content, changes)) this.counters.refused += 1;
    }
  }

  #addFile(peer: UserId, content: Extract<Content, { kind: "file" }>, changes: Changes): void {
    const { manifest } = content.offer.signed;
    // Somebody else's file comes with what its owner signed first, or it is nobody's.
    const isProven = manifest.ownerId === peer || content.start !== undefined;
    const genuine = isProven && this.#deps.contacts.isAccepted(peer);
    if (!genuine || !this.#deps.files.record(content.offer, peer, content.start).ok) {
      this.counters.refused += 1;
      changes.notice("warning", "file_refused", `A file from ${this.#nameOf(peer)} was refused: it is not genuine.`);
      return;
    }
    this.#addMessage(peer, content, "", manifest.fileId, changes);
  }

  #addMessage(
    peer: UserId,
    content: Extract<Content, { kind: "text" | "file" }>,
    text: string,
    fileId: Extract<Content, { kind: "file" }>["offer"]["signed"]["manifest"]["fileId"] | null,
    changes: Changes,
  ): void {
    if (!this.#deps.contacts.isAccepted(peer)) {
      this.counters.refused += 1;
      return;
    }
    const chatId = chatIdOf(peer);
    const { messageId } = content;
    // A clock that is ahead must not put a message into the future.
    const sentAtMs = Math.min(content.sentAtMs, this.#deps.env.clock.now());
    const isNew = this.#messages.insert({
      chatId,
      messageId,
      senderId: peer,
      sentAtMs,
      text,
      fileId,
      state: "delivered",
    });
    if (!isNew) this.counters.duplicates += 1;
    this.#outbox.addReceipt(peer, messageId, "delivered");
    changes.message(chatId, messageId);
  }

  #reportMissing(peer: UserId, count: number, changes: Changes): void {
    this.counters.missing += count;
    const what = count === 1 ? "A message" : `${count} messages`;
    changes.notice(
      "warning",
      "message_missing",
      `${what} from ${this.#nameOf(peer)} did not arrive. Ask them to send it again.`,
    );
  }

  // ---- Gaps ----

  /** The oldest content that waits for an earlier one decides when the gap is given up. */
  #watchGap(peer: UserId): void {
    const oldestMs = this.#table.oldestEarlyMs(peer);
    this.#gapTimers.get(peer)?.dispose();
    this.#gapTimers.delete(peer);
    if (oldestMs === null || this.#disposed) return;
    const { clock } = this.#deps.env;
    const delayMs = Math.max(0, oldestMs + EARLY_MESSAGE_WAIT_MS - clock.now());
    this.#gapTimers.set(
      peer,
      clock.setTimer(delayMs, () => void this.#inTurn(peer, () => this.#giveUpGap(peer))),
    );
  }

  async #giveUpGap(peer: UserId): Promise<"ack"> {
    const oldestMs = this.#table.oldestEarlyMs(peer);
    // Filled while this waited for its turn; what waits now has its own time.
    if (oldestMs === null || oldestMs + EARLY_MESSAGE_WAIT_MS > this.#deps.env.clock.now()) {
      this.#watchGap(peer);
      return "ack";
    }
    const changes = new Changes();
    this.#deps.db.transaction(() => this.#advance(peer, { type: "gapExpired" }, null, changes));
    this.#afterCommit(peer, changes);
    return "ack";
  }

  #nameOf(peer: UserId): string {
    return this.#deps.contacts.nameOf(peer) ?? nameFromUserId(peer);
  }
}
