import { assert } from "./assert.ts";

/** A pure core: `step(state, event)` gives the next state and the effects that the shell must run. */
export type Step<State, Event, Effect> = (state: State, event: Event) => readonly [State, readonly Effect[]];

/**
 * Holds the state of one machine and feeds it one event at a time, run to completion: an event that
 * is dispatched while effects are running waits in a queue until they have all been started.
 */
export class MachineRunner<State, Event, Effect> {
  #state: State;
  readonly #step: Step<State, Event, Effect>;
  readonly #run: (effect: Effect, state: State) => void;
  readonly #queue: Event[] = [];
  #running = false;

  constructor(initial: State, step: Step<State, Event, Effect>, run: (effect: Effect, state: State) => void) {
    this.#state = initial;
    this.#step = step;
    this.#run = run;
  }

  get state(): State {
    return this.#state;
  }

  dispatch(event: Event): void {
    this.#queue.push(event);
    if (this.#running) return;
    this.#running = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const [state, effects] = this.#step(this.#state, next);
        this.#state = state;
        for (const effect of effects) this.#run(effect, state);
      }
    } finally {
      this.#running = false;
    }
    assert(this.#queue.length === 0, "machine queue not drained");
  }
}
