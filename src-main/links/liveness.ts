import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { PING_INTERVAL_MS, PING_TIMEOUT_MS } from "#shared/base/limits.ts";
import { Timers } from "./timers.ts";

export interface LivenessDeps {
  readonly clock: Clock;
  sendPing(id: number): void;
  /** Grows also while a large message is only half here. */
  bytesReceived(): number;
  /** Nothing was heard for PING_TIMEOUT_MS, or of a probe for PING_INTERVAL_MS. */
  silent(): void;
}

/** Whether the peer of one connection is still there, and how far away it is. */
export class Liveness implements Disposable {
  readonly #deps: LivenessDeps;
  readonly #timers: Timers;
  #rttMs: number | null = null;
  #ping: { id: number; sentAtMs: number } | null = null;
  #pingId = 0;
  #heardAtMs = 0;
  #bytesReceived = 0;

  constructor(deps: LivenessDeps) {
    this.#deps = deps;
    this.#timers = new Timers(deps.clock);
  }

  get rttMs(): number | null {
    return this.#rttMs;
  }

  start(): void {
    this.heard();
    this.#sendPing();
    this.#schedule();
  }

  heard(): void {
    this.#heardAtMs = this.#deps.clock.monotonicMs();
  }

  /** True when it answers the newest ping: the round-trip time is known anew. */
  pong(id: number): boolean {
    if (this.#ping?.id !== id) return false;
    this.#rttMs = this.#deps.clock.monotonicMs() - this.#ping.sentAtMs;
    this.#ping = null;
    return true;
  }

  probe(): void {
    const askedAtMs = this.#deps.clock.monotonicMs();
    this.#sendPing();
    this.#timers.later(PING_INTERVAL_MS, () => {
      if (this.#heardAtMs < askedAtMs) this.#deps.silent();
    });
  }

  #schedule(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    this.#timers.later(Math.max(1, Math.min(PING_INTERVAL_MS, this.#heardAtMs + PING_TIMEOUT_MS - nowMs)), () =>
      this.#due(),
    );
  }

  #due(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    const bytesReceived = this.#deps.bytesReceived();
    const isArriving = bytesReceived !== this.#bytesReceived;
    this.#bytesReceived = bytesReceived;
    const isOverdue = nowMs - this.#heardAtMs >= PING_TIMEOUT_MS;
    // A large message is half here; or we slept or were busy, and what the peer sent has not been handed to us yet.
    if (isOverdue && isArriving) this.#heardAtMs = nowMs;
    else if (isOverdue) {
      this.#deps.silent();
      return;
    }
    this.#sendPing();
    this.#schedule();
  }

  #sendPing(): void {
    this.#pingId = (this.#pingId + 1) >>> 0;
    this.#ping = { id: this.#pingId, sentAtMs: this.#deps.clock.monotonicMs() };
    this.#deps.sendPing(this.#pingId);
  }

  dispose(): void {
    this.#timers.dispose();
  }
}
