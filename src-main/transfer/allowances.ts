import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { ALLOWANCE_CHUNKS_MAX, TRANSFER_WEIGHTS } from "#shared/base/limits.ts";
import { FairShare, TokenBucket } from "./bandwidth.ts";
import type { Download } from "./download.ts";

/**
 * Shares the limit on what is received among the downloads that want something, by their priority: they may ask for as
 * many chunks as they are granted. Runs only while there is a limit and somebody waits.
 */
export class Allowances implements Disposable {
  readonly #clock: Clock;
  readonly #downloads: () => Iterable<Download>;
  readonly #bucket = new TokenBucket();
  readonly #turns = new FairShare<Download>();
  #timer: Disposable | null = null;
  #granting = false;

  constructor(clock: Clock, downloads: () => Iterable<Download>) {
    this.#clock = clock;
    this.#downloads = downloads;
  }

  /** Null takes the limit away. */
  limit(bytesPerSecond: number | null): void {
    this.#bucket.limit(bytesPerSecond, this.#clock.monotonicMs());
    for (const download of this.#downloads()) this.begin(download);
    this.grant();
  }

  /** For a download that is new, or when the limit begins or ends. */
  begin(download: Download): void {
    const { allowance } = download.state;
    if (this.#bucket.isLimited) {
      if (allowance === null) download.dispatch({ type: "limited", allowance: 0 });
    } else if (allowance !== null) download.dispatch({ type: "limited", allowance: null });
  }

  /** Somebody may want something. */
  grant(): void {
    // What is granted is asked for at once, which leads here again.
    if (!this.#bucket.isLimited || this.#timer !== null || this.#granting) return;
    this.#granting = true;
    try {
      this.#grantAll();
    } finally {
      this.#granting = false;
    }
  }

  #grantAll(): void {
    for (;;) {
      const wanting = [...this.#downloads()].filter(wantsMore).map((download) => ({
        ...{ key: download, weight: TRANSFER_WEIGHTS[download.priority] },
        amount: download.spec.chunkBytes,
      }));
      if (wanting.length === 0) return;
      const waitMs = this.#bucket.waitMs(this.#clock.monotonicMs());
      if (waitMs > 0) {
        this.#timer = this.#clock.setTimer(waitMs, () => {
          this.#timer = null;
          this.grant();
        });
        return;
      }
      const download = this.#turns.next(wanting);
      if (download === null) return;
      this.#bucket.take(download.spec.chunkBytes);
      download.dispatch({ type: "granted", chunks: 1 });
    }
  }

  dispose(): void {
    this.#timer?.dispose();
  }
}

/** It has somebody to ask, and may ask for little or nothing. */
const wantsMore = ({ state }: Download): boolean =>
  state.kind === "downloading" &&
  state.allowance !== null &&
  state.allowance < ALLOWANCE_CHUNKS_MAX &&
  [...state.swarm.sessions.values()].some(({ stage }) => stage.kind === "serving");
