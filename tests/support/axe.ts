import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import type { AxeResults, RunOptions } from "axe-core";
import type { Page } from "playwright-core";

let source: Promise<string> | null = null;

/** Colours alone differ between the themes of one screen. */
export type AxeRules = "all" | "colours";
const OPTIONS: Record<AxeRules, RunOptions> = {
  all: { resultTypes: ["violations"], rules: { "target-size": { enabled: true } } },
  colours: { resultTypes: ["violations"], runOnly: { type: "rule", values: ["color-contrast", "link-in-text-block"] } },
};

/** Accessibility rules that the page breaks, one line each. */
export const axeViolations = async (page: Page, rules: AxeRules = "all"): Promise<string[]> => {
  source ??= readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  if (!(await page.evaluate("'axe' in globalThis"))) await page.evaluate(await source);
  const results = (await page.evaluate(`axe.run(document, ${JSON.stringify(OPTIONS[rules])})`)) as AxeResults;
  return results.violations.flatMap((violation) =>
    violation.nodes.map((node) => `${violation.id}: ${node.target.join(" ")}: ${node.failureSummary ?? ""}`),
  );
};
