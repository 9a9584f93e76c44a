import * as v from "valibot";
import { assert } from "#shared/base/assert.ts";
import { toHex, utf8 } from "#shared/base/bytes.ts";
import { type FileId, FileIdSchema, type UserId, UserIdSchema } from "#shared/base/ids.ts";
import {
  decodeList,
  decodeOperation,
  encodeList,
  encodeOperation,
  type Limits,
  type ShareList,
  type ShareOperation,
  ShareTermsSchema,
  type ShareWish,
} from "#shared/shares/share-log.ts";
import { decodeJson } from "#shared/wire/json.ts";
import type { Database } from "./database.ts";

const WishSchema = v.variant("kind", [
  v.object({ kind: v.picklist(["add", "revoke"]), userIds: v.array(UserIdSchema) }),
  v.object({ kind: v.picklist(["leave", "withdraw"]) }),
  v.object({ kind: v.literal("terms"), terms: ShareTermsSchema }),
]);

export interface StoredShare {
  readonly list: ShareList;
  /** Hexadecimal, from version 1 on. */
  readonly heads: string[];
  readonly ownerVersion: number;
}

/** SQL of the share lists in app.db. */
export class SharesTable {
  readonly #statements;

  constructor(db: Database) {
    const { sql } = db;
    this.#statements = {
      get: sql.prepare<[string], { list: Buffer; owner_version: number }>(
        "SELECT list, owner_version FROM shares WHERE file_id = ?",
      ),
      set: sql.prepare<[string, Buffer, number | null, number | null, number]>(
        "INSERT INTO shares (file_id, list, expires_at_ms, download_limit, withdrawn) VALUES (?, ?, ?, ?, ?) " +
          "ON CONFLICT (file_id) DO UPDATE SET list = excluded.list, expires_at_ms = excluded.expires_at_ms, " +
          "download_limit = excluded.download_limit, withdrawn = excluded.withdrawn",
      ),
      limits: sql.prepare<[string], { expires_at_ms: number | null; download_limit: number | null; withdrawn: number }>(
        "SELECT expires_at_ms, download_limit, withdrawn FROM shares WHERE file_id = ?",
      ),
      expiring: sql
        .prepare<[number, number], string>(
          "SELECT file_id FROM shares WHERE expires_at_ms > ? AND expires_at_ms <= ? AND withdrawn = 0",
        )
        .pluck(),
      nextExpiry: sql
        .prepare<[number], number | null>("SELECT min(expires_at_ms) FROM shares WHERE expires_at_ms > ?")
        .pluck(),
      setOwnerVersion: sql.prepare<[number, string]>("UPDATE shares SET owner_version = ? WHERE file_id = ?"),
      heads: sql
        .prepare<[string], Buffer>("SELECT head FROM share_operations WHERE file_id = ? ORDER BY version")
        .pluck(),
      add: sql.prepare<[string, number, Buffer, Buffer]>("INSERT INTO share_operations VALUES (?, ?, ?, ?)"),
      operations: sql
        .prepare<[string, number, number], Buffer>(
          "SELECT operation FROM share_operations WHERE file_id = ? AND version >= ? ORDER BY version LIMIT ?",
        )
        .pluck(),
      newestFirst: sql
        .prepare<[string], Buffer>("SELECT operation FROM share_operations WHERE file_id = ? ORDER BY version DESC")
        .pluck(),
      withoutList: sql
        .prepare<[], string>(
          "SELECT file_id FROM files WHERE source_path IS NOT NULL AND file_id NOT IN (SELECT file_id FROM shares)",
        )
        .pluck(),
      addWish: sql.prepare<[string, string]>("INSERT INTO share_wishes (file_id, wish) VALUES (?, ?)"),
      wishes: sql.prepare<[string], { id: number; wish: string }>(
        "SELECT id, wish FROM share_wishes WHERE file_id = ? ORDER BY id",
      ),
      removeWish: sql.prepare<[number]>("DELETE FROM share_wishes WHERE id = ?"),
      wishing: sql.prepare<[], string>("SELECT DISTINCT file_id FROM share_wishes").pluck(),
      addDue: sql.prepare<[string, string]>("INSERT OR IGNORE INTO share_due VALUES (?, ?)"),
      due: sql.prepare<[], { peer: string; file_id: string }>("SELECT peer, file_id FROM share_due ORDER BY peer"),
      clearDue: sql.prepare<[string]>("DELETE FROM share_due WHERE peer = ?"),
    };
  }

  get(fileId: FileId): StoredShare | null {
    const row = this.#statements.get.get(fileId);
    if (row === undefined) return null;
    const list = decodeList(row.list);
    assert(list.ok, "a stored share list can be read");
    return { list: list.value, heads: this.#statements.heads.all(fileId).map(toHex), ownerVersion: row.owner_version };
  }

  /** Inside a transaction. `heads[i]` is the head after `operations[i]`. */
  append(list: ShareList, operations: readonly ShareOperation[], heads: readonly Uint8Array[]): void {
    const { expiresAtMs, downloadLimit } = list.terms;
    const encoded = Buffer.from(encodeList(list));
    this.#statements.set.run(list.fileId, encoded, expiresAtMs, downloadLimit, list.withdrawn ? 1 : 0);
    operations.forEach((operation, i) => {
      const head = Buffer.from(heads[i] ?? list.head);
      this.#statements.add.run(list.fileId, operation.version, head, Buffer.from(encodeOperation(operation)));
    });
  }

  setOwnerVersion(fileId: FileId, version: number): void {
    this.#statements.setOwnerVersion.run(version, fileId);
  }

  operations(fileId: FileId, from: number, count: number): ShareOperation[] {
    return this.#statements.operations.all(fileId, from, count).map((stored) => {
      const operation = decodeOperation(stored);
      assert(operation.ok, "a stored operation can be read");
      return operation.value;
    });
  }

  /** The last operation that gave this person access or ended it; null when none did. */
  lastNaming(fileId: FileId, userId: UserId): ShareOperation | null {
    let withdrawal: ShareOperation | null = null;
    const stored = this.#statements.newestFirst.iterate(fileId);
    for (const row of stored) {
      const operation = decodeOperation(row);
      if (!operation.ok) continue;
      const { kind, userIds } = operation.value;
      if (kind === "withdraw") withdrawal = operation.value;
      // A withdrawal ends the access of those only who had it until then.
      else if (userIds.includes(userId)) return kind === "add" && withdrawal !== null ? withdrawal : operation.value;
    }
    return null;
  }

  /** What ends the sharing of a file; null for a file without a list. */
  limits(fileId: string): Limits | null {
    const row = this.#statements.limits.get(fileId);
    if (row === undefined) return null;
    const { expires_at_ms: expiresAtMs, download_limit: downloadLimit, withdrawn } = row;
    return { expiresAtMs, downloadLimit, withdrawn: withdrawn === 1 };
  }

  /** Files that expire after `after`, and at `until` at the latest. */
  expiring(after: number, until: number): FileId[] {
    return this.#statements.expiring.all(after, until).map((text) => v.parse(FileIdSchema, text));
  }

  nextExpiry(after: number): number | null {
    return this.#statements.nextExpiry.get(after) ?? null;
  }

  /** Own files from before there were lists. */
  withoutList(): FileId[] {
    return this.#statements.withoutList.all().map((text) => v.parse(FileIdSchema, text));
  }

  addWish(fileId: FileId, wish: ShareWish): number {
    return Number(this.#statements.addWish.run(fileId, JSON.stringify(wish)).lastInsertRowid);
  }

  wishes(fileId: FileId): { id: number; what: ShareWish }[] {
    return this.#statements.wishes.all(fileId).flatMap(({ id, wish }) => {
      const what = decodeJson(WishSchema, utf8(wish));
      return what.ok ? [{ id, what: what.value }] : [];
    });
  }

  removeWish(id: number): void {
    this.#statements.removeWish.run(id);
  }

  /** Files for which something is wished. */
  wishing(): FileId[] {
    return this.#statements.wishing.all().map((text) => v.parse(FileIdSchema, text));
  }

  addDue(peer: UserId, fileId: FileId): void {
    this.#statements.addDue.run(peer, fileId);
  }

  /** By contact. */
  due(): Map<UserId, FileId[]> {
    const due = new Map<UserId, FileId[]>();
    for (const row of this.#statements.due.all()) {
      const peer = v.parse(UserIdSchema, row.peer);
      due.set(peer, [...(due.get(peer) ?? []), v.parse(FileIdSchema, row.file_id)]);
    }
    return due;
  }

  clearDue(peer: UserId): void {
    this.#statements.clearDue.run(peer);
  }
}
