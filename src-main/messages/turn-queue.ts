/**
 * Spreads many small pieces of work over turns of the event loop, in order of arrival: at most `perTurn` of them begin in
 * one turn or are under way at once, so everything else in the program waits for no more than these.
 */
export class TurnQueue {
  readonly #perTurn: number;
  readonly #waiting: (() => void)[] = [];
  /** Begun in this turn, or not ended yet. */
  #taken = 0;
  #ended = 0;

  constructor(perTurn: number) {
    this.#perTurn = perTurn;
  }

  /** Begins at once when there is room. What `task` throws or rejects with is the caller's. */
  run<T>(task: () => T | Promise<T>): Promise<T> {
    if (this.#taken < this.#perTurn && this.#waiting.length === 0) return this.#begin(task);
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push(() => void this.#begin(task).then(resolve, reject));
    });
  }

  async #begin<T>(task: () => T | Promise<T>): Promise<T> {
    this.#taken += 1;
    try {
      return await task();
    } finally {
      this.#end();
    }
  }

  /** A place is free again only in the next turn. */
  #end(): void {
    this.#ended += 1;
    if (this.#ended > 1) return;
    setImmediate(() => {
      this.#taken -= this.#ended;
      this.#ended = 0;
      while (this.#taken < this.#perTurn && this.#waiting.length > 0) this.#waiting.shift()?.();
    });
  }
}
