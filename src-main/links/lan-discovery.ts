import { isIPv4 } from "node:net";
import { networkInterfaces } from "node:os";
import type { Disposable } from "#shared/base/disposable.ts";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import {
  LAN_COMPARISONS_PER_MINUTE,
  LAN_INTERFACES_MAX,
  LAN_PACKETS_PER_SECOND,
  LAN_RECORD_TTL_MS,
} from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { messageOf } from "#shared/base/result.ts";
import {
  initialLan,
  isKnownToLan,
  type LanEffect,
  type LanEvent,
  type LanHint,
  lanHints,
  stepLan,
} from "./lan-machine.ts";
import { epochAt, type LanPeer, lanRecords, newInstance, readLanAnswers, recognise, tagStrings } from "./lan-record.ts";
import { type LanSocket, type OpenLanSocket, openLanSocket } from "./lan-socket.ts";
import { isPrivateAddress } from "./sdp.ts";

export type { LanHint } from "./lan-machine.ts";

export interface LanDiscoveryDeps {
  readonly env: Env;
  readonly self: UserId;
  /** The contacts that may recognise us and whom we look for, the likeliest first; asked whenever it is needed. */
  peers(): Iterable<LanPeer>;
  /** UDP port that links can always be reached at; 0 when there is none. */
  readonly port: number;
  /** The real ones by default. */
  readonly openSocket?: OpenLanSocket | undefined;
  readonly interfaces?: (() => readonly string[]) | undefined;
}

/**
 * Looks for contacts on the local network and lets them find us, while it is started (which is the user's choice: it tells
 * the network that somebody uses Weir). What it finds are hints, from anybody who can send packets here: whoever answers at
 * such an address still has to prove the account on the link. See {@link LanPeer} and `lan-record.ts` for what is sent.
 */
export class LanDiscovery implements Disposable {
  readonly #deps: LanDiscoveryDeps;
  readonly #machine: MachineRunner<typeof initialLan | ReturnType<typeof stepLan>[0], LanEvent, LanEffect>;
  readonly #found: Emitter<LanHint>;
  readonly #lost: Emitter<LanHint>;
  readonly #packets: Budget;
  readonly #comparisons: Budget;
  #sockets = new Map<string, LanSocket>();
  #timer: Disposable | null = null;
  /** Of the name in use: the same for all of its announcements. */
  #strings: { readonly instance: string; readonly strings: readonly Uint8Array[] } | null = null;

