import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { IDEMPOTENCY_TTL_MS, SERVER_SWEEP_INTERVAL_MS, SERVER_SWEEP_ROWS } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { sweepAnswers } from "./answers.ts";
import { sweepDirectory } from "./directory.ts";
import { sweepInvites } from "./invites.ts";
import { sweepTakenKeys } from "./keys.ts";
import { sweepAcknowledged, sweepEnvelopes } from "./mailbox.ts";
import { sweepRelayUsage } from "./relay-usage.ts";
import type { Trx } from "./schema.ts";
import { type Store, tryLockName } from "./store.ts";

/** Deletes at most `rows` expired rows of one kind and returns how many it deleted. */
type Sweep = (trx: Trx, nowMs: number, rows: number) => Promise<number>;

const sweeps: readonly Sweep[] = [
  sweepEnvelopes,
  // An acknowledged envelope is remembered as long as a request: repeats come within that time.
  (trx, nowMs, rows) => sweepAcknowledged(trx, nowMs - IDEMPOTENCY_TTL_MS, rows),
  sweepInvites,
  sweepAnswers,
  sweepTakenKeys,
  sweepDirectory,
  sweepRelayUsage,
];

/** Removes what has expired, in small transactions between which requests get their turn. */
export class Sweeper implements Disposable {
  readonly #store: Store;
  readonly #env: Env;
  #timer: Disposable | null = null;
  #disposed = false;
  idle: Promise<void> = Promise.resolve();

  constructor(store: Store, env: Env) {
    this.#store = store;
    this.#env = env;
    this.#arm();
  }

  dispose(): void {
    this.#disposed = true;
    this.#timer?.dispose();
  }

  #arm(): void {
    if (this.#disposed) return;
    this.#timer = this.#env.clock.setTimer(SERVER_SWEEP_INTERVAL_MS, () => {
      this.idle = this.#sweep()
        .catch((error: unknown) => this.#env.log.error("sweep failed", { error: messageOf(error) }))
        .finally(() => this.#arm());
    });
  }

  async #sweep(): Promise<void> {
    const nowMs = this.#env.clock.now();
    for (const sweep of sweeps) {
      let deleted = SERVER_SWEEP_ROWS;
      while (deleted >= SERVER_SWEEP_ROWS && !this.#disposed) {
        deleted = await this.#store.transact("locked", async (trx) =>
          // One node at a time is enough.
          (await tryLockName(trx, "sweep")) ? sweep(trx, nowMs, SERVER_SWEEP_ROWS) : 0,
        );
      }
    }
  }
}
