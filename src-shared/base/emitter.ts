import { type Disposable, toDisposable } from "./disposable.ts";

/** Subscribes a listener; the returned disposable ends the subscription. Nothing is buffered. */
export type Event<T> = (listener: (value: T) => void) => Disposable;

/**
 * The private half of an {@link Event}. Listeners are called in order of subscription; one that
 * throws does not keep the others from being called: its error goes to `onListenerError`.
 */
export class Emitter<T> implements Disposable {
  readonly #listeners = new Set<(value: T) => void>();
  readonly #onListenerError: (error: unknown) => void;

  constructor(onListenerError: (error: unknown) => void) {
    this.#onListenerError = onListenerError;
  }

  readonly event: Event<T> = (listener) => {
    // A fresh wrapper each time, so that the same function can be subscribed twice and removed once.
    const entry = (value: T): void => listener(value);
    this.#listeners.add(entry);
    return toDisposable(() => this.#listeners.delete(entry));
  };

  get listenerCount(): number {
    return this.#listeners.size;
  }

  emit(value: T): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(value);
      } catch (error) {
        this.#onListenerError(error);
      }
    }
  }

  dispose(): void {
    this.#listeners.clear();
  }
}
