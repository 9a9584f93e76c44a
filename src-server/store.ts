import { type IsolationLevel, PostgresAdapter, sql } from "kysely";
import { Migrator } from "kysely/migration";
import { toBase64Url } from "#shared/base/bytes.ts";
import type { Env } from "#shared/base/env.ts";
import { messageOf } from "#shared/base/result.ts";
import { migrations } from "./migrations.ts";
import type { Db, Trx } from "./schema.ts";

/**
 * Where the server keeps everything: SQLite (`database.ts`) for one server, PostgreSQL (`postgres.ts`) for several. The
 * queries are the same. What differs is how transactions meet: SQLite runs one at a time; PostgreSQL runs many, so that
 * whatever reads before it writes must say what it relies on, by its isolation or by a lock of this file. On SQLite the
 * locks do nothing.
 */
export interface Store {
  readonly db: Db;
  /** Random, made with the database: tells one server from another. The nodes of one server have one. */
  readonly serverId: string;
  /** Commits what `work` did, or nothing. `work` may run again, so it must keep its other effects until it is done. */
  transact<T>(isolation: Isolation, work: (trx: Trx) => Promise<T>): Promise<T>;
  /** For the metrics. */
  stats?(): Readonly<Record<string, number>>;
  close(): Promise<void>;
}

/**
 * - `serializable`: as if alone, at the price of repeats when two of them meet.
 * - `locked`: sees what others commit meanwhile; takes the locks that it needs.
 */
export type Isolation = "serializable" | "locked";

export const isolationLevels: Readonly<Record<Isolation, IsolationLevel>> = {
  serializable: "serializable",
  locked: "read committed",
};

/** What keeps the server from starting, in words for its operator. */
export class StartError extends Error {
  override readonly name = "StartError";
}

const isPostgres = (db: Db): boolean => db.getExecutor().adapter instanceof PostgresAdapter;

/** Waits for whoever else changes this account, its mailbox or what counts against its quotas. */
export const lockAccount = async (trx: Trx, userId: string): Promise<void> => {
  if (!isPostgres(trx)) return;
  await trx.selectFrom("accounts").select("user_id").where("user_id", "=", userId).forUpdate().execute();
};

/** Waits for whoever else holds this name, until the end of their transaction. */
export const lockName = async (trx: Trx, name: string): Promise<void> => {
  if (isPostgres(trx)) await sql`select pg_advisory_xact_lock(hashtextextended(${name}, 0))`.execute(trx);
};

/** Takes the name without waiting. False when another transaction has it. */
export const tryLockName = async (trx: Trx, name: string): Promise<boolean> => {
  if (!isPostgres(trx)) return true;
  const { rows } = await sql<{
    taken: boolean;
  }>`select pg_try_advisory_xact_lock(hashtextextended(${name}, 0)) as taken`.execute(trx);
  return rows[0]?.taken === true;
};

interface Lockable<Q> {
  forUpdate(): Q & { skipLocked(): Q };
}

/** The rows that are read belong to this transaction: another one waits for its end and then reads again. */
export const forUpdate = <Q extends Lockable<Q>>(trx: Trx, query: Q): Q =>
  isPostgres(trx) ? query.forUpdate() : query;

/** The same, but passes over rows that belong to another transaction now. */
export const forUpdateSkipLocked = <Q extends Lockable<Q>>(trx: Trx, query: Q): Q =>
  isPostgres(trx) ? query.forUpdate().skipLocked() : query;

/** Takes back what `work` did when its answer is a refusal; the transaction around it goes on. */
export const withSavepoint = async <T extends { readonly ok: boolean }>(
  trx: Trx,
  work: () => Promise<T>,
): Promise<T> => {
  await sql`savepoint request`.execute(trx);
  const result = await work();
  if (!result.ok) await sql`rollback to savepoint request`.execute(trx);
  await sql`release savepoint request`.execute(trx);
  return result;
};

/** @throws StartError when a newer server wrote the data, or a step fails. */
export const migrate = async (db: Db): Promise<void> => {
  const { error, results } = await new Migrator({ db, provider: migrations }).migrateToLatest();
  if (error === undefined) return;
  const failed = results?.find((result) => result.status === "Error");
  throw new StartError(
    failed === undefined
      ? `The data was written by a newer version of the server (${messageOf(error)}). Update the server.`
      : `The data could not be brought up to date in step ${failed.migrationName}: ${messageOf(error)}. Restore a backup or report this.`,
  );
};

export const ensureServerId = async (db: Db, env: Env): Promise<string> =>
  db.transaction().execute(async (trx) => {
    await lockName(trx, "server");
    const row = await trx.selectFrom("server").select("id").executeTakeFirst();
    if (row !== undefined) return row.id;
    const id = toBase64Url(env.random.bytes(16));
    await trx.insertInto("server").values({ id, created_at: env.clock.now() }).execute();
    return id;
  });
