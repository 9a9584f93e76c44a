import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import { Emitter } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import {
  ATTEMPTS_BURST,
  ATTEMPTS_PER_SECOND,
  FIN_TIMEOUT_MS,
  ICE_SERVERS_WAIT_MS,
  LINK_TEST_TIMEOUT_MS,
  LINKS_MAX,
} from "#shared/base/limits.ts";
import { messageOf, type Result } from "#shared/base/result.ts";
import type { LinkReport, LinkView, NetworkPolicy } from "#shared/ipc/views.ts";
import type { BulkFrame, OutgoingFrame } from "#shared/wire/frame.ts";
import type { Sessions } from "../crypto/sessions.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { CandidateDirectory } from "./candidate-directory.ts";
import { TokenBucket } from "./flow.ts";
import { LinkHistory } from "./link-history.ts";
import { LinkRecorder, type LinkRecording } from "./link-recorder.ts";
import type { AllowedVias } from "./link-state.ts";
import type { AppMessage, LinkManager } from "./links.ts";
import { type NatFinding, probeNat } from "./nat-probe.ts";
import { type EffectivePolicy, effectivePolicy, viasOf } from "./network-policy.ts";
import { NetworkWatch } from "./network-watch.ts";
import { type AppReport, PeerLink } from "./peer-link.ts";
import { type SignalEvent, SignalPort } from "./signal-port.ts";
import type { RelayDriver, TransportDriver } from "./transport.ts";

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
  /** Signals of, or to, this peer need a fresh session; `lost`: there is none at all. */
  onBrokenSession?(peer: UserId, lost: boolean): void;
  /** The contact's network policy, and whether we accepted this contact ourselves. Every way is open by default. */
  policyOf?(peer: UserId): { readonly policy: NetworkPolicy; readonly acceptedByMe: boolean };
  /** Where signals are left that cannot be delivered. */
  readonly directory?: CandidateDirectory | undefined;
  /** stun:host:port, turn:user:password@host:port; asked before every connection. */
  iceServers?(): Promise<Result<readonly string[]>>;
  /** See {@link TransportOptions}: only safe on paths that are known to carry it. */
  readonly mtu?: number | undefined;
  /** The same for a path within this machine, where a second attempt proves it; undefined: nothing of that kind is tried. */
  readonly localMtu?: number | undefined;
  /** Whether bulk frames may go over several associations of a link; true by default. */
  readonly stripes?: boolean | undefined;
  readonly bindAddress?: string | undefined;
  /** Both are disposed together with the links; without a relay links are direct or none. */
  readonly driver: TransportDriver;
  readonly relay?: RelayDriver | undefined;
  /** The addresses of this machine, in any form that changes when they do. Those of the system by default. */
  addresses?(): string;
  /** Asks servers how our address looks to them; the real network by default. */
  probeNat?(urls: readonly string[]): Promise<NatFinding>;
}

export const createLinks = (deps: LinksDeps): LinkManager => new ConnectionManager(deps);

/** A listener may call us in the middle of a step: the machine then takes up the event only when that step is done. */
const goodbyeStarted = (): Promise<void> => Promise.resolve();

/** Everything that lives between one `enable` and the `disable` that ends it. */
interface Session extends Disposable {
  readonly generation: Generation;
  readonly port: SignalPort;
  readonly peers: Map<UserId, PeerLink>;
}

class ConnectionManager implements LinkManager {
  readonly #deps: LinksDeps;
  readonly #driver: TransportDriver;
  readonly #owned = new DisposableStore();
  readonly #changed: Emitter<LinkView>;
  readonly #message: Emitter<{ peer: UserId; generation: Generation; message: AppMessage }>;
  readonly #bulk: Emitter<{ peer: UserId; generation: Generation; frame: BulkFrame; bytes: number }>;
  readonly #drained: Emitter<{ peer: UserId; generation: Generation }>;
  readonly #replaced: Emitter<{ peer: UserId; from: Generation; to: Generation }>;
  readonly #left: Emitter<{ peer: UserId; generation: Generation; complete: boolean }>;
  /** An attempt worked or came to its end. */
  readonly #settled: Emitter<{ peer: UserId; generation: Generation }>;
  /** Survives disable, so that enable takes up the same peers again. */
  readonly #wanted = new Set<UserId>();
  /** Peers that the user let go; their offers are refused until `connect`. */
  readonly #declined = new Set<UserId>();
  /** Newest generation of each peer over all sessions: nothing of an older one can pass for a newer one. */
  readonly #generations = new Map<UserId, Generation>();
  readonly #firstGeneration: Generation;
  /** Stale events of earlier sessions, which new links go on counting from. */
  readonly #stale = new Map<UserId, number>();
  readonly #histories = new Map<UserId, LinkHistory>();
  readonly #recorder = new LinkRecorder();
  readonly #attempts = new Map<UserId, TokenBucket>();
  #session: Session | null = null;
  #enables = 0;
  /** What the newest test found on this network. */
  #nat: NatFinding | null = null;
  /** A finding of an older network is worth nothing. */
  #networks = 0;

