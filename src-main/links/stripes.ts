import { assertNever } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import {
  STRIPE_ACK_DELAY_MS,
  STRIPE_LIMIT_FIRST_BYTES,
  STRIPE_LIMIT_MIN_BYTES,
  STRIPE_OFFERS_BURST,
  STRIPE_OFFERS_PER_SECOND,
  STRIPE_OPEN_TIMEOUT_MS,
  STRIPE_STALL_MS,
  STRIPE_TICK_MS,
  STRIPES_MAX,
} from "#shared/base/limits.ts";
import type { ControlOf } from "#shared/wire/control.ts";
import { BULK_HEADER_BYTES, type Payload } from "#shared/wire/frame.ts";
import { CandidateBook } from "./candidate-book.ts";
import { TokenBucket } from "./flow.ts";
import type { LinkPath } from "./link-state.ts";
import { fingerprintOf } from "./sdp.ts";
import { firstPlan, type StripePlan, stepPlan } from "./stripe-plan.ts";
import type { LinkTransport, TransportDriver, TransportEvent, TransportOptions } from "./transport.ts";

type StripeMessage = ControlOf<"stripe">;

export interface StripesDeps {
  readonly clock: Clock;
  readonly driver: TransportDriver;
  readonly options: Omit<TransportOptions, "bulkLowBytes">;
  admits(candidate: string): boolean;
  path(): LinkPath | null;
  /** Whether further connections may be opened now; false as soon as the link says goodbye. */
  isOpen(): boolean;
  send(message: StripeMessage | ControlOf<"stripeAck">): void;
  onFrame(head: Bytes, payload: Payload): void;
  onQueueLow(): void;
  /** A frame that found no room does now. */
  onRoom(): void;
  lose(reason: string): void;
}

/** What our frames go over. */
interface Lane {
  sentBytes: number;
  ackedBytes: number;
  /** Bytes that may be under way on it. */
  limitBytes: number;
  /** When the limit was last looked at. */
  ackedBefore: number;
  wasBusy: boolean;
  /** Ticks in which nothing arrived of what is under way. */
  stalledTicks: number;
}

/** One further association. The side that opened it sends on it, the other only receives. */
interface Stripe extends Lane {
  readonly index: number;
  readonly isMine: boolean;
  readonly rtc: LinkTransport;
  readonly book: CandidateBook;
  readonly timer: Disposable;
  remoteSdp: string | null;
  /** Our candidates, until the peer has our description and is listening. */
  held: { candidate: string; mid: string }[] | null;
  /** Here, with the right certificate. */
  isOpen: boolean;
  /** There too: only then frames go. */
  isReady: boolean;
  receivedBytes: number;
}

/** `rtc` of a stripe; the link's own association is the connection's. */
type Way = Lane & { readonly rtc?: LinkTransport };

const underWayOn = ({ sentBytes, ackedBytes }: Lane): number => sentBytes - ackedBytes;

const hasRoomFor = (lane: Lane, bytes: number): boolean =>
  underWayOn(lane) === 0 || underWayOn(lane) + bytes <= lane.limitBytes;

const leastBusy = (ways: readonly Way[]): Way =>
  ways.reduce((least, way) => (underWayOn(way) < underWayOn(least) ? way : least));

const newLane = (): Lane => ({
  sentBytes: 0,
  ackedBytes: 0,
  limitBytes: STRIPE_LIMIT_FIRST_BYTES,
  ackedBefore: 0,
  wasBusy: false,
  stalledTicks: 0,
});

/**
 * Further associations of one proven link, which carry bulk frames besides its own. Their descriptions travel over the
 * link's control channel: whoever is at its end has proven who it is, so the certificate that a description names there is
 * the peer's, and a stripe carries nothing before the certificate it really met is that one. Credit, frames and the orderly
 * end are the link's; bulk frames have no order, so it does not matter which way they come.
 *
 * The link's own association then carries control messages alone. The library lets them starve behind bulk frames: on a path
 * that loses packets not one gets through as long as frames are waiting, so frames also pause while the first stripes open.
 *
 * Frames are given to the stripe that has the fewest bytes under way, which the peer's `stripeAck` tells, of those that have
 * less than about half a second's worth. A stripe that breaks with bytes under way takes the link along: what was
 * lost is then asked for again over the next one.
 */
