import {
  CONTROL_BURST_BYTES,
  CONTROL_BURST_MESSAGES,
  CONTROL_BYTES_PER_SECOND,
  CONTROL_MESSAGES_PER_SECOND,
  RECEIVE_CREDIT_BYTES,
  RECEIVE_CREDIT_STEP_BYTES,
  SEND_QUEUED_BYTES_LOW,
  SEND_QUEUED_BYTES_MAX,
} from "#shared/base/limits.ts";

/**
 * Flow control of the bulk channel. The addon queues without limit in both directions, so both limits are ours: what a
 * sender has queued here, and what the receiver has allowed by `credit` messages, which count bytes since the link opened.
 */
export class SendGate {
  #granted = 0;
  #sent = 0;
  /** Size of the frame that found no room; null while nobody waits. */
  #refused: number | null = null;

  get sentBytes(): number {
    return this.#sent;
  }

  /** Whether a frame may go now, and if so counts it. After "full" one `drained` is owed. */
  admit(bytes: number, queuedBytes: number): "sent" | "full" {
    if (!this.#fits(bytes, queuedBytes)) {
      this.#refused = bytes;
      return "full";
    }
    this.#sent += bytes;
    return "sent";
  }

  /** A `credit` of the peer; an older or repeated one changes nothing. True when `drained` is now due. */
  credit(grantedBytes: number, queuedBytes: number): boolean {
    this.#granted = Math.max(this.#granted, grantedBytes);
    return this.#isDue(queuedBytes);
  }

  /** The addon's queue fell to its low mark. True when `drained` is now due. */
  queueLow(queuedBytes: number): boolean {
    return queuedBytes <= SEND_QUEUED_BYTES_LOW && this.#isDue(queuedBytes);
  }

  #isDue(queuedBytes: number): boolean {
    if (this.#refused === null || !this.#fits(this.#refused, queuedBytes)) return false;
    this.#refused = null;
    return true;
  }

  #fits(bytes: number, queuedBytes: number): boolean {
    return this.#sent + bytes <= this.#granted && queuedBytes + bytes <= SEND_QUEUED_BYTES_MAX;
  }
}

export class ReceiveCredit {
  #granted = 0;
  #received = 0;
  #released = 0;

  get receivedBytes(): number {
    return this.#received;
  }

  /** The first grant, once the peer is proven. */
  open(): number {
    this.#granted = RECEIVE_CREDIT_BYTES;
    return this.#granted;
  }

  /** False when the peer sent more than it was allowed to. */
  take(bytes: number): boolean {
    this.#received += bytes;
    return this.#received <= this.#granted;
  }

  /** The new cumulative grant to send, or null when it is not time yet. Never grants for more than was received. */
  release(bytes: number): number | null {
    this.#released = Math.min(this.#received, this.#released + bytes);
    const next = this.#released + RECEIVE_CREDIT_BYTES;
    if (next - this.#granted < RECEIVE_CREDIT_STEP_BYTES) return null;
    this.#granted = next;
    return next;
  }
}

/** Full at first; what was taken out comes back with time. */
export class TokenBucket {
  readonly #most: number;
  readonly #perSecond: number;
  #left: number;
  #atMs: number;

  constructor(most: number, perSecond: number, atMs: number) {
    this.#most = most;
    this.#perSecond = perSecond;
    this.#left = most;
    this.#atMs = atMs;
  }

  /** False, and nothing taken, when there is not so much in it. */
  take(amount: number, atMs: number): boolean {
    const seconds = Math.max(0, atMs - this.#atMs) / 1000;
    this.#atMs = atMs;
    this.#left = Math.min(this.#most, this.#left + seconds * this.#perSecond);
    if (amount > this.#left) return false;
    this.#left -= amount;
    return true;
  }
}

/** Bounds what a peer may put on its control channel, in messages and in bytes. */
export class ControlBudget {
  readonly #messages: TokenBucket;
  readonly #bytes: TokenBucket;

  constructor(atMs: number) {
    this.#messages = new TokenBucket(CONTROL_BURST_MESSAGES, CONTROL_MESSAGES_PER_SECOND, atMs);
    this.#bytes = new TokenBucket(CONTROL_BURST_BYTES, CONTROL_BYTES_PER_SECOND, atMs);
  }

  /** False when the peer sent more than it may. */
  take(bytes: number, atMs: number): boolean {
    return this.#messages.take(1, atMs) && this.#bytes.take(bytes, atMs);
  }
}
