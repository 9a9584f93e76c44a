import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, it } from "vitest";
import { root } from "../../scripts/run.ts";
import { coverageLines, failureLines, type TestRecord, unfinished } from "../../scripts/test-summary.ts";

/** `npm test` as continuous integration sees it: its exit code and the end of its output. */
const runGroup = async (
  group: string,
  project: string,
  source: string,
  more: readonly string[] = [],
): Promise<{ code: unknown; lines: string[] }> => {
  const dir = await mkdtemp(join(tmpdir(), "weir-test-command-"));
  try {
    await writeFile(join(dir, "sample.test.js"), source);
    await mkdir(join(dir, "src-shared"));
    await writeFile(
      join(dir, "src-shared/sum.js"),
      "export const sum = (a, b) => a + b;\nexport const no = () => 0;\n",
    );
    const coverage = { provider: "v8", reporter: ["json-summary"] };
    const config = {
      test: { coverage, projects: [{ test: { name: project, globals: true, include: ["*.test.js"] } }] },
    };
    await writeFile(join(dir, "vitest.config.mjs"), `export default ${JSON.stringify(config)}`);
    const flags = [`--root=${dir}`, `--config=${join(dir, "vitest.config.mjs")}`, ...more];
    // Without the variables of the vitest that runs this test.
    const isForeign = (name: string): boolean => /^(VITEST|TEST$|NODE_ENV$|WEIR_|GITHUB_|FORCE_COLOR$)/.test(name);
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !isForeign(name)));
    const child = spawn(process.execPath, ["scripts/test.ts", group, ...flags], {
      cwd: root,
      env,
      stdio: ["ignore", "ignore", "pipe"],
    });
    const [words, [code]] = await Promise.all([text(child.stderr), once(child, "exit")]);
    return { code, lines: words.trimEnd().split("\n") };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
};

describe("npm test", () => {
  it("ends with each failed test, its file, and the first lines of its error", async () => {
    const { code, lines } = await runGroup(
      "unit",
      "node",
      `
      it("is fine", () => {});
      it("adds", () => { expect({ sum: 3 }).toEqual({ sum: 4 }); });
      describe("a group", () => { beforeAll(() => { throw new TypeError("the hook broke"); }); it("waits", () => {}); });
      it("leaks", () => { void Promise.reject(new Error("left over")); });`,
    );
    expect(code).toBe(1);
    const end = lines.slice(lines.findIndex((line) => line.startsWith("FAILED  unit")));
    expect(end.map((line) => line.replace(/at \S+sample/, "at sample").replace(/\d+\.\d s/, "N s"))).toEqual([
      expect.stringMatching(/^FAILED {2}unit +N s {2}failed$/),
      "",
      "FAILED  sample.test.js > adds",
      "          AssertionError: expected { sum: 3 } to deeply equal { sum: 4 }",
      '          -   "sum": 4,',
      '          +   "sum": 3,',
      expect.stringMatching(/^ {12}at sample.test.js:3:\d+$/),
      "FAILED  sample.test.js > a group",
      "          TypeError: the hook broke",
      expect.stringMatching(/^ {12}at sample.test.js:4:\d+$/),
      "FAILED  (outside of every test)",
      "          left over",
      expect.stringMatching(/^ {12}at sample.test.js:5:\d+$/),
      "",
      "unit failed (N s)",
    ]);
  });

  it("names nothing when everything passed", async () => {
    const { code, lines } = await runGroup("unit", "node", `it("is fine", () => {});`);
    expect(code).toBe(0);
    expect(lines.filter((line) => line.includes("FAILED"))).toEqual([]);
    expect(lines.at(-1)).toMatch(/^everything passed in /);
  });

  it("tells what the unit tests covered", async () => {
    const source = `import { sum } from "./src-shared/sum.js";\nit("adds", () => expect(sum(1, 2)).toBe(3));`;
    const { code, lines } = await runGroup("unit", "node", source, ["--coverage"]);
    expect(code).toBe(0);
    const told = lines.slice(lines.indexOf("covered by unit:"));
    expect(told.join("\n")).toMatch(/^covered by unit:\n +all .*% of lines/);
  });
});

describe("a group whose tests start processes", () => {
  const failsAtFirst = `
    import { existsSync, writeFileSync } from "node:fs";
    it("starts", () => {
      const mark = new URL("begun", import.meta.url);
      if (existsSync(mark)) return;
      writeFileSync(mark, "");
      HOW;
    });`;

  it.each([
    ["fails", 'throw new Error("too slow")', "UNSTEADY  sample.test.js > starts"],
    [
      "crashes",
      'process.kill(process.pid, "SIGSEGV"); await new Promise(() => {})',
      "UNSTEADY  (outside of every test)",
    ],
  ])("runs a file once more that %s, and names it at the end", async (_what, how, line) => {
    const source = failsAtFirst.replace("HOW", how).replace("() => {\n      const", "async () => {\n      const");
    const { code, lines } = await runGroup("integration", "integration", source);
    expect(code).toBe(0);
    expect(lines).toContain(line);
    expect(lines.find((text) => /^ok +integration/.test(text))).toMatch(
      /passed, 1 of its files at the second try only$/,
    );
  });

  it("fails with what fails twice", async () => {
    const { code, lines } = await runGroup(
      "integration",
      "integration",
      'it("breaks", () => { throw new Error("no"); });',
    );
    expect(code).toBe(1);
    expect(lines).toContain("FAILED  sample.test.js > breaks");
    expect(lines.find((text) => text.startsWith("FAILED  integration"))).toMatch(/failed, twice$/);
  });
});

describe("the summary", () => {
  const failed = (name: string, error: string): TestRecord => ({
    type: "failed",
    file: "a.test.ts",
    name,
    errors: [error],
  });

  it("tells what was running when a group was stopped", () => {
    const records: TestRecord[] = [
      { type: "begun", file: "a.test.ts", name: "ends" },
      { type: "begun", file: "b.test.ts", name: "hangs" },
      { type: "ended", file: "a.test.ts", name: "ends" },
    ];
    expect(unfinished(records)).toEqual([{ file: "b.test.ts", title: "b.test.ts > hangs" }]);
  });

  it("stays short however much fails, and keeps the place of an error", () => {
    const long = [
      ...Array.from({ length: 500 }, (_, index) => `line ${index} ${"x".repeat(1000)}`),
      "  at a.test.ts:1:2",
    ];
    const lines = failureLines(Array.from({ length: 60 }, (_, index) => failed(`test ${index}`, long.join("\n"))));
    expect(lines.length).toBeLessThanOrEqual(300);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(260);
    expect(lines.filter((line) => line.endsWith("at a.test.ts:1:2"))).toHaveLength(25);
    expect(lines.at(-1)).toBe("... and 35 more failed");
  });

  it("adds up what was covered for each package", () => {
    const figures = (covered: number, total: number) => ({
      lines: { covered, total },
      branches: { covered: covered / 2, total },
    });
    const summary = {
      total: figures(6, 10),
      [join(root, "src-main/app.ts")]: figures(4, 4),
      [join(root, "src-main/host/version.ts")]: figures(0, 4),
      [join(root, "native/index.ts")]: figures(2, 2),
    };
    expect(coverageLines(summary).map((line) => line.trim().replace(/ +/g, " "))).toEqual([
      "src-main 50.0 % of lines 25.0 % of branches",
      "native 100.0 % of lines 50.0 % of branches",
      "all 60.0 % of lines 30.0 % of branches",
    ]);
  });
});
