import { assertNever } from "#shared/base/assert.ts";
import { toBase64Url } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import { LINKS_LEAVING_MAX } from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import type { LinkAttemptView, LinkReport, LinkView } from "#shared/ipc/views.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import { type ConnectionReport, LinkConnection } from "./connection.ts";
import type { HandshakeKeys } from "./handshake.ts";
import type { LinkHistory } from "./link-history.ts";
import { stepLink } from "./link-machine.ts";
import type { LinkRecorder } from "./link-recorder.ts";
import {
  type AllowedVias,
  type Attempt,
  currentAttempt,
  initialLink,
  type LinkEffect,
  type LinkEvent,
  type LinkInput,
  type LinkMachineState,
  type LinkVia,
  shownGeneration,
  shownPath,
} from "./link-state.ts";
import { admits, type EffectivePolicy } from "./network-policy.ts";
import { natOf } from "./sdp.ts";
import type { SignalOutcome } from "./signal-port.ts";
import type { TransportDriver, TransportOptions } from "./transport.ts";

export interface PeerLinkDeps {
  readonly env: Env;
  /** Null where there is none of that kind. */
  driver(via: LinkVia): TransportDriver | null;
  readonly rtc: Omit<TransportOptions, "bulkLowBytes">;
  readonly canStripe: boolean;
  readonly iceServers: (() => Promise<readonly string[]>) | null;
  readonly localUserId: UserId;
  readonly peer: UserId;
  readonly firstGeneration: Generation;
  readonly firstStaleEvents: number;
  readonly keys: HandshakeKeys;
  readonly history: LinkHistory;
  readonly recorder: LinkRecorder;
  /** False when this many connections are open already: the attempt then fails and is repeated later. */
  mayOpen(): boolean;
  policy(): EffectivePolicy;
  allowed(): AllowedVias;
  sendSignal(signal: LinkSignal, isCurrent: () => boolean): Promise<SignalOutcome>;
  onChanged(view: LinkView): void;
  /** Told right before `onChanged`: see {@link Links.onReplaced}. */
  onReplaced(from: Generation, to: Generation): void;
  onLeft(generation: Generation, complete: boolean): void;
  /** The attempt of this generation works now, or is over. */
  onSettled(generation: Generation): void;
  /** What the application gets to see of a connection. */
  onReport(generation: Generation, report: AppReport): void;
}

/** Two runs of a program must not have the same by chance. */
const RUN_ID_BYTES = 8;

export type AppReport = Extract<ConnectionReport, { type: "message" | "bulk" | "drained" }>;

/**
 * Runs the link machine of one peer: its effects become connections, timers and signals, and what comes of them goes
 * back in as events. Holds at most two connections, the link and an attempt at the next one, besides those that are
 * saying goodbye.
 */
export class PeerLink implements Disposable {
  readonly #deps: PeerLinkDeps;
  /** Another one for each contact, so that nobody can tell from it whom they have in common. */
  readonly #runId: string;
  readonly #machine: MachineRunner<LinkMachineState, LinkInput, LinkEffect>;
  readonly #connections = new Map<Generation, LinkConnection>();
  /** They say goodbye, oldest first. */
  readonly #leaving = new Set<LinkConnection>();
  readonly #timers = new Map<string, Disposable>();
  #shown: LinkView | null = null;
  #disposed = false;

  constructor(deps: PeerLinkDeps) {
    this.#deps = deps;
    this.#runId = toBase64Url(deps.env.random.bytes(RUN_ID_BYTES));
    const role = deps.localUserId < deps.peer ? "dialer" : "answerer";
    const initial = { ...initialLink(role, deps.firstGeneration), staleEvents: deps.firstStaleEvents };
    const record = deps.recorder.add(initial);
    const step = (state: LinkMachineState, input: LinkInput): ReturnType<typeof stepLink> => {
      const stepped = stepLink(state, input);
      record(input, stepped[0]);
      return stepped;
    };
    this.#machine = new MachineRunner(initial, step, (effect) => this.#run(effect));
  }

  get view(): LinkView {
    const { state } = this.#machine;
    return this.#viewAs(state.phase.name, shownGeneration(state), state.reason);
  }