  constructor(deps: LinksDeps) {
    this.#deps = deps;
    this.#driver = this.#owned.add(deps.driver);
    if (deps.relay !== undefined) this.#owned.add(deps.relay);
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
    this.#replaced = emitter();
    this.#left = emitter();
    this.#settled = emitter();
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
  get onReplaced() {
    return this.#replaced.event;
  }
  get onLeft() {
    return this.#left.event;
  }

  list(): LinkView[] {
    return [...(this.#session?.peers.values() ?? [])].map((peer) => peer.view);
  }

  view(peer: UserId): LinkView {
    return this.#session?.peers.get(peer)?.view ?? this.#idleView(peer);
  }

  #idleView(peer: UserId): LinkView {
    const generation = this.#generations.get(peer) ?? 0;
    const staleEvents = this.#stale.get(peer) ?? 0;
    return { peerId: peer, state: "disconnected", generation, path: null, rttMs: null, reason: null, staleEvents };
  }

  report(peer: UserId): LinkReport {
    const link = this.#session?.peers.get(peer);
    const vias = this.#allowed(peer);
    const attempts = this.#histories.get(peer)?.list() ?? [];
    const found = link?.report ?? { selected: null, nat: "unknown", droppedMessages: 0, attempts };
    const nat = this.#nat;
    return {
      link: this.view(peer),
      policy: this.#deps.policyOf?.(peer).policy ?? "direct",
      directAllowed: this.#deps.mayLink(peer) && vias.rtc !== false,
      relayAllowed: this.#deps.mayLink(peer) && vias.relay,
      ...found,
      nat: nat === null || nat.nat === "unknown" ? found.nat : nat.nat,
      stun: nat === null ? null : { asked: nat.asked, answered: nat.answered },
    };
  }

  reports(): LinkReport[] {
    return [...(this.#session?.peers.keys() ?? [])].map((peer) => this.report(peer));
  }

  recording(): LinkRecording {
    return this.#recorder.recording();
  }

  async test(peer: UserId): Promise<LinkReport> {
    if (this.#session === null || !this.#deps.mayLink(peer)) return this.report(peer);
    await Promise.all([this.#tryAfresh(this.#session, peer), this.#probeNat(peer)]);
    return this.report(peer);
  }

  async #tryAfresh(session: Session, peer: UserId): Promise<void> {
    const link = session.peers.get(peer);
    const newest = link?.newestGeneration ?? this.#generations.get(peer) ?? 0;
    const settled = Promise.withResolvers<void>();
    const owned = new DisposableStore();
    owned.add(
      this.#settled.event(({ peer: who, generation }) => {
        if (who === peer && generation > newest) settled.resolve();
      }),
    );
    owned.add(this.#deps.env.clock.setTimer(LINK_TEST_TIMEOUT_MS, () => settled.resolve()));
    this.connect(peer);
    if (link?.view.state === "connected") link.dispatch({ type: "networkChanged" });
    else link?.dispatch({ type: "reconnect" });
    // From here on: who asks for an offer has no attempt of its own that could settle when nobody is there.
    owned.add(
      this.#changed.event(({ peerId, state, reason }) => {
        if (peerId === peer && state === "discovering" && reason === "peer_offline") settled.resolve();
      }),
    );
    await settled.promise;
    owned.dispose();
  }

  /** Only where a link may ask the same servers. */
  async #probeNat(peer: UserId): Promise<void> {
    if (this.#policy(peer) !== "direct" || this.#deps.iceServers === undefined) return;
    const network = this.#networks;
    const { env, bindAddress, probeNat: probe = (urls) => probeNat(env, urls, bindAddress) } = this.#deps;
    const finding = await probe(await this.#iceServers());
    if (network === this.#networks) this.#nat = finding;
  }

  #policy(peer: UserId): EffectivePolicy {
    const found = this.#deps.policyOf?.(peer);
    return found === undefined ? "direct" : effectivePolicy(found.policy, found.acceptedByMe);
  }

  #allowed(peer: UserId): AllowedVias {
    return { ...viasOf(this.#policy(peer), this.#deps.relay !== undefined), localMtu: this.#deps.localMtu };
  }

  enable(): void {
    if (this.#session !== null || this.#owned.disposed) return;
    const { env, signaling, sessions, mayLink } = this.#deps;
    this.#enables += 1;
    const generation = this.#enables;
    const peers = new Map<UserId, PeerLink>();
    const port = new SignalPort({
      clock: env.clock,
      log: env.log,
      generation,
      signaling,
      sessions,
      directory: this.#deps.directory ?? null,
      mayLink,
      linkState: (peer) => this.view(peer).state,
      onSignal: (event) => this.#onSignal(session, event),
      onStale: (peer) => this.#countStale(peer),
      onBroken: (peer, lost) => this.#deps.onBrokenSession?.(peer, lost),
    });
    const watch = new NetworkWatch(env, () => this.networkChanged(), this.#deps.addresses);
    const session: Session = {
      generation,
      port,
      peers,
      dispose: () => {
        watch.dispose();
        port.dispose();
        for (const [peer, link] of peers) {
          this.#stale.set(peer, link.view.staleEvents);
          link.dispose();
        }
      },
    };
    this.#session = session;
    for (const peer of this.#wanted) this.#start(session, peer);
  }

  #countStale(peer: UserId): void {
    const link = this.#session?.peers.get(peer);
    if (link === undefined) this.#stale.set(peer, (this.#stale.get(peer) ?? 0) + 1);
    else link.countStale();
  }

  async disable(patienceMs = FIN_TIMEOUT_MS): Promise<void> {
    const session = this.#session;
    if (session === null) return;
    this.#session = null;
    this.#leaving.add(session);
    for (const peer of session.peers.values()) peer.dispatch({ type: "disconnect", reason: "disabled" });
    await goodbyeStarted();
    await Promise.all([...session.peers.values()].map((peer) => peer.leave(patienceMs)));
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
    await link?.leave(FIN_TIMEOUT_MS);
  }

  reconnect(peer: UserId): void {
    this.#session?.peers.get(peer)?.dispatch({ type: "reconnect" });
  }

  networkChanged(): void {
    this.#networks += 1;
    this.#nat = null;
    for (const link of this.#session?.peers.values() ?? []) link.dispatch({ type: "networkChanged" });
  }

  policyChanged(peer: UserId): void {
    this.#session?.peers.get(peer)?.dispatch({ type: "policyChanged" });
  }

  presenceHint(peer: UserId, online: boolean): void {
    if (!online) return;
    this.#session?.port.cameOnline(peer);
    this.#session?.peers.get(peer)?.dispatch({ type: "hint" });
  }

  send(peer: UserId, generation: Generation, message: AppMessage): boolean {
    return this.#session?.peers.get(peer)?.connected(generation)?.send(message) ?? false;
  }

  takesHeldFrames(peer: UserId, generation: Generation): boolean {
    return this.#session?.peers.get(peer)?.connected(generation)?.takesHeldFrames ?? false;
  }

  sendBulk(peer: UserId, generation: Generation, frame: OutgoingFrame): "sent" | "full" | "closed" {
    return this.#session?.peers.get(peer)?.connected(generation)?.sendBulk(frame) ?? "closed";
  }

  release(peer: UserId, generation: Generation, bytes: number): void {
    this.#session?.peers.get(peer)?.connected(generation)?.release(bytes);
  }

  #start(session: Session, peer: UserId): void {
    if (!this.#deps.mayLink(peer)) return;
    this.#linkOf(session, peer)?.dispatch({ type: "connect" });
  }

  #onSignal(session: Session, { peer, signal, generation }: SignalEvent): void {
    if (this.#session?.generation !== generation) {
      this.#countStale(peer);
      return;
    }
    // Both make us open a connection. Beyond the budget they are lost like any other signal, and honest peers repeat them.
    if ((signal.type === "dial" || signal.type === "offer") && !this.#mayAttempt(peer)) {
      this.#countStale(peer);
      return;
    }
    if (!session.peers.has(peer)) {
      // An accepted contact takes the first step: that is as good as our own wish, unless we let this peer go.
      if (this.#declined.has(peer) || (signal.type !== "dial" && signal.type !== "offer")) return;
      this.#start(session, peer);
    }
    session.peers.get(peer)?.dispatch({ type: "signal", signal });
  }

  #mayAttempt(peer: UserId): boolean {
    const atMs = this.#deps.env.clock.monotonicMs();
    const budget = this.#attempts.get(peer) ?? new TokenBucket(ATTEMPTS_BURST, ATTEMPTS_PER_SECOND, atMs);
    this.#attempts.set(peer, budget);
    return budget.take(1, atMs);
  }

  #linkOf(session: Session, peer: UserId): PeerLink | null {
    const existing = session.peers.get(peer);
    if (existing !== undefined) return existing;
    const { env, localUserId, mtu, bindAddress, account, verifyAccountSignature, relay } = this.#deps;
    const accountKey = this.#deps.accountKeyOf(peer);
    if (accountKey === null) return null;
    // The old session's goodbye to this peer, if any, ends now: two connections to one peer are never in use together.
    for (const old of this.#leaving) old.peers.get(peer)?.dispose();
    const relayToward = relay?.toward(peer) ?? null;
    const history = this.#histories.get(peer) ?? new LinkHistory();
    this.#histories.set(peer, history);
    const link: PeerLink = new PeerLink({
      env,
      driver: (via) => (via === "rtc" ? this.#driver : relayToward),
      rtc: { iceServers: [], mtu, bindAddress },
      canStripe: this.#deps.stripes !== false,
      iceServers: this.#deps.iceServers === undefined ? null : () => this.#iceServers(),
      localUserId,
      peer,
      firstGeneration: this.#generations.get(peer) ?? this.#firstGeneration,
      firstStaleEvents: this.#stale.get(peer) ?? 0,
      keys: {
        sign: (bytes) => account.sign(bytes),
        verify: (bytes, signature) => verifyAccountSignature(accountKey, bytes, signature),
      },
      history,
      recorder: this.#recorder,
      // A second attempt of a link that stands is bounded by its link.
      mayOpen: () => link.holdsConnection || this.#connections(session) < LINKS_MAX,
      policy: () => this.#policy(peer),
      allowed: () => this.#allowed(peer),
      sendSignal: (signal, isCurrent) => session.port.send(peer, signal, isCurrent),
      onChanged: (view) => this.#onChanged(peer, link, view),
      onReplaced: (from, to) => this.#replaced.emit({ peer, from, to }),
      onLeft: (generation, complete) => this.#left.emit({ peer, generation, complete }),
      onSettled: (generation) => this.#settled.emit({ peer, generation }),
      onReport: (generation, report) => this.#onReport(peer, generation, report),
    });
    session.peers.set(peer, link);
    return link;
  }

  /** A server that does not say for a while which servers to ask must not keep a link within the local network waiting. */
  async #iceServers(): Promise<readonly string[]> {
    const { env, iceServers } = this.#deps;
    const none = Promise.withResolvers<readonly string[]>();
    const timer = env.clock.setTimer(ICE_SERVERS_WAIT_MS, () => none.resolve([]));
    const asked = async (): Promise<readonly string[]> => {
      const servers = await iceServers?.();
      return servers?.ok === true ? servers.value : [];
    };
    try {
      return await Promise.race([asked(), none.promise]);
    } catch (error) {
      env.log.error("asking for servers failed", { reason: messageOf(error) });
      return [];
    } finally {
      timer.dispose();
    }
  }

  #connections(session: Session): number {
    let count = 0;
    for (const link of session.peers.values()) if (link.holdsConnection) count += 1;
    return count;
  }

  #onChanged(peer: UserId, link: PeerLink, view: LinkView): void {
    this.#generations.set(peer, Math.max(link.newestGeneration, this.#generations.get(peer) ?? 0));
    this.#changed.emit(view);
  }

  #onReport(peer: UserId, generation: Generation, report: AppReport): void {
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
