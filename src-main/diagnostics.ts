import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { EVENT_LOOP_WATCH_MS } from "#shared/base/limits.ts";

/** Resolution of the delay histogram; the bar is a p99 below 20 ms, so 5 ms is fine enough. */
const RESOLUTION_MS = 5;

export interface EventLoopReport {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/**
 * How long the main process kept its event loop waiting since the last report, while there was work to do: measuring wakes the
 * process 200 times a second, which is most of what an idle Weir would use of a processor.
 */
export class EventLoopMonitor implements Disposable {
  readonly #clock: Clock;
  readonly #histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  #stirredAtMs = 0;
  #timer: Disposable | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.stir();
  }

  /** Something is going on. It is measured from now until nothing was for EVENT_LOOP_WATCH_MS. */
  stir(): void {
    this.#stirredAtMs = this.#clock.monotonicMs();
    if (this.#timer !== null) return;
    this.#histogram.enable();
    this.#wait(EVENT_LOOP_WATCH_MS);
  }

  #wait(delayMs: number): void {
    this.#timer = this.#clock.setTimer(delayMs, () => {
      const leftMs = this.#stirredAtMs + EVENT_LOOP_WATCH_MS - this.#clock.monotonicMs();
      if (leftMs > 0) return this.#wait(leftMs);
      this.#timer = null;
      this.#histogram.disable();
    });
  }

  /** Milliseconds beyond the sampling interval itself; null when nothing was measured. Resets the measurement. */
  report(): EventLoopReport | null {
    if (this.#histogram.count === 0) return null;
    const ms = (nanoseconds: number): number =>
      Math.max(0, Math.round((nanoseconds / 1e6 - RESOLUTION_MS) * 100) / 100);
    const report = {
      p50Ms: ms(this.#histogram.percentile(50)),
      p99Ms: ms(this.#histogram.percentile(99)),
      maxMs: ms(this.#histogram.max),
    };
    this.#histogram.reset();
    return report;
  }

  dispose(): void {
    this.#timer?.dispose();
    this.#histogram.disable();
  }
}