  #viewAs(state: LinkView["state"], generation: Generation, reason: string | null): LinkView {
    const stats = state === "connected" ? this.#connections.get(generation)?.stats : undefined;
    const path = shownPath(stats?.path ?? null);
    return {
      peerId: this.#deps.peer,
      state,
      generation,
      path,
      ...(path === "relay" && { relay: stats?.via === "relay" ? "server" : "turn" }),
      rttMs: stats?.rttMs ?? null,
      reason,
      staleEvents: this.#machine.state.staleEvents,
    };
  }

  /** Newest of all attempts, shown or not. */
  get newestGeneration(): Generation {
    return this.#machine.state.generation;
  }

  get holdsConnection(): boolean {
    return this.#connections.size > 0;
  }

  /** Lets everything go that says goodbye, and resolves when it is gone. */
  leave(patienceMs: number): Promise<void> {
    for (const connection of this.#leaving) connection.hurry(patienceMs);
    return Promise.all([...this.#leaving].map((connection) => connection.ended)).then(() => undefined);
  }

  get report(): Pick<LinkReport, "selected" | "nat" | "droppedMessages"> & { attempts: LinkAttemptView[] } {
    this.#recordCandidates();
    const stats = this.#current?.stats;
    const all = [...this.#connections.values()].map((connection) => connection.stats);
    return {
      selected: stats?.selected ?? null,
      nat: natOf(all.flatMap(({ localCandidates }) => localCandidates)),
      droppedMessages: stats?.droppedMessages ?? 0,
      attempts: this.#deps.history.list(),
    };
  }

  get #current(): LinkConnection | null {
    const { phase } = this.#machine.state;
    return phase.name === "connected" ? (this.#connections.get(phase.attempt.generation) ?? null) : null;
  }

  dispatch(event: LinkEvent): void {
    if (this.#disposed) return;
    const { clock, random } = this.#deps.env;
    const allowed = this.#deps.allowed();
    this.#machine.dispatch({ atMs: clock.monotonicMs(), random: random.number(), allowed, event });
    this.#publish(this.view);
  }

  /** Something of an older session or connection came for this peer. */
  countStale(): void {
    this.dispatch({ type: "staleSeen" });
  }

  /** The connection that the application may use, if it is of this generation. */
  connected(generation: Generation): LinkConnection | null {
    const connection = this.#current;
    return connection?.generation === generation ? connection : null;
  }

  #publish(view: LinkView): void {
    const shown = this.#shown;
    const same =
      shown !== null &&
      shown.state === view.state &&
      shown.generation === view.generation &&
      shown.path === view.path &&
      shown.relay === view.relay &&
      shown.reason === view.reason &&
      Math.round(shown.rttMs ?? -1) === Math.round(view.rttMs ?? -1);
    if (same || this.#disposed) return;
    this.#shown = view;
    if (shown?.state === "connected" && view.state === "connected" && this.#isReplaced(shown, view))
      this.#deps.onReplaced(shown.generation, view.generation);
    this.#deps.onChanged(view);
  }

  #run(effect: LinkEffect): void {
    // A listener disposed of us in the middle of a step.
    if (this.#disposed) return;
    switch (effect.type) {
      case "openDialing":
        this.#open(effect, effect.generation, (connection) => connection.dial());
        return;
      case "openAnswering":
        this.#open(effect, effect.offerGeneration, (connection) => connection.answer(effect.sdp));
        return;
      case "acceptAnswer":
        this.#connections.get(effect.generation)?.acceptAnswer(effect.sdp);
        return;
      case "addCandidate":
        this.#connections.get(effect.generation)?.addCandidate(effect.candidate, effect.mid);
        return;
      case "startHandshake":
        this.#connections.get(effect.generation)?.startHandshake();
        return;
      case "probe":
        this.#connections.get(effect.generation)?.probe();
        return;
      case "abandon":
        this.#forget(effect.generation)?.close();
        return;
      case "finish":
        this.#finish(effect.generation, effect.reason);
        return;
      case "sendSignal":
        void this.#send(effect.signal, effect.token);
        return;
      case "setTimer":
        this.#timers.get(effect.slot)?.dispose();
        this.#timers.set(
          effect.slot,
          this.#deps.env.clock.setTimer(effect.delayMs, () => this.dispatch({ type: "timer", token: effect.token })),
        );
        return;
      case "clearTimer":
        this.#timers.get(effect.slot)?.dispose();
        this.#timers.delete(effect.slot);
        return;
      case "fault":
        this.#deps.env.log.warn("link fault", { peer: this.#deps.peer, what: effect.what });
        return;
      case "attemptWorks":
        this.#recordCandidates();
        this.#deps.history.works(effect.attempt.generation, effect.path, this.#since(effect.attempt));
        this.#deps.onSettled(effect.attempt.generation);
        return;
      case "attemptEnded":
        this.#deps.history.ended(effect.attempt.generation, effect.end, effect.reason, this.#since(effect.attempt));
        this.#deps.onSettled(effect.attempt.generation);
        return;
      case "changed":
        this.#publish(this.#viewAs(effect.to, effect.generation, effect.reason));
        return;
      default:
        assertNever(effect, "link effect");
    }
  }

  #since(attempt: Attempt): number {
    return Math.round(this.#deps.env.clock.monotonicMs() - attempt.startedAtMs);
  }

  #recordCandidates(): void {
    for (const [generation, { stats }] of this.#connections) {
      const local = [...new Set(stats.localCandidates.map(({ type }) => type))].sort();
      this.#deps.history.saw(generation, { local, remote: stats.remoteTypes, servers: stats.servers });
      this.#deps.history.measured(generation, stats.path);
    }
  }

  #forget(generation: Generation): LinkConnection | null {
    const connection = this.#connections.get(generation);
    this.#recordCandidates();
    this.#connections.delete(generation);
    return connection ?? null;
  }

  #open(
    { generation, via, mtu }: Pick<Attempt, "generation" | "via" | "mtu">,
    offerGeneration: Generation,
    start: (connection: LinkConnection) => void,
  ): void {
    this.#deps.history.began({ generation, via }, this.#deps.env.clock.now());
    const driver = this.#deps.driver(via);
    if (driver === null || !this.#deps.mayOpen()) {
      this.dispatch({ type: "lost", generation, reason: driver === null ? "no_relay" : "too_many_links" });
      return;
    }
    const policy = this.#deps.policy();
    const { iceServers } = this.#deps;
    const rtc = mtu === undefined ? this.#deps.rtc : { ...this.#deps.rtc, mtu };
    // Asking a STUN server, or a TURN server for an address, tells it and the peer where we are.
    const asks = via === "rtc" && policy === "direct";
    const connection = new LinkConnection({
      ...this.#deps,
      driver,
      via,
      rtc: asks ? rtc : { ...rtc, iceServers: [] },
      iceServers: asks ? iceServers : null,
      runId: this.#runId,
      provenBytes: mtu ?? 0,
      canStripe: via === "rtc" && this.#deps.canStripe,
      admits: (candidate) => via === "relay" || admits(policy, candidate),
      generation,
      offerGeneration,
      report: (report) => this.#onReport(generation, report),
    });
    this.#connections.set(generation, connection);
    start(connection);
  }

  #finish(generation: Generation, reason: string): void {
    const connection = this.#forget(generation);
    if (connection === null) return;
    this.#leave(connection);
    connection.finish(reason);
  }

  /** In order, and the peer is still the same run of its program: a new one knows nothing of what was open. */
  #isReplaced(from: LinkView, to: LinkView): boolean {
    const old = [...this.#leaving].find(({ generation }) => generation === from.generation);
    return old?.isClosing === true && old.peerRunId === (this.#connections.get(to.generation)?.peerRunId ?? null);
  }

  #leave(connection: LinkConnection): void {
    this.#leaving.add(connection);
    const [oldest] = this.#leaving;
    if (this.#leaving.size > LINKS_LEAVING_MAX) oldest?.close();
    void connection.ended.then(({ complete }) => {
      this.#leaving.delete(connection);
      if (!this.#disposed) this.#deps.onLeft(connection.generation, complete);
    });
  }

  async #send(signal: LinkSignal, token: number | null): Promise<void> {
    // Until its turn comes the attempt may be over; only its farewell still makes sense then.
    const isCurrent = (): boolean => {
      if (this.#disposed) return false;
      if (signal.type === "close" || signal.type === "dial") return true;
      const { phase, next } = this.#machine.state;
      const isOf = (attempt: Attempt | null | undefined): boolean => attempt?.offerGeneration === signal.generation;
      return isOf(currentAttempt(phase)) || isOf(next?.attempt);
    };
    const outcome = await this.#deps.sendSignal(signal, isCurrent);
    if (token !== null) this.dispatch({ type: "announced", token, outcome });
  }

  #onReport(generation: Generation, report: ConnectionReport): void {
    const path = this.#connections.get(generation)?.stats.path ?? null;
    switch (report.type) {
      case "message":
      case "bulk":
      case "drained":
        if (!this.#disposed) this.#deps.onReport(generation, report);
        return;
      case "measured":
        if (this.#connections.has(generation)) this.dispatch({ type: "measured", generation, path });
        return;
      case "peerFin": {
        const connection = this.#forget(generation);
        if (connection !== null) this.#leave(connection);
        this.dispatch({ type: "peerFin", generation });
        return;
      }
      case "localDescription":
        this.dispatch({ type: "localDescription", generation, sdp: report.sdp });
        return;
      case "localCandidate":
        this.dispatch({ type: "localCandidate", generation, candidate: report.candidate, mid: report.mid });
        return;
      case "channelsOpen":
      case "proven":
        this.dispatch({ type: report.type, generation, path });
        return;
      case "confirmed":
      case "unsteady":
        // Of a connection that is saying goodbye neither matters.
        if (this.#connections.has(generation)) this.dispatch({ type: report.type, generation });
        return;
      case "lost":
        this.dispatch({ type: "lost", generation, reason: report.reason });
        return;
      default:
        assertNever(report, "connection report");
    }
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const timer of this.#timers.values()) timer.dispose();
    this.#timers.clear();
    for (const connection of [...this.#leaving, ...this.#connections.values()]) connection.close();
    this.#leaving.clear();
    this.#connections.clear();
  }
}
