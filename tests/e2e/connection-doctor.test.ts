import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { findChromium } from "../../scripts/find-chromium.ts";
import { type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { axeViolations } from "../support/axe.ts";
import { ensureFreshBuild } from "../support/fresh-build.ts";
import { Person } from "../support/person.ts";
import { createWorld, type World } from "../support/profiles.ts";

/** Two real programs: what the page of a connection says is what the links really do. The tests build on each other. */
const PATIENT = { timeout: 30_000 };
let world: World;
let browser: Browser;
let alice: HeadlessProfile;
let bobs: HeadlessProfile;
let bob: Person;
let page: Page;

beforeAll(async () => {
  await ensureFreshBuild();
  const executablePath = findChromium();
  if (executablePath === null) throw new Error("no Chromium here: install it, or name it in WEIR_CHROMIUM");
  world = await createWorld();
  [alice, bobs] = await Promise.all([world.profile("Alice"), world.profile("Bob")]);
  await pair(alice, bobs, "link");
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  bob = await Person.open(browser, bobs, { name: "Bob", theme: "light" });
  ({ page } = bob);
}, 120_000);
afterAll(async () => {
  await browser?.close();
  await world?.[Symbol.asyncDispose]();
});

const way = () => page.getByRole("region", { name: "Way in use" });
const test = () => page.getByRole("region", { name: "Test" });
const result = () => test().getByRole("status");
const pressTest = () => test().getByRole("button", { name: "Test connection" }).click();

/** The link as Bob's program sees it, once it is as the page says. */
const shownTruly = async (expected: "lan" | "direct" | "relay"): Promise<void> => {
  const link = await bobs.until("the link", async () => {
    const [found] = await bobs.call("links.list", {});
    return found?.state === "connected" && found.path === expected ? found : null;
  });
  const shown = expected === "relay" ? "server" : expected;
  await expect.poll(() => way().getAttribute("data-way"), PATIENT).toBe(shown);
  expect(link.peerId).toBe(alice.userId);
};

it("opens from the chat, tests the connection, and shows the way that it really takes", async () => {
  await page.locator("[data-chat]").filter({ hasText: "Alice" }).click();
  await page.getByRole("button", { name: /^(Local|Direct)\./ }).click(PATIENT);
  await page.getByRole("heading", { name: "Connection to Alice" }).waitFor();
  const before = (await bobs.call("links.list", {}))[0]?.generation ?? 0;
  await pressTest();
  await result().filter({ hasText: "It works" }).waitFor(PATIENT);
  const [link] = await bobs.call("links.list", {});
  expect(link?.generation).toBeGreaterThan(before);
  const path = link?.path;
  if (path !== "lan" && path !== "direct") throw new Error(`no direct way on one machine, but ${path}`);
  await shownTruly(path);
  expect(await result().textContent()).toContain(path === "lan" ? "Local network" : "Direct");
  expect(await test().getByRole("listitem").filter({ hasText: ": done" }).count()).toBe(4);
  // What is in the table is what was tried.
  const rows = page.getByRole("table", { name: /^Attempts to connect/ }).getByRole("row");
  const missing = async (): Promise<number> => {
    const [report] = await bobs.call("links.report", { peerId: alice.userId });
    return 1 + Math.min(6, report?.attempts.length ?? 0) - (await rows.count());
  };
  await expect.poll(missing, PATIENT).toBe(0);
  await rows.nth(1).getByText("In use").waitFor();
  expect(await axeViolations(page)).toEqual([]);
});

it("moves to the meeting server's relay when nothing else is allowed, and says so on both sides", async () => {
  await page.getByRole("radio", { name: "Over the meeting server only" }).click();
  await shownTruly("relay");
  await page.getByText("As you chose").waitFor(PATIENT);
  await pressTest();
  await result().filter({ hasText: "It works: Meeting server relay" }).waitFor(PATIENT);
  const [report] = await alice.call("links.report", { peerId: bobs.userId });
  expect(report?.link).toMatchObject({ state: "connected", path: "relay" });
  expect(report?.attempts.at(-1)?.via).toBe("relay");
});

it("shows no address of anybody, and knows when the other side is gone", async () => {
  expect(await page.getByRole("main").textContent()).not.toMatch(/\d+\.\d+\.\d+\.\d+/);
  await alice.kill();
  await page.getByText("Alice is offline").first().waitFor(PATIENT);
  await pressTest();
  await result().filter({ hasText: "Alice is offline" }).waitFor(PATIENT);
  expect(await way().getAttribute("data-way")).toBe("none");
  expect(await axeViolations(page)).toEqual([]);
  expect(bob.problems).toEqual([]);
});
