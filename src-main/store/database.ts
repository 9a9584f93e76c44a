import { closeSync, existsSync, openSync } from "node:fs";
import Sqlite from "better-sqlite3";
import CipherSqlite from "better-sqlite3-multiple-ciphers";
import { assert } from "#shared/base/assert.ts";
import { toHex } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import { CHUNKS_PAGE_BYTES, WAL_RESTART_PAGES } from "#shared/base/limits.ts";
import { isDiskFull, OpenDatabaseError, openErrorOf } from "./errors.ts";
import { type Migration, migrate } from "./migrate.ts";
import { lastCommitIn } from "./wal-frames.ts";

/**
 * The only module that opens databases. Both are WAL with `synchronous = FULL`: better-sqlite3 drops to NORMAL at the
 * first write in WAL mode, where an acknowledged commit could be lost with the power, so FULL is set and asserted after
 * the first write.
 */
export type SqliteConnection = Sqlite.Database;

/** Bytes the WAL file of app.db keeps when it begins anew; without a limit it stays at its largest size for ever. */
const JOURNAL_SIZE_LIMIT = 16 * 1024 * 1024;
const SYNCHRONOUS_FULL = 2;
const AUTO_VACUUM_INCREMENTAL = 2;
const KEY_BYTES = 32;

/** Frames (pages) in the WAL since it last began anew, and how many of them are in the database file too. */
export interface WalPosition {
  readonly frames: number;
  readonly copied: number;
}

/**
 * `passive` copies what it can without waiting; `restart` waits for others, so that the next transaction begins the WAL
 * anew; `truncate` makes the file empty besides. `noop` only looks.
 */
export type CheckpointMode = "noop" | "passive" | "restart" | "truncate";

export class Database implements Disposable {
  readonly sql: SqliteConnection;
  /** A transaction failed because the disk is full; it was rolled back. Time to release the ballast. */
  readonly onDiskFull: Event<void>;
  readonly #diskFull: Emitter<void>;
  #closed = false;

