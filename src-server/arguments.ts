import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { ICE_SERVERS_MAX, RELAY_BYTES_PER_SECOND, RELAY_TOTAL_BYTES_PER_SECOND } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { type IceScheme, isIceUrl } from "#shared/rendezvous/ice-url.ts";
import type { RelayOptions } from "./relays.ts";
import type { IceOptions } from "./turn.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

export const USAGE = `Usage: npm run -s server -- --data DIR [--port 0] [--host 127.0.0.1] [--trust-proxy] [--log-level info]

  --data DIR       where everything is kept (made if missing)
  --port N         0 to 65535; 0 takes any free port
  --host ADDRESS   address to listen on; keep 127.0.0.1 behind a TLS proxy
  --trust-proxy    take remote addresses from the last entry of X-Forwarded-For
  --log-level L    trace, debug, info, warn, error or silent

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
  readonly dataDir: string;
  readonly host: string;
  readonly port: number;
  readonly trustProxy: boolean;
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
  if (values.data === undefined || values.data === "") throw new Error("--data is missing");
  if (values.host === "") throw new Error("--host is empty");
  if (!/^\d{1,5}$/.test(values.port) || Number(values.port) > 65_535) throw new Error("--port must be 0 to 65535");
  if (!LOG_LEVELS.includes(values["log-level"])) throw new Error(`--log-level must be one of ${LOG_LEVELS.join(", ")}`);
  return {
    dataDir: values.data,
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

const listIn = (text: string | undefined): string[] => (text ?? "").split(",").filter((item) => item !== "");

const iceIn = (stunUrls: string[], turnUrls: string[], secretFile: string): IceOptions => {
  checkUrls("stun", stunUrls);
  checkUrls("turn", turnUrls);
  if (turnUrls.length === 0) {
    if (secretFile !== "") throw new Error("--turn-secret-file needs a --turn-url");
    return { stunUrls, turn: null };
  }
  if (secretFile === "") throw new Error("--turn-url needs a --turn-secret-file");
  return { stunUrls, turn: { urls: turnUrls, secret: secretIn(secretFile) } };
};

const checkUrls = (scheme: IceScheme, urls: string[]): void => {
  if (urls.length > ICE_SERVERS_MAX) throw new Error(`--${scheme}-url can be given ${ICE_SERVERS_MAX} times at most`);
  for (const url of urls) {
    if (!isIceUrl(scheme, url))
      throw new Error(`--${scheme}-url must look like ${scheme}:host:port, with a name or an IPv4 address`);
  }
};

/** In a file, because arguments and environments of processes can be read by others. */
const secretIn = (path: string): string => {
  let secret: string;
  try {
    secret = readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new Error(`--turn-secret-file cannot be read: ${messageOf(error)}`);
  }
  if (secret === "") throw new Error("--turn-secret-file is empty");
  return secret;
};

const amountIn = (flag: string, text: string): number => {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new Error(`${flag} must be a number from 1 to 999999999`);
  return Number(text);
};

const boundIn = (flag: string, text: string | undefined): number | null =>
  text === undefined ? null : amountIn(flag, text) * MiB;
