import * as v from "valibot";
import { assert, assertNever, defined } from "#shared/base/assert.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import {
  chatIdOf,
  type EnvelopeId,
  type Generation,
  type MessageId,
  type UserId,
  UserIdSchema,
} from "#shared/base/ids.ts";
import {
  ENVELOPE_BYTES_MAX,
  LINK_ACK_TIMEOUT_MS,
  MAILBOX_TTL_MS,
  OUTBOX_PER_PEER_MAX,
  OUTBOX_RETRY_MAX_MS,
  OUTBOX_STEPS_PER_TURN,
  RECEIPT_DELAY_MS,
  RECEIPT_MESSAGES_MAX,
  SEAL_OVERHEAD_BYTES_MAX,
} from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import { type ContentDraft, type DurableContent, decodeContent, encodeContent } from "#shared/wire/content.ts";
import type { Sessions } from "../crypto/sessions.ts";
import type { Links } from "../links/links.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { Database } from "../store/database.ts";
import { MessagesTable, type OutboxRecord, OutboxTable } from "../store/messages.ts";
import { SettingsTable } from "../store/settings.ts";
import { Changes } from "./changes.ts";
import type { Correspondents } from "./correspondents.ts";
import type { GroupMail } from "./group-mail.ts";
import { newEnvelopeId } from "./new-id.ts";
import {
  initialOutbox,
  type Next,
  type OutboxEffect,
  type OutboxEvent,
  type OutboxState,
  step,
} from "./outbox-machine.ts";
import type { Resets } from "./resets.ts";
import { TurnQueue } from "./turn-queue.ts";

export interface OutboxDeps {
  readonly env: Env;
  readonly db: Database;
  readonly self: UserId;
  readonly sessions: Sessions;
  readonly signaling: Signaling;
  readonly links: Links;
  readonly contacts: Correspondents;
  readonly groupMail: Pick<GroupMail, "raise">;
  readonly tell: (changes: Changes) => void;
  readonly resets: Pick<Resets, "receivedOf" | "sessionGone">;
}

/** Far from the end of the numbers that a content may have: whoever claims to have received more than this is lying. */
const RECEIVED_MAX = 2 ** 40;

/** Where the id of the server is kept whose mailboxes `stored_at` is about. */
const SERVER_KEY = "mailboxServer";

type Runner = MachineRunner<OutboxState, OutboxEvent, OutboxEffect>;

/** The row was removed or sealed by somebody else while it was being sealed: the ratchet step must not count. */
class RowGone extends Error {
  override readonly name = "RowGone";
}

/** Runs one {@link step} machine per peer against the database, the sessions, the links and the mailbox. */
export class Outbox implements Disposable {
  readonly #deps: OutboxDeps;
  readonly #table: OutboxTable;
  readonly #settings: SettingsTable;
  readonly #messages: MessagesTable;
  readonly #runners = new Map<UserId, Runner>();
  readonly #wakeTimers = new Map<UserId, Disposable>();
  readonly #ackTimers = new Map<UserId, Disposable>();
  readonly #receiptTimers = new Map<UserId, Disposable>();
  /** The connected link of each peer as last told; a view that only changed its numbers is no news. */
  readonly #linkOf = new Map<UserId, Generation>();
  readonly #running = new Set<Promise<void>>();
  /** A message to a group is as many contents for as many people. */
  readonly #turns = new TurnQueue(OUTBOX_STEPS_PER_TURN);
  readonly #owned = new DisposableStore();

  constructor(deps: OutboxDeps) {
    this.#deps = deps;
    this.#table = new OutboxTable(deps.db);
    this.#settings = new SettingsTable(deps.db);
    this.#messages = new MessagesTable(deps.db);
    const { signaling, links } = deps;
    this.#owned.add(links.onChanged((view) => this.#onLink(view)));
    this.#owned.add(
      signaling.onStateChanged((view) => {
        if (view.state === "connected") this.#onServerUp();
        else for (const peer of this.#runners.keys()) this.#dispatch(peer, { type: "serverDown" });
      }),
    );
  }

