import { assertNever } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { ENGINE_FACTS_INTERVAL_MS, ENGINE_WAITING_BYTES_MAX, SEND_QUEUED_BYTES_LOW } from "#shared/base/limits.ts";
import { BULK_HEADER_BYTES } from "#shared/wire/frame.ts";
import { eventCost, type Facts, type FromDriver, type ToDriver } from "./driver-protocol.ts";
import type { HeldFrames } from "./held-frames.ts";
import type { LinkChannel, LinkTransport, TransportDriver, TransportEvent } from "./transport.ts";

export interface DriverServerDeps {
  readonly env: Pick<Env, "clock">;
  /** Owned. */
  readonly driver: TransportDriver;
  readonly frames: HeldFrames;
  post(message: FromDriver): void;
  /** The addon has its own copy of this frame. */
  onSent(frame: Bytes): void;
}

interface Served {
  readonly rtc: LinkTransport;
  /** Bytes that were given to the driver, and how many of them were last told to have left it. */
  readonly given: Record<LinkChannel, number>;
  readonly told: Record<LinkChannel, number>;
  facts: Facts | null;
  /** Costs of all events, and of those that the other side has handled. */
  cost: number;
  seen: number;
}

/** Runs the WebRTC driver for a {@link RemoteDriver}. Received frames are held here; only their headers are told. */
export class DriverServer implements Disposable {
  readonly #deps: DriverServerDeps;
  readonly #served = new Map<number, Served>();
  /** Connections that something was given to in this turn. */
  readonly #touched = new Set<number>();
  #factsTimer: Disposable | null = null;

  constructor(deps: DriverServerDeps) {
    this.#deps = deps;
  }

  receive(message: ToDriver): void {
    const { c } = message;
    const served = this.#served.get(c);
    switch (message.type) {
      case "open":
        this.#open(c, message.options);
        return;
      case "offer":
        if (served?.rtc.createOffer().ok === false) this.#refuse(c, "bad_description");
        return;
      case "acceptOffer":
      case "acceptAnswer":
        if (served?.rtc[message.type](message.sdp).ok === false) this.#refuse(c, "bad_description");
        return;
      case "candidate":
        served?.rtc.addRemoteCandidate(message.candidate, message.mid);
        return;
      case "send":
        if (served !== undefined) this.#send(c, served, message.channel, message.bytes);
        return;
      case "sendHeld":
        this.#sendHeld(c, served, message.frame, message.head);
        return;
      case "seen":
        if (served !== undefined) served.seen = message.cost;
        return;
      case "close":
        this.#close(c);
        return;
      default:
        assertNever(message, "message to the driver");
    }
  }

  #open(c: number, options: Parameters<TransportDriver["open"]>[0]): void {
    const opened = this.#deps.driver.open(options, (event) => this.#onEvent(c, event));
    if (!opened.ok) {
      this.#refuse(c, "rtc_failed");
      return;
    }
    const none = (): Record<LinkChannel, number> => ({ control: 0, bulk: 0 });
    this.#served.set(c, { rtc: opened.value, given: none(), told: none(), facts: null, cost: 0, seen: 0 });
    this.#factsTimer ??= this.#nextFacts();
  }

  #refuse(c: number, reason: "rtc_failed" | "bad_description" | "send_failed"): void {
    this.#deps.post({ type: "event", c, event: { type: "refused", reason } });
  }

  #close(c: number): void {
    this.#served.get(c)?.rtc.close();
    this.#served.delete(c);
    this.#deps.frames.closed(c);
  }

  // ---- Out ------------------------------------------------------------------------------------------------------------

  #sendHeld(c: number, served: Served | undefined, frame: number, head: Uint8Array): void {
    const bytes = this.#deps.frames.take(frame);
    if (bytes === null) {
      this.#refuse(c, "send_failed");
      return;
    }
    bytes.set(head);
    if (served !== undefined) this.#send(c, served, "bulk", bytes);
    this.#deps.onSent(bytes);
  }

  #send(c: number, served: Served, channel: LinkChannel, bytes: Uint8Array): void {
    if (!served.rtc.send(channel, bytes).ok) {
      this.#refuse(c, "send_failed");
      return;
    }
    served.given[channel] += bytes.length;
    this.#touched.add(c);
    if (this.#touched.size === 1) setImmediate(() => this.#tellQueues());
  }

  /** Above the low mark the library itself tells when it is reached; from below it there is nothing to fall. */
  #tellQueues(): void {
    for (const c of this.#touched)
      for (const channel of ["control", "bulk"] as const)
        if ((this.#served.get(c)?.rtc.bufferedAmount(channel) ?? 0) <= SEND_QUEUED_BYTES_LOW)
          this.#tellQueue(c, channel);
    this.#touched.clear();
  }

  #tellQueue(c: number, channel: LinkChannel): void {
    const served = this.#served.get(c);
    if (served === undefined) return;
    const bytes = served.given[channel] - served.rtc.bufferedAmount(channel);
    if (bytes <= served.told[channel]) return;
    served.told[channel] = bytes;
    this.#deps.post({ type: "drained", c, channel, bytes });
  }

  // ---- In -------------------------------------------------------------------------------------------------------------

  #onEvent(c: number, event: TransportEvent): void {
    const served = this.#served.get(c);
    if (served === undefined) return;
    if (event.type === "queueLow") {
      this.#tellQueue(c, event.channel);
      return;
    }
    // The proof of identity asks for the fingerprint as soon as both channels are open.
    if (event.type === "channelOpen") this.#tellFacts(c, served);
    const told = this.#held(c, event);
    served.cost += eventCost(told);
    this.#deps.post({ type: "event", c, event: told });
    if (served.cost - served.seen + this.#deps.frames.costOf(c) <= ENGINE_WAITING_BYTES_MAX) return;
    // More than its flow control allows, or the other process does not get to it: nothing is queued without limit.
    this.#close(c);
    this.#deps.post({ type: "event", c, event: { type: "ended", reason: "flooded" } });
  }

  #held(c: number, event: TransportEvent): TransportEvent {
    if (event.type !== "message" || event.channel !== "bulk" || event.bytes === null) return event;
    const { bytes } = event;
    const payload = this.#deps.frames.hold(bytes.subarray(BULK_HEADER_BYTES), c);
    return { type: "frame", head: bytes.slice(0, BULK_HEADER_BYTES), payload };
  }

  #nextFacts(): Disposable {
    return this.#deps.env.clock.setTimer(ENGINE_FACTS_INTERVAL_MS, () => {
      for (const [c, served] of this.#served) this.#tellFacts(c, served);
      this.#factsTimer = this.#served.size === 0 ? null : this.#nextFacts();
    });
  }

  #tellFacts(c: number, served: Served): void {
    const { rtc, facts: before } = served;
    const facts = {
      fingerprint: rtc.remoteFingerprint(),
      pair: rtc.selectedPair(),
      bytesReceived: rtc.bytesReceived(),
    };
    if (JSON.stringify(facts) === JSON.stringify(before)) return;
    served.facts = facts;
    this.#deps.post({ type: "facts", c, facts });
  }

  dispose(): void {
    this.#factsTimer?.dispose();
    for (const c of [...this.#served.keys()]) this.#close(c);
    this.#deps.driver.dispose();
  }
}
