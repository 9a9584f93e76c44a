import type { Env } from "#shared/base/env.ts";
import type { RelayId, UserId } from "#shared/base/ids.ts";
import { relayCost } from "#shared/rendezvous/relay.ts";
import { createRelayDriver } from "../../src-main/links/relay-driver.ts";
import type { LinkChannel, LinkTransport, RelayDriver, TransportEvent } from "../../src-main/links/transport.ts";
import type { RelayLine, RelayListener, RelayPort } from "../../src-main/signaling/relay-lines.ts";
import { createIdentity, type TestEnv, testEnv } from "./rendezvous.ts";

/** One end of a link's transport, with everything that it reported. */
export class TransportEnd {
  readonly events: TransportEvent[] = [];
  readonly transport: LinkTransport;
  readonly #waiters = new Set<() => void>();

  constructor(driver: RelayDriver, peer: UserId, bulkLowBytes = 512 * 1024) {
    const opened = driver.toward(peer).open({ iceServers: [], bulkLowBytes }, (event) => {
      this.events.push(event);
      for (const wake of [...this.#waiters]) wake();
    });
    if (!opened.ok) throw new Error(opened.error.message);
    this.transport = opened.value;
  }

  messages(channel: LinkChannel): Uint8Array[] {
    return this.events.flatMap((event) =>
      event.type === "message" && event.channel === channel && event.bytes !== null ? [event.bytes] : [],
    );
  }

  all<Type extends TransportEvent["type"]>(type: Type): Extract<TransportEvent, { type: Type }>[] {
    return this.events.filter((event): event is Extract<TransportEvent, { type: Type }> => event.type === type);
  }

  get isOpen(): boolean {
    return this.all("channelOpen").length === 2;
  }

  /** Resolves with the first event of the kind, also one that was there before. */
  async first<Type extends TransportEvent["type"]>(type: Type): Promise<Extract<TransportEvent, { type: Type }>> {
    for (;;) {
      const [found] = this.all(type);
      if (found !== undefined) return found;
      await this.#next();
    }
  }

  async until(done: () => boolean): Promise<void> {
    while (!done()) await this.#next();
  }

  #next(): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiters.delete(wake);
        resolve();
      };
      this.#waiters.add(wake);
    });
  }
}

/** Carries the descriptions, as the signals do, until both ends are open. */
export const introduce = async (dialer: TransportEnd, answerer: TransportEnd): Promise<void> => {
  dialer.transport.createOffer();
  const offer = await dialer.first("localDescription");
  answerer.transport.acceptOffer(offer.sdp);
  const answer = await answerer.first("localDescription");
  dialer.transport.acceptAnswer(answer.sdp);
  await Promise.all([dialer.until(() => dialer.isOpen), answerer.until(() => answerer.isOpen)]);
};

type Role = "opener" | "accepter";

/** A relay without a server, on which a test can do to frames whatever a hostile server could. */
export class LoopRelay {
  readonly #ends = new Map<RelayId, Partial<Record<Role, RelayListener>>>();
  readonly acknowledged: number[] = [];
  readonly closedBy: Role[] = [];
  /** What becomes of a frame: itself by default. */
  tamper: (frame: Uint8Array, from: Role) => readonly Uint8Array[] = (frame) => [frame];
  credit: number;

  constructor(credit = 1e9) {
    this.credit = credit;
  }

  readonly port: RelayPort = {
    open: (relayId, _, listener) => this.#join(relayId, "opener", listener),
    accept: (relayId, _, listener) => this.#join(relayId, "accepter", listener),
  };

  /** Hands a frame to one end, from nowhere. */
  inject(to: Role, frame: Uint8Array): void {
    for (const ends of this.#ends.values()) ends[to]?.frame(frame);
  }

  end(reason: string): void {
    for (const ends of this.#ends.values()) for (const listener of Object.values(ends)) listener.closed(reason);
    this.#ends.clear();
  }

  grant(bytes: number): void {
    this.credit = bytes;
    for (const ends of this.#ends.values()) for (const listener of Object.values(ends)) listener.credit(bytes);
  }

  #join(relayId: RelayId, role: Role, listener: RelayListener): RelayLine {
    const ends = this.#ends.get(relayId) ?? {};
    ends[role] = listener;
    this.#ends.set(relayId, ends);
    let sent = 0;
    setImmediate(() => {
      listener.opened();
      if (role === "accepter") for (const end of Object.values(ends)) end.credit(this.credit);
    });
    const other = role === "opener" ? "accepter" : "opener";
    return {
      send: (sealed) => {
        sent += relayCost(sealed.length);
        if (sent > this.credit) throw new Error("sent beyond its credit");
        const frames = this.tamper(new Uint8Array(sealed), role);
        setImmediate(() => {
          for (const frame of frames) ends[other]?.frame(frame);
        });
      },
      taken: (takenBytes) => void this.acknowledged.push(takenBytes),
      close: () => {
        if (ends[role] === listener) this.closedBy.push(role);
        delete ends[role];
      },
    };
  }
}

export interface LoopPair {
  readonly relay: LoopRelay;
  readonly env: TestEnv;
  readonly driver: RelayDriver;
  readonly dialer: TransportEnd;
  readonly answerer: TransportEnd;
}

export const loopPair = (relay = new LoopRelay(), env: Env & TestEnv = testEnv()): LoopPair => {
  const driver = createRelayDriver({ env, relay: relay.port });
  const end = (): TransportEnd => new TransportEnd(driver, createIdentity().userId);
  return { relay, env, driver, dialer: end(), answerer: end() };
};