export class Stripes implements Disposable {
  readonly #deps: StripesDeps;
  readonly #mine = new Map<number, Stripe>();
  readonly #theirs = new Map<number, Stripe>();
  readonly #offers: TokenBucket;
  /** The link's own association. */
  readonly #first = { ...newLane(), receivedBytes: 0 };
  /** Size of the frame that found no room. */
  #refused: number | null = null;
  #isUnderstood = false;
  #plan: StripePlan = firstPlan;
  #rttMs: number | null = null;
  #tick: Disposable | null = null;
  #ack: Disposable | null = null;
  #ackedBefore = 0;
  #wasBusy = false;
  #indices = 0;
  #disposed = false;

  constructor(deps: StripesDeps) {
    this.#deps = deps;
    this.#offers = new TokenBucket(STRIPE_OFFERS_BURST, STRIPE_OFFERS_PER_SECOND, deps.clock.monotonicMs());
  }

  /** The peer knows what a stripe is. */
  understood(): void {
    this.#isUnderstood = true;
  }

  measured(rttMs: number): void {
    this.#rttMs = Math.min(this.#rttMs ?? rttMs, rttMs);
  }

  /** Open ones that we send on. */
  get count(): number {
    return this.#openOnes().length;
  }

  queuedBytes(): number {
    return this.#openOnes().reduce((sum, { rtc }) => sum + rtc.bufferedAmount("bulk"), 0);
  }

  #openOnes(): Stripe[] {
    return [...this.#mine.values()].filter((stripe) => stripe.isOpen && stripe.isReady);
  }

