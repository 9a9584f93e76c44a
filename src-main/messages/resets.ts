import * as v from "valibot";
import { assertNever } from "#shared/base/assert.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { type MessageId, MessageIdSchema, type UserId } from "#shared/base/ids.ts";
import { OUTBOX_RETRY_MAX_MS } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { ContentDraft } from "#shared/wire/content.ts";
import { nameFromUserId } from "../contacts/display-name.ts";
import type { Links } from "../links/links.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { Database } from "../store/database.ts";
import { InboxTable, OutboxTable } from "../store/messages.ts";
import { SessionResetsTable } from "../store/session-resets.ts";
import { Changes } from "./changes.ts";
import type { Correspondents } from "./correspondents.ts";
import { newMessageId } from "./new-id.ts";
import { initialReset, type ResetEffect, type ResetEvent, type ResetState, step } from "./reset-machine.ts";

interface ResetsDeps {
  readonly env: Env;
  readonly db: Database;
  readonly signaling: Pick<Signaling, "state" | "onStateChanged">;
  readonly links: Pick<Links, "view" | "reconnect" | "presenceHint">;
  readonly contacts: Correspondents;
  readonly tell: (changes: Changes) => void;
  /** Inside a transaction; `added` follows after the commit. */
  readonly enqueue: (peer: UserId, draft: ContentDraft) => void;
  readonly added: (peer: UserId) => void;
}

const timeMs = v.number();
const repair = { resetId: MessageIdSchema, received: v.number() };
const StateSchema = v.object({
  phase: v.variant("kind", [
    v.object({ kind: v.literal("calm") }),
    v.object({ kind: v.literal("due"), atMs: timeMs, ...repair }),
    v.object({ kind: v.literal("renewing"), ...repair }),
    v.object({ kind: v.literal("asked"), ...repair }),
  ]),
  askedAtMs: v.array(timeMs),
  answered: v.array(v.object({ resetId: MessageIdSchema, atMs: timeMs })),
});

/** Runs one {@link step} machine per peer. Its state is in the database: a repair goes on after a restart. */
export class Resets implements Disposable {
  readonly #deps: ResetsDeps;
  readonly #table: SessionResetsTable<typeof StateSchema>;
  readonly #outbox: OutboxTable;
  readonly #inbox: InboxTable;
  readonly #timers = new Map<UserId, Disposable>();
  readonly #renewing = new Map<UserId, Promise<void>>();
  /** Peers about whom the person was told in this run: one notice is enough. */
  readonly #warned = new Set<UserId>();
  readonly #owned = new DisposableStore();

