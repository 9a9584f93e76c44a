import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { ForkEngine, FromEngine } from "../../engine/engine-protocol.ts";

const entry = fileURLToPath(new URL("./engine-entry.ts", import.meta.url));

/** The engine as a child process of Node. What it writes goes to stderr: stdout belongs to the ready line. */
export const forkEngine: ForkEngine = (listener) => {
  const child = fork(entry, [], { execArgv: [], serialization: "advanced", stdio: ["ignore", 2, 2, "ipc"] });
  let hasExited = false;
  const exited = (how: string): void => {
    if (hasExited) return;
    hasExited = true;
    listener.exited(how);
  };
  child.on("message", (messages) => {
    // Both ends are the same build; Node types what comes as anything that can be sent.
    listener.messages(messages as FromEngine[]);
  });
  child.on("error", ({ message }) => {
    // Also what could not be sent to a child that is about to exit.
    if (child.pid === undefined) exited(message);
  });
  child.on("exit", (code, signal) => exited(signal ?? `code ${code}`));
  return {
    pid: child.pid,
    post(messages) {
      if (child.connected) child.send([...messages], () => undefined);
    },
    kill: () => void child.kill("SIGKILL"),
  };
};
