import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Host } from "./network.ts";
import { killProcess } from "./process.ts";

const LAN_CHILD = fileURLToPath(new URL("lan-child.ts", import.meta.url));

type Line = Readonly<Record<"found" | "lost" | "packet" | "from" | "ready", unknown>>;
/** A `lan-child.ts` on a host. */
export interface LanChild extends AsyncDisposable {
  readonly process: ChildProcess;
  readonly lines: readonly Line[];
  /** The first line that fits, of those so far or to come. */
  until(fits: (line: Line) => boolean): Promise<Line>;
}

export const startLanChild = async (host: Host, ...args: string[]): Promise<LanChild> => {
  const [program = "", ...rest] = [...host.namespace.command, process.execPath, LAN_CHILD, ...args];
  const child = spawn(program, rest, { stdio: ["ignore", "pipe", "inherit"] });
  const lines: Line[] = [];
  const waiting = new Set<() => void>();
  createInterface(child.stdout).on("line", (line) => {
    lines.push(JSON.parse(line));
    for (const wake of waiting) wake();
    waiting.clear();
  });
  const until: LanChild["until"] = async (fits) => {
    for (;;) {
      const found = lines.find(fits);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => void waiting.add(resolve));
    }
  };
  await until((line) => line.ready === true);
  return { process: child, lines, until, [Symbol.asyncDispose]: () => killProcess(child) };
};
