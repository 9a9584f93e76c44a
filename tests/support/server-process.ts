import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** `src-server/main.ts` as a process of its own. */
export interface ServerProcess {
  readonly url: string;
  readonly child: ChildProcess;
  /** Everything on stderr so far. */
  log(): string;
  /** Sends the signal and waits for the end. Returns the exit code, or the signal that ended it. */
  end(signal: "SIGKILL" | "SIGTERM" | "SIGINT"): Promise<number | string | null>;
}

export const startServerProcess = (dataDir: string, ...args: string[]): Promise<ServerProcess> =>
  start("src-server/main.ts", ["--data", dataDir, ...args]);

/** The same server without rates (`server-child.ts`). */
export const startServerChild = (...args: string[]): Promise<ServerProcess> =>
  start("tests/support/server-child.ts", args);

/** That one with other variables in its environment. */
export const startServerChildIn = (env: NodeJS.ProcessEnv, ...args: string[]): Promise<ServerProcess> =>
  start("tests/support/server-child.ts", args, env);

const start = async (script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<ServerProcess> => {
  const child = spawn(process.execPath, [script, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  let log = "";
  child.stderr.on("data", (chunk: Buffer) => {
    log += chunk.toString();
  });
  const ended = new Promise<number | string | null>((resolve) =>
    child.once("close", (code, signal) => resolve(code ?? signal)),
  );
  const line = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).once("line", resolve);
    void ended.then((code) => reject(new Error(`the server ended (${code}): ${log}`)));
  });
  const { url } = JSON.parse(line) as { url: string };
  return {
    url,
    child,
    log: () => log,
    end(signal) {
      child.kill(signal);
      return ended;
    },
  };
};
