import * as v from "valibot";
import { assert } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { RelayId, UserId } from "#shared/base/ids.ts";
import {
  RELAY_BYTES_PER_SECOND,
  RELAY_FRAME_COST_BYTES,
  RELAY_PENDING_MS,
  RELAY_TOTAL_BYTES_PER_SECOND,
  RELAYS_MAX,
  RELAYS_PER_DEVICE_MAX,
} from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import { decodeRelayFrame, RelayAckSchema, relayCost } from "#shared/rendezvous/relay.ts";
import { type Answer, refuse } from "./handler.ts";
import type { Presence } from "./presence.ts";
import { type DeviceBudget, DeviceBudgets } from "./relay-budget.ts";
import { RelayFlow } from "./relay-flow.ts";
import type { RelayQuota, RelayUsage } from "./relay-usage.ts";
import type { Online, Session } from "./session.ts";

export interface RelayOptions extends RelayQuota {
  readonly enabled: boolean;
  /** Of one device, over all its relays. */
  readonly bytesPerSecond: number;
  /** Of all devices together. */
  readonly totalBytesPerSecond: number;
  readonly relaysMax: number;
}

export const defaultRelay: RelayOptions = {
  enabled: true,
  bytesPerSecond: RELAY_BYTES_PER_SECOND,
  totalBytesPerSecond: RELAY_TOTAL_BYTES_PER_SECOND,
  relaysMax: RELAYS_MAX,
  dailyBytes: null,
  monthlyBytes: null,
};

/** Since the start of the process, for the health page. */
export interface RelayCounters {
  relays: number;
  relaysOpened: number;
  relayedFrames: number;
  relayedBytes: number;
  /** Relays that were ended because a side broke the rules, or used up its quota. */
  relayViolations: number;
  relayQuotaEnds: number;
}

/** One end of a relay, and the books of what it sends. */
interface Side {
  readonly session: Session;
  readonly budget: DeviceBudget;
  readonly flow: RelayFlow;
  tell(grantedBytes: number): void;
}

interface Relay {
  readonly id: RelayId;
  readonly to: UserId;
  readonly opener: Session;
  /** The opener's first. Null until it is accepted. */
  ends: readonly [Side, Side] | null;
  readonly expiry: Disposable;
}

type Ended =
  | "closed_by_peer"
  | "peer_gone"
  | "not_accepted"
  | "replaced"
  | "not_allowed"
  | "broken_rules"
  | "relay_quota";

export interface RelayDeps {
  readonly env: Env;
  readonly online: Online;
  readonly presence: Pick<Presence, "mutual">;
  readonly usage: RelayUsage;
}

const none = Object.freeze({});
type Nothing = Record<string, never>;

/**
 * Relays of sealed frames between two people who watch each other, for pairs whose networks let nothing else through. A
 * relay belongs to two sockets and ends with the first of them. Frames are handed on as they come and never looked into.
 *
 * A device may send what it has credit for. Credit is given from its token bucket, and only as far as the reader has
 * acknowledged ({@link RelayFlow}): so a slow reader, and the rate, slow the sender down instead of filling our memory.
 */
