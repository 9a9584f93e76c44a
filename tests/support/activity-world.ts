import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { UserId } from "#shared/base/ids.ts";
import { type ActivityGuards, Aggregation } from "../../src-main/activity/aggregation.ts";
import { Aggregator } from "../../src-main/activity/aggregator.ts";
import { systemRandom } from "../../src-main/env.ts";
import type { NewEvent } from "../../src-main/store/activity.ts";
import { Database } from "../../src-main/store/database.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";
import { createManualClock } from "./fake-app.ts";
import { quietLog } from "./files.ts";

export const SELF = "a".repeat(32) as UserId;
export const PEERS = ["b", "c", "d"].map((letter) => letter.repeat(32) as UserId);
export const allGuards: ActivityGuards = { lock: true, batches: true, sequence: true };
const KEY = new Uint8Array(32).fill(7);

/** A real app.db in a folder of its own, with what aggregates its activity. */
export class ActivityWorld {
  readonly clock = createManualClock();
  readonly env = { clock: this.clock, random: systemRandom, log: quietLog };
  guards: ActivityGuards = allGuards;
  db: Database;
  readonly #directory: string;
  readonly #limits: { retentionMs?: number; eventsMax?: number };
  #owners = 0;

  constructor(limits: { retentionMs?: number; eventsMax?: number } = {}) {
    this.#limits = limits;
    this.#directory = mkdtempSync(join(tmpdir(), "weir-activity-"));
    this.db = this.#open();
  }

  #open(): Database {
    return Database.openApp(join(this.#directory, "app.db"), KEY, appMigrations);
  }

  /** As after the end of the process, however it came. */
  reopen(): void {
    this.db.dispose();
    this.db = this.#open();
  }

  aggregation(): Aggregation {
    const owner = `process ${this.#owners++}`;
    return new Aggregation({ env: this.env, db: this.db, self: SELF, owner, ...this.#limits });
  }

  aggregator(aggregation: Aggregation, pause: () => Promise<void> = () => Promise.resolve()): Aggregator {
    return new Aggregator({ env: this.env, aggregation, guards: () => this.guards, pause });
  }

  event(kind: string, more: Partial<NewEvent> & { json?: object } = {}): NewEvent {
    const { json, ...columns } = more;
    const data = json === undefined ? null : JSON.stringify(json);
    return { at: this.clock.now(), kind, peer: null, fileId: null, data, ...columns };
  }

  dispose(): void {
    this.db.dispose();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** All sums of a side, as text, sorted: two of them are equal or they are not. */
export const sumsOf = (aggregation: Aggregation): string[] =>
  aggregation.sums
    .aggregates("head")
    .filter(({ value }) => value !== 0)
    .map(({ scope, key, day, metric, value }) => `${scope} ${key} ${day} ${metric} ${value}`)
    .sort();
