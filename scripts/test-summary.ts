import { existsSync, readFileSync } from "node:fs";
import { relative, sep } from "node:path";
import { root } from "./run.ts";

/**
 * The end of `npm test`: which tests failed and why, and how much of the code they ran. It stands last because whoever
 * looks at a log of continuous integration often sees only its end.
 */

/** Names the file that failures-reporter.ts appends to. */
export const REPORT_VARIABLE = "WEIR_TEST_REPORT";

export type TestRecord =
  | { readonly type: "begun" | "ended"; readonly file: string; readonly name: string }
  | { readonly type: "failed"; readonly file: string; readonly name: string; readonly errors: readonly string[] };

/** The first lines of an error tell what went wrong; a diff of two large objects would push the others out of sight. */
const ERROR_LINES_MAX = 8;
const LINE_LENGTH_MAX = 240;
/** When everything fails, one cause is behind it; the first ones show it. */
const FAILURES_MAX = 25;

export const readRecords = (path: string): TestRecord[] =>
  existsSync(path)
    ? readFileSync(path, "utf8")
        .split("\n")
        .filter((line) => line.endsWith("}"))
        .map((line) => JSON.parse(line))
    : [];

/** A test that had begun and not ended: what a run was doing when it was stopped, or when its process crashed. */
export interface Unfinished {
  readonly file: string;
  readonly title: string;
}

export const unfinished = (records: readonly TestRecord[]): Unfinished[] => {
  const running = new Map<string, Unfinished>();
  for (const record of records) {
    const title = titleOf(record);
    if (record.type === "begun") running.set(title, { file: record.file, title });
    else running.delete(title);
  }
  return [...running.values()];
};

/** Each file once. Empty when something failed outside of every file and no test can be said to have been running. */
export const failedFiles = (records: readonly TestRecord[], running: readonly Unfinished[]): string[] => {
  const files = records.filter((record) => record.type === "failed").map((record) => record.file);
  const known = files.filter((file) => file !== "");
  if (known.length < files.length && running.length === 0) return [];
  return [...new Set([...known, ...running.map(({ file }) => file)])];
};

/** One block for each failed test: its file and name, then the first lines of its errors. */
export const failureLines = (records: readonly TestRecord[]): string[] => {
  const failures = records.filter((record) => record.type === "failed");
  const lines = failures
    .slice(0, FAILURES_MAX)
    .flatMap((failure) => [`FAILED  ${titleOf(failure)}`, ...failure.errors.flatMap(headOf)]);
  const more = failures.length - FAILURES_MAX;
  return more > 0 ? [...lines, `... and ${more} more failed`] : lines;
};

const titleOf = ({ file, name }: TestRecord): string => (file === "" ? name : `${file} > ${name}`);

/** The place where it was thrown comes last and is kept. */
const headOf = (error: string): string[] => {
  const lines = error.split("\n").filter((line) => line.trim() !== "");
  const place = lines.at(-1)?.startsWith("  at ") ? lines.splice(-1) : [];
  const cut = lines.length > ERROR_LINES_MAX ? [...lines.slice(0, ERROR_LINES_MAX), "..."] : lines;
  return [...cut, ...place].map((line) => `          ${line.slice(0, LINE_LENGTH_MAX)}`);
};

interface Share {
  covered: number;
  total: number;
}
type Figures = Readonly<Record<"lines" | "branches", Share>>;
const PACKAGES = ["src-main", "src-server", "src-shared", "src-preload", "src-renderer", "native"] as const;

/** A row for each package and one for all, from istanbul's json-summary: `{ total, [file]: { lines, branches, ... } }`. */
export const coverageLines = (summary: Readonly<Record<string, Figures>>): string[] => {
  const byPackage = new Map<string, Figures>();
  for (const [file, figures] of Object.entries(summary)) {
    const name = file === "total" ? "all" : (relative(root, file).split(sep)[0] ?? "");
    const sum = byPackage.get(name) ?? { lines: { covered: 0, total: 0 }, branches: { covered: 0, total: 0 } };
    for (const kind of ["lines", "branches"] as const) {
      sum[kind].covered += figures[kind].covered;
      sum[kind].total += figures[kind].total;
    }
    byPackage.set(name, sum);
  }
  return [...PACKAGES, "all"].flatMap((name) => {
    const sum = byPackage.get(name);
    if (sum === undefined || sum.lines.total === 0) return [];
    return [`        ${name.padEnd(12)} ${percent(sum.lines)} of lines ${percent(sum.branches)} of branches`];
  });
};

const percent = ({ covered, total }: Share): string =>
  `${(total === 0 ? 100 : (100 * covered) / total).toFixed(1).padStart(5)} %`;

/** Empty where there is no report: vitest writes none when a test failed. */
export const readCoverage = (path: string): string[] =>
  existsSync(path) ? coverageLines(JSON.parse(readFileSync(path, "utf8"))) : [];
