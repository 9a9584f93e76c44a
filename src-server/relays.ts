import * as v from "valibot";
import { assert } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { RelayId, UserId } from "#shared/base/ids.ts";
import {
  CLUSTER_CALL_TIMEOUT_MS,
  RELAY_BYTES_PER_SECOND,
  RELAY_FRAME_COST_BYTES,
  RELAY_PENDING_MS,
  RELAY_TOTAL_BYTES_PER_SECOND,
  RELAYS_MAX,
  RELAYS_PER_DEVICE_MAX,
} from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import { decodeRelayFrame, RELAY_ID_BYTES, RelayAckSchema, relayCost } from "#shared/rendezvous/relay.ts";
import type { Cluster } from "./cluster/cluster.ts";
import type { RelayEnd, RelayMessage } from "./cluster/messages.ts";
import { type Answer, refuse } from "./handler.ts";
import type { Presence } from "./presence.ts";
import { DeviceBudgets } from "./relay-budget.ts";
import { LocalSide, RemoteSide, type Side } from "./relay-sides.ts";
import type { RelayQuota, RelayUsage } from "./relay-usage.ts";
import type { Session } from "./session.ts";

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

interface Relay {
  readonly id: RelayId;
  readonly from: UserId;
  readonly to: UserId;
  /** Null where it is a session of another node. */
  readonly opener: Session | null;
  /** The opener's first; at least one of them is local. Null until it is accepted. */
  ends: readonly [Side, Side] | null;
  readonly expiry: Disposable | null;
}

export interface RelayDeps {
  readonly env: Env;
  readonly presence: Pick<Presence, "mutual">;
  readonly cluster: Cluster;
  readonly usage: RelayUsage;
}

const none = Object.freeze({});
type Nothing = Record<string, never>;

