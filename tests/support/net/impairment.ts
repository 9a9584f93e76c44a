import { seededNumbers } from "../seeded.ts";

/** What a network does to packets on their way in one direction. Times in ms, rates as shares of all packets. */
export interface Impairment {
  readonly lossRate: number;
  readonly duplicateRate: number;
  /** One way: the round trip through a relay takes twice as long. */
  readonly delayMs: number;
  /** Added to the delay, uniform in [0, jitterMs). */
  readonly jitterMs: number;
  /** This share of packets is held back by `reorderMs`, so that later ones overtake them. */
  readonly reorderRate: number;
  readonly reorderMs: number;
  /** Null for no limit. With one, packets wait in a queue of `queueBytes`; what does not fit is lost, as at a router. */
  readonly bytesPerSecond: number | null;
  readonly queueBytes: number;
}

export const CLEAR: Impairment = {
  lossRate: 0,
  duplicateRate: 0,
  delayMs: 0,
  jitterMs: 0,
  reorderRate: 0,
  reorderMs: 5,
  bytesPerSecond: null,
  queueBytes: 256 * 1024,
};

/**
 * The fate of packet after packet in one direction. Each packet takes the same number of draws whatever happens to it, so
 * that the n-th packet of a seed meets the same fate in every run, however long the blackouts before it were.
 */
export class Lane {
  readonly #number: () => number;
  /** When the last byte of the packet before leaves the router. */
  #freeAtMs = 0;

  constructor(seed: number) {
    this.#number = seededNumbers(seed);
  }

  /** Arrival times of the copies of a packet that is sent now, on the clock of `nowMs`; none when it is lost. */
  pass(bytes: number, nowMs: number, impairment: Impairment): number[] {
    const [loss, jitter, reorder, duplicate] = [this.#number(), this.#number(), this.#number(), this.#number()];
    if (loss < impairment.lossRate) return [];
    const leavesAtMs = this.#queue(bytes, nowMs, impairment);
    if (leavesAtMs === null) return [];
    const heldMs = reorder < impairment.reorderRate ? impairment.reorderMs : 0;
    const arrivesAtMs = leavesAtMs + impairment.delayMs + jitter * impairment.jitterMs + heldMs;
    return duplicate < impairment.duplicateRate ? [arrivesAtMs, arrivesAtMs] : [arrivesAtMs];
  }

  #queue(bytes: number, nowMs: number, { bytesPerSecond, queueBytes }: Impairment): number | null {
    if (bytesPerSecond === null) return nowMs;
    const startsAtMs = Math.max(nowMs, this.#freeAtMs);
    if (((startsAtMs - nowMs) / 1000) * bytesPerSecond + bytes > queueBytes) return null;
    this.#freeAtMs = startsAtMs + (bytes / bytesPerSecond) * 1000;
    return this.#freeAtMs;
  }
}

/** Runs things at their times (`performance.now()`), with one timer for all of them. Equal times keep their order. */
export class Schedule {
  #waiting: { readonly atMs: number; readonly run: () => void }[] = [];
  #timer: { readonly handle: NodeJS.Timeout; readonly atMs: number } | null = null;

  /** At once, without a turn of the event loop, when it is due already and nothing waits before it. */
  at(atMs: number, run: () => void): void {
    if (this.#waiting.length === 0 && atMs <= performance.now()) {
      run();
      return;
    }
    let place = this.#waiting.length;
    while (place > 0 && (this.#waiting[place - 1]?.atMs ?? 0) > atMs) place -= 1;
    this.#waiting.splice(place, 0, { atMs, run });
    this.#arm();
  }

  #arm(): void {
    const next = this.#waiting[0];
    if (next === undefined || (this.#timer !== null && this.#timer.atMs <= next.atMs)) return;
    clearTimeout(this.#timer?.handle);
    const handle = setTimeout(() => this.#run(), Math.max(0, next.atMs - performance.now()));
    this.#timer = { handle, atMs: next.atMs };
  }

  #run(): void {
    this.#timer = null;
    // Timers may fire up to a millisecond early; what is due by then is due now.
    const nowMs = performance.now() + 1;
    const later = this.#waiting.findIndex((item) => item.atMs > nowMs);
    for (const { run } of this.#waiting.splice(0, later === -1 ? this.#waiting.length : later)) run();
    this.#arm();
  }

  clear(): void {
    clearTimeout(this.#timer?.handle);
    this.#timer = null;
    this.#waiting = [];
  }
}
