import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { CommandName } from "#shared/ipc/contract.ts";
import { BOB, CAROL, ELIF, relayedReport } from "../support/fake-weir-sample.ts";
import { UiHarness, type Window } from "../support/ui-harness.ts";

/** The page of a connection: how one comes to it and back, what it does, and all of it without a pointer. */
const FOCUSED = `(() => {
  const element = document.activeElement;
  return element?.getAttribute("aria-label") ?? element?.textContent?.trim() ?? "";
})()`;

describe("the page of a connection", () => {
  let harness: UiHarness;
  let window: Window;
  let page: Page;
  beforeAll(async () => {
    harness = await UiHarness.start();
  }, 120_000);
  afterAll(() => harness.stop());
  beforeEach(async () => {
    window = await harness.open({ scenario: "sample", height: 1000 });
    ({ page } = window);
  });
  afterEach(async () => {
    expect(window.problems).toEqual([]);
    await window.close();
  });

  const callsOf = async (name: CommandName): Promise<unknown> =>
    window.fake(`return fake.calls.filter((call) => call.name === "${name}").map((call) => call.input)`);
  const focused = async (): Promise<string> => String(await page.evaluate(FOCUSED));
  const tabTo = async (name: string): Promise<void> => {
    for (let presses = 0; presses < 60; presses += 1) {
      if ((await focused()).startsWith(name)) return;
      await page.keyboard.press("Tab");
    }
    throw new Error(`the keyboard does not reach "${name}"`);
  };
  const open = async (userId: string): Promise<void> => {
    await page.getByRole("button", { name: "Connections" }).click();
    await page.locator(`[data-link="${userId}"]`).click();
    await page.getByRole("heading", { name: "What was tried" }).waitFor();
  };

  it("opens from a chat and from the list by keyboard, and leads back to where one was", async () => {
    await page.locator(`[data-chat="${BOB}"]`).click();
    await page.getByLabel("Message to Bob Lindqvist").waitFor();
    await tabTo("Local. Connected within your network");
    await page.keyboard.press("Enter");
    await expect.poll(focused).toBe("Connection to Bob Lindqvist");
    await tabTo("Test connection");
    await page.keyboard.press("Enter");
    await page.getByRole("status").filter({ hasText: "It works: Local network" }).waitFor();
    expect(await focused()).toBe("Test connection");
    expect(await callsOf("links.test")).toEqual([{ peerId: BOB }]);
    await page.keyboard.press("Escape");
    await expect.poll(focused).toBe("Message to Bob Lindqvist");

    await page.getByRole("button", { name: "More about Bob Lindqvist" }).click();
    await page.getByRole("menuitem", { name: "Connection" }).click();
    await page.getByRole("button", { name: "Back to the chat" }).click();
    await page.getByLabel("Message to Bob Lindqvist").waitFor();

    await page.getByRole("button", { name: "Connections" }).click();
    await tabTo("Carol Okafor");
    await page.keyboard.press("Enter");
    await expect.poll(focused).toBe("Connection to Carol Okafor");
    await page.keyboard.press("Escape");
    await expect.poll(focused).toBe("Carol Okafor");
  });

  it("leads from a waiting download to the reason why", async () => {
    await page.getByRole("button", { name: /^Transfers/ }).click();
    await page
      .getByRole("button", { name: "Why does terrain-model.7z wait? Show the connection to Elif Yıldız" })
      .click();
    await page.getByRole("heading", { name: "Connection to Elif Yıldız" }).waitFor();
    await page.getByText("Elif Yıldız is offline").waitFor();
  });

  it("moves nothing while a test runs, and shows how far it is", async () => {
    await open(BOB);
    await window.fake(`
      const { call } = fake.weir;
      fake.weir.call = async (name, input) => {
        if (name === "links.test") await new Promise((resolve) => { fake.endTest = resolve; });
        return call(name, input);
      };`);
    const test = page.getByRole("region", { name: "Test" });
    const places = async (): Promise<unknown> =>
      Promise.all([test, page.getByRole("heading", { name: "What would help" })].map((it) => it.boundingBox()));
    const stepsOf = async (): Promise<(string | null)[]> =>
      Promise.all((await test.getByRole("listitem").all()).map((step) => step.getAttribute("data-step")));
    const before = await places();
    await test.getByRole("button", { name: "Test connection" }).click();
    await test.getByRole("status").filter({ hasText: "The test is running" }).waitFor();
    expect(await stepsOf()).toEqual(["done", "active", "waiting", "waiting"]);
    expect(await places()).toEqual(before);
    expect(await harness.axe(page)).toEqual([]);
    // Not twice at once.
    expect(await focused()).toBe("Testing…");
    await page.keyboard.press("Enter");
    await window.fake("fake.endTest()");
    await test.getByRole("status").filter({ hasText: "It works" }).waitFor();
    expect(await stepsOf()).toEqual(["done", "done", "done", "done"]);
    expect(await places()).toEqual(before);
    expect(await callsOf("links.test")).toHaveLength(1);
  });

  it("changes the policy by keyboard; what is refused falls back and says why", async () => {
    await open(BOB);
    await tabTo("Any way, direct first");
    await page.keyboard.press("ArrowDown");
    await expect.poll(() => callsOf("contacts.network")).toContainEqual({ userId: BOB, policy: "afterAccept" });
    const chosen = (name: string) => page.getByRole("radio", { name }).isChecked();
    await expect.poll(() => chosen("Direct only after I accepted")).toBe(true);
    await window.fake(`
      const { call } = fake.weir;
      fake.weir.call = async (name, input) =>
        name === "contacts.network" ? { ok: false, error: { type: "x", message: "Not at the moment." } } : call(name, input);`);
    await page.getByRole("radio", { name: "Local network only" }).click();
    await page.getByText("Not at the moment.").waitFor();
    expect(await chosen("Direct only after I accepted")).toBe(true);
    expect(await chosen("Local network only")).toBe(false);
  });

  it("lets a contact be accepted where direct ways wait for that", async () => {
    await window.fake(`fake.state.networks["${ELIF}"] = { policy: "afterAccept", acceptedByMe: false }`);
    await open(ELIF);
    await page.getByRole("button", { name: "Accept and allow direct" }).click();
    await page.getByRole("button", { name: "Accept and allow direct" }).waitFor({ state: "detached" });
    expect(await callsOf("contacts.accept")).toEqual([{ userId: ELIF }]);
  });

  it("copies a report of findings that names nobody", async () => {
    const relayed = JSON.stringify(relayedReport());
    await window.fake(`fake.link("${CAROL}", { generation: 5, path: "relay", rttMs: 61 }, ${relayed})`);
    await open(CAROL);
    await page.getByText("UDP seems to be blocked on your side").waitFor();
    await page.getByRole("button", { name: "Copy report" }).click();
    await page.getByRole("button", { name: "Copied" }).waitFor();
    const text = String(await page.evaluate("navigator.clipboard.readText()"));
    expect(text).toContain("findings: relayed, udp_blocked, no_turn");
    expect(text).toContain("way server");
    for (const secret of ["Carol", "Okafor", "Alice", CAROL, "192.168"]) expect(text).not.toContain(secret);
  });

  it("says why there is no report, and shows it as soon as there is one", async () => {
    await window.fake(`
      const { call } = fake.weir;
      fake.restore = () => { fake.weir.call = call; };
      fake.weir.call = async (name, input) =>
        name === "links.report" ? { ok: false, error: { type: "x", message: "Not to be had." } } : call(name, input);`);
    await page.getByRole("button", { name: "Connections" }).click();
    await page.locator(`[data-link="${BOB}"]`).click();
    await page.getByRole("alert").filter({ hasText: "Not to be had." }).waitFor();
    expect(await page.getByRole("button", { name: "Copy report" }).count()).toBe(0);
    expect(await harness.axe(page)).toEqual([]);
    await window.fake("fake.restore()");
    await page.getByRole("heading", { name: "What was tried" }).waitFor();
    expect(await page.getByRole("alert").count()).toBe(0);
  });

  it("follows the link while it is open, and says when the contact is gone", async () => {
    await open(BOB);
    await window.fake(`fake.link("${BOB}", { state: "disconnected", path: null, rttMs: null })`);
    await page.getByText("Connections are switched off").waitFor();
    await page.getByRole("button", { name: "Connect all" }).click();
    expect(await callsOf("links.enable")).toEqual([{}]);
    expect(await harness.axe(page)).toEqual([]);
    await window.fake(`fake.emit("contact.changed", { userId: "${BOB}", removed: true })`);
    await page.getByText("This contact is no longer here.").waitFor();
    await page.getByRole("button", { name: "Back", exact: true }).click();
    await page.getByRole("heading", { name: "Connections" }).waitFor();
  });
});
