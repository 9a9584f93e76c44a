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
import type { Db, Trx } from "./schema.ts";

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
  readonly #db: Db;
  readonly #env: Env;
  #timer: Disposable | null = null;
  #disposed = false;
  idle: Promise<void> = Promise.resolve();

  constructor(db: Db, env: Env) {
    this.#db = db;
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
        deleted = await this.#db.transaction().execute((trx) => sweep(trx, nowMs, SERVER_SWEEP_ROWS));
      }
    }
  }
}
