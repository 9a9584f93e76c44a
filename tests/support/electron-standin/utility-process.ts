import { type ChildProcess, fork } from "node:child_process";
import { EventEmitter } from "node:events";

/** `utilityProcess`: a child process of Node whose channel looks like Electron's, to both sides. */
class UtilityProcess extends EventEmitter {
  readonly #child: ChildProcess;

  constructor(child: ChildProcess) {
    super();
    this.#child = child;
    child.on("spawn", () => this.emit("spawn"));
    child.on("message", (message) => this.emit("message", message));
    child.on("exit", (code) => this.emit("exit", code ?? 1));
    child.on("error", () => undefined);
  }

  /** Undefined once it has ended. */
  get pid(): number | undefined {
    return this.#child.exitCode === null && this.#child.signalCode === null ? this.#child.pid : undefined;
  }
  postMessage(message: object): void {
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }
  kill(): boolean {
    return this.#child.kill("SIGTERM");
  }
}

const boot = new URL("./utility-boot.ts", import.meta.url).href;

export const utilityProcess = {
  fork: (modulePath: string, args: readonly string[] = []): UtilityProcess =>
    new UtilityProcess(
      fork(modulePath, [...args], {
        execArgv: ["--import", boot],
        serialization: "advanced",
        stdio: ["ignore", 2, 2, "ipc"],
      }),
    ),
};
