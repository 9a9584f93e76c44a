import { assert } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import {
  CLUSTER_CONFIRM_MS,
  CLUSTER_SNAPSHOT_DELAY_MS,
  CLUSTER_SNAPSHOT_SESSIONS,
  CLUSTER_START_TIMEOUT_MS,
} from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Session } from "../session.ts";
import type { Bus, BusListener } from "./bus.ts";
import type { Cluster, ClusterCounters, LocalNode } from "./cluster.ts";
import type { LogEvent, NodeCall, NodeMessage, RemoteSession } from "./messages.ts";

type Unnumbered<T> = T extends unknown ? Omit<T, "sequence"> : never;

/** A session of another node: it watches, and is told nothing by this one. */
interface Stub {
  readonly nodeId: string;
  readonly userId: UserId;
  readonly session: RemoteSession;
}

/** Another node that is alive. */
interface Peer {
  readonly stubs: Map<number, Stub>;
  /** Of the last event that came from it; null before the first. */
  sequence: number | null;
  /** During a snapshot: the sessions that it has not named yet. */
  unnamed: Set<number> | null;
  /** Its first snapshot is here, or it has had no session before this node heard of it. */
  complete: boolean;
}

/** Somebody waits until these nodes have taken in everything up to `confirm`. */
interface Waiting {
  readonly confirm: number;
  readonly missing: Set<string>;
  done(): void;
}

/**
 * Each node keeps, in memory, which sessions the others have and whom they watch, and tells its own clients what follows
 * from that. A node is the only one that speaks for its sessions, and its events arrive in their order, so that all nodes
 * come to agree whatever the order between nodes is. What was missed is made good by a snapshot: after a gap in the numbers,
 * after an interruption, and of a node that was taken for dead.
 */
export class Nodes implements Cluster, BusListener {
  readonly #bus: Bus;
  readonly #env: Env;
  readonly #own = new Map<Session, RemoteSession>();
  readonly #peers = new Map<string, Peer>();
  readonly #stubs = new Map<UserId, Set<Stub>>();
  readonly #calls = new Map<number, (value: unknown) => void>();
  readonly counters: ClusterCounters = { sent: 0, received: 0, lost: 0 };
  #waiting: Waiting[] = [];
  #local: LocalNode | null = null;
  #lastSession = 0;
  #lastSequence = 0;
  #lastConfirm = 0;
  #lastCall = 0;
  #snapshot: Disposable | null = null;
  #completed: () => void = () => undefined;

  constructor(bus: Bus, env: Env) {
    this.#bus = bus;
    this.#env = env;
  }

  get others(): number {
    return this.#peers.size;
  }

  get connected(): boolean {
    return this.#bus.connected;
  }

