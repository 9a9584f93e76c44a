import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { CommandName } from "#shared/ipc/contract.ts";
import { UiHarness, type Window } from "../support/ui-harness.ts";

/** The settings page: what each control changes, what it says when that is refused, and all of it without a pointer. */
describe("settings", () => {
  let harness: UiHarness;
  let window: Window;
  let page: Page;
  beforeAll(async () => {
    harness = await UiHarness.start();
  }, 120_000);
  afterAll(() => harness.stop());
  beforeEach(async () => {
    await open("sample");
  });
  afterEach(async () => {
    expect(window.problems).toEqual([]);
    await window.close();
  });

  const open = async (scenario: "sample" | "headless"): Promise<void> => {
    window = await harness.open({ scenario });
    ({ page } = window);
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("heading", { name: "Settings" }).waitFor();
  };
  const callsOf = async (name: CommandName): Promise<unknown> =>
    window.fake(`return fake.calls.filter((call) => call.name === "${name}").map((call) => call.input)`);
  /** From now on the main process refuses the command. */
  const refuse = (name: CommandName, message: string): Promise<unknown> =>
    window.fake(`
      const { call } = fake.weir;
      fake.weir.call = async (name, input) =>
        name === "${name}" ? { ok: false, error: { type: "refused", message: "${message}" } } : call(name, input);`);
  const section = (name: string) => page.getByRole("region", { name, exact: true });
  const saveIn = (name: string) => section(name).getByRole("button", { name: "Save" });
  /** Presses Tab until the control has the focus; fails after a whole round. */
  const tabTo = async (name: string): Promise<void> => {
    const focused = `(() => {
      const element = document.activeElement;
      const label = element?.id ? document.querySelector('label[for="' + element.id + '"]') : null;
      return element?.getAttribute("aria-label") ?? label?.textContent ?? element?.textContent ?? "";
    })()`;
    for (let presses = 0; presses < 60; presses += 1) {
      if (String(await page.evaluate(focused)).trim() === name) return;
      await page.keyboard.press("Tab");
    }
    throw new Error(`the keyboard does not reach "${name}"`);
  };

  it("changes the name, by keyboard, and says what is wrong with one", async () => {
    expect(await saveIn("Profile").count()).toBe(0);
    await tabTo("Name");
    await page.keyboard.press("Control+a");
    await page.keyboard.type("   ");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").filter({ hasText: "Enter the name that your contacts will see." }).waitFor();
    expect(await callsOf("profile.update")).toEqual([]);
    await page.keyboard.press("Control+a");
    await page.keyboard.type(" Alice M. ");
    await page.keyboard.press("Enter");
    await expect.poll(() => callsOf("profile.update")).toEqual([{ name: "Alice M." }]);
    await saveIn("Profile").waitFor({ state: "detached" });
    expect(await page.getByRole("alert").count()).toBe(0);

    await refuse("profile.update", "The name is too long.");
    await page.getByLabel("Name", { exact: true }).fill("Another");
    await saveIn("Profile").click();
    await page.getByRole("alert").filter({ hasText: "The name is too long." }).waitFor();
    expect(await page.getByLabel("Name", { exact: true }).inputValue()).toBe("Another");
  });

  it("moves to another server and back, and says what is wrong with an address", async () => {
    const server = section("Server");
    const use = server.getByRole("button", { name: "Use this server" });
    await tabTo("Built in");
    await page.keyboard.press("ArrowDown");
    await server.getByLabel("Server address").waitFor();
    for (const [address, problem] of [
      ["", "Enter the address of the server."],
      ["https://meet.example.org", "must start with wss:// or ws://"],
      ["wss://", "not a complete address"],
    ] as const) {
      await server.getByLabel("Server address").fill(address);
      await use.click();
      await server.getByRole("alert").filter({ hasText: problem }).waitFor();
    }
    expect(await callsOf("settings.set")).toEqual([]);
    await server.getByText("Invitations that nobody has used yet end with the move.").waitFor();
    await tabTo("Server address");
    await page.keyboard.press("Control+a");
    await page.keyboard.type(" wss://meet.example.org ");
    await page.keyboard.press("Enter");
    await expect.poll(() => callsOf("settings.set")).toEqual([{ server: "wss://meet.example.org" }]);
    await server.getByText("wss://meet.example.org").waitFor();
    await use.waitFor({ state: "detached" });

    await window.fake(
      `fake.server({ state: "disconnected", error: { type: "unreachable", message: "Nobody answers there." } })`,
    );
    await server.getByText("Nobody answers there.").waitFor();

    await refuse("settings.set", "The built-in server cannot start.");
    await server.getByRole("radio", { name: "Built in" }).click();
    await use.click();
    await server.getByRole("alert").filter({ hasText: "The built-in server cannot start." }).waitFor();
    expect(await harness.axe(page)).toEqual([]);
  });

  it("picks a download folder with the system's dialog, and tells when it cannot be used", async () => {
    await tabTo("Change…");
    await page.keyboard.press("Enter");
    await expect.poll(() => callsOf("settings.set")).toEqual([{ downloadDirectory: "/home/alice/Elsewhere" }]);
    await section("Downloads").getByText("/home/alice/Elsewhere").waitFor();

    await refuse("settings.set", "Nothing can be written to that folder.");
    await section("Downloads").getByRole("button", { name: "Change…" }).click();
    await page.getByText("Nothing can be written to that folder.").waitFor();
    await section("Downloads").getByText("/home/alice/Elsewhere").waitFor();
  });

  it("takes the path of a download folder where there is no dialog", async () => {
    await window.close();
    await open("headless");
    await tabTo("Folder for received files");
    await page.keyboard.press("Control+a");
    await page.keyboard.type(" /srv/files ");
    await page.keyboard.press("Enter");
    await expect.poll(() => callsOf("settings.set")).toEqual([{ downloadDirectory: "/srv/files" }]);
    await saveIn("Downloads").waitFor({ state: "detached" });

    await refuse("settings.set", "Nothing can be written to that folder.");
    await page.getByLabel("Folder for received files").fill("/root");
    await saveIn("Downloads").click();
    await page.getByRole("alert").filter({ hasText: "Nothing can be written to that folder." }).waitFor();
  });

  it("changes how long to wait for parts in flight, within its limits", async () => {
    const seconds = page.getByLabel("Wait for parts in flight, in seconds");
    expect(await seconds.inputValue()).toBe("5");
    for (const wrong of ["soon", "-1", "999999", ""]) {
      await seconds.fill(wrong);
      await seconds.press("Enter");
      await page
        .getByRole("alert")
        .filter({ hasText: /Enter seconds between \d/ })
        .waitFor();
      await seconds.fill("5");
      expect(await page.getByRole("alert").count(), wrong).toBe(0);
    }
    expect(await callsOf("settings.set")).toEqual([]);
    await tabTo("Wait for parts in flight, in seconds");
    await page.keyboard.press("Control+a");
    await page.keyboard.type("2,5");
    await page.keyboard.press("Enter");
    await expect.poll(() => callsOf("settings.set")).toEqual([{ drainTimeoutMs: 2500 }]);
    await saveIn("Downloads").waitFor({ state: "detached" });
    expect(await page.getByRole("alert").count()).toBe(0);
  });

  it("limits what unfinished downloads take, and shows what that is and what was deleted for it", async () => {
    const storage = section("Storage");
    await storage.getByText("1.5 GB").waitFor();
    await storage.getByText("old.iso").waitFor();
    const limit = page.getByLabel("Keep at most, in GB, for unfinished downloads");
    for (const wrong of ["much", "0", "0.01"]) {
      await limit.fill(wrong);
      await limit.press("Enter");
      await page.getByRole("alert").filter({ hasText: "Enter 0.07 or more" }).waitFor();
    }
    expect(await callsOf("settings.set")).toEqual([]);
    await limit.fill("2,5");
    await limit.press("Enter");
    await expect.poll(() => callsOf("settings.set")).toEqual([{ chunkStorageBytes: 2_500_000_000 }]);
    await saveIn("Storage").waitFor({ state: "detached" });
    // The sums are asked for anew.
    await expect.poll(async () => ((await callsOf("storage.usage")) as unknown[]).length).toBe(2);
  });

  it("changes the theme with the arrow keys, and falls back when it cannot be kept", async () => {
    const shown = (): Promise<unknown> => page.evaluate("document.documentElement.dataset.theme ?? 'system'");
    const chosen = (): Promise<string | null> => section("Appearance").locator("[aria-checked=true]").textContent();
    await tabTo("As the system");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await expect.poll(() => callsOf("settings.set")).toEqual([{ theme: "light" }, { theme: "dark" }]);
    await expect.poll(shown).toBe("dark");
    expect((await chosen())?.trim()).toBe("Dark");

    await refuse("settings.set", "The disk is full.");
    await page.getByRole("radio", { name: "Light" }).click();
    await page.getByText("The disk is full.").waitFor();
    expect(await shown()).toBe("dark");
    expect((await chosen())?.trim()).toBe("Dark");
  });

  it("switches what others learn, and falls back when it cannot be kept", async () => {
    const receipts = page.getByRole("switch", { name: "Read receipts" });
    await tabTo("Read receipts");
    await page.keyboard.press("Space");
    await page.getByRole("switch", { name: "Typing indicators" }).click();
    await page.getByRole("switch", { name: "Find contacts on the local network" }).click();
    await expect
      .poll(() => callsOf("settings.set"))
      .toEqual([{ readReceipts: false }, { typingIndicators: false }, { lanDiscovery: true }]);
    expect(await receipts.getAttribute("aria-checked")).toBe("false");

    await refuse("settings.set", "The disk is full.");
    await receipts.click();
    await page.getByText("The disk is full.").waitFor();
    await expect.poll(() => receipts.getAttribute("aria-checked")).toBe("false");
  });
});
