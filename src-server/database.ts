import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { type DialectAdapter, Kysely, SqliteAdapter, SqliteDialect } from "kysely";
import { assert } from "#shared/base/assert.ts";
import type { Env } from "#shared/base/env.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Schema } from "./schema.ts";
import { ensureServerId, migrate, StartError, type Store } from "./store.ts";

/**
 * `server.db` in the data folder: WAL with `synchronous = FULL`, so that what was answered survives a kill and a power
 * cut. better-sqlite3 drops to NORMAL at the first write in WAL mode; hence FULL is set again after one and asserted.
 */
const JOURNAL_SIZE_LIMIT = 16 * 1024 * 1024;
const BUSY_TIMEOUT_MS = 5000;
const SYNCHRONOUS_FULL = 2;

/** @throws StartError when the folder cannot be used, is in use, or was written by a newer version. */
export const openDatabase = async (dataDir: string, env: Env): Promise<Store> => {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new StartError(`The data folder cannot be made: ${messageOf(error)}. Choose another with --data.`);
  }
  const lock = takeLock(dataDir);
  let sqlite: Sqlite.Database | undefined;
  try {
    const path = join(dataDir, "server.db");
    sqlite = new Sqlite(path);
    // Who talks to whom and when is nobody's business on this machine; the WAL file gets the same mode.
    chmodSync(path, 0o600);
    prepare(sqlite);
    const db = new Kysely<Schema>({ dialect: new Dialect({ database: sqlite }) });
    await migrate(db);
    const serverId = await ensureServerId(db, env);
    assertDurable(sqlite);
    const close = async (): Promise<void> => {
      await db.destroy();
      lock.close();
    };
    return { db, serverId, transact: (_, work) => db.transaction().execute(work), close };
  } catch (error) {
    sqlite?.close();
    lock.close();
    throw error;
  }
};

/**
 * Two servers on one folder would not tell each other's clients about new envelopes. The lock is an open exclusive
 * transaction on a database of its own: the system ends it with the process, however that dies, and `server.db` stays
 * readable for backups.
 */
const takeLock = (dataDir: string): Sqlite.Database => {
  const lock = new Sqlite(join(dataDir, "server.lock"), { timeout: 0 });
  try {
    lock.exec("BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock.close();
    throw new StartError(
      `The data folder is in use or cannot be locked (${messageOf(error)}). Stop the other server or choose another folder with --data.`,
    );
  }
};

/**
 * SQLite can change tables inside a transaction, and kysely leaves that off for it. On, a migration and its entry are one
 * transaction: a server that is killed in between starts again.
 */
class TransactionalAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}
class Dialect extends SqliteDialect {
  override createAdapter(): DialectAdapter {
    return new TransactionalAdapter();
  }
}

const prepare = (sqlite: Sqlite.Database): void => {
  sqlite.pragma(`busy_timeout = ${BUSY_TIMEOUT_MS}`);
  sqlite.pragma("journal_mode = WAL");
  sqlite.pragma("foreign_keys = ON");
  sqlite.pragma(`journal_size_limit = ${JOURNAL_SIZE_LIMIT}`);
  sqlite.exec("CREATE TABLE IF NOT EXISTS opened (at INTEGER NOT NULL)");
  sqlite.exec("DELETE FROM opened; INSERT INTO opened VALUES (unixepoch())");
  sqlite.pragma("synchronous = FULL");
  assertDurable(sqlite);
};

const assertDurable = (sqlite: Sqlite.Database): void => {
  assert(sqlite.pragma("synchronous", { simple: true }) === SYNCHRONOUS_FULL, "the database is not durable");
  assert(sqlite.pragma("journal_mode", { simple: true }) === "wal", "the database is not in WAL mode");
};
