import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { ICE_SERVERS_MAX, RELAY_BYTES_PER_SECOND, RELAY_TOTAL_BYTES_PER_SECOND } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { type IceScheme, isIceUrl } from "#shared/rendezvous/ice-url.ts";
import type { DistributedOptions } from "./distributed.ts";
import type { RelayOptions } from "./relays.ts";
import type { IceOptions } from "./turn.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

export const USAGE = `Usage: npm run -s server -- --data DIR [--port 0] [--host 127.0.0.1] [--trust-proxy] [--log-level info]

  --data DIR       where everything is kept (made if missing); one server alone
  --database URL   PostgreSQL instead, for several servers with one --redis: postgres://... (or WEIR_DATABASE)
  --redis URL      Redis between them: redis://... (or WEIR_REDIS)
  --port N         0 to 65535; 0 takes any free port
  --host ADDRESS   address to listen on; keep 127.0.0.1 behind a TLS proxy
  --trust-proxy    take remote addresses from the last entry of X-Forwarded-For
  --log-level L    trace, debug, info, warn, error or silent

  --metrics-token-file FILE    whoever shows this token may read /metrics; without it, this machine only

  --stun-url stun:HOST:PORT    STUN server for clients; may be repeated (or WEIR_STUN_URL, separated by commas)
  --turn-url turn:HOST:PORT    TURN server for clients; may be repeated (or WEIR_TURN_URL)
  --turn-secret-file FILE      the secret shared with it (or WEIR_TURN_SECRET_FILE)

  --no-relay             relay nothing between people
  --relay-rate KIB       KiB per second that one device may send over the relay (${RELAY_BYTES_PER_SECOND / KiB})
  --relay-total KIB      the same of all devices together (${RELAY_TOTAL_BYTES_PER_SECOND / KiB})
  --relay-daily MIB      MiB that one account may send in a day; no bound if missing
  --relay-monthly MIB    MiB that one account may send in a month; no bound if missing
`;
const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "silent"];

export interface Arguments {
  /** A folder, or what several servers share. */
  readonly data: string | DistributedOptions;
  readonly host: string;
  readonly port: number;
  readonly trustProxy: boolean;
  /** Who shows it may read `/metrics`; without one, whoever is on this machine. */
  readonly metricsToken: string | null;
  readonly logLevel: string;
  readonly ice: IceOptions;
  readonly relay: Partial<RelayOptions>;
}

/** @throws Error in words for wrong arguments. */
export const readArguments = (args: string[], env: Readonly<Record<string, string | undefined>>): Arguments => {
  const { values } = parseArgs({
    args,
    options: {
      data: { type: "string" },
      database: { type: "string" },
      redis: { type: "string" },
      "metrics-token-file": { type: "string", default: env["WEIR_METRICS_TOKEN_FILE"] ?? "" },
      port: { type: "string", default: "0" },
      host: { type: "string", default: "127.0.0.1" },
      "trust-proxy": { type: "boolean", default: false },
      "log-level": { type: "string", default: env["WEIR_LOG"] ?? "info" },
      "stun-url": { type: "string", multiple: true, default: listIn(env["WEIR_STUN_URL"]) },
      "turn-url": { type: "string", multiple: true, default: listIn(env["WEIR_TURN_URL"]) },
      "turn-secret-file": { type: "string", default: env["WEIR_TURN_SECRET_FILE"] ?? "" },
      "no-relay": { type: "boolean", default: false },
      "relay-rate": { type: "string", default: String(RELAY_BYTES_PER_SECOND / KiB) },
      "relay-total": { type: "string", default: String(RELAY_TOTAL_BYTES_PER_SECOND / KiB) },
      "relay-daily": { type: "string" },
      "relay-monthly": { type: "string" },
    },
  });
  if (values.host === "") throw new Error("--host is empty");
  if (!/^\d{1,5}$/.test(values.port) || Number(values.port) > 65_535) throw new Error("--port must be 0 to 65535");
  if (!LOG_LEVELS.includes(values["log-level"])) throw new Error(`--log-level must be one of ${LOG_LEVELS.join(", ")}`);
  return {
    data: dataIn(values, env),
    metricsToken: tokenIn(values["metrics-token-file"]),
    host: values.host,
    port: Number(values.port),
    trustProxy: values["trust-proxy"],
    logLevel: values["log-level"],
    ice: iceIn(values["stun-url"], values["turn-url"], values["turn-secret-file"]),
    relay: {
      enabled: !values["no-relay"],
      bytesPerSecond: amountIn("--relay-rate", values["relay-rate"]) * KiB,
      totalBytesPerSecond: amountIn("--relay-total", values["relay-total"]) * KiB,
      dailyBytes: boundIn("--relay-daily", values["relay-daily"]),
      monthlyBytes: boundIn("--relay-monthly", values["relay-monthly"]),
    },
  };
};

