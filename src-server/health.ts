import type { IncomingMessage, ServerResponse } from "node:http";
import { sql } from "kysely";
import type { Env } from "#shared/base/env.ts";
import { HEALTH_TIMEOUT_MS } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Cluster } from "./cluster/cluster.ts";
import type { Counters } from "./connection.ts";
import type { RelayCounters } from "./relays.ts";
import type { Db } from "./schema.ts";
import type { MetricsEndpoint } from "./server.ts";
import type { Online } from "./session.ts";
import type { Store } from "./store.ts";

export interface HealthSource {
  readonly store: Store;
  readonly db: Db;
  readonly env: Env;
  readonly cluster: Cluster;
  /** Null without metrics. */
  readonly metrics: MetricsEndpoint | null;
  readonly online: Online;
  readonly counters: Counters;
  readonly relays: { readonly counters: RelayCounters };
  readonly version: string;
  readonly startedAtMs: number;
  connections(): number;
}

/** What `GET /health` answers: numbers only, no ids. */
interface Health extends RelayCounters {
  ok: boolean;
  version: string;
  uptimeMs: number;
  connections: number;
  sessions: number;
  users: number;
  accounts: number;
  envelopes: number;
  envelopeBytes: number;
  requests: number;
  refusals: number;
  failures: number;
  malformed: number;
  /** This one included. */
  nodes: number;
  /** False while the other nodes cannot be reached: mail is kept, but people at other nodes wait for it. */
  connected: boolean;
}

/** Answers `/health` and `/metrics`, and 404 to every other path. Never throws. */
export const createHttpHandler =
  (source: HealthSource) =>
  (request: IncomingMessage, response: ServerResponse): void => {
    // The query is of no interest, and a malformed URL must not throw.
    const path = (request.url ?? "").split("?", 1)[0];
    if (path === "/metrics" && source.metrics !== null) {
      source.metrics.answer(request, response);
      return;
    }
    if (path !== "/health") {
      respond(response, 404, { ok: false, message: "There is nothing here." });
      return;
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      respond(response, 405, { ok: false, message: "Use GET." });
      return;
    }
    void healthOf(source).then(
      (health) => respond(response, 200, health),
      (error: unknown) => {
        source.env.log.error("the database does not answer", { error: messageOf(error) });
        respond(response, 503, { ok: false, version: source.version, message: "The database does not answer." });
      },
    );
  };

const respond = (response: ServerResponse, status: number, body: object): void => {
  response.writeHead(status, {
    "content-type": "application/json",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  response.end(response.req.method === "HEAD" ? undefined : JSON.stringify(body));
};

const healthOf = async (source: HealthSource): Promise<Health> => {
  const { env, online, counters } = source;
  const totals = await withTimeout(env, readTotals(source.db));
  return {
    ok: true,
    version: source.version,
    uptimeMs: Math.round(env.clock.monotonicMs() - source.startedAtMs),
    connections: source.connections(),
    sessions: online.sessions,
    users: online.users,
    ...totals,
    ...counters,
    nodes: source.cluster.others + 1,
    connected: source.cluster.connected,
    ...source.relays.counters,
  };
};

const readTotals = (db: Db): Promise<Pick<Health, "accounts" | "envelopes" | "envelopeBytes">> =>
  db
    .selectFrom("accounts")
    .select((e) => [
      e.fn.countAll<number>().as("accounts"),
      sql<number>`coalesce(sum(mailbox_envelopes), 0)`.as("envelopes"),
      sql<number>`coalesce(sum(mailbox_bytes), 0)`.as("envelopeBytes"),
    ])
    .executeTakeFirstOrThrow();

const withTimeout = <T>(env: Env, work: Promise<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    const timer = env.clock.setTimer(HEALTH_TIMEOUT_MS, () => reject(new Error("timed out")));
    work.then(resolve, reject).finally(() => timer.dispose());
  });
