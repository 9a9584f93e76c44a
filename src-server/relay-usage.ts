import { sql } from "kysely";
import { assert } from "#shared/base/assert.ts";
import type { Env } from "#shared/base/env.ts";
import { RELAY_USAGE_KEPT_MS, RELAY_USAGE_STEP_BYTES } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Db, Trx } from "./schema.ts";

export interface RelayQuota {
  /** Bytes that one account may send in a UTC day and a UTC calendar month; null is without end. */
  readonly dailyBytes: number | null;
  readonly monthlyBytes: number | null;
}

interface Entry {
  /** Relays that count here; with the last of them it is written down and forgotten. */
  holders: number;
  readonly loaded: Promise<void>;
  day: number;
  /** What was sent on this day and in its month, written down or not. */
  today: number;
  month: number;
  unsaved: number;
}

const dayOf = (ms: number): number => {
  const date = new Date(ms);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate());
};
const monthOf = (ms: number): number => {
  const date = new Date(ms);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), 1);
};

/**
 * Relayed bytes of each account by day, for the quotas. Counted in memory while the account has relays and written down
 * every RELAY_USAGE_STEP_BYTES and when its last relay ends: a kill forgets less than a step. Without a quota nothing is
 * counted.
 */
export class RelayUsage {
  readonly #db: Db;
  readonly #env: Env;
  readonly #quota: RelayQuota;
  readonly #entries = new Map<string, Entry>();
  #saving: Promise<void> = Promise.resolve();

  constructor(db: Db, env: Env, quota: RelayQuota) {
    this.#db = db;
    this.#env = env;
    this.#quota = quota;
  }

  /** Resolves when everything that was counted and released is written down. */
  get idle(): Promise<void> {
    return this.#saving;
  }

  get #counts(): boolean {
    return this.#quota.dailyBytes !== null || this.#quota.monthlyBytes !== null;
  }

  /** Call before each relay of the account. False when it may not send anything now; otherwise `release` is owed. */
  async start(userId: string): Promise<boolean> {
    if (!this.#counts) return true;
    const entry = this.#entries.get(userId) ?? this.#load(userId);
    entry.holders += 1;
    let mayStart = false;
    try {
      await entry.loaded;
      mayStart = this.add(userId, 0);
    } finally {
      if (!mayStart) this.release(userId);
    }
    return mayStart;
  }

  /** Counts what was sent. False when the quota is used up. */
  add(userId: string, bytes: number): boolean {
    if (!this.#counts) return true;
    const entry = this.#today(userId);
    entry.today += bytes;
    entry.month += bytes;
    entry.unsaved += bytes;
    if (entry.unsaved >= RELAY_USAGE_STEP_BYTES) this.#save(userId, entry);
    const { dailyBytes, monthlyBytes } = this.#quota;
    return entry.today < (dailyBytes ?? Infinity) && entry.month < (monthlyBytes ?? Infinity);
  }

  /** Call when a relay of the account has ended. */
  release(userId: string): void {
    const entry = this.#entries.get(userId);
    if (entry === undefined) return;
    entry.holders -= 1;
    if (entry.holders > 0) return;
    this.#entries.delete(userId);
    this.#save(userId, entry);
  }

  #load(userId: string): Entry {
    const now = this.#env.clock.now();
    const day = dayOf(now);
    const load = async (): Promise<void> => {
      await this.#saving;
      const { today, month } = await this.#db
        .selectFrom("relay_usage")
        .select([
          sql<number>`coalesce(sum(case when day = ${day} then bytes end), 0)`.as("today"),
          sql<number>`coalesce(sum(bytes), 0)`.as("month"),
        ])
        .where("user_id", "=", userId)
        .where("day", ">=", monthOf(now))
        .executeTakeFirstOrThrow();
      entry.today += today;
      entry.month += month;
    };
    const entry: Entry = { holders: 0, loaded: load(), day, today: 0, month: 0, unsaved: 0 };
    this.#entries.set(userId, entry);
    return entry;
  }

  #today(userId: string): Entry {
    const entry = this.#entries.get(userId);
    assert(entry !== undefined, "bytes are counted only while a relay holds its account");
    const day = dayOf(this.#env.clock.now());
    if (entry.day !== day) {
      this.#save(userId, entry);
      entry.month = monthOf(entry.day) === monthOf(day) ? entry.month : 0;
      entry.today = 0;
      entry.day = day;
    }
    return entry;
  }

  #save(userId: string, entry: Entry): void {
    const { day, unsaved: bytes } = entry;
    if (bytes === 0) return;
    entry.unsaved = 0;
    const write = async (): Promise<void> => {
      await this.#db
        .insertInto("relay_usage")
        .values({ user_id: userId, day, bytes })
        .onConflict((conflict) =>
          conflict.columns(["user_id", "day"]).doUpdateSet((e) => ({ bytes: e("relay_usage.bytes", "+", bytes) })),
        )
        .execute();
    };
    this.#saving = this.#saving.then(write).catch((error: unknown) => {
      // Kept in memory for as long as the account has relays; the disk is full or broken, and the health page says so.
      entry.unsaved += bytes;
      this.#env.log.error("relayed bytes were not written down", { error: messageOf(error) });
    });
  }
}

export const sweepRelayUsage = async (trx: Trx, nowMs: number, rows: number): Promise<number> => {
  const result = await trx
    .deleteFrom("relay_usage")
    .where((e) =>
      e(
        e.refTuple("user_id", "day"),
        "in",
        e
          .selectFrom("relay_usage")
          .select(["user_id", "day"])
          .where("day", "<", nowMs - RELAY_USAGE_KEPT_MS)
          .limit(rows)
          .$asTuple("user_id", "day"),
      ),
    )
    .executeTakeFirst();
  return Number(result.numDeletedRows);
};
