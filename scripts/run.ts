import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";

/** The folder of package.json. */
export const root = join(import.meta.dirname, "..");

export interface Ran {
  /** Null when a signal ended the process or it could not be started. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
  /** What it wrote to both streams; empty unless captured. */
  readonly output: string;
  readonly ms: number;
}

export interface RunOptions {
  readonly timeoutMs: number;
  /** "capture" collects both streams, "stderr" shows both on our stderr, "inherit" hands our own streams on. */
  readonly streams: "capture" | "stderr" | "inherit";
  readonly env?: NodeJS.ProcessEnv;
}

/** After SIGTERM a process has this long before SIGKILL. */
const KILL_AFTER_MS = 5_000;

/** Runs a program in the project's folder with our Node first in the PATH. Never rejects: a failed start is a code of null. */
export const run = (command: string, args: readonly string[], options: RunOptions): Promise<Ran> => {
  const begun = performance.now();
  const stdio =
    options.streams === "inherit"
      ? ("inherit" as const)
      : options.streams === "stderr"
        ? (["ignore", process.stderr, process.stderr] as const)
        : (["ignore", "pipe", "pipe"] as const);
  const path = [dirname(process.execPath), join(root, "node_modules", ".bin"), process.env["PATH"] ?? ""];
  const child = spawn(command, args, {
    cwd: root,
    env: { ...process.env, ...options.env, PATH: path.join(delimiter) },
    stdio: [...(typeof stdio === "string" ? [stdio, stdio, stdio] : stdio)],
  });
  let output = "";
  const collect = (text: string): void => {
    output += text;
  };
  child.stdout?.setEncoding("utf8").on("data", collect);
  child.stderr?.setEncoding("utf8").on("data", collect);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill("SIGTERM");
    setTimeout(() => child.kill("SIGKILL"), KILL_AFTER_MS).unref();
  }, options.timeoutMs);
  return new Promise((resolve) => {
    const end = (code: number | null, signal: NodeJS.Signals | null): void => {
      clearTimeout(timer);
      resolve({ code, signal, timedOut, output, ms: performance.now() - begun });
    };
    child.once("error", (error) => {
      output += String(error);
      end(null, null);
    });
    child.once("close", end);
  });
};

/** Runs a tool of node_modules by its JavaScript entry, which works on Windows too, where .cmd files cannot be spawned. */
export const runTool = (tool: Tool, args: readonly string[], options: RunOptions): Promise<Ran> =>
  run(process.execPath, [toolEntry(tool), ...args], options);

/** Tool and the package it comes from. */
const TOOL_PACKAGES = {
  biome: "@biomejs/biome",
  depcruise: "dependency-cruiser",
  "electron-vite": "electron-vite",
  eslint: "eslint",
  knip: "knip",
  lefthook: "lefthook",
  "node-gyp": "node-gyp",
  oxlint: "oxlint",
  "svelte-check": "svelte-check",
  tsc: "typescript",
  vitest: "vitest",
} as const;
export type Tool = keyof typeof TOOL_PACKAGES;

/** @throws Error when the package is not installed. */
export const toolEntry = (tool: Tool): string => {
  const folder = join(root, "node_modules", TOOL_PACKAGES[tool]);
  const { bin }: { bin: string | Record<string, string> } = JSON.parse(
    readFileSync(join(folder, "package.json"), "utf8"),
  );
  const entry = typeof bin === "string" ? bin : bin[tool];
  if (entry === undefined) throw new Error(`${TOOL_PACKAGES[tool]} has no program called ${tool}`);
  return join(folder, entry);
};

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** What is worth showing of a failed program: its end. */
export const tail = (output: string, lines: number): string => output.trimEnd().split("\n").slice(-lines).join("\n");

export const note = (line: string): void => {
  process.stderr.write(`${line}\n`);
};
