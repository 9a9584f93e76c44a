import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { RELAY_CREDIT_STEP_BYTES, RELAY_WINDOW_BYTES, RELAYS_PER_DEVICE_MAX } from "#shared/base/limits.ts";
import { type RelayFlow, TokenBucket } from "./relay-flow.ts";

/** What one device sends over one relay. */
interface Sender {
  readonly flow: RelayFlow;
  tell(grantedBytes: number): void;
}

/** The token bucket of the whole server. Devices for which it has not enough wait in a line and get a step each in turn. */
export class TotalBudget implements Disposable {
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;
  readonly #line = new Set<DeviceBudget>();
  /** Whose turn it is, until it took its step. */
  #turn: DeviceBudget | null = null;
  #timer: Disposable | null = null;

  constructor(clock: Clock, bytesPerSecond: number) {
    this.#clock = clock;
    this.#bucket = new TokenBucket(bytesPerSecond, clock.monotonicMs());
  }

  /** At most a step. False when the device has to wait; it is served when its turn comes. */
  take(device: DeviceBudget, bytes: number): boolean {
    const mayTake = this.#turn === device || this.#line.size === 0;
    if (mayTake && this.#bucket.take(bytes, this.#clock.monotonicMs())) {
      this.#turn = null;
      return true;
    }
    this.#line.add(device);
    this.#arm();
    return false;
  }

  giveBack(bytes: number): void {
    this.#bucket.giveBack(bytes);
  }

  dispose(): void {
    this.#timer?.dispose();
    this.#line.clear();
  }

  #arm(): void {
    if (this.#timer !== null || this.#line.size === 0) return;
    const delayMs = Math.max(1, this.#bucket.waitMs(RELAY_CREDIT_STEP_BYTES, this.#clock.monotonicMs()));
    this.#timer = this.#clock.setTimer(delayMs, () => {
      this.#timer = null;
      this.#serveLine();
    });
  }

  #serveLine(): void {
    for (const device of [...this.#line]) {
      if (this.#bucket.waitMs(RELAY_CREDIT_STEP_BYTES, this.#clock.monotonicMs()) > 0) break;
      this.#line.delete(device);
      this.#turn = device;
      device.serve();
      this.#turn = null;
    }
    this.#arm();
  }
}

/** The token bucket of one device, and who of its relays gets credit from it next. */
export class DeviceBudget implements Disposable {
  readonly #clock: Clock;
  readonly #bucket: TokenBucket;
  readonly #total: TotalBudget;
  /** In the order in which they are served. */
  readonly #senders = new Set<Sender>();
  #timer: Disposable | null = null;

  constructor(clock: Clock, bytesPerSecond: number, total: TotalBudget) {
    this.#clock = clock;
    this.#bucket = new TokenBucket(bytesPerSecond, clock.monotonicMs());
    this.#total = total;
  }

  /** Nothing would be lost by forgetting it. */
  get isIdle(): boolean {
    return this.#senders.size === 0 && this.#bucket.isFull(this.#clock.monotonicMs());
  }

  add(sender: Sender): void {
    this.#senders.add(sender);
    this.serve();
  }

  remove(sender: Sender): void {
    if (!this.#senders.delete(sender)) return;
    for (const budget of [this.#bucket, this.#total]) budget.giveBack(sender.flow.unused);
    this.serve();
  }

  /** Gives credit to whoever has room for it, a step each in turn, and again when there are tokens again. */
  serve(): void {
    this.#timer?.dispose();
    this.#timer = null;
    const served = new Map<Sender, number>();
    for (;;) {
      const next = [...this.#senders].find((sender) => sender.flow.room > 0);
      if (next === undefined) break;
      const bytes = Math.min(next.flow.room, RELAY_CREDIT_STEP_BYTES);
      if (!this.#take(bytes)) break;
      served.set(next, next.flow.grant(bytes));
      this.#senders.delete(next);
      this.#senders.add(next);
    }
    for (const [sender, grantedBytes] of served) sender.tell(grantedBytes);
  }

  /** For what no relay pays for. False when it is more than any accident explains. */
  charge(bytes: number): boolean {
    return this.#bucket.charge(bytes, this.#clock.monotonicMs()) > -RELAYS_PER_DEVICE_MAX * RELAY_WINDOW_BYTES;
  }

  dispose(): void {
    this.#timer?.dispose();
    this.#timer = null;
  }

  /** False when there are not enough tokens; it is served again when there are. */
  #take(bytes: number): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (!this.#bucket.take(bytes, nowMs)) {
      const delayMs = Math.max(1, this.#bucket.waitMs(RELAY_CREDIT_STEP_BYTES, nowMs));
      this.#timer = this.#clock.setTimer(delayMs, () => this.serve());
      return false;
    }
    if (this.#total.take(this, bytes)) return true;
    this.#bucket.giveBack(bytes);
    return false;
  }
}

/** Survives a reconnect, so that nobody refills a bucket by connecting anew. */
export class DeviceBudgets implements Disposable {
  readonly #clock: Clock;
  readonly #bytesPerSecond: number;
  readonly #total: TotalBudget;
  readonly #budgets = new Map<string, DeviceBudget>();

  constructor(clock: Clock, bytesPerSecond: number, totalBytesPerSecond: number) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
    this.#total = new TotalBudget(clock, totalBytesPerSecond);
  }

  of({ userId, deviceId }: { userId: string; deviceId: number }): DeviceBudget {
    const key = `${userId}/${deviceId}`;
    const known = this.#budgets.get(key);
    if (known !== undefined) return known;
    // A new device is the moment to forget those that are not in use any more.
    for (const [other, budget] of this.#budgets) if (budget.isIdle) this.#budgets.delete(other);
    const budget = new DeviceBudget(this.#clock, this.#bytesPerSecond, this.#total);
    this.#budgets.set(key, budget);
    return budget;
  }

  dispose(): void {
    this.#total.dispose();
    for (const budget of this.#budgets.values()) budget.dispose();
    this.#budgets.clear();
  }
}
