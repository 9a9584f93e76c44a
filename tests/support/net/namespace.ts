import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { killProcess, runProgram } from "./process.ts";

const DIAL_CHILD = fileURLToPath(new URL("dial-child.ts", import.meta.url));

/**
 * A network namespace of its own, without a name: it lives as long as the process that holds it open, and that one ends
 * with its input. So whatever becomes of the test, also SIGKILL, the kernel takes away the namespace, the interfaces in it
 * and, by the parent-death signal, every process that was started through `command`. The machine's own network is never
 * touched.
 */
export class Namespace implements AsyncDisposable {
  readonly #holder: ChildProcess;
  readonly pid: number;

  private constructor(holder: ChildProcess, pid: number) {
    this.#holder = holder;
    this.pid = pid;
  }

  static async create(): Promise<Namespace> {
    const holder = spawn("unshare", ["--net", "setpriv", "--pdeathsig", "KILL", "cat"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const failed = new Promise<never>((_, reject) => {
      holder.once("error", reject);
      holder.once("exit", (code) => reject(new Error(`no network namespace: unshare ended with ${code}`)));
    });
    failed.catch(() => undefined);
    // The echo comes from the program inside: the namespace stands.
    holder.stdin.write("here\n");
    await Promise.race([once(holder.stdout, "data"), failed]);
    if (holder.pid === undefined) throw new Error("a started process has an id");
    const namespace = new Namespace(holder, holder.pid);
    // Only IPv4, so that a test knows every address there is.
    await namespace.shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
    await namespace.ip("link set lo up");
    return namespace;
  }

  /** What turns a program into one that runs in here; for `spawn`. It ends with this process. */
  get command(): readonly string[] {
    return ["nsenter", `--net=/proc/${this.pid}/ns/net`, "setpriv", "--pdeathsig", "KILL"];
  }

  run(command: readonly string[], input?: string): Promise<string> {
    return runProgram([...this.command, ...command], input);
  }

  /** Lines for `ip`, in one go. */
  ip(...lines: readonly string[]): Promise<string> {
    return this.run(["ip", "-batch", "-"], `${lines.join("\n")}\n`);
  }

  shell(script: string): Promise<string> {
    return this.run(["sh", "-ec", script]);
  }

  /** A connection to a port of this namespace's loopback, used from outside: a socket stays where it was made. */
  async connect(port: number): Promise<Socket> {
    const [program = "", ...args] = [...this.command, process.execPath, DIAL_CHILD, String(port)];
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const exited = once(child, "exit");
    const socket = await new Promise<Socket>((resolve, reject) => {
      child.once("message", (_message, handle) => resolve(handle as Socket));
      void exited.then(([code]) => reject(new Error(`port ${port} did not answer (dialer ended with ${code})`)));
    });
    await exited;
    return socket;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await killProcess(this.#holder);
  }
}
