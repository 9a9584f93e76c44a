import type { Clock } from "#shared/base/env.ts";
import { fail, ok } from "#shared/base/result.ts";
import {
  type LinkChannel,
  type LinkTransport,
  RELAY_MARK,
  type RelayDriver,
  type TransportDriver,
  type TransportEvent,
  type TransportOptions,
} from "../../src-main/links/transport.ts";

/** A clock that stands still until it is told to go. */
export class ManualClock implements Clock {
  #nowMs = 1_000_000;
  #timers = new Set<{ dueMs: number; fn: () => void }>();

  now(): number {
    return this.#nowMs;
  }
  monotonicMs(): number {
    return this.#nowMs;
  }
  setTimer(delayMs: number, fn: () => void) {
    const timer = { dueMs: this.#nowMs + delayMs, fn };
    this.#timers.add(timer);
    return { dispose: () => void this.#timers.delete(timer) };
  }
  get timers(): number {
    return this.#timers.size;
  }

  /** Runs what is due, in order, and lets promises settle in between. */
  async advance(byMs: number): Promise<void> {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      await settle();
      const [next] = [...this.#timers].filter(({ dueMs }) => dueMs <= untilMs).sort((a, b) => a.dueMs - b.dueMs);
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      next.fn();
    }
    this.#nowMs = untilMs;
    await settle();
  }

  /** As if the machine had slept: time is gone, and only then do timers run. */
  async sleep(byMs: number): Promise<void> {
    this.#nowMs += byMs;
    await this.advance(0);
  }
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * A world of connections without a network: an answer opens both ends, messages arrive in the next microtask, and
 * `silent` swallows everything, as if the cable were cut.
 */
export class FakeRtc {
  silent = false;
  /** Nobody reads: what is sent stays in the queue of its sender. */
  unread = false;
  /** Bulk frames leave the queue at once, and arrive one after the other, this far apart. */
  bulkPace: { readonly clock: ManualClock; readonly ms: number } | null = null;
  /** WebRTC finds no path; the relay works. */
  blocked = false;
  /** Where a connection of WebRTC that opens now leads. */
  pair = { local: { address: "192.168.0.1", type: "host" }, remote: { address: "192.168.0.2", type: "host" } };
  /** What each connection of WebRTC finds of its own, given its name. */
  candidatesOf: (name: string) => string[] = () => [];
  /** How long an event of a connection is under way; at once without it. Each connection keeps the order of its events. */
  delay: { readonly clock: Clock; readonly ms: () => number } | null = null;
  /** What was done to a connection that must never be: each is a sentence. */
  readonly wrongs: string[] = [];
  opened = 0;
  readonly live = new Set<FakeConnection>();
  readonly byName = new Map<string, FakeConnection>();

  driver(): TransportDriver {
    return this.#driver("rtc");
  }

  relay(): RelayDriver {
    return { toward: () => this.#driver("relay"), dispose: () => undefined };
  }

  #driver(kind: "rtc" | "relay"): TransportDriver {
    return {
      open: (options, onEvent) => {
        this.opened += 1;
        return ok(new FakeConnection(this, kind, `c${this.opened}`, options, onEvent));
      },
      dispose: () => undefined,
    };
  }
}

const fingerprint = (name: string): string =>
  Array.from({ length: 32 }, (_, i) =>
    ((name.charCodeAt(1 + (i % (name.length - 1))) * 7 + i) & 255).toString(16).toUpperCase().padStart(2, "0"),
  ).join(":");
const nameOf = (sdp: string): string => /name=(\w+)/.exec(sdp)?.[1] ?? "";

export class FakeConnection implements LinkTransport {
  readonly kind: "rtc" | "relay";
  readonly name: string;
  readonly options: TransportOptions;
  /** Candidates of the peer that were added here. */
  readonly remoteCandidates: string[] = [];
  readonly #rtc: FakeRtc;
  readonly #onEvent: (event: TransportEvent) => void;
  #peer: FakeConnection | null = null;
  #pair: ReturnType<LinkTransport["selectedPair"]> = null;
  /** Name of the connection that made the offer. */
  #offeredBy: string | null = null;
  #lastDueMs = 0;
  #bulkDueMs = 0;
  received = 0;
  #closed = false;
  readonly #queued = { control: 0, bulk: 0 };

  constructor(
    rtc: FakeRtc,
    kind: "rtc" | "relay",
    name: string,
    options: TransportOptions,
    onEvent: (event: TransportEvent) => void,
  ) {
    this.#rtc = rtc;
    this.kind = kind;
    this.name = name;
    this.options = options;
    this.#onEvent = onEvent;
    rtc.live.add(this);
    rtc.byName.set(name, this);
  }

  get peer(): FakeConnection | null {
    return this.#peer;
  }

  tell(event: TransportEvent): void {
    const tell = (): void => {
      if (!this.#closed) this.#onEvent(event);
    };
    const { delay } = this.#rtc;
    if (delay === null) {
      queueMicrotask(tell);
      return;
    }
    const nowMs = delay.clock.monotonicMs();
    this.#lastDueMs = Math.max(this.#lastDueMs, nowMs + delay.ms());
    delay.clock.setTimer(this.#lastDueMs - nowMs, tell);
  }
  #describe(kind: "offer" | "answer"): void {
    const mark = this.kind === "relay" ? `${RELAY_MARK}\r\n` : "";
    const offer = this.#offeredBy === null ? "" : `answers=${this.#offeredBy}\r\n`;
    const sdp = `v=0\r\n${mark}name=${this.name}\r\n${offer}a=fingerprint:sha-256 ${fingerprint(this.name)}\r\n`;
    this.tell({ type: "localDescription", kind, sdp });
    if (this.kind === "relay") return;
    for (const candidate of this.#rtc.candidatesOf(this.name))
      this.tell({ type: "localCandidate", candidate, mid: "0" });
  }
  createOffer() {
    this.#describe("offer");
    return ok(undefined);
  }
  acceptOffer(sdp: string) {
    this.#offeredBy = nameOf(sdp);
    this.#peer = this.#rtc.byName.get(nameOf(sdp)) ?? null;
    this.#describe("answer");
    return ok(undefined);
  }
  acceptAnswer(sdp: string) {
    const answers = /answers=(\w+)/.exec(sdp)?.[1];
    if (answers !== this.name) this.#rtc.wrongs.push(`${this.name} took the answer to ${answers}`);
    if (this.#closed) this.#rtc.wrongs.push(`${this.name} took an answer after its end`);
    this.#peer = this.#rtc.byName.get(nameOf(sdp)) ?? null;
    if (this.kind === "rtc" && this.#rtc.blocked) return ok(undefined);
    this.#pair =
      this.kind === "rtc"
        ? this.#rtc.pair
        : { local: { address: "", type: "relay" }, remote: { address: "", type: "relay" } };
    // The other end may be gone; nothing opens then.
    if (this.#peer === null || this.#peer.#closed) return ok(undefined);
    this.#peer.#pair = this.#pair;
    for (const end of [this, this.#peer])
      for (const channel of ["control", "bulk"] as const) end?.tell({ type: "channelOpen", channel });
    return ok(undefined);
  }
  addRemoteCandidate(candidate: string) {
    if (this.#closed) this.#rtc.wrongs.push(`${this.name} took a candidate after its end`);
    this.remoteCandidates.push(candidate);
    return ok(undefined);
  }
  send(channel: LinkChannel, bytes: Uint8Array) {
    if (this.#closed) return fail("rtc_failed", "closed");
    const copy = new Uint8Array(bytes);
    const { bulkPace } = this.#rtc;
    if (channel === "bulk" && bulkPace !== null) {
      const nowMs = bulkPace.clock.monotonicMs();
      this.#bulkDueMs = Math.max(this.#bulkDueMs, nowMs) + bulkPace.ms;
      bulkPace.clock.setTimer(this.#bulkDueMs - nowMs, () => this.#deliver(channel, copy));
      return ok(undefined);
    }
    if (this.#rtc.unread) this.#queued[channel] += copy.length;
    else if (!this.#rtc.silent) this.#deliver(channel, copy);
    return ok(undefined);
  }
  #deliver(channel: LinkChannel, bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#closed || this.#peer === null) return;
    this.#peer.received += bytes.length;
    this.#peer.tell({ type: "message", channel, bytes });
  }
  bufferedAmount(channel: LinkChannel): number {
    return this.#queued[channel];
  }
  remoteFingerprint(): string | null {
    return this.#peer === null ? null : fingerprint(this.#peer.name);
  }
  selectedPair() {
    return this.#pair;
  }
  bytesReceived(): number {
    return this.received;
  }
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#rtc.live.delete(this);
    if (!this.#rtc.silent) this.#peer?.tell({ type: "channelClosed", channel: "control" });
  }
}
