import { parseArgs } from "node:util";
import type { Env } from "#shared/base/env.ts";
import { messageOf } from "#shared/base/result.ts";
import { systemEnv } from "./env.ts";
import { createServer, StartError } from "./server.ts";

/** The server by itself. stdout carries one line, `{"ready":true,"url":...}`; the log goes to stderr. */
const USAGE = `Usage: npm run -s server -- --data DIR [--port 0] [--host 127.0.0.1] [--trust-proxy] [--log-level info]

  --data DIR       where everything is kept (made if missing)
  --port N         0 to 65535; 0 takes any free port
  --host ADDRESS   address to listen on; keep 127.0.0.1 behind a TLS proxy
  --trust-proxy    take remote addresses from the last entry of X-Forwarded-For
  --log-level L    trace, debug, info, warn, error or silent
`;
const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "silent"];
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

interface Arguments {
  dataDir: string;
  host: string;
  port: number;
  trustProxy: boolean;
  logLevel: string;
}

/** @throws Error in words for wrong arguments. */
const readArguments = (args: string[]): Arguments => {
  const { values } = parseArgs({
    args,
    options: {
      data: { type: "string" },
      port: { type: "string", default: "0" },
      host: { type: "string", default: "127.0.0.1" },
      "trust-proxy": { type: "boolean", default: false },
      "log-level": { type: "string", default: process.env["WEIR_LOG"] ?? "info" },
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
  };
};

const run = async (options: Arguments, env: Env): Promise<void> => {
  const starting = createServer({ ...options, env });
  const stop = (signal: NodeJS.Signals): void => {
    env.log.info("stopping", { signal });
    starting
      .then((server) => server.close())
      .then(
        () => process.exit(0),
        (error: unknown) => {
          env.log.error("could not stop cleanly", { error: messageOf(error) });
          process.exit(EXIT_FAILED);
        },
      );
  };
  // Before the ready line: whoever reads it may send a signal at once.
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
  const server = await starting;
  process.stdout.write(`${JSON.stringify({ ready: true, url: server.url })}\n`);
};

const main = async (): Promise<void> => {
  let options: Arguments;
  try {
    options = readArguments(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n\n${USAGE}`);
    process.exit(EXIT_USAGE);
  }
  const env = systemEnv(options.logLevel);
  try {
    await run(options, env);
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(EXIT_FAILED);
  }
};

await main();