  constructor(deps: LanDiscoveryDeps) {
    const { env } = deps;
    this.#deps = deps;
    const emitter = (): Emitter<LanHint> =>
      new Emitter((error) => env.log.error("LAN listener failed", { reason: messageOf(error) }));
    this.#found = emitter();
    this.#lost = emitter();
    this.#packets = new Budget(env, LAN_PACKETS_PER_SECOND, 1000);
    this.#comparisons = new Budget(env, LAN_COMPARISONS_PER_MINUTE, 60_000);
    this.#machine = new MachineRunner(
      initialLan,
      (state, event) => {
        const fresh = newInstance(env.random);
        return stepLan(state, { atMs: env.clock.monotonicMs(), random: env.random.number(), fresh, event });
      },
      (effect) => this.#run(effect),
    );
  }

  /** A contact was found at an address; again when the port changed. */
  get onFound(): Event<LanHint> {
    return this.#found.event;
  }
  get onLost(): Event<LanHint> {
    return this.#lost.event;
  }

  hints(): LanHint[] {
    return lanHints(this.#machine.state);
  }

  start(): void {
    if (this.#machine.state.name === "on") return;
    this.#openSockets();
    this.#machine.dispatch({ type: "start" });
  }

  stop(): void {
    this.#machine.dispatch({ type: "stop" });
    for (const socket of this.#sockets.values()) socket.dispose();
    this.#sockets.clear();
    this.#strings = null;
  }

  /** Contacts or networks are not those of before: other interfaces, another name, everybody is compared again. */
  renew(): void {
    if (this.#machine.state.name === "off") return;
    this.#openSockets();
    this.#machine.dispatch({ type: "renew" });
  }

  dispose(): void {
    this.stop();
    this.#found.dispose();
    this.#lost.dispose();
  }

  #openSockets(): void {
    const wanted = new Set((this.#deps.interfaces ?? localInterfaces)().slice(0, LAN_INTERFACES_MAX));
    for (const [address, socket] of this.#sockets) {
      if (wanted.has(address)) continue;
      socket.dispose();
      this.#sockets.delete(address);
    }
    for (const address of wanted) if (!this.#sockets.has(address)) this.#open(address);
  }

  #open(address: string): void {
    const { env, openSocket = openLanSocket } = this.#deps;
    const socket = openSocket(address, {
      onAsked: () => {
        if (this.#packets.take()) this.#machine.dispatch({ type: "asked" });
      },
      onAnswers: (from, answers) => {
        if (this.#packets.take()) this.#answers(from, answers);
      },
      onFailed: (reason) => {
        env.log.warn("LAN discovery is not possible on an interface", { reason });
        if (this.#sockets.get(address) === socket) this.#sockets.delete(address);
        socket.dispose();
      },
    });
    this.#sockets.set(address, socket);
  }

  #answers(address: string, answers: readonly unknown[]): void {
    // Multicast stays on its network; a packet from elsewhere is forged.
    if (!isIPv4(address) || !isPrivateAddress(address)) return;
    for (const item of readLanAnswers(answers)) {
      if (item.type === "gone") {
        this.#machine.dispatch({ type: "gone", instance: item.instance, address });
        continue;
      }
      const { record } = item;
      const known = isKnownToLan(this.#machine.state, record.instance, address);
      if (!known && !this.#comparisons.take()) continue;
      const { env, peers } = this.#deps;
      const peer = known ? null : recognise(record, peers.call(this.#deps), env.clock.now());
      const { instance, port } = record;
      this.#machine.dispatch({ type: "heard", instance, address, port, peer, ttlMs: LAN_RECORD_TTL_MS });
    }
  }

  #run(effect: LanEffect): void {
    switch (effect.type) {
      case "query":
        for (const socket of this.#sockets.values()) socket.query();
        return;
      case "announce":
        this.#respond(effect.instance, LAN_RECORD_TTL_MS);
        return;
      case "takeBack":
        // A name that nobody has heard need not be taken back.
        if (this.#strings?.instance === effect.instance) this.#respond(effect.instance, 0);
        return;
      case "found":
        this.#found.emit(effect.hint);
        return;
      case "lost":
        this.#lost.emit(effect.hint);
        return;
      case "wake":
        this.#wake(effect.atMs);
        return;
    }
  }

  #respond(instance: string, ttlMs: number): void {
    const { env, self, port } = this.#deps;
    if (this.#strings?.instance !== instance) {
      const strings = tagStrings(this.#deps.peers(), self, instance, epochAt(env.clock.now()), env.random);
      this.#strings = { instance, strings };
    }
    const records = lanRecords(instance, port, this.#strings.strings, ttlMs);
    for (const socket of this.#sockets.values()) socket.respond(records);
  }

  #wake(atMs: number | null): void {
    this.#timer?.dispose();
    const { clock } = this.#deps.env;
    const fire = (): void => this.#machine.dispatch({ type: "time" });
    this.#timer = atMs === null ? null : clock.setTimer(Math.max(0, atMs - clock.monotonicMs()), fire);
  }
}

/** So many in a window of time; counted from zero in the next. */
class Budget {
  readonly #env: Pick<Env, "clock">;
  readonly #most: number;
  readonly #windowMs: number;
  #endsAtMs = 0;
  #left = 0;

  constructor(env: Pick<Env, "clock">, most: number, windowMs: number) {
    this.#env = env;
    this.#most = most;
    this.#windowMs = windowMs;
  }

  take(): boolean {
    const nowMs = this.#env.clock.monotonicMs();
    if (nowMs >= this.#endsAtMs) {
      this.#endsAtMs = nowMs + this.#windowMs;
      this.#left = this.#most;
    }
    if (this.#left === 0) return false;
    this.#left -= 1;
    return true;
  }
}

/** IPv4 addresses of private networks; a public one has no neighbours that should hear of us. */
const localInterfaces = (): string[] =>
  Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, family, address }) => !internal && family === "IPv4" && isPrivateAddress(address))
    .map(({ address }) => address);

/** A candidate (RFC 8839) for an attempt to that contact; null when the hint names no port. */
export const hintCandidate = ({ address, port }: LanHint): string | null =>
  port === 0 ? null : `candidate:lan 1 UDP 2122317823 ${address} ${port} typ host`;
