import { EventEmitter } from "node:events";
import { withOwnBytes } from "../../../src-main/host/headless/own-bytes.ts";

/** Runs before the module of a utility process: gives it `process.parentPort`, and ends it with the main process. */
class ParentPort extends EventEmitter {
  postMessage(message: object): void {
    process.send?.(message, undefined, {}, () => undefined);
  }
}

const parentPort = new ParentPort();
Object.defineProperty(process, "parentPort", { value: parentPort });
process.on("message", (data) => parentPort.emit("message", { data: withOwnBytes(data), ports: [] }));
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
