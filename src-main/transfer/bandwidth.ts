import type { TimeMs } from "#shared/base/env.ts";
import { BANDWIDTH_BURST_MS } from "#shared/base/limits.ts";

/**
 * A limit in bytes per second as a bucket of tokens. Whatever is sent or asked for is taken from it afterwards, so it can
 * be overdrawn by one piece; then there is nothing until it has filled up again. Pure: the time is an input.
 */
export class TokenBucket {
  #bytesPerSecond: number | null = null;
  #tokens = 0;
  #filledAtMs: TimeMs = 0;

  /** Null takes the limit away. */
  limit(bytesPerSecond: number | null, now: TimeMs): void {
    this.#fill(now);
    this.#bytesPerSecond = bytesPerSecond;
    this.#tokens = Math.min(this.#tokens, this.#burst);
  }

  get isLimited(): boolean {
    return this.#bytesPerSecond !== null;
  }

  /** 0 when something may be taken now. */
  waitMs(now: TimeMs): number {
    if (this.#bytesPerSecond === null) return 0;
    this.#fill(now);
    return this.#tokens > 0 ? 0 : Math.ceil(((1 - this.#tokens) * 1000) / this.#bytesPerSecond);
  }

  take(bytes: number): void {
    if (this.#bytesPerSecond !== null) this.#tokens -= bytes;
  }

  get #burst(): number {
    return Math.max(1, ((this.#bytesPerSecond ?? 0) * BANDWIDTH_BURST_MS) / 1000);
  }

  #fill(now: TimeMs): void {
    if (this.#bytesPerSecond !== null) {
      const gained = (Math.max(0, now - this.#filledAtMs) * this.#bytesPerSecond) / 1000;
      this.#tokens = Math.min(this.#burst, this.#tokens + gained);
    }
    this.#filledAtMs = now;
  }
}

/**
 * Whose turn it is when several want pieces of a limit: each gets in proportion to its weight (start-time fair queueing).
 * One that wanted nothing for a while begins beside the others and makes up for nothing.
 */
export class FairShare<Key> {
  readonly #served = new Map<Key, number>();

  /** The one of `wanting` that has had the least for its weight, and counts `amount` for it. Null when nobody wants. */
  next(wanting: readonly { readonly key: Key; readonly weight: number; readonly amount: number }[]): Key | null {
    const keys = new Set(wanting.map(({ key }) => key));
    for (const key of this.#served.keys()) if (!keys.has(key)) this.#served.delete(key);
    const known = [...this.#served.values()];
    const least = known.length === 0 ? 0 : Math.min(...known);
    const [first, ...rest] = wanting;
    if (first === undefined) return null;
    const had = ({ key }: { key: Key }): number => this.#served.get(key) ?? least;
    const chosen = rest.reduce((best, one) => (had(one) < had(best) ? one : best), first);
    for (const { key } of wanting) if (!this.#served.has(key)) this.#served.set(key, least);
    this.#served.set(chosen.key, had(chosen) + chosen.amount / chosen.weight);
    return chosen.key;
  }
}
