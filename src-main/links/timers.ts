import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";

/** Timers that end with whoever set them. */
export class Timers implements Disposable {
  readonly #clock: Clock;
  readonly #set = new Set<Disposable>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  later(delayMs: number, fn: () => void): void {
    const timer = this.#clock.setTimer(delayMs, () => {
      this.#set.delete(timer);
      fn();
    });
    this.#set.add(timer);
  }

  dispose(): void {
    for (const timer of this.#set) timer.dispose();
    this.#set.clear();
  }
}
