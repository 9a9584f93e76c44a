import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Browser, chromium } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { REQUEST_WINDOW_CHUNKS } from "#shared/base/limits.ts";
import { sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { findChromium } from "../../scripts/find-chromium.ts";
import type { HeadlessProfile } from "../../scripts/headless-process.ts";
import { axeViolations } from "../support/axe.ts";
import { ensureFreshBuild } from "../support/fresh-build.ts";
import { Person } from "../support/person.ts";
import { createWorld, type World } from "../support/profiles.ts";

/**
 * Two people at their windows: real programs, a real server, two real pages, one light and one dark. The tests build on
 * each other, as their days would. With WEIR_SCREENSHOTS=1 pictures of the pages go to docs/screenshots/.
 */
const MiB = 1024 * 1024;
const screenshots = join(import.meta.dirname, "../../docs/screenshots");
const takesScreenshots = process.env["WEIR_SCREENSHOTS"] === "1";
/** Long enough to be killed, or photographed, in the middle. */
const SECOND_FILE_BYTES = (takesScreenshots ? 384 : 128) * MiB;
const PATIENT = { timeout: 30_000 };

describe("two people", () => {
  let world: World;
  let browser: Browser;
  let bobsProgram: HeadlessProfile;
  let alice: Person;
  let bob: Person;

  const both = (): readonly Person[] => [alice, bob];
  const expectAccessible = async (): Promise<void> => {
    for (const person of both()) expect(await axeViolations(person.page), person.name).toEqual([]);
  };
  const expectSaved = async (name: string, sha256: string): Promise<void> => {
    expect(await sha256OfFile(join(world.downloadsOf("Bob"), name))).toBe(sha256);
  };

  beforeAll(async () => {
    await ensureFreshBuild();
    const executablePath = findChromium();
    if (executablePath === null) throw new Error("no Chromium here: install it, or name it in WEIR_CHROMIUM");
    world = await createWorld();
    const alicesProgram = await world.profile("Alice");
    bobsProgram = await world.profile("Bob");
    browser = await chromium.launch({
      executablePath,
      args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"],
    });
    alice = await Person.open(browser, alicesProgram, { name: "Alice", theme: "light" });
    bob = await Person.open(browser, bobsProgram, { name: "Bob", theme: "dark" });
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await world?.[Symbol.asyncDispose]();
  });
  afterEach(() => {
    for (const person of both()) expect(person.problems, person.name).toEqual([]);
  });

  it("meet with a spoken code and compare the same words", async () => {
    for (const person of both()) await person.page.getByRole("heading", { name: "Nobody here yet" }).waitFor();
    const code = await alice.invite();
    await bob.enterInvitation(code.toLowerCase());
    await alice.page.getByRole("heading", { name: "Bob wants to connect" }).waitFor();
    await bob.page.getByRole("heading", { name: "Waiting for Alice" }).waitFor();
    const words = await alice.safetyWords();
    expect(words.length).toBeGreaterThanOrEqual(2);
    expect(await bob.safetyWords()).toEqual(words);
    await expectAccessible();
    await alice.page.getByRole("button", { name: "Accept", exact: true }).click();
    await alice.box(bob).waitFor();
    await bob.box(alice).waitFor();
  });

  it("write to each other, see each other type, and see what was read", async () => {
    const hello = "Hi Bob, I have the recordings of Sunday.";
    await alice.say(bob, hello);
    await bob.message(hello).waitFor(PATIENT);
    await alice.message(hello).getByRole("img", { name: "Read", exact: true }).waitFor(PATIENT);
    const order = ["Waiting to be sent", "Sent", "Delivered", "Read"];
    const places = (await alice.statesOf(hello)).map((state) => order.indexOf(state));
    expect(places).toEqual([...new Set(places)].sort());
    expect(places[0]).toBeGreaterThanOrEqual(0);

    // "Is typing" travels over the direct link only.
    for (const { page } of both()) await page.getByRole("button", { name: /^(Local|Direct)\./ }).waitFor(PATIENT);
    await bob.box(alice).pressSequentially("Great");
    await alice.page.getByText("Bob is typing").waitFor(PATIENT);
    await bob.box(alice).pressSequentially(", send them over!");
    await bob.page.keyboard.press("Enter");
    await alice.message("Great, send them over!").waitFor(PATIENT);
    await alice.page.getByText("Bob is typing").waitFor({ state: "detached", ...PATIENT });
    await bob.message("Great, send them over!").getByRole("img", { name: "Read", exact: true }).waitFor(PATIENT);
  });

  it("verify each other: one copies the safety number, the other pastes it", async () => {
    const openNumber = async (person: Person, other: Person): Promise<void> => {
      await person.page.getByRole("button", { name: `More about ${other.name}` }).click();
      await person.page.getByRole("menuitem", { name: "Verify safety number" }).click();
      await person.page.getByRole("img", { name: "Safety number as a QR code" }).waitFor(PATIENT);
    };
    await openNumber(alice, bob);
    const groups = await alice.page
      .getByRole("list", { name: /^Safety number/ })
      .getByRole("listitem")
      .allInnerTexts();
    expect(groups).toHaveLength(12);
    await openNumber(bob, alice);
    await bob.page.getByLabel("Or paste the digits of the other side").fill(groups.join(" "));
    await bob.page.keyboard.press("Enter");
    await bob.page.getByText("The numbers match.").waitFor();
    await bob.page.getByText("You verified Alice").waitFor();
    for (const { page } of both()) await page.getByRole("button", { name: "Close", exact: true }).click();
  });

  it("send a dropped file, and every phase of its way is shown in its place", async () => {
    const file = await alice.drop("rehearsal.wav", 24 * MiB);
    await alice.card(file.name).getByText("Shared from this device").waitFor(PATIENT);
    await bob.page.getByRole("button", { name: `Download ${file.name}` }).click(PATIENT);
    await bob.card(file.name).getByText("Done, verified").waitFor(PATIENT);
    await expectSaved(file.name, file.sha256);

    const seen = await bob.seenOf(file.name);
    // Whether the sender has answered when the page looks for the first time is a matter of chance.
    const shown = seen
      .filter((sight) => sight.status !== "waiting")
      .filter((sight, index, sights) => sight.status !== sights[index - 1]?.status);
    expect(shown.map((sight) => sight.status)).toEqual([
      "available",
      "downloading",
      "draining",
      "assembling",
      "verifying",
      "complete",
    ]);
    const headlineOf = (status: string) => shown.find((sight) => sight.status === status)?.headline;
    expect(headlineOf("downloading")).toMatch(/^\d+\.\d of 25\.2 MB/);
    expect(headlineOf("draining")).toBe("Waiting for parts in flight");
    expect(headlineOf("assembling")).toBe("Assembling");
    expect(headlineOf("verifying")).toBe("Verifying");
    expect(headlineOf("complete")).toBe("Done, verified");
    // Nothing moves: one size of the card, one place of the bar and of its four parts.
    expect(new Set(seen.map((sight) => sight.size)).size).toBe(1);
    const bars = new Set(seen.map((sight) => sight.bar).filter((bar) => bar !== ""));
    expect([...bars]).toHaveLength(1);
    expect([...bars][0]?.split(", ")).toHaveLength(5);
    await expectAccessible();
  });

  it("can take a file back while it is handed over", async () => {
    const uploads = join(world.dataOf("Alice"), "uploads");
    const before = await readdir(uploads);
    const fast = await alice.slowUploads(MiB);
    await alice.drop("mistake.bin", 24 * MiB);
    const chip = alice.page.getByRole("listitem").filter({ hasText: "mistake.bin" });
    await chip.getByText("Handing over").waitFor(PATIENT);
    await expect.poll(() => readdir(uploads), PATIENT).toHaveLength(before.length + 1);
    await chip.getByRole("button", { name: "Do not send mistake.bin" }).click();
    await chip.waitFor({ state: "detached" });
    await expect.poll(() => readdir(uploads), { timeout: 10_000 }).toEqual(before);
    await fast();
    expect(await alice.card("mistake.bin").count()).toBe(0);
  });

  it("lose nothing when the downloader's program is killed half way", async () => {
    const name = "concert.mkv";
    const path = join(world.dir, name);
    const sha256 = await writeRandomFile(path, SECOND_FILE_BYTES);
    await alice.attach(path);
    await alice.card(name).getByText("Shared from this device").waitFor(PATIENT);
    await bob.page.getByRole("button", { name: `Download ${name}` }).click(PATIENT);
    // Away from the buttons, which show what they do as long as one points at them.
    for (const { page } of both()) await page.mouse.move(700, 120);
    const bar = bob.card(name).getByRole("progressbar");
    const percent = async () => Number(await bar.getAttribute("aria-valuenow"));
    await expect.poll(percent, { interval: 20, ...PATIENT }).toBeGreaterThan(takesScreenshots ? 30 : 10);
    expect(await bob.page.getByText(`Pause ${name}`).count()).toBe(0);
    if (takesScreenshots) await photograph(both());

    bob.expectHostGone();
    await bobsProgram.kill();
    expect(await bob.statusOf(name)).toBe("downloading");
    expect(await readdir(world.downloadsOf("Bob"))).not.toContain(name);
    await bob.page.getByText("Weir does not answer.").waitFor(PATIENT);
    bobsProgram = await world.profile("Bob");
    await bob.visit(bobsProgram);
    await bob.openChat(alice);
    await bob.card(name).getByText("Done, verified").waitFor({ timeout: 60_000 });
    await expectSaved(name, sha256);

    await bob.page.getByRole("button", { name: /^Transfers/ }).click();
    const row = bob.page.getByRole("article", { name });
    await row.getByText("Details").click();
    const figure = async (term: string): Promise<number> => {
      const text = await row.locator("dl > div", { hasText: term }).locator("dd").textContent();
      return Number.parseInt((text ?? "").replace(",", ""), 10);
    };
    const parts = await figure("Parts");
    expect(parts).toBe(SECOND_FILE_BYTES / (64 * 1024));
    expect(await figure("Asked for")).toBeGreaterThanOrEqual(parts);
    expect(await figure("Asked for")).toBeLessThanOrEqual(parts + REQUEST_WINDOW_CHUNKS);
    expect(await figure("Rejected")).toBe(0);
    await expectAccessible();
    await bob.page.getByRole("button", { name: /^Chats/ }).click();
  });

  it("are told when the server is gone, and what was written meanwhile arrives", async () => {
    await world.killServer();
    for (const { page } of both()) await page.getByText("What you write is kept").waitFor(PATIENT);
    await expectAccessible();
    await alice.say(bob, "Written without a server");
    await world.startServerAgain();
    for (const { page } of both())
      await page.getByText("What you write is kept").waitFor({ state: "detached", ...PATIENT });
    await bob.message("Written without a server").waitFor(PATIENT);
    await alice.message("Written without a server").getByRole("img", { name: "Read", exact: true }).waitFor(PATIENT);
    expect(await bob.message("Written without a server").count()).toBe(1);
  });

  it("can save a report that tells nothing about them", async () => {
    const { page } = bob;
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Make a report" }).click();
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save as a file" }).click();
    const saved = await download;
    expect(saved.suggestedFilename()).toBe("weir-diagnostics.json");
    const report = await readFile(await saved.path(), "utf8");
    expect(JSON.parse(report)).toMatchObject({ server: "connected", transfers: [{ phase: "complete" }, {}] });
    for (const secret of ["Alice", "Bob", "rehearsal", "concert", "Sunday", world.dir, bobsProgram.userId])
      expect(report).not.toContain(secret);
  });
});

const photograph = async (people: readonly Person[]): Promise<void> => {
  await mkdir(screenshots, { recursive: true });
  for (const [index, theme] of ["light", "dark"].entries())
    await people[index]?.page.screenshot({ path: join(screenshots, `two-people-${theme}.png`) });
};