  /** Resolves when the sessions of all others are known here: before that, nobody may be told who is online. */
  async start(local: LocalNode): Promise<void> {
    this.#local = local;
    for (const nodeId of await this.#bus.start(this)) this.nodeJoined(nodeId);
    this.#append({ type: "hello" });
    if ([...this.#peers.values()].every((peer) => peer.complete)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#completed = resolve;
    const timer = this.#env.clock.setTimer(CLUSTER_START_TIMEOUT_MS, resolve);
    await promise;
    timer.dispose();
  }

  async close(): Promise<void> {
    this.#snapshot?.dispose();
    await this.#bus.close();
  }

  nodesOf(userId: UserId): readonly string[] {
    return [...new Set([...(this.#stubs.get(userId) ?? [])].map((stub) => stub.nodeId))];
  }

  // ---- What happens here ------------------------------------------------------------------------------------------

  entered(session: Session): Promise<void> {
    const { userId, deviceId } = session;
    const loggedInAt = this.#env.clock.now();
    const entry: RemoteSession = { sessionId: ++this.#lastSession, userId, deviceId, loggedInAt, watches: [] };
    this.#own.set(session, entry);
    this.#forgetEarlierLogins(entry);
    return this.#confirmed((confirm) => ({ type: "entered", session: entry, confirm }));
  }

  async watched(session: Session, watches: readonly UserId[]): Promise<void> {
    const entry = this.#own.get(session);
    if (entry === undefined) return;
    this.#own.set(session, { ...entry, watches });
    const { sessionId } = entry;
    const known = this.#confirmed((confirm) => ({ type: "watches", sessionId, watches, confirm }));
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = this.#env.clock.setTimer(CLUSTER_CONFIRM_MS, resolve);
    await Promise.race([known, late]);
    timer.dispose();
  }

  left(session: Session): void {
    const entry = this.#own.get(session);
    if (entry === undefined) return;
    this.#own.delete(session);
    this.#append({ type: "left", sessionId: entry.sessionId });
  }

  send(nodeId: string, message: NodeMessage): void {
    this.counters.sent++;
    this.#bus.send(nodeId, message);
  }

  call(nodeId: string, message: NodeCall, timeoutMs: number): Promise<unknown> {
    const call = ++this.#lastCall;
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const settle = (value: unknown): void => {
      this.#calls.delete(call);
      timer.dispose();
      resolve(value);
    };
    const timer = this.#env.clock.setTimer(timeoutMs, () => {
      this.counters.lost++;
      settle(undefined);
    });
    this.#calls.set(call, settle);
    this.send(nodeId, { ...message, call });
    return promise;
  }

  /** Resolves when every node that is alive now has taken the event in, or is gone. */
  #confirmed(build: (confirm: number) => Unnumbered<LogEvent>): Promise<void> {
    const confirm = ++this.#lastConfirm;
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting: Waiting = { confirm, missing: new Set(this.#peers.keys()), done: resolve };
    if (waiting.missing.size > 0) this.#waiting.push(waiting);
    else resolve();
    // When it cannot be written, the snapshot after the interruption tells it.
    this.#append(build(confirm), () => this.#settle(waiting));
    return promise;
  }

  #settle(waiting: Waiting): void {
    this.#waiting = this.#waiting.filter((other) => other !== waiting);
    waiting.done();
  }

  #confirmedBy(nodeId: string, upTo: number): void {
    for (const waiting of [...this.#waiting]) {
      if (waiting.confirm <= upTo && waiting.missing.delete(nodeId) && waiting.missing.size === 0) {
        this.#settle(waiting);
      }
    }
  }

  #append(event: Unnumbered<LogEvent>, failed?: () => void): void {
    this.counters.sent++;
    // Numbered before anything is awaited: the order of the numbers is that of the calls.
    this.#bus.append({ ...event, sequence: ++this.#lastSequence } as LogEvent).catch((error: unknown) => {
      this.counters.lost++;
      this.#env.log.warn("the other nodes could not be told", { error: messageOf(error) });
      failed?.();
    });
  }

  /** Several ask at once when a node has begun or Redis is back: one answer is for all. */
  #snapshotSoon(): void {
    this.#snapshot ??= this.#env.clock.setTimer(CLUSTER_SNAPSHOT_DELAY_MS, () => {
      this.#snapshot = null;
      const sessions = [...this.#own.values()];
      for (let at = 0; at === 0 || at < sessions.length; at += CLUSTER_SNAPSHOT_SESSIONS) {
        const part = sessions.slice(at, at + CLUSTER_SNAPSHOT_SESSIONS);
        const ends = at + CLUSTER_SNAPSHOT_SESSIONS >= sessions.length;
        this.#append({ type: "snapshot", begins: at === 0, ends, sessions: part });
      }
    });
  }

  // ---- What the bus says ------------------------------------------------------------------------------------------

  nodeJoined(nodeId: string): void {
    if (this.#peers.has(nodeId)) return;
    this.#env.log.info("another node is there", { nodeId });
    this.#peers.set(nodeId, { stubs: new Map(), sequence: null, unnamed: null, complete: false });
    this.send(nodeId, { type: "ask" });
  }

  nodeLeft(nodeId: string): void {
    const peer = this.#peers.get(nodeId);
    if (peer === undefined) return;
    this.#env.log.info("another node is gone", { nodeId });
    this.#peers.delete(nodeId);
    for (const waiting of [...this.#waiting]) {
      if (waiting.missing.delete(nodeId) && waiting.missing.size === 0) this.#settle(waiting);
    }
    this.#node.relays.nodeLeft(nodeId);
    for (const stub of [...peer.stubs.values()]) this.#remove(peer, stub);
    // It may have stored mail and ended before it told anybody.
    this.#node.mailboxes.wakeAll();
    this.#checkComplete();
  }

  interrupted(): void {
    this.#append({ type: "hello" });
    this.#snapshotSoon();
    this.#node.mailboxes.wakeAll();
  }

  logged(from: string, event: LogEvent): void {
    this.counters.received++;
    this.nodeJoined(from);
    const peer = this.#peers.get(from);
    assert(peer !== undefined, "a node whose event arrives has joined");
    const expected = (peer.sequence ?? 0) + 1;
    peer.sequence = event.sequence;
    if (event.sequence !== expected && peer.complete) {
      this.counters.lost++;
      this.send(from, { type: "ask" });
    }
    this.#take(from, peer, event);
    if ("confirm" in event) this.send(from, { type: "confirmed", confirm: event.confirm });
  }

  #take(from: string, peer: Peer, event: LogEvent): void {
    switch (event.type) {
      case "entered":
        this.#put(from, peer, event.session);
        break;
      case "watches": {
        const known = peer.stubs.get(event.sessionId)?.session;
        if (known !== undefined) this.#put(from, peer, { ...known, watches: event.watches });
        break;
      }
      case "left": {
        const stub = peer.stubs.get(event.sessionId);
        if (stub !== undefined) this.#remove(peer, stub);
        break;
      }
      case "hello":
        this.#snapshotSoon();
        break;
      case "snapshot":
        this.#takeSnapshot(from, peer, event);
        break;
    }
  }

  #takeSnapshot(from: string, peer: Peer, event: Extract<LogEvent, { type: "snapshot" }>): void {
    if (event.begins) peer.unnamed = new Set(peer.stubs.keys());
    for (const session of event.sessions) {
      peer.unnamed?.delete(session.sessionId);
      this.#put(from, peer, session);
    }
    if (!event.ends || peer.unnamed === null) return;
    for (const sessionId of peer.unnamed) {
      const stub = peer.stubs.get(sessionId);
      if (stub !== undefined) this.#remove(peer, stub);
    }
    peer.unnamed = null;
    peer.complete = true;
    this.#checkComplete();
  }

  #checkComplete(): void {
    if ([...this.#peers.values()].every((peer) => peer.complete)) this.#completed();
  }

  #put(nodeId: string, peer: Peer, session: RemoteSession): void {
    const known = peer.stubs.get(session.sessionId);
    const stub: Stub = { nodeId, userId: session.userId, session };
    const { presence, relays } = this.#node;
    peer.stubs.set(session.sessionId, stub);
    const all = this.#stubs.get(session.userId) ?? new Set();
    all.add(stub);
    this.#stubs.set(session.userId, all);
    presence.watch(stub, session.watches);
    if (known !== undefined) this.#forget(known);
    else this.#endEarlierLogins(nodeId, session);
    relays.recheck(session.userId);
  }

  #remove(peer: Peer, stub: Stub): void {
    peer.stubs.delete(stub.session.sessionId);
    // Its relays are ended by its node, which knows why.
    this.#forget(stub);
  }

