import type { ServerResponse } from "node:http";
import { parseArgs } from "node:util";
import type { FileId } from "#shared/base/ids.ts";
import { distributedEngine } from "../../src-server/distributed.ts";
import { systemEnv } from "../../src-server/env.ts";
import { createServer } from "../../src-server/server.ts";
import { generous } from "./rendezvous-rates.ts";
import { joinSteps, STEPS_VARIABLE } from "./stepped.ts";

/**
 * A server as a process of its own, without the rates that a fast test would meet. It can be ended at a named moment
 * (stepped.ts): when a request of that name was carried out and is about to be answered.
 */
const { values } = parseArgs({
  options: {
    data: { type: "string" },
    database: { type: "string" },
    redis: { type: "string" },
    port: { type: "string", default: "0" },
    "log-level": { type: "string", default: "warn" },
  },
});
const { data, database = "", redis = "", port } = values;
const reached = process.env[STEPS_VARIABLE] === undefined ? null : joinSteps();
const metrics = {
  observe: ({ name }: { name: string }) => reached?.({ step: name, fileId: "" as FileId, indices: [] }),
  watch: () => undefined,
  answer: (_: unknown, response: ServerResponse) => void response.end(),
};
const server = await createServer({
  data: data ?? distributedEngine({ database, redis }),
  host: "127.0.0.1",
  port: Number(port),
  env: systemEnv(values["log-level"]),
  rates: generous,
  metrics,
});
process.once("SIGTERM", () => void server.close().then(() => process.exit(0)));
process.stdout.write(`${JSON.stringify({ ready: true, url: server.url })}\n`);
