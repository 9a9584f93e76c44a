import { assertNever } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import { type ConnectionReport, LinkConnection } from "./connection.ts";
import type { RtcDriver, RtcOptions } from "./driver.ts";
import type { HandshakeKeys } from "./handshake.ts";
import {
  currentAttempt,
  initialLink,
  type LinkEffect,
  type LinkEvent,
  type LinkInput,
  type LinkMachineState,
  stepLink,
} from "./link-machine.ts";
import type { SignalOutcome } from "./signal-port.ts";

export interface PeerLinkDeps {
  readonly env: Env;
  readonly driver: RtcDriver;
  readonly rtc: Omit<RtcOptions, "bulkLowBytes">;
  readonly localUserId: UserId;
  readonly peer: UserId;
  readonly firstGeneration: Generation;
  readonly keys: HandshakeKeys;
  /** False when this many connections are open already: the attempt then fails and is repeated later. */
  mayOpen(): boolean;
  sendSignal(signal: LinkSignal, isCurrent: () => boolean): Promise<SignalOutcome>;
  onChanged(view: LinkView): void;
  /** What the application gets to see of a connection. */
  onReport(generation: Generation, report: Extract<ConnectionReport, { type: "message" | "bulk" | "drained" }>): void;
}

/**
 * Runs the link machine of one peer: its effects become connections, timers and signals, and what comes of them goes
 * back in as events. Holds at most one connection, besides one that is saying goodbye.
 */
export class PeerLink implements Disposable {
  readonly #deps: PeerLinkDeps;
  readonly #machine: MachineRunner<LinkMachineState, LinkInput, LinkEffect>;
  #connection: LinkConnection | null = null;
  /** Says goodbye; closed at once when a new connection is made, so that two are never in use together. */
  #leaving: LinkConnection | null = null;
  #timer: Disposable | null = null;
  #shown: LinkView | null = null;
  #disposed = false;

  constructor(deps: PeerLinkDeps) {
    this.#deps = deps;
    const role = deps.localUserId < deps.peer ? "dialer" : "answerer";
    this.#machine = new MachineRunner(initialLink(role, deps.firstGeneration), stepLink, (effect) => this.#run(effect));
  }

  get view(): LinkView {
    const { phase, generation, reason, staleEvents } = this.#machine.state;
    const stats = this.#connection?.stats;
    return {
      peerId: this.#deps.peer,
      state: phase.name,
      generation,
      path: phase.name === "connected" ? (stats?.path ?? null) : null,
      rttMs: phase.name === "connected" ? (stats?.rttMs ?? null) : null,
      reason,
      staleEvents,
    };
  }

  get holdsConnection(): boolean {
    return this.#connection !== null;
  }

  /** Resolves when a connection that is saying goodbye is gone. */
  get left(): Promise<void> {
    return this.#leaving?.ended ?? Promise.resolve();
  }

  dispatch(event: LinkEvent): void {
    if (this.#disposed) return;
    const { clock, random } = this.#deps.env;
    this.#machine.dispatch({ atMs: clock.monotonicMs(), random: random.number(), event });
    this.#publish();
  }

  /** The connection that the application may use, if it is of this generation. */
  connected(generation: Generation): LinkConnection | null {
    const { phase } = this.#machine.state;
    if (phase.name !== "connected" || phase.attempt.generation !== generation) return null;
    return this.#connection;
  }

  #publish(): void {
    const view = this.view;
    const shown = this.#shown;
    const same =
      shown !== null &&
      shown.state === view.state &&
      shown.generation === view.generation &&
      shown.path === view.path &&
      shown.reason === view.reason &&
      Math.round(shown.rttMs ?? -1) === Math.round(view.rttMs ?? -1);
    if (same) return;
    this.#shown = view;
    this.#deps.onChanged(view);
  }

