import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";

export type Received<T> =
  | { readonly type: "item"; readonly value: T }
  | { readonly type: "timeout" }
  | { readonly type: "closed" };

export interface ReceiveQueueOptions {
  readonly clock: Pick<Clock, "setTimer" | "monotonicMs">;
  /** Items that wait at most. */
  readonly capacity: number;
  /** `dropOldest` for what only its newest values matter of, `refuse` for what must not be lost. */
  readonly whenFull: "dropOldest" | "refuse";
}

interface Waiter {
  readonly wake: (why: "item" | "timeout" | "closed") => void;
  timer: Disposable | null;
}

/**
 * Where messages wait between the transport, which hands them over whenever they come, and whoever handles them. Bounded:
 * a full lossy queue drops its oldest item and counts it, a full reliable one refuses the new item, and the caller waits
 * for `room` or treats it as a breach of the flow control. Receivers are woken in the order in which they came; one that
 * waits costs no processor time. After `close` nothing is given out any more, and everybody who waits hears of it.
 */
export class ReceiveQueue<T> implements Disposable {
  readonly #options: ReceiveQueueOptions;
  #items: { readonly value: T }[] = [];
  readonly #waiters = new Set<Waiter>();
  #roomWaiters: ((room: "room" | "closed") => void)[] = [];
  #dropped = 0;
  #closed = false;

  constructor(options: ReceiveQueueOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#items.length;
  }

  /** Receivers that wait. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** Items that had to make room for newer ones. */
  get dropped(): number {
    return this.#dropped;
  }

  push(item: T): "taken" | "full" | "closed" {
    if (this.#closed) return "closed";
    if (this.#items.length >= this.#options.capacity) {
      if (this.#options.whenFull === "refuse") return "full";
      this.#items.shift();
      this.#dropped += 1;
    }
    this.#items.push({ value: item });
    const [first] = this.#waiters;
    if (first !== undefined) this.#wake(first, "item");
    return "taken";
  }

  /** Resolves once an item would be taken, for senders of a reliable queue that was full. */
  room(): Promise<"room" | "closed"> {
    if (this.#closed) return Promise.resolve("closed");
    if (this.#items.length < this.#options.capacity) return Promise.resolve("room");
    return new Promise((resolve) => void this.#roomWaiters.push(resolve));
  }

  /** `timeoutMs`: 0 looks only, Infinity waits for as long as it takes. */
  async receive({ timeoutMs }: { readonly timeoutMs: number }): Promise<Received<T>> {
    const { clock } = this.#options;
    const endsAtMs = clock.monotonicMs() + timeoutMs;
    for (let leftMs = timeoutMs; ; leftMs = endsAtMs - clock.monotonicMs()) {
      const received = this.take();
      // Woken is not served: somebody may have taken the item in between.
      if (received.type !== "timeout" || leftMs <= 0) return received;
      await this.ready({ timeoutMs: leftMs });
    }
  }

  /** Resolves when there is something to take, and takes nothing: for whoever must take and handle it in one step. */
  ready({ timeoutMs }: { readonly timeoutMs: number }): Promise<"item" | "timeout" | "closed"> {
    if (this.#closed) return Promise.resolve("closed");
    if (this.#items.length > 0) return Promise.resolve("item");
    return new Promise((resolve) => {
      const waiter: Waiter = { wake: resolve, timer: null };
      this.#waiters.add(waiter);
      if (timeoutMs !== Number.POSITIVE_INFINITY)
        waiter.timer = this.#options.clock.setTimer(timeoutMs, () => this.#wake(waiter, "timeout"));
    });
  }

  /** What `receive` with a timeout of 0 resolves to, at once. */
  take(): Received<T> {
    if (this.#closed) return { type: "closed" };
    const item = this.#items.shift();
    if (item === undefined) return { type: "timeout" };
    this.#roomWaiters.shift()?.("room");
    return { type: "item", ...item };
  }

  /** Drops what waits and wakes everybody. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#items = [];
    for (const waiter of [...this.#waiters]) this.#wake(waiter, "closed");
    for (const resolve of this.#roomWaiters.splice(0)) resolve("closed");
  }

  #wake(waiter: Waiter, why: "item" | "timeout" | "closed"): void {
    this.#waiters.delete(waiter);
    waiter.timer?.dispose();
    waiter.wake(why);
  }

  dispose(): void {
    this.close();
  }
}
