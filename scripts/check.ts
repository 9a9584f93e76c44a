import { existsSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { join } from "node:path";
import { note, type Ran, root, runTool, seconds, type Tool } from "./run.ts";

/**
 * `npm run check`: everything that can be known without running the product. `-- --fast` leaves out what takes longest,
 * for the git hook, which formats only what is staged. `--yield` leaves the processors to whoever else wants them. Two steps
 * run at a time; the slow ones begin first.
 */
const STEP_TIMEOUT_MS = 5 * 60_000;
const PARALLEL = 2;
const OUTPUT_LINES_MAX = 120;

interface Step {
  readonly name: string;
  readonly tool: Tool;
  readonly args: readonly string[];
  readonly fast: boolean;
  /** Looks at the output of a step that ended well; words when it must count as failed. */
  readonly verify?: (output: string) => string | null;
}

const incremental = (name: string): string[] => [
  "--incremental",
  "--tsBuildInfoFile",
  join("node_modules", ".cache", "weir", `${name}.tsbuildinfo`),
];

const SOURCES = ["src-shared", "src-main", "src-preload", "src-renderer", "src-server", "native"].filter((folder) =>
  existsSync(join(root, folder)),
);

const STEPS: readonly Step[] = [
  { name: "types: node", tool: "tsc", args: ["-p", ".", ...incremental("node")], fast: true },
  {
    name: "types: renderer",
    tool: "svelte-check",
    args: ["--tsconfig", "src-renderer/tsconfig.json", "--output", "human", "--fail-on-warnings"],
    fast: false,
  },
  { name: "promise rules: Svelte", tool: "eslint", args: ["--max-warnings", "0", "."], fast: false },
  { name: "promise rules", tool: "oxlint", args: ["--deny-warnings"], fast: true, verify: linted },
  { name: "types: shared", tool: "tsc", args: ["-p", "src-shared", ...incremental("shared")], fast: true },
  {
    name: "layers",
    tool: "depcruise",
    args: ["--config", ".dependency-cruiser.cjs", ...SOURCES],
    fast: true,
    verify: cruised,
  },
  {
    name: "layers: what runs",
    tool: "depcruise",
    args: ["--config", ".dependency-cruiser-runtime.cjs", ...SOURCES],
    fast: true,
    verify: cruised,
  },
  {
    // Without a working TypeScript it would check nothing and report success.
    name: "layers: TypeScript is read",
    tool: "depcruise",
    args: ["--info"],
    fast: true,
    verify: (output) => (/✔\s+typescript\b/.test(output) ? null : "dependency-cruiser does not find TypeScript"),
  },
  { name: "format and lint", tool: "biome", args: ["ci", "--colors=off", "--max-diagnostics=40", "."], fast: false },
  { name: "dead code", tool: "knip", args: ["--no-progress"], fast: false },
];

/** The number of modules must be believable: a pattern that matches nothing is no success. */
function cruised(output: string): string | null {
  const modules = /\((\d+) modules,/.exec(output)?.[1];
  return modules !== undefined && Number(modules) > 50 ? null : `only ${modules ?? "no"} modules were checked`;
}

/** Without its program for types it would check nothing and report success. */
function linted(output: string): string | null {
  const found = /on (\d+) files with (\d+) rules/.exec(output);
  const [files, rules] = [Number(found?.[1] ?? 0), Number(found?.[2] ?? 0)];
  return files > 400 && rules === 3 ? null : `only ${files} files were checked, with ${rules} rules`;
}

interface Failure {
  readonly step: Step;
  readonly words: string;
}

const runStep = async (step: Step): Promise<Failure | null> => {
  const ran = await runTool(step.tool, step.args, {
    timeoutMs: STEP_TIMEOUT_MS,
    streams: "capture",
    env: { NO_COLOR: "1" },
  });
  const words = failureWords(step, ran);
  note(`${words === null ? "ok    " : "FAILED"}  ${step.name.padEnd(28)} ${seconds(ran.ms)}`);
  return words === null ? null : { step, words };
};

const failureWords = (step: Step, ran: Ran): string | null => {
  if (ran.timedOut) return `did not end in ${seconds(STEP_TIMEOUT_MS)}`;
  if (ran.code !== 0) return ran.output.trim() || `ended with ${ran.code ?? ran.signal}`;
  return step.verify?.(ran.output) ?? null;
};

/** A broken dependency can produce thousands of lines; the first ones tell. */
const head = (text: string): string => {
  const lines = text.split("\n");
  const more = lines.length - OUTPUT_LINES_MAX;
  return more > 0 ? `${lines.slice(0, OUTPUT_LINES_MAX).join("\n")}\n... and ${more} more lines` : text;
};

const main = async (args: readonly string[]): Promise<number> => {
  const unknown = args.filter((argument) => argument !== "--fast" && argument !== "--yield");
  if (unknown.length > 0) {
    note(`unknown: ${unknown.join(" ")}. Usage: npm run check [-- --fast] [--yield]`);
    return 2;
  }
  // What is started from here on inherits it.
  if (args.includes("--yield")) setPriority(constants.priority.PRIORITY_LOW);
  const begun = performance.now();
  const queue = STEPS.filter((step) => step.fast || !args.includes("--fast"));
  const total = queue.length;
  const failures: Failure[] = [];
  const work = async (): Promise<void> => {
    for (let step = queue.shift(); step !== undefined; step = queue.shift()) {
      const failure = await runStep(step);
      if (failure !== null) failures.push(failure);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));

  for (const { step, words } of failures)
    note(head(`\n--- ${step.name} (${step.tool} ${step.args.join(" ")})\n${words}`));
  const took = seconds(performance.now() - begun);
  if (failures.length === 0) {
    note(`all ${total} checks passed in ${took}`);
    return 0;
  }
  note(
    `\n${failures.length} of ${total} checks failed in ${took}: ${failures.map(({ step }) => step.name).join(", ")}`,
  );
  return 1;
};

process.exitCode = await main(process.argv.slice(2));
