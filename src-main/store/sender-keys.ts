import type { Bytes } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { GROUP_SENDER_KEYS_KEPT } from "#shared/base/limits.ts";
import type { Database } from "./database.ts";

/** Sender keys of groups as rows; it knows nothing of what is inside the records. */
export class SenderKeysTable {
  readonly #get;
  readonly #groupOf;
  readonly #put;
  readonly #update;
  readonly #prune;
  readonly #clear;

  constructor(db: Database) {
    const { sql } = db;
    this.#get = sql.prepare<[string, string], { record: Uint8Array }>(
      "SELECT record FROM signal_sender_keys WHERE sender = ? AND distribution_id = ?",
    );
    this.#groupOf = sql
      .prepare<[string, string], string>(
        "SELECT group_id FROM signal_sender_keys WHERE sender = ? AND distribution_id = ?",
      )
      .pluck();
    this.#put = sql.prepare<[string, string, string, Uint8Array]>(`
      INSERT INTO signal_sender_keys (group_id, sender, distribution_id, record) VALUES (?, ?, ?, ?)
      ON CONFLICT (sender, distribution_id) DO UPDATE SET record = excluded.record`);
    this.#update = sql.prepare<[Uint8Array, string, string]>(
      "UPDATE signal_sender_keys SET record = ? WHERE sender = ? AND distribution_id = ?",
    );
    this.#prune = sql.prepare<[string, string, number]>(`
      DELETE FROM signal_sender_keys WHERE position IN (SELECT position FROM signal_sender_keys
        WHERE group_id = ? AND sender = ? ORDER BY position DESC LIMIT -1 OFFSET ?)`);
    this.#clear = sql.prepare<[string, string]>("DELETE FROM signal_sender_keys WHERE group_id = ? AND sender = ?");
  }

  get(sender: UserId, distributionId: string): Bytes | null {
    const row = this.#get.get(sender, distributionId);
    return row === undefined ? null : new Uint8Array(row.record);
  }

  groupOf(sender: UserId, distributionId: string): string | null {
    return this.#groupOf.get(sender, distributionId) ?? null;
  }

  /** The newest of a group and sender are kept. */
  put(groupId: string, sender: UserId, distributionId: string, record: Uint8Array): void {
    this.#put.run(groupId, sender, distributionId, record);
    this.#prune.run(groupId, sender, GROUP_SENDER_KEYS_KEPT);
  }

  /** A key that was thrown away meanwhile stays away. */
  update(sender: UserId, distributionId: string, record: Uint8Array): void {
    this.#update.run(record, sender, distributionId);
  }

  clear(groupId: string, sender: UserId): void {
    this.#clear.run(groupId, sender);
  }
}
