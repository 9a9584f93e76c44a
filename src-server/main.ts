import type { Env } from "#shared/base/env.ts";
import { messageOf } from "#shared/base/result.ts";
import { type Arguments, readArguments, USAGE } from "./arguments.ts";
import { systemEnv } from "./env.ts";
import { createMetrics } from "./metrics.ts";
import { createServer, StartError } from "./server.ts";

/** The server by itself. stdout carries one line, `{"ready":true,"url":...}`; the log goes to stderr. */
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const run = async (options: Arguments, env: Env): Promise<void> => {
  const { data } = options;
  const open = async () => {
    if (typeof data === "string") return data;
    const { distributedEngine } = await import("./distributed.ts");
    return distributedEngine(data);
  };
  const metrics = createMetrics({ token: options.metricsToken });
  const starting = open().then((where) => createServer({ ...options, data: where, metrics, env }));
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
    options = readArguments(process.argv.slice(2), process.env);
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
