import {
  type ColumnDefinitionNode,
  DataTypeNode,
  GeneratedNode,
  Kysely,
  type KyselyPlugin,
  OperationNodeTransformer,
  type PluginTransformQueryArgs,
  type PluginTransformResultArgs,
  PostgresDialect,
  type QueryResult,
  type RootOperationNode,
  sql,
  type UnknownRow,
} from "kysely";
import pg from "pg";
import type { Env } from "#shared/base/env.ts";
import {
  SERVER_DATABASE_CONNECT_TIMEOUT_MS,
  SERVER_DATABASE_CONNECTIONS,
  SERVER_DATABASE_RETRY_MS,
  SERVER_DATABASE_START_MS,
  SERVER_DATABASE_STATEMENT_TIMEOUT_MS,
} from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Schema, Trx } from "./schema.ts";
import { ensureServerId, type Isolation, isolationLevels, migrate, StartError, type Store } from "./store.ts";

/**
 * The store on PostgreSQL 13 or newer, for several servers. Connections come from a pool; when the database restarts or
 * fails over, transactions are repeated for a while. That is safe also where the answer to a COMMIT was lost, because
 * every request that writes leaves its answer behind (`answers.ts`).
 */
const INT8 = 20;
const NUMERIC = 1700;
const CANNOT_CONNECT_NOW = "57P03";
const RETRY_BASE_MS = 10;
const RETRY_MAX_MS = 500;
const SERIALIZATION_RETRIES = 20;

/** @throws StartError when the database cannot be reached, is not durable, or was written by a newer version. */
export const openPostgres = async (url: string, env: Env): Promise<Store> => {
  const pool = createPool(url);
  // A connection may end at any time, also between two queries of a transaction: the next query fails, and a fresh one is
  // made. Without a listener on each the process would end instead; the pool's own covers only those that nobody uses.
  pool.on("connect", (client) => {
    client.on("error", (error) => env.log.warn("a connection to the database ended", { error: messageOf(error) }));
  });
  pool.on("error", () => undefined);
  const db = new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });
  const counters = { retries: 0 };
  try {
    await assertUsable(db, env);
    await migrate(db.withPlugin(new PostgresTypes()));
    const serverId = await ensureServerId(db, env);
    return {
      db,
      serverId,
      stats: () => ({
        connections: pool.totalCount,
        idle: pool.idleCount,
        waiting: pool.waitingCount,
        retries: counters.retries,
      }),
      transact: (isolation, work) => transact(db, env, counters, isolation, work),
      close: () => db.destroy(),
    };
  } catch (error) {
    await db.destroy();
    throw error;
  }
};

const createPool = (url: string): pg.Pool => {
  let pool: pg.Pool;
  try {
    pool = new pg.Pool({
      connectionString: url,
      application_name: "weir",
      max: SERVER_DATABASE_CONNECTIONS,
      connectionTimeoutMillis: SERVER_DATABASE_CONNECT_TIMEOUT_MS,
      statement_timeout: SERVER_DATABASE_STATEMENT_TIMEOUT_MS,
      // A node that is frozen in the middle must not hold its locks for ever.
      idle_in_transaction_session_timeout: SERVER_DATABASE_STATEMENT_TIMEOUT_MS,
      keepAlive: true,
      types: { getTypeParser: typeParser },
    });
  } catch (error) {
    throw new StartError(`--database is no address of PostgreSQL: ${messageOf(error)}.`);
  }
  return pool;
};

/** 64-bit numbers are times and sizes below 2^53 here, and sums of them. */
const typeParser = ((oid: number, format?: "text") =>
  oid === INT8 || oid === NUMERIC ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser;

/** After the start of a machine, or a crash, PostgreSQL says for a while that it is not ready. */
const whenReady = async <T>(env: Env, work: () => Promise<T>): Promise<T> => {
  const giveUpAtMs = env.clock.monotonicMs() + SERVER_DATABASE_START_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (codeOf(error) !== CANNOT_CONNECT_NOW || env.clock.monotonicMs() >= giveUpAtMs) throw error;
      await pause(env, attempt);
    }
  }
};

