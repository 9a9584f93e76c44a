import type { Clock } from "#shared/base/env.ts";
import { fail, ok } from "#shared/base/result.ts";
import type { RtcChannel, RtcConnection, RtcDriver, RtcEvent } from "../../src-main/links/driver.ts";

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
  opened = 0;
  readonly live = new Set<FakeConnection>();
  readonly byName = new Map<string, FakeConnection>();

  driver(): RtcDriver {
    return {
      open: (_options, onEvent) => {
        this.opened += 1;
        return ok(new FakeConnection(this, `c${this.opened}`, onEvent));
      },
      dispose: () => undefined,
    };
  }
}

const fingerprint = (name: string): string =>
  Array.from({ length: 32 }, (_, i) =>
    ((name.charCodeAt(1 + (i % (name.length - 1))) * 7 + i) & 255).toString(16).toUpperCase().padStart(2, "0"),
  ).join(":");
const sdpOf = (name: string): string => `name=${name}\r\na=fingerprint:sha-256 ${fingerprint(name)}\r\n`;
const nameOf = (sdp: string): string => /name=(\w+)/.exec(sdp)?.[1] ?? "";

class FakeConnection implements RtcConnection {
  readonly #rtc: FakeRtc;
  readonly #name: string;
  readonly #onEvent: (event: RtcEvent) => void;
  #peer: FakeConnection | null = null;
  received = 0;
  #closed = false;
  readonly #queued = { control: 0, bulk: 0 };

  constructor(rtc: FakeRtc, name: string, onEvent: (event: RtcEvent) => void) {
    this.#rtc = rtc;
    this.#name = name;
    this.#onEvent = onEvent;
    rtc.live.add(this);
    rtc.byName.set(name, this);
  }

  tell(event: RtcEvent): void {
    queueMicrotask(() => {
      if (!this.#closed) this.#onEvent(event);
    });
  }
  createOffer() {
    this.tell({ type: "localDescription", kind: "offer", sdp: sdpOf(this.#name) });
    return ok(undefined);
  }
  acceptOffer(sdp: string) {
    this.#peer = this.#rtc.byName.get(nameOf(sdp)) ?? null;
    this.tell({ type: "localDescription", kind: "answer", sdp: sdpOf(this.#name) });
    return ok(undefined);
  }
  acceptAnswer(sdp: string) {
    this.#peer = this.#rtc.byName.get(nameOf(sdp)) ?? null;
    for (const end of [this, this.#peer])
      for (const channel of ["control", "bulk"] as const) end?.tell({ type: "channelOpen", channel });
    return ok(undefined);
  }
  addRemoteCandidate() {
    return ok(undefined);
  }
  send(channel: RtcChannel, bytes: Uint8Array) {
    if (this.#closed) return fail("rtc_failed", "closed");
    const copy = new Uint8Array(bytes);
    if (this.#rtc.unread) this.#queued[channel] += copy.length;
    else if (!this.#rtc.silent) {
      if (this.#peer !== null) this.#peer.received += copy.length;
      this.#peer?.tell({ type: "message", channel, bytes: copy });
    }
    return ok(undefined);
  }
  bufferedAmount(channel: RtcChannel): number {
    return this.#queued[channel];
  }
  remoteFingerprint(): string | null {
    return this.#peer === null ? null : fingerprint(this.#peer.#name);
  }
  selectedPair() {
    return null;
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
