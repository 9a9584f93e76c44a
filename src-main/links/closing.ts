import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { FIN_DRAIN_MAX_MS, FIN_TIMEOUT_MS } from "#shared/base/limits.ts";
import { Timers } from "./timers.ts";

export interface ClosingDeps {
  readonly clock: Clock;
  /** Changes as long as anything arrives from the peer, or leaves for it. */
  moved(): string;
  /** Bulk bytes that came over the connection so far. */
  receivedBytes(): number;
  sendPing(): void;
  /** False when it could not be sent, and the connection is closed. */
  sendFinAck(): boolean;
  /** Hands on everything that has arrived, at once; a listener may close the connection over it. */
  flush(): void;
  /** Closes the connection, and so disposes this. */
  close(): void;
}

/**
 * The orderly end of one connection, from the first goodbye on. `fin` travels on another channel than bulk frames and can
 * overtake them, so it says how many bytes were sent there. It is answered only when all of them are here, and then nothing
 * is left on its way in that direction.
 */
export class Closing implements Disposable {
  readonly #deps: ClosingDeps;
  readonly #timers: Timers;
  readonly #byMs: number;
  /** Bulk bytes that the peer says it sent in all; null until it said so, and again once it was answered. */
  #awaited: number | null = null;
  #isAcked = false;
  /** We have all that the peer sent, and told it so. */
  #saidAll = false;
  #isComplete = false;
  #isDisposed = false;

  /** A connection that was `replaced` has time for what is on its way, as long as something moves. */
  constructor(deps: ClosingDeps, replaced: boolean) {
    this.#deps = deps;
    this.#timers = new Timers(deps.clock);
    this.#byMs = deps.clock.monotonicMs() + (replaced ? FIN_DRAIN_MAX_MS : FIN_TIMEOUT_MS);
    this.#watch(deps.moved(), false);
  }

  /** Both said goodbye, and everything that either sent before has been handled. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  fin(bulkBytes: number): void {
    this.#awaited = bulkBytes;
    this.check();
  }

  finAck(bulkBytes: number): void {
    this.#awaited = bulkBytes;
    this.#isAcked = true;
    this.check();
  }

  /** The peer closed, which it does too when it has everything. */
  peerClosed(): void {
    this.#isComplete = this.#saidAll;
  }

  /** Nobody waits for it longer than so many milliseconds from now. */
  hurry(patienceMs: number): void {
    this.#timers.later(patienceMs, () => this.#deps.close());
  }

  /** To be asked again whenever bulk bytes came. */
  check(): void {
    if (this.#awaited === null || this.#deps.receivedBytes() < this.#awaited) return;
    // Acknowledged means handled, not merely arrived.
    this.#deps.flush();
    if (this.#isAcked) {
      this.#isComplete = true;
      this.#deps.close();
      return;
    }
    if (this.#isDisposed) return;
    // The peer closes once it has this; until then, and at most for FIN_TIMEOUT_MS, we keep our side open.
    this.#saidAll = this.#deps.sendFinAck();
    this.#awaited = null;
  }

  /**
   * What we sent may wait in the library for long after it has left our queue: only the peer sees it move. So whoever sees
   * something move says so. Twice nothing is the end.
   */
  #watch(before: string, wasStill: boolean): void {
    const { clock } = this.#deps;
    const leftMs = this.#byMs - clock.monotonicMs();
    this.#timers.later(Math.max(0, Math.min(FIN_TIMEOUT_MS / 2, leftMs)), () => {
      const now = this.#deps.moved();
      const isStill = now === before;
      if ((isStill && wasStill) || clock.monotonicMs() >= this.#byMs) {
        this.#deps.close();
        return;
      }
      if (!isStill) this.#deps.sendPing();
      if (!this.#isDisposed) this.#watch(now, isStill);
    });
  }

  dispose(): void {
    this.#isDisposed = true;
    this.#timers.dispose();
  }
}