  #run(effect: LinkEffect): void {
    // A listener disposed of us in the middle of a step.
    if (this.#disposed) return;
    switch (effect.type) {
      case "openDialing":
        this.#open(effect.generation, effect.generation, (connection) => connection.dial());
        return;
      case "openAnswering":
        this.#open(effect.generation, effect.offerGeneration, (connection) => connection.answer(effect.sdp));
        return;
      case "acceptAnswer":
        this.#of(effect.generation)?.acceptAnswer(effect.sdp);
        return;
      case "addCandidate":
        this.#of(effect.generation)?.addCandidate(effect.candidate, effect.mid);
        return;
      case "startHandshake":
        this.#of(effect.generation)?.startHandshake();
        return;
      case "probe":
        this.#of(effect.generation)?.probe();
        return;
      case "abandon":
        this.#of(effect.generation)?.close();
        this.#connection = null;
        return;
      case "finish":
        this.#finish(effect.generation, effect.reason);
        return;
      case "sendSignal":
        void this.#send(effect.signal, effect.token);
        return;
      case "setTimer":
        this.#timer?.dispose();
        this.#timer = this.#deps.env.clock.setTimer(effect.delayMs, () =>
          this.dispatch({ type: "timer", token: effect.token }),
        );
        return;
      case "clearTimer":
        this.#timer?.dispose();
        this.#timer = null;
        return;
      case "fault":
        this.#deps.env.log.warn("link fault", { peer: this.#deps.peer, what: effect.what });
        return;
      case "changed":
        this.#publish();
        return;
      default:
        assertNever(effect, "link effect");
    }
  }

  #of(generation: Generation): LinkConnection | null {
    return this.#connection?.generation === generation ? this.#connection : null;
  }

  #open(generation: Generation, offerGeneration: Generation, start: (connection: LinkConnection) => void): void {
    this.#leaving?.close();
    this.#connection?.close();
    this.#connection = null;
    if (!this.#deps.mayOpen()) {
      this.dispatch({ type: "lost", generation, reason: "too_many_links" });
      return;
    }
    const connection = new LinkConnection({
      ...this.#deps,
      generation,
      offerGeneration,
      report: (report) => this.#onReport(generation, report),
    });
    this.#connection = connection;
    start(connection);
  }

  #finish(generation: Generation, reason: string): void {
    const connection = this.#of(generation);
    if (connection === null) return;
    this.#connection = null;
    this.#leave(connection);
    connection.finish(reason);
  }

  #leave(connection: LinkConnection): void {
    this.#leaving = connection;
    void connection.ended.then(() => {
      if (this.#leaving === connection) this.#leaving = null;
    });
  }

  async #send(signal: LinkSignal, token: number | null): Promise<void> {
    // Until its turn comes the attempt may be over; only its farewell still makes sense then.
    const isCurrent = (): boolean => {
      if (this.#disposed) return false;
      if (signal.type === "close" || signal.type === "dial") return true;
      return currentAttempt(this.#machine.state.phase)?.offerGeneration === signal.generation;
    };
    const outcome = await this.#deps.sendSignal(signal, isCurrent);
    if (token !== null) this.dispatch({ type: "announced", token, outcome });
  }

  #onReport(generation: Generation, report: ConnectionReport): void {
    switch (report.type) {
      case "message":
      case "bulk":
      case "drained":
        if (!this.#disposed) this.#deps.onReport(generation, report);
        return;
      case "measured":
        this.#publish();
        return;
      case "peerFin": {
        const connection = this.#of(generation);
        if (connection !== null) {
          this.#connection = null;
          this.#leave(connection);
        }
        this.dispatch({ type: "peerFin", generation });
        return;
      }
      case "lost":
        this.dispatch({ type: "lost", generation, reason: report.reason });
        return;
      case "localDescription":
        this.dispatch({ type: "localDescription", generation, sdp: report.sdp });
        return;
      case "localCandidate":
        this.dispatch({ type: "localCandidate", generation, candidate: report.candidate, mid: report.mid });
        return;
      case "channelsOpen":
        this.dispatch({ type: "channelsOpen", generation });
        return;
      case "proven":
        this.dispatch({ type: "proven", generation });
        return;
      default:
        assertNever(report, "connection report");
    }
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#timer?.dispose();
    this.#timer = null;
    this.#leaving?.close();
    this.#connection?.close();
    this.#leaving = null;
    this.#connection = null;
  }
}
