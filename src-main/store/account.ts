import type { Bytes } from "#shared/base/bytes.ts";
import type { Database } from "./database.ts";

/** The account's Ed25519 seed. app.db is encrypted whole, so the seed lies in it as it is. */
export class AccountTable {
  readonly #get;
  readonly #insert;

  constructor(db: Database) {
    this.#get = db.sql.prepare<[], { private_key: Buffer<ArrayBuffer> }>("SELECT private_key FROM account");
    this.#insert = db.sql.prepare<[Uint8Array, number]>(
      "INSERT INTO account (id, private_key, created_at_ms) VALUES (1, ?, ?)",
    );
  }

  seed(): Bytes | null {
    const row = this.#get.get();
    return row === undefined ? null : new Uint8Array(row.private_key);
  }

  /** Once only: a profile never changes its account. */
  insert(seed: Uint8Array, nowMs: number): void {
    this.#insert.run(seed, nowMs);
  }
}
