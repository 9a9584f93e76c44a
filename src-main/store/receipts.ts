import * as v from "valibot";
import { assert } from "#shared/base/assert.ts";
import { type FileId, FileIdSchema, type UserId } from "#shared/base/ids.ts";
import { decodeReceipt, encodeReceipt, type Receipt } from "#shared/shares/receipt.ts";
import type { Database } from "./database.ts";

/** SQL of the signed receipts in app.db. */
export class ReceiptsTable {
  readonly #statements;

  constructor(db: Database) {
    const { sql } = db;
    this.#statements = {
      add: sql.prepare<[string, string, string, string, Buffer]>(
        "INSERT OR IGNORE INTO share_receipts (file_id, kind, subject, actor, receipt) VALUES (?, ?, ?, ?, ?)",
      ),
      of: sql.prepare<[string], Buffer>("SELECT receipt FROM share_receipts WHERE file_id = ? ORDER BY rowid").pluck(),
      has: sql
        .prepare<[string, string, string], number>(
          "SELECT 1 FROM share_receipts WHERE file_id = ? AND kind = ? AND subject = ?",
        )
        .pluck(),
      downloads: sql.prepare<[string, string], { people: number; has_it: number }>(
        "SELECT count(*) AS people, coalesce(max(subject = ?), 0) AS has_it FROM share_receipts " +
          "WHERE file_id = ? AND kind = 'completed'",
      ),
      setSent: sql.prepare<[string, string, string, string]>(
        "UPDATE share_receipts SET sent_to = ? WHERE file_id = ? AND kind = ? AND subject = ?",
      ),
      unsent: sql
        .prepare<[string, string, string], Buffer>(
          "SELECT receipt FROM share_receipts WHERE file_id = ? AND actor = ? AND sent_to IS NOT ? ORDER BY rowid",
        )
        .pluck(),
      withUnsent: sql
        .prepare<[string, string], string>(
          "SELECT DISTINCT file_id FROM share_receipts WHERE actor = ? AND sent_to IS NOT ?",
        )
        .pluck(),
    };
  }

  add(receipts: readonly Receipt[]): void {
    for (const receipt of receipts) {
      const { fileId, kind, subject, actor } = receipt;
      this.#statements.add.run(fileId, kind, subject, actor, Buffer.from(encodeReceipt(receipt)));
    }
  }

  /** Oldest first. */
  of(fileId: FileId): Receipt[] {
    return this.#statements.of.all(fileId).map(receiptOf);
  }

  has({ fileId, kind, subject }: Pick<Receipt, "fileId" | "kind" | "subject">): boolean {
    return this.#statements.has.get(fileId, kind, subject) !== undefined;
  }

  /** How many people say to have the file, and whether that one does. */
  downloads(fileId: string, userId: UserId): { people: number; hasIt: boolean } {
    const row = this.#statements.downloads.get(userId, fileId);
    return { people: row?.people ?? 0, hasIt: row?.has_it === 1 };
  }

  setSent({ fileId, kind, subject }: Receipt, serverId: string): void {
    this.#statements.setSent.run(serverId, fileId, kind, subject);
  }

  /** Of this person, and not confirmed by that server; oldest first. */
  unsent(fileId: FileId, actor: UserId, serverId: string): Receipt[] {
    return this.#statements.unsent.all(fileId, actor, serverId).map(receiptOf);
  }

  filesWithUnsent(actor: UserId, serverId: string): FileId[] {
    return this.#statements.withUnsent.all(actor, serverId).map((text) => v.parse(FileIdSchema, text));
  }
}

const receiptOf = (stored: Uint8Array): Receipt => {
  const receipt = decodeReceipt(stored);
  assert(receipt.ok, "a stored receipt can be read");
  return receipt.value;
};