  constructor(deps: ResetsDeps) {
    this.#deps = deps;
    this.#table = new SessionResetsTable(deps.db, StateSchema);
    this.#outbox = new OutboxTable(deps.db);
    this.#inbox = new InboxTable(deps.db);
    this.#owned.add(
      deps.signaling.onStateChanged((view) => {
        if (view.state === "connected") this.start();
      }),
    );
  }

  /** Goes on with what an earlier run, or an earlier connection, left. */
  start(): void {
    for (const peer of this.#table.peers()) this.wake(peer);
  }

  /** What may be sent to the peer has changed. */
  wake(peer: UserId): void {
    const { phase } = this.#stateOf(peer);
    if (phase.kind === "renewing") this.#renew(peer);
    else if (phase.kind === "due") this.#wakeAt(peer, phase.atMs);
  }

  /** Something of a contact could not be decrypted, or there is no session to send them anything (`lost`). */
  unreadable(peer: UserId, lost: boolean): void {
    const { env, db, contacts } = this.#deps;
    const relation = contacts.relationOf(peer);
    if (relation === null || relation.kind === "blocked" || this.#owned.disposed) return;
    const received = (this.#inbox.nextIn(peer) ?? 1) - 1;
    const resetId = newMessageId(env.random);
    db.transaction(() => {
      this.#dispatch(peer, { type: "unreadable", nowMs: env.clock.now(), lost, resetId, received });
    });
  }

  /** A message needed a session and there was none: what a request waits for was sealed for the one that is gone. */
  sessionGone(peer: UserId): void {
    if (this.#stateOf(peer).phase.kind === "asked") this.unreadable(peer, true);
  }

  /** Inside the transaction that stores the peer's request. True: everything unacknowledged is to be sealed again. */
  requested(peer: UserId, resetId: MessageId): boolean {
    const effects = this.#dispatch(peer, { type: "requested", nowMs: this.#deps.env.clock.now(), resetId });
    if (!effects.some((effect) => effect.type === "resend")) return false;
    this.#outbox.addReceipt(peer, resetId, "delivered");
    return true;
  }

  /** Inside the transaction that stores a receipt: one of these may be our request. */
  receipted(peer: UserId, ids: readonly MessageId[]): void {
    const { phase } = this.#stateOf(peer);
    if (phase.kind === "asked" && ids.includes(phase.resetId))
      this.#dispatch(peer, { type: "answered", resetId: phase.resetId });
  }

  /** After that transaction. A signal that the peer could not open may be what a link waits for. */
  resent(peer: UserId): void {
    const { links, added } = this.#deps;
    added(peer);
    if (links.view(peer).state !== "connected") links.reconnect(peer);
  }

  /** What may be confirmed as received: while something is asked for again, nothing from there on. */
  receivedOf(peer: UserId): number {
    const received = (this.#inbox.nextIn(peer) ?? 1) - 1;
    const { phase } = this.#stateOf(peer);
    return phase.kind === "calm" ? received : Math.min(received, phase.received);
  }

  /** Inside a transaction: the contact is gone. */
  clear(peer: UserId): void {
    this.#table.remove(peer);
    this.#timers.get(peer)?.dispose();
    this.#timers.delete(peer);
  }

  /** Resolves when no session is being made any more. */
  async settled(): Promise<void> {
    while (this.#renewing.size > 0) await Promise.all(this.#renewing.values());
  }

  dispose(): void {
    this.#owned.dispose();
    for (const timer of this.#timers.values()) timer.dispose();
    this.#timers.clear();
  }

  #stateOf(peer: UserId): ResetState {
    return this.#table.get(peer) ?? initialReset;
  }

  #dispatch(peer: UserId, event: ResetEvent): readonly ResetEffect[] {
    const before = this.#stateOf(peer);
    const [after, effects] = step(before, event);
    if (after !== before)
      this.#table.set(peer, { ...after, askedAtMs: [...after.askedAtMs], answered: [...after.answered] });
    for (const effect of effects) this.#run(peer, effect);
    return effects;
  }

  #run(peer: UserId, effect: ResetEffect): void {
    switch (effect.type) {
      case "renew":
        this.#renew(peer);
        return;
      case "ask":
        this.#deps.enqueue(peer, { kind: "sessionReset", resetId: effect.resetId });
        return;
      case "wakeAt":
        this.#wakeAt(peer, effect.atMs);
        this.#warn(peer);
        return;
      case "resend":
        // For the caller, whose transaction it belongs to.
        return;
      default:
        assertNever(effect);
    }
  }

  #wakeAt(peer: UserId, atMs: number): void {
    const { clock } = this.#deps.env;
    this.#later(peer, atMs - clock.now(), () => {
      this.#deps.db.transaction(() => this.#dispatch(peer, { type: "timer", nowMs: clock.now() }));
    });
  }

  #later(peer: UserId, delayMs: number, task: () => void): void {
    this.#timers.get(peer)?.dispose();
    if (this.#owned.disposed) return;
    const timer = this.#deps.env.clock.setTimer(Math.max(0, delayMs), () => {
      this.#timers.delete(peer);
      task();
    });
    this.#timers.set(peer, timer);
  }

  /** Later, when it cannot be done now: with the next connection, or when the person has decided about the key. */
  #renew(peer: UserId): void {
    const { signaling, contacts, env } = this.#deps;
    if (this.#renewing.has(peer) || signaling.state.state !== "connected" || contacts.isKeyChanged(peer)) return;
    const relation = contacts.relationOf(peer);
    if (relation === null || relation.kind === "blocked") return;
    const renewing = this.#renewNow(peer)
      .catch((error: unknown) => {
        env.log.error("a session could not be renewed", { error: messageOf(error) });
        this.#later(peer, OUTBOX_RETRY_MAX_MS, () => this.wake(peer));
      })
      .finally(() => this.#renewing.delete(peer));
    this.#renewing.set(peer, renewing);
  }

  async #renewNow(peer: UserId): Promise<void> {
    const { contacts, db, env, added, links } = this.#deps;
    const started = await contacts.startSession(peer, "renew");
    if (this.#owned.disposed || this.#stateOf(peer).phase.kind !== "renewing") return;
    if (!started.ok) {
      env.log.warn("a session could not be renewed", { error: started.error.type });
      if (started.error.type === "identity_changed") contacts.identityChanged(peer);
      else this.#later(peer, OUTBOX_RETRY_MAX_MS, () => this.wake(peer));
      return;
    }
    env.log.info("a session was renewed");
    db.transaction(() => this.#dispatch(peer, { type: "renewed" }));
    added(peer);
    // A link that waits because nothing could be sealed for it need not wait any longer.
    links.presenceHint(peer, true);
  }

  #warn(peer: UserId): void {
    if (this.#warned.has(peer)) return;
    this.#warned.add(peer);
    const name = this.#deps.contacts.nameOf(peer) ?? nameFromUserId(peer);
    const changes = new Changes();
    changes.notice(
      "warning",
      "undecryptable",
      `Messages from ${name} cannot be decrypted, again and again. Weir asks for them once more within the hour. If it goes on, remove the contact and invite them anew.`,
    );
    this.#deps.tell(changes);
  }
}