  /** Takes up what an earlier run left. */
  start(): void {
    for (const view of this.#deps.links.list()) this.#onLink(view);
    if (this.#deps.signaling.state.state === "connected") this.#onServerUp();
  }

  hasRoom(peer: UserId): Result<void> {
    if (this.#table.count(peer) < OUTBOX_PER_PEER_MAX) return ok(undefined);
    return fail("outbox_full", "Too many messages wait for this contact. Send more when some have arrived.");
  }

  /** An error when it does not fit. Only what a person sends is limited: receipts and pairing always go. */
  admit(peer: UserId, draft: ContentDraft): Result<void> {
    const room = this.hasRoom(peer);
    if (!room.ok) return room;
    const largest = Number.MAX_SAFE_INTEGER;
    const size = encodeContent({ ...draft, seq: largest, received: largest, oldest: largest }).length;
    if (size + SEAL_OVERHEAD_BYTES_MAX > ENVELOPE_BYTES_MAX)
      return fail("message_too_long", "The message is too long. Shorten it, or send it as a file.");
    return ok(undefined);
  }

  /** Inside the caller's transaction; `added` follows after the commit. */
  enqueue(peer: UserId, draft: ContentDraft): void {
    const seq = this.#table.takeSeq(peer);
    const messageId = "messageId" in draft ? draft.messageId : null;
    this.#table.insert(peer, seq, encodeContent({ ...draft, seq, received: 0, oldest: 1 }), messageId);
  }

  /**
   * Inside a transaction: the peer has everything up to `received`. True when that is more than was ever sent: then our
   * numbers went back, with an older copy of the database.
   */
  confirmed(peer: UserId, received: number): boolean {
    if (received >= this.#table.nextOut(peer)) return this.#numberAnew(peer, received);
    this.#table.removeUpTo(peer, received);
    return false;
  }

  /**
   * Inside a transaction: the peer asks for everything that it does not have, sealed for the session that it made. What is
   * not confirmed goes again, even up to `received`: after a step back of ours the peer may mean others of these numbers.
   */
  resend(peer: UserId, received: number): void {
    if (received < this.#table.nextOut(peer) || !this.#numberAnew(peer, received)) this.#table.unseal(peer);
  }

  /** What waits gets numbers that the peer does not know, or it would pass for something that has arrived. */
  #numberAnew(peer: UserId, received: number): boolean {
    if (received > RECEIVED_MAX) return false;
    const waiting = this.#table.seqs(peer);
    this.#table.setNextOut(peer, Math.max(this.#table.nextOut(peer), received + 1));
    for (const seq of waiting) this.#renumber(peer, seq);
    this.#deps.env.log.warn("what waits for a contact was numbered anew", { count: waiting.length });
    return true;
  }

  #renumber(peer: UserId, seq: number): void {
    const row = defined(this.#table.get(peer, seq), "a row that waits");
    const next = this.#table.takeSeq(peer);
    this.#table.renumber(peer, seq, next, encodeContent({ ...this.#contentOf(row), seq: next }));
  }

  added(peer: UserId): void {
    this.#dispatch(peer, { type: "added" });
  }

  /** What may be sent to the peer has changed. */
  wake(peer: UserId): void {
    if (this.#deps.contacts.relationOf(peer) === null) {
      this.#stop(peer);
      return;
    }
    this.#dispatch(peer, { type: "woken" });
  }

  /** Every ciphertext to the peer was thrown away. */
  resealed(peer: UserId): void {
    this.#dispatch(peer, { type: "resealed" });
  }

  /** Receipts wait a moment for more of their kind. */
  receiptsDue(peer: UserId): void {
    if (this.#receiptTimers.has(peer) || this.#owned.disposed) return;
    const timer = this.#deps.env.clock.setTimer(RECEIPT_DELAY_MS, () => {
      this.#receiptTimers.delete(peer);
      this.#dispatch(peer, { type: "receiptsDue" });
    });
    this.#receiptTimers.set(peer, timer);
  }

  /** The peer has stored the envelope for good. Ids that are not ours to this peer are ignored. */
  acked(peer: UserId, id: EnvelopeId): void {
    const changes = new Changes();
    const seq = this.#deps.db.transaction(() => {
      const row = this.#table.byEnvelope(peer, id);
      if (row === null) return null;
      this.#table.remove(peer, row.seq);
      this.#markSent(peer, row.messageId, changes);
      return row.seq;
    });
    if (seq === null) return;
    this.#deps.tell(changes);
    const runner = this.#runnerOf(peer);
    const wasOldest = runner.state.link?.unacked[0] === seq;
    this.#dispatch(peer, { type: "acked", seq });
    // Those of newer ones say nothing about the oldest, which may be lost.
    if (wasOldest) this.#watchAcks(peer, runner);
  }

  /** Inside a transaction: seal everything again, for another session. */
  sealAgain(peer: UserId): void {
    this.#table.unseal(peer);
  }

  /** Inside a transaction. */
  clear(peer: UserId): void {
    this.#table.clear(peer);
  }

  /** Resolves when nothing is being sealed or put any more. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  dispose(): void {
    this.#owned.dispose();
    for (const timers of [this.#wakeTimers, this.#ackTimers, this.#receiptTimers]) {
      for (const timer of timers.values()) timer.dispose();
      timers.clear();
    }
    this.#runners.clear();
  }

  #stop(peer: UserId): void {
    this.#runners.delete(peer);
    for (const timers of [this.#wakeTimers, this.#ackTimers, this.#receiptTimers]) {
      timers.get(peer)?.dispose();
      timers.delete(peer);
    }
  }

  /** Restarts the wait for the oldest acknowledgement of the link. */
  #watchAcks(peer: UserId, runner: Runner): void {
    this.#ackTimers.get(peer)?.dispose();
    this.#ackTimers.delete(peer);
    const { link } = runner.state;
    if (link === null || link.unacked.length === 0 || this.#owned.disposed) return;
    const timer = this.#deps.env.clock.setTimer(LINK_ACK_TIMEOUT_MS, () => {
      this.#ackTimers.delete(peer);
      this.#answer(peer, runner, { type: "ackTimeout", generation: link.generation });
      // It was about an older link; this one has been sent something meanwhile.
      if (this.#runners.get(peer) === runner && !this.#ackTimers.has(peer)) this.#watchAcks(peer, runner);
    });
    this.#ackTimers.set(peer, timer);
  }

