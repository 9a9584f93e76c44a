import { SPEED_WINDOW_MS } from "#shared/base/limits.ts";

const BUCKETS = 12;
const BUCKET_MS = SPEED_WINDOW_MS / BUCKETS;

/** Bytes per second over the last SPEED_WINDOW_MS; the window fills from the first byte on. Times are monotonic. */
export class SpeedMeter {
  #buckets: { readonly startMs: number; bytes: number }[] = [];

  add(bytes: number, nowMs: number): void {
    const startMs = Math.floor(nowMs / BUCKET_MS) * BUCKET_MS;
    const last = this.#buckets.at(-1);
    if (last?.startMs === startMs) last.bytes += bytes;
    else this.#buckets.push({ startMs, bytes });
    this.#forget(nowMs);
  }

  bytesPerSecond(nowMs: number): number {
    this.#forget(nowMs);
    const first = this.#buckets[0];
    if (first === undefined) return 0;
    const bytes = this.#buckets.reduce((sum, bucket) => sum + bucket.bytes, 0);
    // At least one bucket's time: the very first bytes say nothing about speed.
    return Math.round((bytes * 1000) / Math.max(nowMs - first.startMs, BUCKET_MS));
  }

  #forget(nowMs: number): void {
    const oldest = nowMs - SPEED_WINDOW_MS;
    while (this.#buckets[0] !== undefined && this.#buckets[0].startMs < oldest) this.#buckets.shift();
  }
}
