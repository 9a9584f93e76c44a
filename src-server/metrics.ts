import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { HealthSource } from "./health.ts";
import type { MetricsEndpoint, RequestOutcome } from "./server.ts";

/**
 * `GET /metrics` in the format of Prometheus: numbers and names of requests, never an id or an address. With a token, for
 * whoever shows it; without one, for this machine only, and never through a proxy.
 */
export interface MetricsOptions {
  readonly token: string | null;
}

/** Of requests: from a read in memory to a database that fails over. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export const createMetrics = ({ token }: MetricsOptions): MetricsEndpoint => {
  const registers = [new Registry()];
  const [register] = registers as [Registry];
  collectDefaultMetrics({ register });
  const requests = new Counter({
    name: "weir_requests_total",
    help: "Requests by name and by `ok` or the type of the refusal",
    labelNames: ["request", "outcome"],
    registers,
  });
  const seconds = new Histogram({
    name: "weir_request_seconds",
    help: "Time from a request's arrival to its answer",
    labelNames: ["request"],
    buckets: SECONDS,
    registers,
  });
  return {
    observe({ name, outcome, ms }: RequestOutcome) {
      requests.inc({ request: name, outcome });
      seconds.observe({ request: name }, ms / 1000);
    },
    watch(source) {
      for (const [name, help, read] of readings) {
        const config = { name: `weir_${name}`, help, registers };
        if (name.endsWith("_total")) totalOf(config, () => read(source));
        else gaugeOf(config, () => read(source));
      }
      new Gauge({
        name: "weir_database",
        help: "Connections to the database, requests that wait for one, and repeated transactions",
        labelNames: ["what"],
        registers,
        collect() {
          for (const [what, value] of Object.entries(source.store.stats?.() ?? {})) this.set({ what }, value);
        },
      });
    },
    answer: (request, response) => void answer(register, token, request, response),
  };
};

type Reading = readonly [name: string, help: string, read: (source: HealthSource) => number];

const readings: readonly Reading[] = [
  ["connections", "Open sockets, also those that have not logged in", (s) => s.connections()],
  ["sessions", "Devices that are logged in at this node", (s) => s.online.sessions],
  ["users", "Accounts that are logged in at this node", (s) => s.online.users],
  ["relays", "Relays that are open", (s) => s.relays.counters.relays],
  ["relayed_frames_total", "Frames passed on by relays", (s) => s.relays.counters.relayedFrames],
  ["relayed_bytes_total", "Bytes passed on by relays", (s) => s.relays.counters.relayedBytes],
  ["relay_violations_total", "Relays ended because a side broke the rules", (s) => s.relays.counters.relayViolations],
  ["failures_total", "Internal errors; each has a line in the log", (s) => s.counters.failures],
  ["malformed_total", "Connections that broke the protocol", (s) => s.counters.malformed],
  ["cluster_nodes", "Nodes of this server that are alive, this one included", (s) => s.cluster.others + 1],
  ["cluster_connected", "1 while the other nodes can be reached through Redis", (s) => Number(s.cluster.connected)],
  ["cluster_sent_total", "Messages to other nodes", (s) => s.cluster.counters.sent],
  ["cluster_received_total", "Messages of other nodes", (s) => s.cluster.counters.received],
  ["cluster_lost_total", "Messages between nodes that are known to be lost", (s) => s.cluster.counters.lost],
];

interface Config {
  readonly name: string;
  readonly help: string;
  readonly registers: Registry[];
}

const gaugeOf = (config: Config, read: () => number): void => {
  new Gauge({
    ...config,
    collect() {
      this.set(read());
    },
  });
};

/** Counted elsewhere: the counter is set to what it is at each reading. */
const totalOf = (config: Config, read: () => number): void => {
  new Counter({
    ...config,
    collect() {
      this.reset();
      this.inc(read());
    },
  });
};

const answer = async (
  register: Registry,
  token: string | null,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> => {
  const respond = (status: number, type: string, body: string): void => {
    response.writeHead(status, { "content-type": type, "cache-control": "no-store" });
    response.end(request.method === "HEAD" ? undefined : body);
  };
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("allow", "GET, HEAD");
    respond(405, "text/plain", "Use GET.\n");
  } else if (token === null ? isFromHere(request) : showsToken(request, token)) {
    respond(200, register.contentType, await register.metrics());
  } else {
    if (token !== null) response.setHeader("www-authenticate", "Bearer");
    const words =
      "The metrics are for this machine only. To read them from elsewhere, start with --metrics-token-file.\n";
    respond(token === null ? 403 : 401, "text/plain", token === null ? words : "The token is missing or wrong.\n");
  }
};

/** A proxy on this machine passes on requests from everywhere; what it adds tells. */
const isFromHere = ({ headers, socket }: IncomingMessage): boolean =>
  headers["x-forwarded-for"] === undefined &&
  headers["forwarded"] === undefined &&
  /^(?:::ffff:)?127\.|^::1$/.test(socket.remoteAddress ?? "");

const hashOf = (text: string): Buffer => createHash("sha256").update(text).digest();

/** Hashed, because the comparison in constant time wants equal lengths. */
const showsToken = ({ headers }: IncomingMessage, token: string): boolean =>
  timingSafeEqual(hashOf(headers.authorization ?? ""), hashOf(`Bearer ${token}`));