  /** Within one machine nothing waits for long, and a peer that knows no stripes does not tell what has arrived. */
  get #counts(): boolean {
    return this.#isUnderstood && this.#deps.path() !== "machine";
  }

  /** Whether a frame may go now; if not, `onRoom` follows. */
  hasRoom(bytes: number): boolean {
    if (this.#fits(bytes)) return true;
    this.#refused = bytes;
    return false;
  }

  #fits(bytes: number): boolean {
    if (!this.#counts) return true;
    // The link's own association must fall silent, or the descriptions would not get through.
    if (this.#mine.size > 0 && this.count === 0) return false;
    return this.#lanes().some((lane) => hasRoomFor(lane, bytes));
  }

  #offerRoom(): void {
    if (this.#disposed || this.#refused === null || !this.#fits(this.#refused)) return;
    this.#refused = null;
    this.#deps.onRoom();
  }

  /** What the next frame goes over, which is counted here. */
  next(first: LinkTransport, bytes: number): LinkTransport {
    if (this.#counts) this.#tick ??= this.#nextTick();
    const lanes = this.#lanes();
    // One that is at its limit holds up nobody but itself: its speed is not that of the others.
    const free = lanes.filter((lane) => hasRoomFor(lane, bytes));
    const least = leastBusy(free.length > 0 ? free : lanes);
    least.sentBytes += bytes;
    return least.rtc ?? first;
  }

  #lanes(): readonly Way[] {
    const stripes = this.#openOnes();
    return stripes.length > 0 ? stripes : [this.#first];
  }

  // ---- How many -------------------------------------------------------------------------------------------------------

  #nextTick(): Disposable {
    return this.#deps.clock.setTimer(STRIPE_TICK_MS, () => {
      const all = [this.#first, ...this.#mine.values()];
      const acked = all.reduce((sum, { ackedBytes }) => sum + ackedBytes, 0);
      const isBusy = all.some(({ sentBytes, ackedBytes }) => sentBytes > ackedBytes);
      this.#plan = stepPlan(this.#plan, {
        isBusy: isBusy && this.#wasBusy,
        isOpening: this.#mine.size > this.count,
        open: this.count,
        deliveredBytes: Math.max(0, acked - this.#ackedBefore),
        path: this.#deps.path(),
        rttMs: this.#rttMs,
      });
      for (const lane of all) this.#limit(lane);
      // The link's own is looked after by pings.
      for (const stripe of [...this.#mine.values()])
        if (stripe.stalledTicks * STRIPE_TICK_MS >= STRIPE_STALL_MS) this.#drop(stripe);
      if (this.#disposed) return;
      const isIdle = !isBusy && !this.#wasBusy;
      this.#ackedBefore = acked;
      this.#wasBusy = isBusy;
      this.#tick = isIdle ? null : this.#nextTick();
      while (this.#deps.isOpen() && this.#indices < this.#plan.wanted) this.#dial();
    });
  }

  /** Twice what a round trip takes, and never less than keeps a slow one busy. */
  #limit(lane: Lane): void {
    const isBusy = lane.sentBytes > lane.ackedBytes;
    const aMs = Math.max(STRIPE_TICK_MS / 2, this.#rttMs ?? 0);
    const bytes = (2 * (lane.ackedBytes - lane.ackedBefore) * aMs) / STRIPE_TICK_MS;
    if (isBusy && lane.wasBusy) lane.limitBytes = Math.max(STRIPE_LIMIT_MIN_BYTES, bytes);
    const isStalled = isBusy && lane.wasBusy && lane.ackedBytes === lane.ackedBefore;
    lane.stalledTicks = isStalled ? lane.stalledTicks + 1 : 0;
    lane.ackedBefore = lane.ackedBytes;
    lane.wasBusy = isBusy;
  }

  #dial(): void {
    this.#indices += 1;
    const stripe = this.#open(this.#indices, true);
    if (stripe?.rtc.createOffer().ok === false) this.#drop(stripe);
  }

  // ---- Opening --------------------------------------------------------------------------------------------------------

  #open(index: number, isMine: boolean): Stripe | null {
    const book = new CandidateBook((candidate) => this.#deps.admits(candidate));
    // At 0, because the low mark that counts is that of all of them together.
    const opened = this.#deps.driver.open({ ...this.#deps.options, bulkLowBytes: 0 }, (event) =>
      this.#onEvent(stripe, event),
    );
    if (!opened.ok) return null;
    const timer = this.#deps.clock.setTimer(STRIPE_OPEN_TIMEOUT_MS, () => {
      if (!stripe.isOpen || (isMine && !stripe.isReady)) this.#drop(stripe);
    });
    const none = { ...newLane(), remoteSdp: null, isOpen: false, isReady: false, receivedBytes: 0 };
    const stripe: Stripe = { index, isMine, rtc: opened.value, book, timer, held: [], ...none };
    (isMine ? this.#mine : this.#theirs).set(index, stripe);
    return stripe;
  }

  /** One that broke while something was on its way, or might have been, is the end of the link. */
  #drop(stripe: Stripe, receivedBytes = stripe.ackedBytes): void {
    const { index, isMine } = stripe;
    const all = isMine ? this.#mine : this.#theirs;
    if (this.#disposed || all.get(index) !== stripe) return;
    all.delete(index);
    stripe.timer.dispose();
    stripe.rtc.close();
    this.#tell(stripe, { kind: "end", receivedBytes: stripe.receivedBytes });
    if (stripe.sentBytes > receivedBytes) this.#deps.lose("stripe_lost");
    else this.#offerRoom();
  }

  #tell({ index, isMine }: Stripe, said: StripeMessage["said"]): void {
    this.#deps.send({ type: "stripe", index, mine: isMine, said });
  }

  message({ index, mine, said }: StripeMessage): void {
    const stripe = (mine ? this.#theirs : this.#mine).get(index);
    switch (said.kind) {
      case "offer":
        if (mine) this.#offered(index, said.sdp);
        return;
      case "answer":
        if (mine || stripe === undefined || stripe.remoteSdp !== null) return;
        stripe.remoteSdp = said.sdp;
        if (stripe.rtc.acceptAnswer(stripe.book.admitted(said.sdp)).ok) this.#release(stripe);
        else this.#drop(stripe);
        return;
      case "candidate":
        if (stripe?.book.told(said.candidate) === true) stripe.rtc.addRemoteCandidate(said.candidate, said.mid);
        return;
      case "ready":
        if (stripe?.isMine !== true) return;
        stripe.isReady = true;
        this.#offerRoom();
        return;
      case "end":
        if (stripe !== undefined) this.#drop(stripe, said.receivedBytes);
        return;
      default:
        assertNever(said, "what is said of a stripe");
    }
  }

  /** Each one costs memory that the library keeps for good: a peer gets only so many. */
  #offered(index: number, sdp: string): void {
    const isFree = this.#theirs.size < STRIPES_MAX && !this.#theirs.has(index);
    const { clock } = this.#deps;
    if (!this.#deps.isOpen() || !isFree || !this.#offers.take(1, clock.monotonicMs())) return;
    const stripe = this.#open(index, false);
    if (stripe === null) return;
    stripe.remoteSdp = sdp;
    if (!stripe.rtc.acceptOffer(stripe.book.admitted(sdp)).ok) this.#drop(stripe);
  }

  #release(stripe: Stripe): void {
    for (const candidate of stripe.held ?? []) this.#tell(stripe, { kind: "candidate", ...candidate });
    stripe.held = null;
  }

  // ---- Events of one --------------------------------------------------------------------------------------------------

  #onEvent(stripe: Stripe, event: TransportEvent): void {
    if (this.#disposed) return;
    switch (event.type) {
      case "localDescription":
        this.#tell(stripe, { kind: event.kind, sdp: stripe.book.admitted(event.sdp) });
        if (!stripe.isMine) this.#release(stripe);
        return;
      case "localCandidate": {
        if (!stripe.book.found(event.candidate)) return;
        const { candidate, mid } = event;
        if (stripe.held === null) this.#tell(stripe, { kind: "candidate", candidate, mid });
        else stripe.held.push({ candidate, mid });
        return;
      }
      case "channelOpen":
        if (event.channel === "bulk") this.#opened(stripe);
        return;
      case "message":
        if (event.bytes === null || event.channel !== "bulk") this.#deps.lose("unexpected_message");
        else
          this.#received(stripe, event.bytes.subarray(0, BULK_HEADER_BYTES), event.bytes.subarray(BULK_HEADER_BYTES));
        return;
      case "frame":
        this.#received(stripe, event.head, event.payload);
        return;
      case "queueLow":
        if (event.channel === "bulk") this.#deps.onQueueLow();
        return;
      case "unsteady":
        return;
      case "unexpectedChannel":
        this.#deps.lose("unexpected_channels");
        return;
      case "ended":
      case "channelClosed":
      case "channelError":
      case "refused":
        this.#drop(stripe);
        return;
      default:
        assertNever(event, "stripe event");
    }
  }

  #opened(stripe: Stripe): void {
    const announced = stripe.remoteSdp === null ? null : fingerprintOf(stripe.remoteSdp);
    if (announced === null || stripe.rtc.remoteFingerprint() !== announced) {
      this.#deps.lose("fingerprint_mismatch");
      return;
    }
    stripe.book.measure(stripe.rtc.selectedPair());
    // Over a TURN server it would only be one more allocation there.
    if (stripe.isMine && stripe.book.facts.path === "relay") {
      this.#drop(stripe);
      return;
    }
    stripe.isOpen = true;
    if (!stripe.isMine) this.#tell(stripe, { kind: "ready" });
    // The peer's word that it is ready may have been faster.
    else this.#offerRoom();
  }

  #received(stripe: Stripe, head: Bytes, payload: Payload): void {
    if (stripe.isMine || !stripe.isOpen) {
      this.#deps.lose("unexpected_message");
      return;
    }
    stripe.receivedBytes += head.length + payload.byteLength;
    this.#ackSoon();
    this.#deps.onFrame(head, payload);
  }

  // ---- What has arrived -----------------------------------------------------------------------------------------------

  /** On the link's own association. */
  arrived(bytes: number): void {
    this.#first.receivedBytes += bytes;
    if (this.#isUnderstood) this.#ackSoon();
  }

  #ackSoon(): void {
    this.#ack ??= this.#deps.clock.setTimer(STRIPE_ACK_DELAY_MS, () => {
      this.#ack = null;
      const received = [...this.#theirs.values()].map(({ index, receivedBytes }) => ({ index, bytes: receivedBytes }));
      if (this.#deps.isOpen())
        this.#deps.send({ type: "stripeAck", received: [{ index: 0, bytes: this.#first.receivedBytes }, ...received] });
    });
  }

  acked({ received }: ControlOf<"stripeAck">): void {
    for (const { index, bytes } of received) {
      const lane = index === 0 ? this.#first : this.#mine.get(index);
      if (lane !== undefined) lane.ackedBytes = Math.min(lane.sentBytes, Math.max(lane.ackedBytes, bytes));
    }
    this.#offerRoom();
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#tick?.dispose();
    this.#ack?.dispose();
    for (const { timer, rtc } of [...this.#mine.values(), ...this.#theirs.values()]) {
      timer.dispose();
      rtc.close();
    }
    this.#mine.clear();
    this.#theirs.clear();
  }
}
