import { parseArgs } from "node:util";
import { distributedEngine } from "../../src-server/distributed.ts";
import { systemEnv } from "../../src-server/env.ts";
import { createServer } from "../../src-server/server.ts";
import { generous } from "./rendezvous-rates.ts";

/** A server as a process of its own, without the rates that a fast test would meet. */
const { values } = parseArgs({
  options: {
    data: { type: "string" },
    database: { type: "string" },
    redis: { type: "string" },
    port: { type: "string", default: "0" },
  },
});
const { data, database = "", redis = "", port } = values;
const server = await createServer({
  data: data ?? distributedEngine({ database, redis }),
  host: "127.0.0.1",
  port: Number(port),
  env: systemEnv("warn"),
  rates: generous,
});
process.once("SIGTERM", () => void server.close().then(() => process.exit(0)));
process.stdout.write(`${JSON.stringify({ ready: true, url: server.url })}\n`);
