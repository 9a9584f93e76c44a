import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import { Emitter } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import { LINKS_MAX } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import type { BulkFrame } from "#shared/wire/frame.ts";
import type { Sessions } from "../crypto/sessions.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { ConnectionReport } from "./connection.ts";
import { createRtcDriver, type RtcDriver } from "./driver.ts";
import type { AppMessage, Links } from "./links.ts";
import { PeerLink } from "./peer-link.ts";
import { SignalPort } from "./signal-port.ts";

export interface LinksDeps {
  readonly env: Env;
  readonly localUserId: UserId;
  readonly signaling: Pick<Signaling, "request" | "onSignal" | "onConnected">;
  readonly sessions: Pick<Sessions, "seal" | "open">;
  /** The account key: proves on each connection who we are. */
  readonly account: { sign(bytes: Uint8Array): Uint8Array<ArrayBuffer> };
  /** Null for somebody whose key is not known: no link is possible then. */
  accountKeyOf(peer: UserId): Uint8Array<ArrayBuffer> | null;
  verifyAccountSignature(accountKey: Uint8Array, bytes: Uint8Array, signature: Uint8Array): boolean;
  /** Accepted and not blocked. Nobody else learns a candidate (an address) of ours, or gets any answer. */
  mayLink(peer: UserId): boolean;
  /** stun:host:port, turn:user:password@host:port. */
  readonly iceServers?: readonly string[] | undefined;
  /** See {@link RtcDriver}: only safe on paths that are known to carry it. */
  readonly mtu?: number | undefined;
  readonly bindAddress?: string | undefined;
  /** Disposed together with the links. The real one by default. */
  readonly driver?: RtcDriver | undefined;
}

export const createLinks = (deps: LinksDeps): Links => new ConnectionManager(deps);

/** A listener may call us in the middle of a step: the machine then takes up the event only when that step is done. */
const goodbyeStarted = (): Promise<void> => Promise.resolve();

/** Everything that lives between one `enable` and the `disable` that ends it. */
interface Session extends Disposable {
  readonly port: SignalPort;
  readonly peers: Map<UserId, PeerLink>;
}

class ConnectionManager implements Links {
  readonly #deps: LinksDeps;
  readonly #driver: RtcDriver;
  readonly #owned = new DisposableStore();
  readonly #changed: Emitter<LinkView>;
  readonly #message: Emitter<{ peer: UserId; generation: Generation; message: AppMessage }>;
  readonly #bulk: Emitter<{ peer: UserId; generation: Generation; frame: BulkFrame; bytes: number }>;
  readonly #drained: Emitter<{ peer: UserId; generation: Generation }>;
  /** Survives disable, so that enable takes up the same peers again. */
  readonly #wanted = new Set<UserId>();
  /** Peers that the user let go; their offers are refused until `connect`. */
  readonly #declined = new Set<UserId>();
  /** Newest generation of each peer over all sessions: nothing of an older one can pass for a newer one. */
  readonly #generations = new Map<UserId, Generation>();
  readonly #firstGeneration: Generation;
  #session: Session | null = null;

