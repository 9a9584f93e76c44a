import { appendFileSync } from "node:fs";
import { isAbsolute, relative } from "node:path";
import { stripVTControlCharacters } from "node:util";
import type { ParsedStack, SerializedError, TestError } from "vitest";
import type { Reporter, TestCase, TestModule, TestSuite } from "vitest/node";
import { REPORT_VARIABLE, type TestRecord } from "./test-summary.ts";

const THE_FILE = "(the file itself)";

/**
 * Writes what test-summary.ts needs, one JSON line at a time: also a run that is stopped half way has then said which
 * tests were running.
 */
export default class FailuresReporter implements Reporter {
  readonly #path = process.env[REPORT_VARIABLE];

  /** A process that crashes at once has not told which test it began. */
  onTestModuleQueued(module: TestModule): void {
    this.#write({ type: "begun", file: fileOf(module), name: THE_FILE });
  }

  onTestCaseReady(test: TestCase): void {
    this.#write({ type: "begun", file: fileOf(test.module), name: test.fullName });
  }

  onTestCaseResult(test: TestCase): void {
    const { state, errors = [] } = test.result();
    const [file, name] = [fileOf(test.module), test.fullName];
    if (state === "failed") this.#write({ type: "failed", file, name, errors: errors.map(wordsOf) });
    this.#write({ type: "ended", file, name });
  }

  /** Hooks that failed. */
  onTestSuiteResult(suite: TestSuite): void {
    this.#failed(fileOf(suite.module), suite.fullName, suite.errors());
  }

  /** Files that could not be loaded. */
  onTestModuleEnd(module: TestModule): void {
    this.#failed(fileOf(module), THE_FILE, module.errors());
    this.#write({ type: "ended", file: fileOf(module), name: THE_FILE });
  }

  onTestRunEnd(_modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    this.#failed("", "(outside of every test)", unhandled);
  }

  #failed(file: string, name: string, errors: readonly SerializedError[]): void {
    if (errors.length > 0) this.#write({ type: "failed", file, name, errors: errors.map(wordsOf) });
  }

  #write(record: TestRecord): void {
    if (this.#path !== undefined) appendFileSync(this.#path, `${JSON.stringify(record)}\n`);
  }
}

const fileOf = (module: TestModule): string => module.relativeModuleId;

/** What was thrown, what differed, and where in our own code; without colours. */
const wordsOf = (error: SerializedError | TestError): string => {
  const { name, message, diff = "", stacks = [] }: Thrown = error;
  const words = name === undefined || name === "Error" ? message : `${name}: ${message}`;
  const differences = diff
    .split("\n")
    .map(stripVTControlCharacters)
    .filter((line) => /^[+-] {2}/.test(line));
  const told = [stripVTControlCharacters(words), ...differences];
  const frame = stacks.find(({ file }) => !file.includes("node_modules") && !file.startsWith("node:"));
  if (frame === undefined) return told.join("\n");
  const file = isAbsolute(frame.file) ? relative(process.cwd(), frame.file) : frame.file;
  return [...told, `  at ${file}:${frame.line}:${frame.column}`].join("\n");
};

interface Thrown {
  readonly name?: string;
  readonly message: string;
  readonly diff?: string;
  readonly stacks?: readonly ParsedStack[];
}