  private constructor(sql: SqliteConnection) {
    this.sql = sql;
    // A listener's bug must be loud, and the caller of the transaction must still get its own error.
    this.#diskFull = new Emitter<void>((error) => {
      queueMicrotask(() => {
        throw error;
      });
    });
    this.onDiskFull = this.#diskFull.event;
  }

  /**
   * `app.db`: messages, keys, sessions; encrypted whole (sqleet: ChaCha20-Poly1305) with the 32-byte data key.
   * @throws OpenDatabaseError `wrong_key`, and the types below; NewerDatabaseError.
   */
  static openApp(path: string, key: Uint8Array, migrations: readonly Migration[]): Database {
    assert(key.length === KEY_BYTES, "data key must be 32 bytes");
    return opened("wrong_key", () => {
      makePrivate(path);
      const sql: SqliteConnection = new CipherSqlite(path);
      return Database.#prepare(sql, migrations, () => {
        sql.pragma("cipher = 'chacha20'");
        sql.pragma(`key = "x'${toHex(key)}'"`);
        // Deleted keys and messages are overwritten where that costs no extra write: a stolen data key must not open
        // what was deleted before.
        sql.pragma("secure_delete = FAST");
      });
    });
  }

  /**
   * `chunks.db`: ciphertext chunks only, so it is not encrypted again; 64 KiB pages suit its rows.
   * @throws OpenDatabaseError `damaged`, `disk_full`, `not_accessible`; NewerDatabaseError.
   */
  static openChunks(path: string, migrations: readonly Migration[]): Database {
    return opened("damaged", () => {
      makePrivate(path);
      const sql = new Sqlite(path);
      return Database.#prepare(
        sql,
        migrations,
        () => {
          sql.pragma(`page_size = ${CHUNKS_PAGE_BYTES}`);
          // Setting it writes, even when it is set already, and a newer Weir's file must not be written.
          if (sql.pragma("auto_vacuum", { simple: true }) !== AUTO_VACUUM_INCREMENTAL)
            sql.pragma("auto_vacuum = INCREMENTAL");
        },
        WAL_RESTART_PAGES * CHUNKS_PAGE_BYTES,
      );
    });
  }

  /**
   * Whether the WAL of a `chunks.db` that nobody has open holds transactions that SQLite does not find, because something
   * before them is damaged. Changes nothing. @throws OpenDatabaseError.
   */
  static hasLostCommits(path: string): boolean {
    const last = lastCommitIn(`${path}-wal`, CHUNKS_PAGE_BYTES);
    // A log without its database is thrown away when that is made anew.
    if (last === 0 || !existsSync(path)) return false;
    return opened("damaged", () => {
      const reader = new Sqlite(path, { readonly: true, fileMustExist: true });
      try {
        reader.pragma("schema_version");
        return reader
          .prepare<[], { log: number }>("PRAGMA wal_checkpoint(noop)")
          .all()
          .every(({ log }) => log < last);
      } finally {
        reader.close();
      }
    });
  }

  /**
   * A second connection to a `chunks.db` that is open already, for nothing but {@link checkpoint}: in another thread than
   * the one that commits.
   */
  static openForCheckpoints(path: string): Database {
    return opened("damaged", () => {
      const sql = new Sqlite(path, { fileMustExist: true });
      try {
        assert(
          sql.pragma("journal_mode", { simple: true }) === "wal",
          "the database is open elsewhere, so it has a WAL",
        );
        sql.pragma("synchronous = FULL");
        sql.pragma("wal_autocheckpoint = 0");
        return new Database(sql);
      } catch (error) {
        sql.close();
        throw error;
      }
    });
  }

  static #prepare(
    sql: SqliteConnection,
    migrations: readonly Migration[],
    configure: () => void,
    journalBytes = JOURNAL_SIZE_LIMIT,
  ): Database {
    try {
      configure();
      sql.pragma("journal_mode = WAL");
      sql.pragma("synchronous = FULL");
      sql.pragma("foreign_keys = ON");
      sql.pragma(`journal_size_limit = ${journalBytes}`);
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

  /**
   * Runs `body` in one IMMEDIATE transaction, or in a savepoint when one is already open. Rolls back when it throws.
   * `body` is synchronous: a transaction must not span an await.
   */
  transaction<T>(body: () => T): T {
    const nested = this.sql.inTransaction;
    try {
      return this.sql.transaction(body).immediate();
    } catch (error) {
      // Only the outermost tells: the inner one's caller may still handle the failure.
      if (!nested && isDiskFull(error)) this.#diskFull.emit();
      throw error;
    }
  }

  /** Not within a transaction. When another connection is at it, `restart` and `truncate` wait for a while, and may not succeed. */
  checkpoint(mode: CheckpointMode): WalPosition {
    try {
      const rows = this.sql.prepare<[], { log: number; checkpointed: number }>(`PRAGMA wal_checkpoint(${mode})`).all();
      assert(this.sql.pragma("synchronous", { simple: true }) === SYNCHRONOUS_FULL, "a checkpoint is not durable");
      return { frames: Math.max(0, rows[0]?.log ?? 0), copied: Math.max(0, rows[0]?.checkpointed ?? 0) };
    } catch (error) {
      if (isDiskFull(error)) this.#diskFull.emit();
      throw error;
    }
  }

  /**
   * Ends it without copying the WAL, which closing the last connection does. One that may only read copies nothing, and
   * while it is open the other is not the last. The WAL is read at the next start.
   */
  disposeWithoutCheckpoint(): void {
    if (this.#closed) return;
    const reader = new Sqlite(this.sql.name, { readonly: true, fileMustExist: true });
    try {
      reader.pragma("schema_version");
      this.dispose();
    } finally {
      reader.close();
    }
  }

  /**
   * Like {@link transaction}, for what may be lost with the power because it can be done again: it does not wait for the disk.
   * The WAL is written in order, so what was acknowledged before and after stays durable, and it is whole or not there.
   */
  repeatableTransaction<T>(body: () => T): T {
    if (this.sql.inTransaction) return this.transaction(body);
    this.sql.pragma("synchronous = NORMAL");
    try {
      return this.transaction(body);
    } finally {
      this.sql.pragma("synchronous = FULL");
    }
  }

  dispose(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#diskFull.dispose();
    this.sql.close();
  }
}

/** Only the user may read it, whatever the umask; SQLite gives its WAL the same mode. */
export const makePrivate = (path: string): void => {
  try {
    closeSync(openSync(path, "ax", 0o600));
  } catch (error) {
    // One that exists must not even be opened: closing it again would drop every lock that this process has on it.
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  }
};

const opened = <T>(whenNotADatabase: "wrong_key" | "damaged", open: () => T): T => {
  try {
    return open();
  } catch (error) {
    const described = openErrorOf(error, whenNotADatabase);
    throw described === null ? error : new OpenDatabaseError(described.type, described.message, { cause: error });
  }
};