  #forget(stub: Stub): void {
    const all = this.#stubs.get(stub.userId);
    all?.delete(stub);
    if (all?.size === 0) this.#stubs.delete(stub.userId);
    this.#node.presence.close(stub);
  }

  /** A device has one connection over all nodes; the node of the earlier one ends it as soon as it hears of the later. */
  #forgetEarlierLogins(latest: RemoteSession): void {
    for (const stub of [...(this.#stubs.get(latest.userId) ?? [])]) {
      const { deviceId, loggedInAt } = stub.session;
      const peer = this.#peers.get(stub.nodeId);
      if (stub.session === latest || deviceId !== latest.deviceId || loggedInAt > latest.loggedInAt) continue;
      if (peer !== undefined) this.#remove(peer, stub);
    }
  }

  #endEarlierLogins(nodeId: string, remote: RemoteSession): void {
    this.#forgetEarlierLogins(remote);
    for (const session of this.#node.online.of(remote.userId)) {
      const own = this.#own.get(session);
      if (own === undefined || own.deviceId !== remote.deviceId) continue;
      const isEarlier =
        own.loggedInAt < remote.loggedInAt || (own.loggedInAt === remote.loggedInAt && this.#bus.nodeId < nodeId);
      if (isEarlier) this.#node.replace(session);
    }
  }

  received(from: string, message: NodeMessage): void {
    this.counters.received++;
    const { online, mailboxes, relays } = this.#node;
    switch (message.type) {
      case "confirmed":
        this.#confirmedBy(from, message.confirm);
        break;
      case "ask":
        this.#snapshotSoon();
        break;
      case "wake":
        mailboxes.wakeHere(message.userId);
        break;
      case "acknowledged":
        mailboxes.acknowledgedHere(message.userId, message.ids);
        break;
      case "push":
        for (const session of online.of(message.userId)) {
          if (message.deviceId === null || session.deviceId === message.deviceId) session.push(message.push);
        }
        break;
      case "answer":
        this.#calls.get(message.call)?.(message.value);
        break;
      case "signal":
        void this.#signal(from, message);
        break;
      case "relayAccept":
        this.send(from, { type: "answer", call: message.call, value: relays.acceptedAt(from, message) });
        break;
      case "relayFrame":
      case "relayTaken":
      case "relayEnd":
        relays.fromNode(from, message);
        break;
    }
  }

  async #signal(from: string, { call, to, push }: Extract<NodeMessage, { type: "signal" }>): Promise<void> {
    const taken = await Promise.all(this.#node.online.of(to).map((session) => session.deliverSignal(push)));
    this.send(from, { type: "answer", call, value: taken.includes(true) });
  }

  get #node(): LocalNode {
    assert(this.#local !== null, "the node has begun");
    return this.#local;
  }
}