  #onServerUp(): void {
    this.#table.expireStored(this.#deps.env.clock.now() - MAILBOX_TTL_MS);
    this.#followServer();
    for (const peer of this.#table.peers()) this.#runnerOf(peer);
    for (const peer of this.#runners.keys()) this.#dispatch(peer, { type: "serverUp" });
  }

  /** What the mailbox of another server has, nobody fetches there any more: it must be put again. */
  #followServer(): void {
    const { db, signaling, contacts, env } = this.#deps;
    const { serverId } = signaling;
    if (serverId === null || this.#settings.get(SERVER_KEY, v.string()) === serverId) return;
    db.transaction(() => {
      this.#table.forgetStored();
      contacts.endInvites();
      this.#settings.set(SERVER_KEY, serverId);
    });
    env.log.info("another server than before", { serverId });
  }

  #onLink(view: LinkView): void {
    const peer = v.parse(UserIdSchema, view.peerId);
    const generation = view.state === "connected" ? view.generation : undefined;
    if (this.#linkOf.get(peer) === generation) return;
    if (generation === undefined) this.#linkOf.delete(peer);
    else this.#linkOf.set(peer, generation);
    // A machine that is made later looks the link up by itself.
    if (!this.#runners.has(peer) && this.#deps.contacts.relationOf(peer) === null) return;
    this.#dispatch(peer, generation === undefined ? { type: "linkDown" } : { type: "linkUp", generation });
  }

  #runnerOf(peer: UserId): Runner {
    const existing = this.#runners.get(peer);
    if (existing !== undefined) return existing;
    const runner: Runner = new MachineRunner(initialOutbox, step, (effect) => this.#run(peer, runner, effect));
    this.#runners.set(peer, runner);
    if (this.#deps.signaling.state.state === "connected") runner.dispatch({ type: "serverUp" });
    const generation = this.#linkOf.get(peer);
    if (generation !== undefined) runner.dispatch({ type: "linkUp", generation });
    return runner;
  }

  #dispatch(peer: UserId, event: OutboxEvent): void {
    if (this.#owned.disposed) return;
    this.#runnerOf(peer).dispatch(event);
  }

  /** A result that comes back after the contact was removed belongs to nobody. */
  #answer(peer: UserId, runner: Runner, event: OutboxEvent): void {
    if (this.#runners.get(peer) === runner) runner.dispatch(event);
  }

  #run(peer: UserId, runner: Runner, effect: OutboxEffect): void {
    switch (effect.type) {
      case "load":
        this.#inTurn(peer, runner, () => {
          runner.dispatch({ type: "loaded", query: effect.query, next: this.#load(peer, effect.afterSeq) });
        });
        return;
      case "seal":
        this.#inTurn(peer, runner, () => this.#seal(peer, runner, effect.seq));
        return;
      case "put":
        this.#track(this.#put(peer, runner, effect.seq));
        return;
      case "transmit":
        if (!this.#transmit(peer, effect.seq, effect.generation)) runner.dispatch({ type: "linkDown" });
        else if (!this.#ackTimers.has(peer)) this.#watchAcks(peer, runner);
        return;
      case "wakeAt":
        this.#wakeIn(peer, effect.atMs - this.#deps.env.clock.now());
        return;
      default:
        assertNever(effect);
    }
  }

  /** Now, or as soon as the others before it leave room for it. */
  #inTurn(peer: UserId, runner: Runner, task: () => void | Promise<void>): void {
    const isWanted = (): boolean => !this.#owned.disposed && this.#runners.get(peer) === runner;
    this.#track(this.#turns.run(() => (isWanted() ? task() : undefined)));
  }

  #wakeIn(peer: UserId, delayMs: number): void {
    this.#wakeTimers.get(peer)?.dispose();
    const timer = this.#deps.env.clock.setTimer(Math.max(0, delayMs), () => {
      this.#wakeTimers.delete(peer);
      this.#dispatch(peer, { type: "woken" });
    });
    this.#wakeTimers.set(peer, timer);
  }

