import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { RECEIVE_LANE_ITEMS, RECEIVE_QUEUE_ITEMS, RECEIVE_TURN_ITEMS } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { BulkFrame } from "#shared/wire/frame.ts";
import type { AppMessage } from "./links.ts";
import { ReceiveQueue } from "./receive-queue.ts";

export type Delivery =
  | { readonly type: "message"; readonly message: AppMessage }
  | { readonly type: "bulk"; readonly frame: BulkFrame; readonly bytes: number };

/** Worth nothing once a newer one of its kind is there. */
const isLossy = (message: AppMessage): boolean => message.type === "typing";

/**
 * The messages of one link on their way to the application. Two lanes: reliable, in the order of arrival, and lossy.
 * After RECEIVE_TURN_ITEMS messages in a row every other link has its turn, so that a peer that floods does not starve
 * them. What a reliable lane can hold is more than flow control lets a peer send.
 */
export class MessageLanes implements Disposable {
  readonly #env: Env;
  readonly #deliver: (delivery: Delivery) => void;
  readonly #reliable: ReceiveQueue<Delivery>;
  readonly #lossy: ReceiveQueue<Delivery>;
  /** Whoever waits for its next turn, and the timer that gives it. */
  readonly #turns = new Map<() => void, Disposable>();

  constructor(env: Env, deliver: (delivery: Delivery) => void) {
    const { clock } = env;
    this.#env = env;
    this.#deliver = deliver;
    this.#reliable = new ReceiveQueue({ clock, capacity: RECEIVE_LANE_ITEMS, whenFull: "refuse" });
    this.#lossy = new ReceiveQueue({ clock, capacity: RECEIVE_QUEUE_ITEMS, whenFull: "dropOldest" });
    for (const lane of [this.#reliable, this.#lossy])
      this.#run(lane).catch((error: unknown) => env.log.error("a receive lane failed", { reason: messageOf(error) }));
  }

  get dropped(): number {
    return this.#lossy.dropped;
  }

  /** False when the peer sent more than its flow control allows. */
  message(message: AppMessage): boolean {
    const lane = isLossy(message) ? this.#lossy : this.#reliable;
    return lane.push({ type: "message", message }) !== "full";
  }

  bulk(frame: BulkFrame, bytes: number): boolean {
    return this.#reliable.push({ type: "bulk", frame, bytes }) !== "full";
  }

  /** Delivers everything that waits, now: the link ends. */
  flush(): void {
    for (const lane of [this.#reliable, this.#lossy])
      for (let item = lane.take(); item.type === "item"; item = lane.take()) this.#deliver(item.value);
  }

  async #run(lane: ReceiveQueue<Delivery>): Promise<void> {
    while ((await lane.ready({ timeoutMs: Number.POSITIVE_INFINITY })) === "item") {
      // Taken and delivered in one step, so that `flush` and this never hold an item each.
      for (let inARow = 0; inARow < RECEIVE_TURN_ITEMS; inARow += 1) {
        const received = lane.take();
        if (received.type !== "item") break;
        this.#deliver(received.value);
      }
      if (lane.size > 0) await this.#nextTurn();
    }
  }

  #nextTurn(): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#env.clock.setTimer(0, () => {
        this.#turns.delete(resolve);
        resolve();
      });
      this.#turns.set(resolve, timer);
    });
  }

  dispose(): void {
    this.#reliable.close();
    this.#lossy.close();
    for (const [resolve, timer] of this.#turns) {
      timer.dispose();
      resolve();
    }
    this.#turns.clear();
  }
}
