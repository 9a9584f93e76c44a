import { RELAY_CREDIT_STEP_BYTES, RELAY_FRAME_COST_BYTES, RELAY_WINDOW_BYTES } from "#shared/base/limits.ts";

/**
 * The books of one direction of a relay, in `relayCost` since it was opened:
 *
 *   taken <= handedOver <= received <= granted <= taken + RELAY_WINDOW_BYTES
 *
 * So what the server holds for a reader (received - handedOver), what is on its way to it (handedOver - taken) and what
 * the sender may still send (granted - received) are one window together, whatever either of them does.
 */
export class RelayFlow {
  #granted = 0;
  #received = 0;
  #handedOver = 0;
  #taken = 0;

  /** Granted and not used. */
  get unused(): number {
    return this.#granted - this.#received;
  }

  /** How much more credit would fit; 0 while that is less than a step. */
  get room(): number {
    const room = this.#taken + RELAY_WINDOW_BYTES - this.#granted;
    return room < RELAY_CREDIT_STEP_BYTES ? 0 : room;
  }

  /** At most `room`. Returns the whole credit, to be told to the sender. */
  grant(bytes: number): number {
    this.#granted += bytes;
    return this.#granted;
  }

  /** A frame of the sender. False when it had no credit for it. */
  receive(cost: number): boolean {
    if (this.#received + cost > this.#granted) return false;
    this.#received += cost;
    return true;
  }

  /** A frame went to the reader's socket. */
  handOver(cost: number): void {
    this.#handedOver += cost;
  }

  /** The reader's acknowledgement. False when it is for less than a frame more, or for what was never sent to it. */
  take(takenBytes: number): boolean {
    if (takenBytes < this.#taken + RELAY_FRAME_COST_BYTES || takenBytes > this.#handedOver) return false;
    this.#taken = takenBytes;
    return true;
  }
}

/** A token bucket of bytes. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #atMs: number;

  constructor(perSecond: number, atMs: number) {
    this.#perSecond = perSecond;
    // One second's worth, and at least what has to be taken at once.
    this.#burst = Math.max(perSecond, RELAY_CREDIT_STEP_BYTES);
    this.#tokens = this.#burst;
    this.#atMs = atMs;
  }

  /** True when the bytes were taken. */
  take(bytes: number, atMs: number): boolean {
    this.#refill(atMs);
    if (this.#tokens < bytes) return false;
    this.#tokens -= bytes;
    return true;
  }

  /** Milliseconds until that many can be taken. */
  waitMs(bytes: number, atMs: number): number {
    this.#refill(atMs);
    return Math.max(0, Math.ceil(((bytes - this.#tokens) / this.#perSecond) * 1000));
  }

  /** Takes them although they may not be there. Returns what is left, below zero when too much was taken. */
  charge(bytes: number, atMs: number): number {
    this.#refill(atMs);
    this.#tokens -= bytes;
    return this.#tokens;
  }

  giveBack(bytes: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + bytes);
  }

  isFull(atMs: number): boolean {
    this.#refill(atMs);
    return this.#tokens >= this.#burst;
  }

  #refill(atMs: number): void {
    const seconds = Math.max(0, atMs - this.#atMs) / 1000;
    this.#atMs = atMs;
    this.#tokens = Math.min(this.#burst, this.#tokens + seconds * this.#perSecond);
  }
}