  #load(peer: UserId, afterSeq: number | null): Next {
    const find = () => (afterSeq === null ? this.#table.nextUnstored(peer) : this.#table.nextAfter(peer, afterSeq));
    try {
      const relation = this.#deps.contacts.relationOf(peer);
      if (relation === null || relation.kind === "blocked" || this.#deps.contacts.isKeyChanged(peer))
        return { kind: "blocked" };
      const row = find() ?? (this.#writeReceipts(peer) ? find() : null);
      return row === null ? { kind: "none" } : { kind: "row", seq: row.seq, sealed: row.envelope !== null };
    } catch (error) {
      this.#deps.env.log.error("the outbox could not be read", { error: messageOf(error) });
      this.#wakeIn(peer, OUTBOX_RETRY_MAX_MS);
      return { kind: "none" };
    }
  }

  /** Turns receipts that are due into contents; only when nothing else waits, so that they never pile up. */
  #writeReceipts(peer: UserId): boolean {
    if (this.#receiptTimers.has(peer)) return false;
    return this.#deps.db.transaction(() => {
      let written = false;
      for (const state of ["delivered", "read"] as const) {
        const messageIds = this.#table.takeReceipts(peer, state, RECEIPT_MESSAGES_MAX);
        if (messageIds.length === 0) continue;
        this.enqueue(peer, { kind: "receipt", state, messageIds });
        written = true;
      }
      return written;
    });
  }

