import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { Server } from "socket.io";
import * as parser from "socket.io-parser";
import type { Env } from "#shared/base/env.ts";
import { LOGIN_TIMEOUT_MS, SERVER_CLOSE_GRACE_MS, SERVER_MESSAGE_BYTES_MAX } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { boundedParser } from "#shared/rendezvous/bounded-parser.ts";
import manifest from "../package.json" with { type: "json" };
import { RecentAnswers } from "./answers.ts";
import { alone, type Cluster } from "./cluster/cluster.ts";
import { Connection, type ConnectionHost, type Counters, replace } from "./connection.ts";
import { openDatabase } from "./database.ts";
import { type EngineSocket, HalfOpen } from "./half-open.ts";
import { createHttpHandler, type HealthSource } from "./health.ts";
import { Mailboxes } from "./mailbox.ts";
import { Presence } from "./presence.ts";
import { addressKey, defaultRates, type MakeLimiter, memoryLimiter, type RateOptions, Rates } from "./rates.ts";
import { RelayUsage } from "./relay-usage.ts";
import { defaultRelay, type RelayOptions, Relays } from "./relays.ts";
import { Online } from "./session.ts";
import { StartError, type Store } from "./store.ts";
import { Sweeper } from "./sweeper.ts";
import { type IceOptions, noIce } from "./turn.ts";

/**
 * The rendezvous server: brings people together and keeps their sealed mail. It can be embedded in the app or run by
 * itself (`main.ts`). It stores ids, sizes, times, public keys and ciphertext, never anything that it could read.
 */
export interface ServerOptions {
  /** What it keeps everything in: a folder (made if missing; one server per folder), or what several servers share. */
  readonly data: string | SharedEngine;
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly env: Env;
  /** Shown by `/health`; Weir's own by default. */
  readonly version?: string;
  /** True behind a reverse proxy of one's own: the remote address is the last entry of X-Forwarded-For then. */
  readonly trustProxy?: boolean;
  readonly rates?: Partial<RateOptions>;
  readonly ice?: IceOptions;
  readonly relay?: Partial<RelayOptions>;
  readonly metrics?: MetricsEndpoint;
}

export interface RequestOutcome {
  readonly name: string;
  /** `ok`, or the type of the refusal. */
  readonly outcome: string;
  readonly ms: number;
}

/** `metrics.ts`, which the app has no part of. */
export interface MetricsEndpoint {
  observe(request: RequestOutcome): void;
  /** What is read when somebody asks. */
  watch(source: HealthSource): void;
  answer(request: IncomingMessage, response: ServerResponse): void;
}

/** What the nodes of one server have together (`distributed.ts`). The app, which runs a server alone, has no part of it. */
export interface SharedEngine {
  openStore(env: Env): Promise<Store>;
  join(serverId: string, env: Env): Promise<Shared>;
}
export interface Shared {
  readonly cluster: Cluster;
  /** Counts for all nodes. */
  readonly limiter: MakeLimiter;
}
const notShared: Shared = { cluster: alone, limiter: memoryLimiter };

export interface RendezvousServer {
  /** `ws://host:port` */
  readonly url: string;
  readonly serverId: string;
  /** Answers what is under way, ends every connection and closes the database. Idempotent. */
  close(): Promise<void>;
}

export { StartError };

/** The address is taken or is none of this machine's; another port may do. */
export class AddressError extends StartError {}

/** How often idle HTTP connections are checked for having sent no request. */
const HTTP_CHECK_INTERVAL_MS = 5000;