const DATABASE_URL = /^postgres(?:ql)?:\/\//;
const REDIS_URL = /^(?:rediss?|unix):\/\//;

interface Where {
  readonly data?: string | undefined;
  readonly database?: string | undefined;
  readonly redis?: string | undefined;
}

const dataIn = (flags: Where, env: Readonly<Record<string, string | undefined>>): string | DistributedOptions => {
  const { data } = flags;
  // The environment holds passwords better than the arguments, which every user of the machine can read.
  const [database, redis] =
    data === undefined
      ? [flags.database ?? env["WEIR_DATABASE"], flags.redis ?? env["WEIR_REDIS"]]
      : [flags.database, flags.redis];
  if (database === undefined && redis === undefined) {
    if (data === undefined || data === "")
      throw new Error("--data is missing; for several servers, --database and --redis");
    return data;
  }
  if (data !== undefined) throw new Error("--data keeps everything in a folder; leave it out with --database");
  if (database === undefined) throw new Error("--redis needs --database: several servers share a PostgreSQL as well");
  if (redis === undefined) {
    throw new Error(
      "--database needs --redis: without it, servers on one database could not reach each other's clients",
    );
  }
  if (!DATABASE_URL.test(database))
    throw new Error("--database must look like postgres://user:password@host:5432/weir");
  if (!REDIS_URL.test(redis))
    throw new Error("--redis must look like redis://:password@host:6379 (rediss:// with TLS)");
  return { database, redis };
};

const listIn = (text: string | undefined): string[] => (text ?? "").split(",").filter((item) => item !== "");

const iceIn = (stunUrls: string[], turnUrls: string[], secretFile: string): IceOptions => {
  checkUrls("stun", stunUrls);
  checkUrls("turn", turnUrls);
  if (turnUrls.length === 0) {
    if (secretFile !== "") throw new Error("--turn-secret-file needs a --turn-url");
    return { stunUrls, turn: null };
  }
  if (secretFile === "") throw new Error("--turn-url needs a --turn-secret-file");
  return { stunUrls, turn: { urls: turnUrls, secret: secretIn("--turn-secret-file", secretFile) } };
};

const checkUrls = (scheme: IceScheme, urls: string[]): void => {
  if (urls.length > ICE_SERVERS_MAX) throw new Error(`--${scheme}-url can be given ${ICE_SERVERS_MAX} times at most`);
  for (const url of urls) {
    if (!isIceUrl(scheme, url))
      throw new Error(`--${scheme}-url must look like ${scheme}:host:port, with a name or an IPv4 address`);
  }
};

/** In a file, because arguments and environments of processes can be read by others. */
const secretIn = (flag: string, path: string): string => {
  let secret: string;
  try {
    secret = readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new Error(`${flag} cannot be read: ${messageOf(error)}`);
  }
  if (secret === "") throw new Error(`${flag} is empty`);
  return secret;
};

const tokenIn = (path: string): string | null => (path === "" ? null : secretIn("--metrics-token-file", path));

const amountIn = (flag: string, text: string): number => {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new Error(`${flag} must be a number from 1 to 999999999`);
  return Number(text);
};

const boundIn = (flag: string, text: string | undefined): number | null =>
  text === undefined ? null : amountIn(flag, text) * MiB;