/**
 * Relays of sealed frames between two people who watch each other, for pairs whose networks let nothing else through. A
 * relay belongs to two sockets and ends with the first of them. Frames are handed on as they come and never looked into.
 * Where the sockets are at two nodes, each of them has a half: its own session, and the other node in place of the other.
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
    const relay: Relay = { id, from: session.userId, to, opener: session, ends: null, expiry };
    this.#relays.set(id, relay);
    this.#add(session, relay);
    this.#counters.relaysOpened++;
    return ok(none);
  }

  async accept(session: Session, id: RelayId, from: UserId): Promise<Answer<Nothing>> {
    if (this.#relays.get(id)?.ends?.[1].session === session) return ok(none);
    if (!this.#relays.has(id)) return this.#acceptElsewhere(session, id, from);
    const refused = this.#whyNotAccept(session, id, from) ?? (await this.#start(session));
    if (refused !== null) return refused;
    const refusedNow = this.#whyNotAccept(session, id, from);
    const relay = this.#relays.get(id);
    if (refusedNow !== null || relay?.opener == null) {
      this.#deps.usage.release(session.userId);
      return refusedNow ?? gone();
    }
    this.#add(session, relay);
    this.#begin(relay, this.#side(relay.opener, id), this.#side(session, id));
    return ok(none);
  }

  /** Another node has the opener. */
  async #acceptElsewhere(session: Session, id: RelayId, from: UserId): Promise<Answer<Nothing>> {
    const { cluster, presence, usage } = this.#deps;
    const nodeIds = cluster.nodesOf(from);
    const isAllowed = () => session.open && !this.#relays.has(id) && presence.mutual(from, session.userId);
    if (nodeIds.length === 0 || !isAllowed()) return gone();
    if (this.#of(session).size >= RELAYS_PER_DEVICE_MAX || this.#relays.size >= this.#options.relaysMax) {
      return tooMany();
    }
    const refused = await this.#start(session);
    if (refused !== null) return refused;
    for (const nodeId of nodeIds) {
      if (!isAllowed()) break;
      const [opener, accepter] = [new RemoteSide(nodeId, id, cluster), this.#side(session, id)];
      // Known before the answer is here: frames may come right behind it.
      const relay: Relay = { id, from, to: session.userId, opener: null, ends: [opener, accepter], expiry: null };
      this.#relays.set(id, relay);
      this.#add(session, relay);
      const call = { type: "relayAccept", relayId: id, from, to: session.userId } as const;
      const isTaken = await cluster.call(nodeId, call, CLUSTER_CALL_TIMEOUT_MS);
      // It ended meanwhile, and with it what was held for it.
      if (this.#relays.get(id) !== relay) return gone();
      if (isTaken === true) {
        accepter.begin();
        return ok(none);
      }
      this.#forget(relay, session);
      if (isTaken === undefined) opener.end(relay, "peer_gone", null);
    }
    usage.release(session.userId);
    return gone();
  }

  /** A session of that node wants to accept. True when the relay has begun. */
  acceptedAt(nodeId: string, { relayId, from, to }: { relayId: RelayId; from: UserId; to: UserId }): boolean {
    const relay = this.#relays.get(relayId);
    if (relay?.opener == null || relay.ends !== null || relay.from !== from || relay.to !== to) return false;
    if (!this.#isAllowed(relay)) return false;
    this.#begin(relay, this.#side(relay.opener, relayId), new RemoteSide(nodeId, relayId, this.#deps.cluster));
    return true;
  }

  /** Something about a relay of which that node has the other half. */
  fromNode(nodeId: string, message: RelayMessage): void {
    const relay = this.#relays.get(message.relayId);
    const remote = relay?.ends?.find((side) => side instanceof RemoteSide && side.nodeId === nodeId);
    const local = relay?.ends?.find((side) => side instanceof LocalSide);
    if (relay === undefined || !(remote instanceof RemoteSide) || local === undefined) {
      const { relayId } = message;
      const end = { type: "relayEnd", relayId, reason: "peer_gone" } as const;
      if (message.type !== "relayEnd") this.#deps.cluster.send(nodeId, end);
      return;
    }
    if (message.type === "relayEnd") {
      this.#end(relay, message.reason, nodeId);
    } else if (message.type === "relayTaken") {
      if (!local.taken(message.takenBytes)) this.#violated(relay);
    } else {
      const cost = relayCost(message.frame.length - RELAY_ID_BYTES);
      if (!remote.receive(message.index, cost)) this.#end(relay, "peer_gone", null);
      else local.deliver(relay, message.frame, () => remote.flow.handOver(cost));
    }
  }

  /** That node is gone, with its sessions. */
  nodeLeft(nodeId: string): void {
    for (const relay of [...this.#relays.values()]) {
      const isThere = relay.ends?.some((side) => side instanceof RemoteSide && side.nodeId === nodeId);
      if (isThere === true) this.#end(relay, "peer_gone", nodeId);
    }
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
    reader.deliver(relay, raw, () => sender.flow.handOver(cost));
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
    if (!sender.taken(ack.output.takenBytes)) this.#violated(relay);
    return true;
  }

  /** Call when the session's socket is gone. */
  ended(session: Session): void {
    for (const relay of [...this.#of(session)]) this.#end(relay, "peer_gone", session);
  }

  /** Call when the watches of somebody changed: a relay lasts only as long as both watch each other. */
  recheck(userId: UserId): void {
    for (const relay of [...this.#relays.values()]) {
      const isTheirs = relay.from === userId || relay.to === userId;
      if (isTheirs && !this.#isAllowed(relay)) this.#end(relay, "not_allowed", null);
    }
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
    const isMine = relay?.to === session.userId && relay.from === from && relay.ends === null;
    if (!isMine || !session.open || !this.#isAllowed(relay)) return gone();
    return this.#of(session).size >= RELAYS_PER_DEVICE_MAX ? tooMany() : null;
  }

  #isAllowed(relay: Relay): boolean {
    return this.#deps.presence.mutual(relay.from, relay.to);
  }

  #of(session: Session): ReadonlySet<Relay> {
    return this.#bySession.get(session) ?? new Set();
  }

  #add(session: Session, relay: Relay): void {
    this.#bySession.set(session, new Set([...this.#of(session), relay]));
  }

  #side(session: Session, relayId: RelayId): LocalSide {
    return new LocalSide(session, relayId, this.#budgets);
  }

  #begin(relay: Relay, opener: LocalSide, accepter: Side): void {
    relay.expiry?.dispose();
    relay.ends = [opener, accepter];
    opener.begin();
    if (accepter instanceof LocalSide) accepter.begin();
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

  /** `by` is the session, or the node, that need not be told. */
  #end(relay: Relay, reason: RelayEnd, by: Session | string | null): void {
    if (this.#relays.get(relay.id) !== relay) return;
    relay.expiry?.dispose();
    const pending = relay.opener === null ? [] : [this.#side(relay.opener, relay.id)];
    const sides = relay.ends ?? pending;
    for (const { session } of sides) {
      if (session === null) continue;
      this.#forget(relay, session);
      this.#deps.usage.release(session.userId);
    }
    for (const side of sides) side.end(relay, reason, by);
  }

  #forget(relay: Relay, session: Session): void {
    this.#relays.delete(relay.id);
    const left = new Set(this.#of(session));
    left.delete(relay);
    if (left.size === 0) this.#bySession.delete(session);
    else this.#bySession.set(session, left);
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