const assertUsable = async (db: Kysely<Schema>, env: Env): Promise<void> => {
  const setting = async (name: string): Promise<string> => {
    const { rows } = await sql<{ value: string }>`select current_setting(${name}) as value`.execute(db);
    return rows[0]?.value ?? "";
  };
  let settings: string[];
  try {
    const names = ["fsync", "synchronous_commit", "server_version_num"];
    settings = await whenReady(env, () => Promise.all(names.map(setting)));
  } catch (error) {
    throw new StartError(
      `PostgreSQL cannot be used: ${messageOf(error)}. Check the address in --database, the user's password and whether the database exists.`,
    );
  }
  const [fsync, synchronousCommit, version] = settings;
  if (fsync === "off" || synchronousCommit === "off") {
    throw new StartError(
      "PostgreSQL is set to lose what it has committed (fsync or synchronous_commit is off). Switch both on for this database.",
    );
  }
  if (Number(version) < 130_000) throw new StartError("PostgreSQL is too old. Use version 13 or newer.");
};

const transact = async <T>(
  db: Kysely<Schema>,
  env: Env,
  counters: { retries: number },
  isolation: Isolation,
  work: (trx: Trx) => Promise<T>,
): Promise<T> => {
  const giveUpAtMs = env.clock.monotonicMs() + SERVER_DATABASE_RETRY_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      return await db.transaction().setIsolationLevel(isolationLevels[isolation]).execute(work);
    } catch (error) {
      const isLeft = isConflict(error) ? attempt < SERIALIZATION_RETRIES : env.clock.monotonicMs() < giveUpAtMs;
      if (!isLeft || !(isConflict(error) || isConnectionLost(error))) throw error;
      counters.retries++;
      await pause(env, attempt);
    }
  }
};

/** Grows, and differs for each: two that met would meet again. */
const pause = (env: Env, attempt: number): Promise<void> => {
  const longestMs = Math.min(RETRY_MAX_MS, RETRY_BASE_MS * 2 ** attempt);
  const { promise, resolve } = Promise.withResolvers<void>();
  env.clock.setTimer(longestMs * (0.5 + env.random.number() / 2), resolve);
  return promise;
};

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";

/**
 * serialization_failure and deadlock_detected: PostgreSQL asks for a repeat. unique_violation too: another transaction
 * inserted the same meanwhile, and the repeat finds it.
 */
const isConflict = (error: unknown): boolean => ["40001", "40P01", "23505"].includes(codeOf(error));

/** Class 08, shutdown, crash and start of the database; resets by the network; and pg's own words for the same. */
const LOST_CODES = /^(?:08...|57P0[123]|53300|ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|ENOENT|EAI_AGAIN)$/;
const LOST_WORDS = /Connection terminated|not queryable|timeout exceeded when trying to connect|Client was closed/;
const isConnectionLost = (error: unknown): boolean =>
  LOST_CODES.test(codeOf(error)) || (error instanceof Error && LOST_WORDS.test(error.message));

/** The migrations are written in SQLite's types: its integers have 64 bits, and bytes have another name. */
class PostgresTypes implements KyselyPlugin {
  readonly #transformer = new TypeTransformer();

  transformQuery({ node, queryId }: PluginTransformQueryArgs): RootOperationNode {
    return this.#transformer.transformNode(node, queryId);
  }

  async transformResult({ result }: PluginTransformResultArgs): Promise<QueryResult<UnknownRow>> {
    return result;
  }
}

class TypeTransformer extends OperationNodeTransformer {
  protected override transformDataType(node: DataTypeNode): DataTypeNode {
    if (node.dataType === "integer") return DataTypeNode.create("bigint");
    if (node.dataType === "blob") return DataTypeNode.create("bytea");
    return node;
  }

  protected override transformColumnDefinition(node: ColumnDefinitionNode): ColumnDefinitionNode {
    const { autoIncrement, ...column } = super.transformColumnDefinition(node);
    if (autoIncrement !== true) return column;
    return { ...column, generated: GeneratedNode.create({ identity: true, byDefault: true }) };
  }
}