/** @throws StartError in words when the data folder or the address cannot be used. */
export const createServer = async (options: ServerOptions): Promise<RendezvousServer> => {
  const { env } = options;
  const { data } = options;
  const store = typeof data === "string" ? await openDatabase(data, env) : await data.openStore(env);
  const { db, serverId } = store;
  let shared: Shared;
  try {
    shared = typeof data === "string" ? notShared : await data.join(serverId, env);
  } catch (error) {
    await store.close();
    throw error;
  }
  const { cluster } = shared;
  const online = new Online();
  const counters: Counters = { requests: 0, refusals: 0, failures: 0, malformed: 0 };
  const presence = new Presence();
  const relayOptions = { ...defaultRelay, ...options.relay };
  const usage = new RelayUsage(db, env, relayOptions);
  const relays = new Relays({ env, presence, cluster, usage }, relayOptions);
  const host: ConnectionHost = {
    env,
    store,
    db,
    serverId,
    cluster,
    online,
    counters,
    observe: (request) => options.metrics?.observe(request),
    presence,
    relays,
    ice: options.ice ?? noIce,
    mailboxes: new Mailboxes(db, env, online, cluster),
    rates: new Rates({ ...defaultRates, ...options.rates }, shared.limiter),
    recent: new RecentAnswers(env),
  };
  const connections = new Set<Connection>();
  const http = createHttpServer({
    headersTimeout: LOGIN_TIMEOUT_MS,
    requestTimeout: LOGIN_TIMEOUT_MS,
    connectionsCheckingInterval: HTTP_CHECK_INTERVAL_MS,
  });
  const startedAtMs = env.clock.monotonicMs();
  const version = options.version ?? manifest.version;
  const metrics = options.metrics ?? null;
  const source = {
    ...{
      store,
      db,
      env,
      cluster,
      metrics,
      online,
      counters,
      relays,
      version,
      startedAtMs,
      connections: () => io.engine.clientsCount,
    },
  };
  metrics?.watch(source);
  // Before socket.io attaches itself: it passes on what is not its own, and never a request that it answered.
  http.on("request", createHttpHandler(source));
  const halfOpen = new HalfOpen();
  const addressOf = (request: IncomingMessage): string => remoteAddress(request, options.trustProxy ?? false);
  const io = attach(http, (request) => halfOpen.hasRoom(io.engine, addressOf(request)));
  io.engine.on("connection", (raw: EngineSocket) => {
    const address = addressOf(raw.request);
    halfOpen.opened(raw, address);
    raw.once("close", (reason: string) => {
      halfOpen.ended(raw, address);
      // A frame that is too large: the library would read the rest of it, to hear a polite end.
      if (reason === "transport error") raw.request.socket.destroy();
    });
  });

  io.on("connection", (socket) => {
    const address = addressOf(socket.request);
    const connection = new Connection(host, socket, address, () => halfOpen.ended(socket.conn, address));
    connections.add(connection);
    socket.on("disconnect", () => void connection.idle().finally(() => connections.delete(connection)));
  });

  const sockets = new Set<Socket>();
  http.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });

  let port: number;
  try {
    const { mailboxes } = host;
    // Before anybody logs in, it must be known who is connected to the others.
    await cluster.start({ online, presence, mailboxes, relays, replace: (session) => replace(host, session) });
    port = await listen(http, options.host, options.port);
  } catch (error) {
    await io.close();
    await cluster.close();
    await store.close();
    throw new AddressError(
      `Cannot listen on ${options.host}:${options.port}: ${messageOf(error)}. Choose another with --host or --port.`,
    );
  }
  const sweeper = new Sweeper(store, env);
  const url = `ws://${options.host.includes(":") ? `[${options.host}]` : options.host}:${port}`;
  env.log.info("server started", { url, serverId });

  const stop = async (): Promise<void> => {
    sweeper.dispose();
    const grace = env.clock.setTimer(SERVER_CLOSE_GRACE_MS, () => {
      for (const socket of sockets) socket.destroy();
    });
    const closed = io.close();
    http.closeAllConnections();
    await closed;
    grace.dispose();
    await Promise.all([...connections].map((connection) => connection.idle()));
    relays.dispose();
    await Promise.all([host.mailboxes.idle(), sweeper.idle, usage.idle]);
    await cluster.close();
    await store.close();
    env.log.info("server stopped", { url });
  };
  let stopping: Promise<void> | undefined;
  return {
    url,
    serverId,
    close() {
      stopping ??= stop();
      return stopping;
    },
  };
};

const attach = (http: HttpServer, hasRoomFor: (request: IncomingMessage) => boolean): Server =>
  new Server(http, {
    transports: ["websocket"],
    serveClient: false,
    perMessageDeflate: false,
    httpCompression: false,
    maxHttpBufferSize: SERVER_MESSAGE_BYTES_MAX,
    connectTimeout: LOGIN_TIMEOUT_MS,
    allowRequest: (request, decide) => (hasRoomFor(request) ? decide(null, true) : decide("busy", false)),
    parser: boundedParser(parser),
  });

const remoteAddress = (request: IncomingMessage, trustProxy: boolean): string => {
  const direct = request.socket.remoteAddress ?? "";
  if (!trustProxy) return addressKey(direct);
  const forwarded = request.headers["x-forwarded-for"];
  const list = Array.isArray(forwarded) ? forwarded.join(",") : (forwarded ?? "");
  // Only the last entry is the proxy's own; the ones before it are whatever the client sent.
  return addressKey(list.split(",").at(-1)?.trim() || direct);
};

const listen = (http: HttpServer, host: string, port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    http.once("error", reject);
    http.listen(port, host, () => {
      http.off("error", reject);
      resolve((http.address() as AddressInfo).port);
    });
  });
