import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { TransferView } from "#shared/ipc/views.ts";
import { findChromium } from "../../scripts/find-chromium.ts";
import { type HeadlessProfile, pair, say } from "../../scripts/headless-process.ts";
import { formatBytes, formatCount } from "../../src-renderer/format.ts";
import { axeViolations } from "../support/axe.ts";
import { writeRandomFile } from "../support/files.ts";
import { ensureFreshBuild } from "../support/fresh-build.ts";
import { Person } from "../support/person.ts";
import { createWorld, type World } from "../support/profiles.ts";

/** A real download, and what the activity page says about it. The tests build on each other. */
const SIZE = 5 * 1024 * 1024 + 321;
let world: World;
let browser: Browser;
let bobs: HeadlessProfile;
let bob: Person;
let page: Page;
let view: TransferView;

beforeAll(async () => {
  await ensureFreshBuild();
  const executablePath = findChromium();
  if (executablePath === null) throw new Error("no Chromium here: install it, or name it in WEIR_CHROMIUM");
  world = await createWorld();
  const [alice, profile] = await Promise.all([world.profile("Alice"), world.profile("Bob")]);
  bobs = profile;
  await pair(alice, bobs, "link");
  await say(alice, bobs, "hello");
  const path = join(world.dir, "river.bin");
  await writeRandomFile(path, SIZE);
  const { fileId } = await alice.call("files.share", { chatId: bobs.userId, path });
  await bobs.until(
    "the offer",
    async () => (await bobs.call("files.list", {})).find((f) => f.fileId === fileId) ?? null,
  );
  await bobs.call("transfers.start", { fileId });
  view = await bobs.until("the download", async () => {
    const found = (await bobs.call("transfers.list", {})).find((each) => each.fileId === fileId);
    return found?.phase === "complete" ? found : null;
  });
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  bob = await Person.open(browser, bobs, { name: "Bob", theme: "light" });
  ({ page } = bob);
  await page.getByRole("button", { name: "Activity" }).click();
  await page.getByRole("button", { name: "Run now" }).waitFor();
}, 120_000);
afterAll(async () => {
  await browser?.close();
  await world?.[Symbol.asyncDispose]();
});

const rowOf = async (table: string, first: string): Promise<string[]> => {
  const cells = page.getByRole("table", { name: table, exact: true }).getByRole("row").filter({ hasText: first });
  return cells.first().getByRole("cell").allInnerTexts();
};

it("shows the download that just ran, with the figures of the list of transfers, in plots, tables and the export", async () => {
  expect(view.bytesStored).toBe(SIZE);
  const total = (name: string): Promise<string | null> =>
    page
      .locator("dl[aria-label=Totals] > div")
      .filter({ has: page.getByText(name, { exact: true }) })
      .getByRole("definition")
      .textContent();
  expect(await total("Received")).toBe(formatBytes(view.bytesStored));
  expect(await total("Downloads finished")).toBe("1");
  // Two: the text, and the offer of the file.
  expect(await total("Messages received")).toBe("2");
  for (const name of ["Data per day", "Messages per day", "Ways that were taken", "People and groups"])
    await page
      .getByRole("img", { name: new RegExp(`^${name}: plot`) })
      .locator("canvas")
      .waitFor();
  for (const summary of await page.getByText("Figures", { exact: false }).and(page.locator("summary")).all())
    await summary.click();
  expect(await rowOf("People and groups", "Alice")).toEqual([formatBytes(SIZE), "0 B", "2", "0"]);
  expect(await rowOf("Files", "river.bin")).toEqual([formatBytes(SIZE), "0 B"]);
  const days = page.getByRole("table", { name: "Data per day" }).getByRole("row");
  expect(await days.last().getByRole("cell").allInnerTexts()).toEqual([formatBytes(SIZE), "0 B"]);

  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "JSON" }).click();
  const saved = JSON.parse(await readFile(await (await download).path(), "utf8")) as { bytesReceived: number };
  expect(saved.bytesReceived).toBe(view.bytesStored);
  const second = page.waitForEvent("download");
  await page.getByRole("button", { name: "CSV" }).click();
  expect(await readFile(await (await second).path(), "utf8")).toContain(`river.bin,${SIZE},0`);
  expect(await axeViolations(page)).toEqual([]);
});

it("can be used by keyboard alone: every table and every control is a stop", async () => {
  const wanted = ["CSV", "JSON", "Run now", "Check the figures", "Delete the history…"];
  const tables = [
    "Data per day",
    "Messages per day",
    "Ways that were taken",
    "People and groups",
    "Connections",
    "Files",
  ];
  const stops = new Set<string>();
  await page.getByRole("heading", { name: "Activity", level: 1 }).focus();
  for (let i = 0; i < 60; i++) {
    await page.keyboard.press("Tab");
    stops.add(
      await page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"),
    );
  }
  expect([...wanted, ...tables.map((name) => `${name}, figures`)].filter((name) => !stops.has(name))).toEqual([]);
});

it("counts on demand, checks the figures, and tells how the download went", async () => {
  await page.getByRole("button", { name: "Check the figures" }).click();
  await page.getByText(/^The figures agree with all \d+ events/).waitFor();
  await page.getByRole("button", { name: "Run now" }).click();
  await page.getByText(/^Done\. \d+ new events/).waitFor();
  await page.getByRole("button", { name: "Transfers" }).click();
  await page.getByRole("button", { name: "How it went: river.bin" }).click();
  const fact = (name: string): Promise<string | null> =>
    page
      .locator("dl > div")
      .filter({ has: page.getByText(name, { exact: true }) })
      .getByRole("definition")
      .textContent();
  expect(await fact("Received")).toBe(`${formatBytes(SIZE)} of ${formatBytes(SIZE)}`);
  expect(await fact("Parts asked for")).toBe(formatCount(view.requestedChunks));
  expect(await fact("Duplicates")).toBe(formatCount(view.duplicateChunks));
  const share = await rowOf("Who gave how much", "Alice");
  expect(share.slice(1)).toEqual([formatBytes(SIZE), formatCount(view.chunkCount), "100 %"]);
  const steps = await page.getByRole("heading", { name: "What happened" }).locator("..").getByRole("listitem").all();
  expect(steps).toHaveLength(5);
  expect(await axeViolations(page)).toEqual([]);
  await page.getByRole("button", { name: "Back" }).click();
  await page.getByRole("heading", { name: "Transfers", level: 1 }).waitFor();
  expect(bob.problems).toEqual([]);
});
