import Sqlite from "better-sqlite3";
import CipherSqlite from "better-sqlite3-multiple-ciphers";
import { assert } from "#shared/base/assert.ts";
import { toHex } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import { type Migration, migrate } from "./migrate.ts";

/**
 * The only module that opens databases. Both are WAL with `synchronous = FULL`: better-sqlite3 drops to NORMAL at the
 * first write in WAL mode, where an acknowledged commit could be lost with the power, so FULL is set and asserted after
 * the first write.
 */
export type SqliteConnection = Sqlite.Database;

/** Bytes the WAL file keeps after a checkpoint; without a limit it stays at its largest size for ever. */
const JOURNAL_SIZE_LIMIT = 16 * 1024 * 1024;
const SYNCHRONOUS_FULL = 2;

export class Database implements Disposable {
  readonly sql: SqliteConnection;
  #closed = false;

  private constructor(sql: SqliteConnection) {
    this.sql = sql;
  }

  /**
   * `app.db`: messages, keys, sessions; encrypted whole (sqleet: ChaCha20-Poly1305) with the 32-byte data key.
   * @throws SqliteError SQLITE_NOTADB when the key is wrong.
   */
  static openApp(path: string, key: Uint8Array, migrations: readonly Migration[]): Database {
    assert(key.length === 32, "data key must be 32 bytes");
    const sql: SqliteConnection = new CipherSqlite(path);
    sql.pragma("cipher = 'chacha20'");
    sql.pragma(`key = "x'${toHex(key)}'"`);
    return Database.#prepare(sql, migrations);
  }

  /** `chunks.db`: ciphertext chunks only, so it is not encrypted again; 64 KiB pages suit its rows. */
  static openChunks(path: string, migrations: readonly Migration[]): Database {
    const sql = new Sqlite(path);
    sql.pragma("page_size = 65536");
    sql.pragma("auto_vacuum = INCREMENTAL");
    return Database.#prepare(sql, migrations);
  }

  static #prepare(sql: SqliteConnection, migrations: readonly Migration[]): Database {
    try {
      sql.pragma("journal_mode = WAL");
      sql.pragma("synchronous = FULL");
      sql.pragma("foreign_keys = ON");
      sql.pragma(`journal_size_limit = ${JOURNAL_SIZE_LIMIT}`);
      migrate(sql, migrations);
      // A write that always happens, then set and check again: see the head comment.
      sql.exec(
        "CREATE TABLE IF NOT EXISTS opened (at INTEGER NOT NULL); DELETE FROM opened; INSERT INTO opened VALUES (unixepoch())",
      );
      sql.pragma("synchronous = FULL");
      assert(sql.pragma("synchronous", { simple: true }) === SYNCHRONOUS_FULL, "the database is not durable");
      return new Database(sql);
    } catch (error) {
      sql.close();
      throw error;
    }
  }

  /** Runs `body` in one IMMEDIATE transaction, or in a savepoint when one is already open. Rolls back when it throws. */
  transaction<T>(body: () => T): T {
    return this.sql.transaction(body).immediate();
  }

  dispose(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.sql.close();
  }
}