  constructor(deps: LinksDeps) {
    this.#deps = deps;
    this.#driver = this.#owned.add(deps.driver ?? createRtcDriver(deps.env));
    // Offers must count up over restarts of the app, which keeps no state for them: so they start at the wall clock.
    this.#firstGeneration = deps.env.clock.now();
    const emitter = <T>(): Emitter<T> =>
      this.#owned.add(
        new Emitter<T>((error) => deps.env.log.error("link listener failed", { reason: messageOf(error) })),
      );
    this.#changed = emitter();
    this.#message = emitter();
    this.#bulk = emitter();
    this.#drained = emitter();
    this.#owned.add(
      deps.signaling.onConnected(() => {
        for (const peer of this.#session?.peers.values() ?? []) peer.dispatch({ type: "hint" });
      }),
    );
  }

  get onChanged() {
    return this.#changed.event;
  }
  get onMessage() {
    return this.#message.event;
  }
  get onBulk() {
    return this.#bulk.event;
  }
  get onDrained() {
    return this.#drained.event;
  }

  list(): LinkView[] {
    return [...(this.#session?.peers.values() ?? [])].map((peer) => peer.view);
  }

  view(peer: UserId): LinkView {
    return this.#session?.peers.get(peer)?.view ?? this.#idleView(peer);
  }

  #idleView(peer: UserId): LinkView {
    const generation = this.#generations.get(peer) ?? 0;
    return { peerId: peer, state: "disconnected", generation, path: null, rttMs: null, reason: null, staleEvents: 0 };
  }

  enable(): void {
    if (this.#session !== null || this.#owned.disposed) return;
    const peers = new Map<UserId, PeerLink>();
    const port = new SignalPort({
      log: this.#deps.env.log,
      signaling: this.#deps.signaling,
      sessions: this.#deps.sessions,
      mayLink: this.#deps.mayLink,
      onSignal: (peer, signal) => this.#onSignal(session, peer, signal),
    });
    const session: Session = {
      port,
      peers,
      dispose() {
        port.dispose();
        for (const peer of peers.values()) peer.dispose();
      },
    };
    this.#session = session;
    for (const peer of this.#wanted) this.#start(session, peer);
  }

  async disable(): Promise<void> {
    const session = this.#session;
    if (session === null) return;
    this.#session = null;
    this.#leaving.add(session);
    for (const peer of session.peers.values()) peer.dispatch({ type: "disconnect", reason: "disabled" });
    await goodbyeStarted();
    await Promise.all([...session.peers.values()].map((peer) => peer.left));
    this.#leaving.delete(session);
    session.dispose();
  }
  /** Sessions whose links still say goodbye. */
  readonly #leaving = new Set<Session>();

  connect(peer: UserId): void {
    this.#declined.delete(peer);
    this.#wanted.add(peer);
    if (this.#session !== null) this.#start(this.#session, peer);
  }

  async disconnect(peer: UserId): Promise<void> {
    this.#wanted.delete(peer);
    this.#declined.add(peer);
    const link = this.#session?.peers.get(peer);
    link?.dispatch({ type: "disconnect", reason: "closed" });
    await goodbyeStarted();
    await link?.left;
  }

  reconnect(peer: UserId): void {
    this.#session?.peers.get(peer)?.dispatch({ type: "reconnect" });
  }

  presenceHint(peer: UserId, online: boolean): void {
    if (online) this.#session?.peers.get(peer)?.dispatch({ type: "hint" });
  }

  send(peer: UserId, generation: Generation, message: AppMessage): boolean {
    return this.#session?.peers.get(peer)?.connected(generation)?.send(message) ?? false;
  }

  sendBulk(peer: UserId, generation: Generation, frame: Uint8Array): "sent" | "full" | "closed" {
    return this.#session?.peers.get(peer)?.connected(generation)?.sendBulk(frame) ?? "closed";
  }

  release(peer: UserId, generation: Generation, bytes: number): void {
    this.#session?.peers.get(peer)?.connected(generation)?.release(bytes);
  }

  #start(session: Session, peer: UserId): void {
    if (!this.#deps.mayLink(peer)) return;
    this.#linkOf(session, peer)?.dispatch({ type: "connect" });
  }

  #onSignal(session: Session, peer: UserId, signal: LinkSignal): void {
    if (this.#session !== session) return;
    if (!session.peers.has(peer)) {
      // An accepted contact takes the first step: that is as good as our own wish, unless we let this peer go.
      if (this.#declined.has(peer) || (signal.type !== "dial" && signal.type !== "offer")) return;
      this.#start(session, peer);
    }
    session.peers.get(peer)?.dispatch({ type: "signal", signal });
  }

  #linkOf(session: Session, peer: UserId): PeerLink | null {
    const existing = session.peers.get(peer);
    if (existing !== undefined) return existing;
    const accountKey = this.#deps.accountKeyOf(peer);
    if (accountKey === null) return null;
    // The old session's goodbye to this peer, if any, ends now: two connections to one peer are never in use together.
    for (const old of this.#leaving) old.peers.get(peer)?.dispose();
    const link = new PeerLink({
      env: this.#deps.env,
      driver: this.#driver,
      rtc: { iceServers: this.#deps.iceServers ?? [], mtu: this.#deps.mtu, bindAddress: this.#deps.bindAddress },
      localUserId: this.#deps.localUserId,
      peer,
      firstGeneration: this.#generations.get(peer) ?? this.#firstGeneration,
      keys: {
        sign: (bytes) => this.#deps.account.sign(bytes),
        verify: (bytes, signature) => this.#deps.verifyAccountSignature(accountKey, bytes, signature),
      },
      mayOpen: () => this.#connections(session) < LINKS_MAX,
      sendSignal: (signal, isCurrent) => session.port.send(peer, signal, isCurrent),
      onChanged: (view) => this.#onChanged(peer, view),
      onReport: (generation, report) => this.#onReport(peer, generation, report),
    });
    session.peers.set(peer, link);
    return link;
  }

  #connections(session: Session): number {
    let count = 0;
    for (const link of session.peers.values()) if (link.holdsConnection) count += 1;
    return count;
  }

  #onChanged(peer: UserId, view: LinkView): void {
    this.#generations.set(peer, Math.max(view.generation, this.#generations.get(peer) ?? 0));
    this.#changed.emit(view);
  }

  #onReport(
    peer: UserId,
    generation: Generation,
    report: Extract<ConnectionReport, { type: "message" | "bulk" | "drained" }>,
  ): void {
    if (report.type === "message") this.#message.emit({ peer, generation, message: report.message });
    else if (report.type === "bulk") this.#bulk.emit({ peer, generation, frame: report.frame, bytes: report.bytes });
    else this.#drained.emit({ peer, generation });
  }

  dispose(): void {
    const session = this.#session;
    this.#session = null;
    session?.dispose();
    for (const old of this.#leaving) old.dispose();
    this.#leaving.clear();
    this.#owned.dispose();
  }
}
