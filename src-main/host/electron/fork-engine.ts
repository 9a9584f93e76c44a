import { join } from "node:path";
import { utilityProcess } from "electron";
import type { ForkEngine, FromEngine } from "../../engine/engine-protocol.ts";

/** The engine as a utility process: with Electron's own Node, so the fuse RunAsNode stays off. */
export const forkEngine: ForkEngine = (listener) => {
  const child = utilityProcess.fork(join(import.meta.dirname, "engine.js"), [], {
    serviceName: "Weir engine",
    stdio: "inherit",
  });
  child.on("message", (messages: FromEngine[]) => listener.messages(messages));
  child.on("exit", (code) => listener.exited(`code ${code}`));
  return {
    pid: child.pid,
    post: (messages) => child.postMessage(messages),
    // Its own `kill` asks it to end, which one that hangs does not hear.
    kill: () => void (child.pid !== undefined && process.kill(child.pid, "SIGKILL")),
  };
};
