import { createSocket, type Socket } from "node:dgram";
import type { LinkTransport, TransportDriver, TransportEvent } from "../../../src-main/links/transport.ts";
import { CLEAR, type Impairment, Lane, Schedule } from "./impairment.ts";

/** Large enough that only the impairment loses packets. The system may grant less. */
const SOCKET_BUFFER_BYTES = 8 * 1024 * 1024;
const LOOPBACK = "127.0.0.1";
/** Whom the relay leads to counts as another machine of the local network. */
const ELSEWHERE = "10.255.255.1";

export interface UdpCounts {
  arrived: number;
  delivered: number;
  /** By the impairment's loss or its full queue. */
  lost: number;
  blackedOut: number;
}

interface Endpoint {
  readonly address: string;
  readonly port: number;
  /** What the others see in its place: packets to this socket go to the endpoint, and its own leave by it. */
  readonly socket: Socket;
  readonly ready: Promise<void>;
  /** Of the packets that go to it. */
  readonly lane: Lane;
}

/**
 * A bad network in user space, for ICE: candidates are rewritten so that two peers (or more) on this machine reach each
 * other only through the relay. Like a NAT with one public port for each real one, so it needs to know nothing of who
 * talks to whom, and new connections on new ports just go on. The fate of packets depends on the seed and on the order
 * in which the endpoints were first seen, not on time; see {@link Lane}.
 *
 *   const relay = new UdpRelay({ seed: 1, impairment: { lossRate: 0.01, delayMs: 25 } });
 *   createLinks({ ..., bindAddress: "127.0.0.1", driver: throughRelay(createRtcDriver(env), relay) })
 *
 * Between processes, where one process owns the relay, pass the candidates of both through `rewrite` on their way.
 */
export class UdpRelay implements AsyncDisposable {
  readonly counts: UdpCounts = { arrived: 0, delivered: 0, lost: 0, blackedOut: 0 };
  readonly #seed: number;
  #impairment: Impairment;
  #cut = false;
  #disposed = false;
  readonly #schedule = new Schedule();
  readonly #endpoints = new Map<string, Endpoint>();

  constructor({ seed, impairment = {} }: { seed: number; impairment?: Partial<Impairment> }) {
    this.#seed = seed;
    this.#impairment = { ...CLEAR, ...impairment };
  }

  /** From the next packet on. */
  impair(change: Partial<Impairment>): void {
    this.#impairment = { ...this.#impairment, ...change };
  }

  /** Every packet is lost, both ways, until `restore`. */
  cut(): void {
    this.#cut = true;
  }
  restore(): void {
    this.#cut = false;
  }

  /**
   * The candidate (RFC 8839) that the peer gets instead; null for one that the peer must not see, because it would lead
   * around the relay: only IPv4 over UDP passes it, and a derived address (srflx, relay) is not on this machine.
   */
  async rewrite(candidate: string): Promise<string | null> {
    const fields = candidate.split(" ");
    const [, , transport, , address, port, , type] = fields;
    if (transport?.toUpperCase() !== "UDP" || type !== "host" || address === undefined || address.includes(":"))
      return null;
    const endpoint = this.#endpoint(address, Number(port));
    await endpoint.ready;
    return fields.with(4, LOOPBACK).with(5, String(endpoint.socket.address().port)).join(" ");
  }

  #endpoint(address: string, port: number): Endpoint {
    const key = `${address}:${port}`;
    const known = this.#endpoints.get(key);
    if (known !== undefined) return known;
    const socket = createSocket({
      type: "udp4",
      recvBufferSize: SOCKET_BUFFER_BYTES,
      sendBufferSize: SOCKET_BUFFER_BYTES,
    });
    const ready = new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.bind(0, LOOPBACK, () => {
        socket.off("error", reject);
        // An endpoint that is gone answers with ICMP errors, which are no concern of the relay.
        socket.on("error", () => undefined);
        resolve();
      });
    });
    const lane = new Lane(this.#seed + this.#endpoints.size * 1_000_003);
    const endpoint: Endpoint = { address, port, socket, ready, lane };
    this.#endpoints.set(key, endpoint);
    socket.on("message", (packet, from) => this.#forward(packet, this.#endpoint(from.address, from.port), endpoint));
    return endpoint;
  }

  #forward(packet: Buffer, from: Endpoint, to: Endpoint): void {
    this.counts.arrived += 1;
    const arrivals = to.lane.pass(packet.length, performance.now(), this.#impairment);
    if (this.#cut) {
      this.counts.blackedOut += 1;
      return;
    }
    if (arrivals.length === 0) this.counts.lost += 1;
    for (const atMs of arrivals) this.#schedule.at(atMs, () => void this.#deliver(packet, from, to));
  }

  async #deliver(packet: Buffer, from: Endpoint, to: Endpoint): Promise<void> {
    // Also what was on its way when the blackout began is gone.
    if (this.#cut) {
      this.counts.blackedOut += 1;
      return;
    }
    await from.ready;
    if (this.#disposed) return;
    this.counts.delivered += 1;
    from.socket.send(packet, to.port, to.address);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#schedule.clear();
    const closing = [...this.#endpoints.values()].map(async ({ socket, ready }) => {
      await ready.catch(() => undefined);
      socket.removeAllListeners("message");
      await new Promise<void>((resolve) => socket.close(resolve));
    });
    await Promise.all(closing);
  }
}

/** A driver whose connections can be reached through the relay only. Disposing it disposes `driver`, not the relay. */
export const throughRelay = (driver: TransportDriver, relay: Pick<UdpRelay, "rewrite">): TransportDriver => ({
  open(options, onEvent) {
    let closed = false;
    const told = async (event: Extract<TransportEvent, { type: "localCandidate" }>): Promise<void> => {
      const candidate = await relay.rewrite(event.candidate);
      if (candidate !== null && !closed) onEvent({ ...event, candidate });
    };
    const opened = driver.open(options, (event) => {
      if (event.type === "localCandidate") void told(event);
      else onEvent(event);
    });
    if (!opened.ok) return opened;
    const transport: LinkTransport = {
      ...opened.value,
      selectedPair() {
        const pair = opened.value.selectedPair();
        return pair === null ? null : { local: pair.local, remote: { ...pair.remote, address: ELSEWHERE } };
      },
      close() {
        closed = true;
        opened.value.close();
      },
    };
    return { ok: true, value: transport };
  },
  dispose: () => driver.dispose(),
});
