import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureAppBuilt } from "./app-build.ts";
import { findChromium } from "./find-chromium.ts";
import { ensureNativeBuilt } from "./native-build.ts";
import { note, root, run, runTool, seconds } from "./run.ts";
import { failedFiles, failureLines, REPORT_VARIABLE, readCoverage, readRecords, unfinished } from "./test-summary.ts";

/**
 * `npm test`: builds what is stale, then the checks of `npm run check` and every test. Names of groups run only those;
 * everything after them goes to vitest. The last lines tell what failed, and how much of the code the unit tests ran.
 *
 * Tests that start processes depend on the load of the machine, and those of state machines try fresh interleavings in each
 * run. When few files fail, those run once more, and what passes only then is named as UNSTEADY at the end, with its seed:
 * it does not stop a change that has nothing to do with it, and nobody overlooks it.
 *
 *   npm test -- [check] [unit] [integration] [net] [e2e] [-t "a name"] [--coverage] [files]
 */
interface Group {
  readonly name: string;
  readonly projects: readonly string[];
  readonly timeoutMs: number;
  /** Files at once. What starts processes waits for them most of the time; in `net` a project alone runs one by one. */
  readonly workers: number;
  /** Whether it is measured without being asked to: only tests that run the code in their own process say anything. */
  readonly coverage: boolean;
}

/** More than that is no accident. */
const FILES_AGAIN_MAX = 3;

/** The full counts of `npm run verify` take hours. */
const PATIENCE = process.env["WEIR_VERIFY"] === "full" ? 20 : 1;

/** One after the other, because their processes would disturb each other; but `net` beside the checks, see {@link besideCheck}. */
const GROUPS: readonly Group[] = [
  // unit, sim, fuzz, ui
  { name: "unit", projects: ["node", "ui"], timeoutMs: 5 * 60_000, workers: 2, coverage: true },
  {
    name: "integration",
    projects: ["integration", "distributed"],
    timeoutMs: 12 * 60_000,
    workers: 4,
    coverage: false,
  },
  // Bad networks: network namespaces and impaired wires. Where those cannot be had, it says so and skips.
  { name: "net", projects: ["net"], timeoutMs: 4 * 60_000, workers: 1, coverage: false },
  { name: "e2e", projects: ["e2e"], timeoutMs: 7 * 60_000, workers: 3, coverage: false },
];

/**
 * Tests start hundreds of processes, and half of what a start costs is reading the same TypeScript again. Where coverage is
 * measured V8 would tell less of it.
 */
const COMPILE_CACHE = join(root, "node_modules", ".cache", "weir", "compiled");

interface Outcome {
  readonly name: string;
  readonly ok: boolean;
  readonly ms: number;
  readonly words: string;
  /** Below the table at the end: failed tests; how much was covered. */
  readonly failures?: readonly string[];
  readonly coverage?: readonly string[];
}

const prepare = async (): Promise<Outcome[]> => {
  const begun = performance.now();
  const [native, app] = await Promise.all([ensureNativeBuilt(), ensureAppBuilt()]);
  const ms = performance.now() - begun;
  // On CI the native tests run and fail without the addon; elsewhere the fallback alone is tested.
  if (native.type === "failed") note(`the native addon is not built (${native.reason}): only its fallback is tested`);
  if (app.type === "fresh") return [];
  if (app.type === "built") return [{ name: "build", ok: true, ms, words: "built" }];
  return [{ name: "build", ok: false, ms, words: app.message }];
};

const CHECK = "check";

/**
 * The networks wait most of their time, and the checks compute all of theirs: together they take little longer than one of
 * them. The checks give way whenever a network needs a processor, because it promises times.
 */
const besideCheck = (group: Group): boolean => group.name === "net";

const runCheck = async (): Promise<Outcome> => {
  const ran = await run(process.execPath, ["scripts/check.ts", "--yield"], {
    timeoutMs: 5 * 60_000,
    // Two outputs at once could not be read.
    streams: "capture",
  });
  note(ran.output.trimEnd());
  return { name: CHECK, ok: ran.code === 0, ms: ran.ms, words: ran.code === 0 ? "passed" : "failed" };
};

const runGroup = async (group: Group, flags: readonly string[]): Promise<Outcome> => {
  const chromium = findChromium();
  if (group.name === "e2e" && chromium === null) {
    return { name: group.name, ok: false, ms: 0, words: "no Chromium here: install it, or name it in WEIR_CHROMIUM" };
  }
  const first = await runOnce(group, flags);
  const files = first.failedFiles;
  // Whoever named tests wants to see them fail.
  const isWhole = flags.every((flag) => flag.startsWith("--"));
  const isAccident = !first.timedOut && files.length > 0 && files.length <= FILES_AGAIN_MAX;
  if (first.ok || !isWhole || !isAccident) return first;
  note(`\n${group.name}: once more, because it may have been the machine: ${files.join(", ")}`);
  const second = await runOnce(group, [...flags, ...files]);
  const ms = first.ms + second.ms;
  if (!second.ok) return { ...second, ms, words: `${second.words}, twice` };
  const failures = first.failures.map((line) => line.replace(/^(FAILED|UNFINISHED) /, "UNSTEADY "));
  return { ...first, ok: true, ms, words: `passed, ${files.length} of its files at the second try only`, failures };
};

