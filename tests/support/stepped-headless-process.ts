import { subscribe } from "node:diagnostics_channel";
import { joinSteps, type Moment } from "./stepped.ts";

/** The headless host in a program that can be ended at a named moment (stepped.ts). */
const reached = joinSteps();
subscribe("weir:step", (moment) => reached(moment as Moment));
const [{ runHeadless }, { startApp }] = await Promise.all([
  import("../../src-main/host/headless/run.ts"),
  import("../../src-main/start-app.ts"),
]);
const chunkWorkerUrl = new URL("./stepped-worker-child.ts", import.meta.url);
await runHeadless(process.argv.slice(2), (options) => startApp({ ...options, chunkWorkerUrl }));
