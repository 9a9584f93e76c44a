import { subscribe } from "node:diagnostics_channel";
import { joinSteps, type Moment } from "./stepped.ts";

/** The chunk worker, in a program that can be ended at a named moment. */
const reached = joinSteps();
subscribe("weir:step", (moment) => reached(moment as Moment));
await import("../../src-main/transfer/chunk-worker.ts");
