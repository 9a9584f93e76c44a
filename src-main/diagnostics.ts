import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Disposable } from "#shared/base/disposable.ts";

/** Resolution of the delay histogram; the bar is a p99 below 20 ms, so 5 ms is fine enough. */
const RESOLUTION_MS = 5;

/** How long the main process kept its event loop waiting since the last report. */
export class EventLoopMonitor implements Disposable {
  readonly #histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  constructor() {
    this.#histogram.enable();
  }

  /** Milliseconds beyond the sampling interval itself; resets the measurement. */
  report(): { p50Ms: number; p99Ms: number; maxMs: number } {
    const ms = (nanoseconds: number): number =>
      Number.isFinite(nanoseconds) ? Math.max(0, Math.round((nanoseconds / 1e6 - RESOLUTION_MS) * 100) / 100) : 0;
    const report = {
      p50Ms: ms(this.#histogram.percentile(50)),
      p99Ms: ms(this.#histogram.percentile(99)),
      maxMs: ms(this.#histogram.max),
    };
    this.#histogram.reset();
    return report;
  }

  dispose(): void {
    this.#histogram.disable();
  }
}