export class Relays {
  readonly #options: RelayOptions;
  readonly #deps: RelayDeps;
  readonly #relays = new Map<RelayId, Relay>();
  readonly #bySession = new Map<Session, Set<Relay>>();
  readonly #budgets: DeviceBudgets;
  readonly #counters: Omit<RelayCounters, "relays"> = {
    relaysOpened: 0,
    relayedFrames: 0,
    relayedBytes: 0,
    relayViolations: 0,
    relayQuotaEnds: 0,
  };

  constructor(deps: RelayDeps, options: RelayOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#budgets = new DeviceBudgets(deps.env.clock, options.bytesPerSecond, options.totalBytesPerSecond);
  }

  get counters(): RelayCounters {
    return { relays: this.#relays.size, ...this.#counters };
  }

  async open(session: Session, id: RelayId, to: UserId): Promise<Answer<Nothing>> {
    const before = this.#relays.get(id);
    if (before?.opener === session && before.to === to) return ok(none);
    const refused = this.#whyNotOpen(session, id, to) ?? (await this.#start(session));
    if (refused !== null) return refused;
    // Things may have changed during the wait.
    const refusedNow = this.#whyNotOpen(session, id, to);
    if (refusedNow !== null) {
      this.#deps.usage.release(session.userId);
      return refusedNow;
    }
    for (const old of this.#of(session)) if (isTo(old, session, to)) this.#end(old, "replaced", null);
    const expiry = this.#deps.env.clock.setTimer(RELAY_PENDING_MS, () => this.#end(relay, "not_accepted", null));
    const relay: Relay = { id, to, opener: session, ends: null, expiry };
    this.#relays.set(id, relay);
    this.#add(session, relay);
    this.#counters.relaysOpened++;
    return ok(none);
  }

  async accept(session: Session, id: RelayId, from: UserId): Promise<Answer<Nothing>> {
    if (this.#relays.get(id)?.ends?.[1].session === session) return ok(none);
    const refused = this.#whyNotAccept(session, id, from) ?? (await this.#start(session));
    if (refused !== null) return refused;
    const refusedNow = this.#whyNotAccept(session, id, from);
    const relay = this.#relays.get(id);
    if (refusedNow !== null || relay === undefined) {
      this.#deps.usage.release(session.userId);
      return refusedNow ?? gone();
    }
    relay.expiry.dispose();
    this.#add(session, relay);
    relay.ends = [this.#side(relay.opener, id), this.#side(session, id)];
    return ok(none);
  }

  close(session: Session, id: RelayId): Answer<Nothing> {
    const relay = this.#relays.get(id);
    if (relay !== undefined && this.#of(session).has(relay)) this.#end(relay, "closed_by_peer", session);
    return ok(none);
  }

  /** A frame of this session. False when the session broke the protocol and must go. */
  frame(session: Session, raw: unknown): boolean {
    const decoded = decodeRelayFrame(raw);
    if (!decoded.ok) return false;
    const { relayId, sealed } = decoded.value;
    const cost = relayCost(sealed.length);
    const relay = this.#relays.get(relayId);
    const ends = relay === undefined ? null : endsOf(relay, session);
    if (relay === undefined || ends === null) return this.#stray(session, cost);
    const [sender, reader] = ends;
    if (!sender.flow.receive(cost)) {
      this.#violated(relay);
      return true;
    }
    this.#counters.relayedFrames++;
    this.#counters.relayedBytes += sealed.length;
    if (!this.#deps.usage.add(session.userId, sealed.length)) {
      this.#counters.relayQuotaEnds++;
      this.#end(relay, "relay_quota", null);
      return true;
    }
    assert(raw instanceof Uint8Array, "a frame that was decoded is bytes");
    reader.session.relayed.push(relay, withoutSlack(raw), () => sender.flow.handOver(cost));
    return true;
  }

  /** An acknowledgement of this session. False when the session broke the protocol and must go. */
  acknowledge(session: Session, raw: unknown): boolean {
    const ack = v.safeParse(RelayAckSchema, raw, { abortEarly: true });
    if (!ack.success) return false;
    const relay = this.#relays.get(ack.output.relayId);
    const ends = relay === undefined ? null : endsOf(relay, session);
    if (relay === undefined || ends === null) return this.#stray(session, RELAY_FRAME_COST_BYTES);
    const [, sender] = ends;
    if (sender.flow.take(ack.output.takenBytes)) sender.budget.serve();
    else this.#violated(relay);
    return true;
  }

  /** Call when the session's socket is gone. */
  ended(session: Session): void {
    for (const relay of [...this.#of(session)]) this.#end(relay, "peer_gone", session);
  }

  /** Call when the watches of somebody changed: a relay lasts only as long as both watch each other. */
  recheck(userId: UserId): void {
    const relays = this.#deps.online.of(userId).flatMap((session) => [...this.#of(session)]);
    for (const relay of relays) if (!this.#isAllowed(relay)) this.#end(relay, "not_allowed", null);
  }

  dispose(): void {
    for (const relay of [...this.#relays.values()]) this.#end(relay, "peer_gone", null);
    this.#budgets.dispose();
  }

  /** Null when it may be opened; then the account's usage is held until it ends. */
  async #start(session: Session): Promise<Answer<never> | null> {
    if (await this.#deps.usage.start(session.userId)) return null;
    return refuse(
      "relay_quota",
      "This account has used up what the server relays for it. Use another network, or wait.",
    );
  }

  #whyNotOpen(session: Session, id: RelayId, to: UserId): Answer<never> | null {
    if (!this.#options.enabled) {
      return refuse("relay_off", "This server relays nothing between people. Use another network, or another server.");
    }
    if (!session.open || this.#relays.has(id)) {
      return refuse("conflict", "A relay with this id exists, or the connection ended. Connect again.");
    }
    // To somebody who is no contact, the other side looks as if it were offline; see signals.ts.
    if (!this.#deps.presence.mutual(session.userId, to)) {
      return refuse("peer_offline", "The other side is not online. Weir tries again when it is.");
    }
    const replaced = [...this.#of(session)].filter((relay) => isTo(relay, session, to)).length;
    const isFull =
      this.#of(session).size - replaced >= RELAYS_PER_DEVICE_MAX ||
      this.#relays.size - replaced >= this.#options.relaysMax;
    return isFull ? tooMany() : null;
  }

  #whyNotAccept(session: Session, id: RelayId, from: UserId): Answer<never> | null {
    const relay = this.#relays.get(id);
    const isMine = relay?.to === session.userId && relay.opener.userId === from && relay.ends === null;
    if (!isMine || !session.open || !this.#isAllowed(relay)) return gone();
    return this.#of(session).size >= RELAYS_PER_DEVICE_MAX ? tooMany() : null;
  }

  #isAllowed(relay: Relay): boolean {
    return this.#deps.presence.mutual(relay.opener.userId, relay.to);
  }

  #of(session: Session): ReadonlySet<Relay> {
    return this.#bySession.get(session) ?? new Set();
  }

  #add(session: Session, relay: Relay): void {
    this.#bySession.set(session, new Set([...this.#of(session), relay]));
  }

  /** With its first credit. */
  #side(session: Session, relayId: RelayId): Side {
    const side: Side = {
      session,
      budget: this.#budgets.of(session),
      flow: new RelayFlow(),
      tell: (grantedBytes) => session.push({ name: "relayCredit", value: { relayId, grantedBytes } }),
    };
    side.budget.add(side);
    return side;
  }

  /**
   * A frame or acknowledgement for a relay that is gone. Some may be on their way when it ends; what they may be was taken
   * from the bucket and given back then. Whoever sends far more than that only wants to keep us busy.
   */
  #stray(session: Session, cost: number): boolean {
    return this.#budgets.of(session).charge(cost);
  }

  #violated(relay: Relay): void {
    this.#counters.relayViolations++;
    this.#deps.env.log.warn("a relay was ended: one side sent or acknowledged what it may not");
    this.#end(relay, "broken_rules", null);
  }

  /** `by` is the session that need not be told. */
  #end(relay: Relay, reason: Ended, by: Session | null): void {
    if (this.#relays.get(relay.id) !== relay) return;
    this.#relays.delete(relay.id);
    relay.expiry.dispose();
    for (const side of relay.ends ?? []) side.budget.remove(side);
    const sessions = relay.ends === null ? [relay.opener] : relay.ends.map((side) => side.session);
    for (const session of sessions) {
      const left = new Set(this.#of(session));
      left.delete(relay);
      if (left.size === 0) this.#bySession.delete(session);
      else this.#bySession.set(session, left);
      session.relayed.drop(relay);
      this.#deps.usage.release(session.userId);
      if (session !== by) session.push({ name: "relayClosed", value: { relayId: relay.id, reason } });
    }
  }
}

const tooMany = () => refuse("too_many_relays", "Too many relays are open. Weir tries again later.");
const gone = () => refuse("unknown_relay", "The relay is gone. Weir makes a new one by itself.");

/** A relay that a new one of this session to that user takes the place of. */
const isTo = (relay: Relay, session: Session, to: UserId): boolean => relay.opener === session && relay.to === to;

/** Who sends and who reads when this session speaks; null before the relay is accepted and for strangers. */
const endsOf = ({ ends }: Relay, session: Session): readonly [Side, Side] | null => {
  if (ends === null) return null;
  const [opener, accepter] = ends;
  if (opener.session === session) return ends;
  return accepter.session === session ? [accepter, opener] : null;
};

/** A view keeps all of the buffer alive that the socket was read into; a small frame must not hold on to a large one. */
const withoutSlack = (frame: Uint8Array): Uint8Array =>
  frame.buffer.byteLength > 2 * frame.length ? new Uint8Array(frame) : frame;