interface GroupRun extends Outcome {
  readonly failures: readonly string[];
  readonly failedFiles: readonly string[];
  readonly timedOut: boolean;
}

const runOnce = async (group: Group, flags: readonly string[]): Promise<GroupRun> => {
  const chromium = findChromium();
  const dir = mkdtempSync(join(tmpdir(), "weir-test-"));
  try {
    const report = join(dir, "records.jsonl");
    const env = {
      [REPORT_VARIABLE]: report,
      ...(group.coverage ? {} : { NODE_COMPILE_CACHE: COMPILE_CACHE }),
      ...(chromium === null ? {} : { WEIR_CHROMIUM: chromium, STANDIN_CHROMIUM: chromium }),
    };
    const args = vitestArguments(group, flags);
    const timeoutMs = group.timeoutMs * PATIENCE;
    // What is there is of an earlier run.
    rmSync(coverageOf(group), { recursive: true, force: true });
    const ran = await runTool("vitest", args, { timeoutMs, streams: "inherit", env });
    const words = ran.timedOut ? `stopped after ${seconds(timeoutMs)}` : ran.code === 0 ? "passed" : "failed";
    const records = readRecords(report);
    // The others ran to their end; of a file whose process crashed, only this is known.
    const running = ran.code === 0 ? [] : unfinished(records);
    return {
      name: group.name,
      ok: ran.code === 0,
      ms: ran.ms,
      words,
      failures: [...failureLines(records), ...running.map((test) => `UNFINISHED  ${test.title}`)],
      failedFiles: failedFiles(records, running),
      timedOut: ran.timedOut,
      coverage: args.includes("--coverage") ? readCoverage(join(coverageOf(group), "coverage-summary.json")) : [],
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
};

/** Each group reports its own coverage; one folder would keep only the last. */
const coverageOf = (group: Group): string => join(root, "coverage", group.name);

const vitestArguments = (group: Group, flags: readonly string[]): string[] => {
  const projects = group.projects.flatMap((project) => ["--project", project]);
  // Naming one reporter takes away the usual ones.
  const usual = process.env["GITHUB_ACTIONS"] === "true" ? ["default", "github-actions"] : ["default"];
  const chosen = flags.some((flag) => flag.startsWith("--reporter")) ? [] : usual;
  const reporters = [...chosen, "./scripts/failures-reporter.ts"].map((reporter) => `--reporter=${reporter}`);
  // A selection of tests covers a selection of the code.
  const coverage = group.coverage && flags.length === 0 ? ["--coverage", "--coverage.reporter=json-summary"] : [];
  const folder = `--coverage.reportsDirectory=${coverageOf(group)}`;
  return [
    "run",
    "--passWithNoTests",
    `--maxWorkers=${group.workers}`,
    ...projects,
    ...reporters,
    ...coverage,
    ...flags,
    // Last: a bare --coverage takes back what was said of it before.
    folder,
  ];
};

const main = async (args: readonly string[]): Promise<number> => {
  const isGroup = (argument: string): boolean => argument === CHECK || GROUPS.some((group) => group.name === argument);
  const firstFlag = args.findIndex((argument) => !isGroup(argument));
  const names = firstFlag === -1 ? args : args.slice(0, firstFlag);
  const flags = firstFlag === -1 ? [] : args.slice(firstFlag);
  const begun = performance.now();

  const outcomes = await prepare();
  // Flags are vitest's: whoever gives them wants to see tests.
  const isChecked = names.includes(CHECK) || (names.length === 0 && flags.length === 0);
  const wanted = GROUPS.filter(({ name }) => names.length === 0 || names.includes(name));
  const beside = isChecked ? wanted.filter(besideCheck) : [];
  if (isChecked) outcomes.push(...(await Promise.all([runCheck(), ...beside.map((group) => runGroup(group, flags))])));
  for (const group of wanted) if (!beside.includes(group)) outcomes.push(await runGroup(group, flags));

  note("");
  for (const { name, ok, ms, words } of outcomes) {
    note(`${ok ? "ok    " : "FAILED"}  ${name.padEnd(12)} ${seconds(ms).padStart(8)}  ${words}`);
  }
  for (const { name, coverage = [] } of outcomes) {
    if (coverage.length > 0) note(["", `covered by ${name}:`, ...coverage].join("\n"));
  }
  const failures = outcomes.flatMap((outcome) => outcome.failures ?? []);
  if (failures.length > 0) note(["", ...failures, ""].join("\n"));
  const failed = outcomes.filter((outcome) => !outcome.ok);
  const took = seconds(performance.now() - begun);
  note(
    failed.length === 0 ? `everything passed in ${took}` : `${failed.map((f) => f.name).join(", ")} failed (${took})`,
  );
  return failed.length === 0 ? 0 : 1;
};

process.exitCode = await main(process.argv.slice(2));
