import { createSubscriber } from "svelte/reactivity";

/** The wall clock as reactive state. Its timer runs only while something on screen reads it. */
export class Ticker {
  readonly #subscribe: () => void;

  constructor(intervalMs: number) {
    this.#subscribe = createSubscriber((update) => {
      const timer = setInterval(update, intervalMs);
      return () => clearInterval(timer);
    });
  }

  get nowMs(): number {
    this.#subscribe();
    return Date.now();
  }
}

/** For "Yesterday" and the like. */
export const minuteTicker = new Ticker(20_000);
/** For countdowns. */
export const secondTicker = new Ticker(500);
