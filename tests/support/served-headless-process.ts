import { subscribe } from "node:diagnostics_channel";
import { appendFileSync } from "node:fs";
import type { Reached } from "../../src-main/steps.ts";
import { SERVED_VARIABLE, type ServedLine } from "./served.ts";

/**
 * The headless host, which writes down in one order to whom it sends a chunk and who has access as far as it knows: both are
 * told in the turn of the event loop in which they happen.
 */
const file = process.env[SERVED_VARIABLE] ?? "";
const note = (line: ServedLine): void => appendFileSync(file, `${JSON.stringify(line)}\n`);
subscribe("weir:step", (message) => {
  const { step, fileId, peer } = message as Reached;
  if (step === "chunkSent" && peer !== undefined) note({ fileId, sentTo: peer });
});
const [{ runHeadless }, { startApp }] = await Promise.all([
  import("../../src-main/host/headless/run.ts"),
  import("../../src-main/start-app.ts"),
]);
await runHeadless(process.argv.slice(2), async (options) => {
  const app = await startApp(options);
  app.events(({ event, payload }) => {
    if (event === "file.changed") note({ fileId: payload.fileId, sharedWith: payload.sharedWith });
  });
  return app;
});