  async #seal(peer: UserId, runner: Runner, seq: number): Promise<void> {
    const failed = (): void => {
      const { clock, random } = this.#deps.env;
      this.#answer(peer, runner, { type: "sealFailed", seq, nowMs: clock.now(), jitter: random.number() });
    };
    try {
      const sealed = await this.#sealRow(peer, seq);
      if (sealed.ok) return this.#answer(peer, runner, { type: "sealed", seq });
      this.#deps.env.log.warn("a message could not be sealed", { error: sealed.error.type });
      failed();
      if (sealed.error.type === "identity_changed") this.#deps.contacts.identityChanged(peer);
    } catch (error) {
      // Sealed or removed by somebody else: what to do next is in the database.
      if (error instanceof RowGone) return this.#answer(peer, runner, { type: "sealed", seq });
      this.#deps.env.log.error("sealing failed", { error: messageOf(error) });
      failed();
    }
  }

  async #sealRow(peer: UserId, seq: number): Promise<Result<void>> {
    const row = this.#table.get(peer, seq);
    if (row === null || row.envelope !== null) return ok(undefined);
    const oldest = this.#table.oldest(peer) ?? seq;
    const plaintext = encodeContent({ ...this.#contentOf(row), oldest, received: this.#deps.resets.receivedOf(peer) });
    const id = newEnvelopeId(this.#deps.env.random);
    const seal = () =>
      this.#deps.sessions.seal(peer, plaintext, (sealed) => {
        if (!this.#table.seal(peer, seq, id, sealed.kind, sealed.body)) throw new RowGone();
      });
    const sealed = await seal();
    if (sealed.ok || sealed.error.type !== "no_session") return sealed;
    this.#deps.resets.sessionGone(peer);
    const started = await this.#deps.contacts.startSession(peer);
    return started.ok ? seal() : started;
  }

  #contentOf(row: OutboxRecord): DurableContent {
    const content = decodeContent(row.content);
    assert(content.ok && content.value.kind !== "link", "a content of the outbox is broken");
    return content.value;
  }

  async #put(peer: UserId, runner: Runner, seq: number): Promise<void> {
    const failed = (): void => {
      const { clock, random } = this.#deps.env;
      this.#answer(peer, runner, { type: "putFailed", seq, nowMs: clock.now(), jitter: random.number() });
    };
    try {
      const envelope = this.#table.get(peer, seq)?.envelope;
      // Acknowledged or sealed anew meanwhile: what to do next is in the database.
      if (envelope == null) return this.#answer(peer, runner, { type: "stored", seq });
      const { id, kind, body } = envelope;
      const put = await this.#deps.signaling.request("mailbox.put", { to: peer, id, sealed: { kind, body } });
      if (!put.ok) {
        this.#deps.env.log.warn("the mailbox did not take a message", { error: put.error.type });
        return failed();
      }
      this.#stored(peer, seq, id);
      this.#answer(peer, runner, { type: "stored", seq });
    } catch (error) {
      this.#deps.env.log.error("sending to the mailbox failed", { error: messageOf(error) });
      failed();
    }
  }

  #stored(peer: UserId, seq: number, id: EnvelopeId): void {
    const changes = new Changes();
    this.#deps.db.transaction(() => {
      const row = this.#table.get(peer, seq);
      if (this.#table.markStored(peer, seq, id, this.#deps.env.clock.now()))
        this.#markSent(peer, row?.messageId ?? null, changes);
    });
    this.#deps.tell(changes);
  }

  #markSent(peer: UserId, messageId: MessageId | null, changes: Changes): void {
    if (messageId === null) return;
    if (this.#deps.groupMail.raise(peer, messageId, "sent", changes)) return;
    const chatId = chatIdOf(peer);
    const { self, env } = this.#deps;
    if (this.#messages.raiseState(chatId, messageId, self, "sent", env.clock.now())) changes.message(chatId, messageId);
  }

  /** False when that link is gone. A row that is gone needs no sending. */
  #transmit(peer: UserId, seq: number, generation: Generation): boolean {
    const row = this.#table.get(peer, seq);
    if (row === null) {
      this.#dispatch(peer, { type: "acked", seq });
      return true;
    }
    const { id, kind, body } = defined(row.envelope, "the ciphertext of a row to transmit");
    return this.#deps.links.send(peer, generation, { type: "envelope", id, kind, body });
  }

  #track(work: Promise<void>): void {
    this.#running.add(work);
    work
      .catch((error: unknown) => this.#deps.env.log.error("the outbox failed", { error: messageOf(error) }))
      .finally(() => this.#running.delete(work))
      .catch(() => undefined);
  }
}
