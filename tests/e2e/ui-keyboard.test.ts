import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CommandName } from "#shared/ipc/contract.ts";
import { BOB, CAROL, files, HIRO } from "../support/fake-weir-sample.ts";
import { UiHarness, type Window } from "../support/ui-harness.ts";

/** The main road without a pointer: pair, open a chat, write, download, and keep one's place throughout. */

/** Presses Tab until the focused element's accessible name contains `name`; fails after a whole round. */
const tabTo = async (page: Page, name: string, key = "Tab"): Promise<void> => {
  for (let presses = 0; presses < 60; presses += 1) {
    if ((await focusedName(page)).includes(name)) return;
    await page.keyboard.press(key);
  }
  throw new Error(`the keyboard does not reach "${name}"`);
};

const focusedName = async (page: Page): Promise<string> =>
  String(
    await page.evaluate(`(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return "";
      const label = element.id ? document.querySelector('label[for="' + element.id + '"]') : null;
      return element.getAttribute("aria-label") ?? label?.textContent ?? element.textContent ?? "";
    })()`),
  );

const callsOf = async (window: Window, name: CommandName): Promise<unknown> =>
  window.fake(`return fake.calls.filter((call) => call.name === "${name}").map((call) => call.input)`);

describe("keyboard", () => {
  let harness: UiHarness;
  beforeAll(async () => {
    harness = await UiHarness.start();
  }, 120_000);
  afterAll(() => harness.stop());

  it("pairs by code", async () => {
    const window = await harness.open({ scenario: "empty" });
    const { page } = window;
    await page.getByRole("heading", { name: "Nobody here yet" }).waitFor();
    await tabTo(page, "Enter an invitation");
    await page.keyboard.press("Enter");
    await page.getByLabel("Invitation link or code").waitFor();
    expect(await focusedName(page)).toContain("Invitation link or code");

    await page.keyboard.type("WRONG");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").filter({ hasText: "not a Weir invitation" }).waitFor();

    await page.keyboard.press("Control+a");
    await page.keyboard.type("QRS234");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Waiting for Hiro Tanaka" }).waitFor();
    expect(await callsOf(window, "invites.accept")).toEqual([{ invite: "WRONG" }, { invite: "QRS234" }]);

    await window.fake(`fake.contact("${HIRO}", { state: "accepted", online: true })`);
    await page.getByLabel("Message to Hiro Tanaka").waitFor();
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("opens a chat with the switcher, writes, and goes back to the list with Escape", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.getByRole("heading", { name: "Chats" }).first().waitFor();
    await page.keyboard.press("Control+k");
    await expect.poll(() => focusedName(page)).toContain("Jump to a chat");
    await page.keyboard.type("lindq");
    await page.keyboard.press("Enter");
    await page.getByLabel("Message to Bob Lindqvist").waitFor();
    await expect.poll(() => focusedName(page)).toContain("Message to Bob");

    await page.keyboard.type("first line");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("second line");
    await page.keyboard.press("Enter");
    expect(await callsOf(window, "messages.send")).toEqual([{ chatId: BOB, text: "first line\nsecond line" }]);
    await page.getByText("first line second line").last().waitFor();
    expect(await page.getByLabel("Message to Bob Lindqvist").inputValue()).toBe("");

    await page.keyboard.press("Escape");
    await expect.poll(() => focusedName(page)).toContain("Bob Lindqvist");
    await page.keyboard.press("ArrowDown");
    expect(await focusedName(page)).toContain("Carol Okafor");
    await page.keyboard.press("Enter");
    await page.getByLabel("Message to Carol Okafor").waitFor();
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("downloads, pauses and resumes without losing its place", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.locator(`[data-chat="${CAROL}"]`).focus();
    await page.keyboard.press("Enter");
    await page.getByLabel("Message to Carol Okafor").waitFor();
    await tabTo(page, "Download Meeting notes.pdf", "Shift+Tab");
    await page.keyboard.press("Enter");
    const card = page.locator(`[data-file="${files.notes.fileId}"]`);
    await expect.poll(() => card.getAttribute("data-status")).toBe("downloading");
    expect(await callsOf(window, "transfers.start")).toEqual([{ fileId: files.notes.fileId }]);
    await expect.poll(() => focusedName(page)).toBe("Pause Meeting notes.pdf");

    await page.keyboard.press("Enter");
    await expect.poll(() => focusedName(page)).toBe("Resume Meeting notes.pdf");
    await page.keyboard.press("Enter");
    await expect.poll(() => focusedName(page)).toBe("Pause Meeting notes.pdf");
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("keeps the card's place and size through every phase, and says each phase aloud", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    const { fileId, chunkCount, sizeBytes } = files.notes;
    await page.locator(`[data-chat="${CAROL}"]`).click();
    const card = page.locator(`[data-file="${fileId}"]`);
    await card.waitFor();
    await page.waitForTimeout(300);
    const before = await card.boundingBox();
    const spoken: string[] = [];
    const phases: [string, string][] = [
      [
        "downloading",
        `{ phase: "downloading", bytesStored: 200000, chunksStored: 3, bytesPerSecond: 900000, etaMs: 400 }`,
      ],
      ["waiting", `{ waitingForSeeders: true }`],
      ["paused", `{ waitingForSeeders: false, paused: true }`],
      [
        "draining",
        `{ paused: false, phase: "draining", chunksStored: ${chunkCount}, bytesStored: ${sizeBytes}, inFlight: 2 }`,
      ],
      ["assembling", `{ phase: "assembling", assembledChunks: 4 }`],
      ["verifying", `{ phase: "verifying", assembledChunks: ${chunkCount} }`],
      [
        "failed",
        `{ phase: "failed", error: { type: "checksum", message: "A long reason that needs more than one line to be told in full, and says what to do." } }`,
      ],
      ["complete", `{ phase: "complete", error: null, savedPath: "/tmp/Meeting notes.pdf" }`],
    ];
    for (const [status, changes] of phases) {
      await window.fake(`fake.transfer("${fileId}", ${changes})`);
      await expect.poll(() => card.getAttribute("data-status")).toBe(status);
      expect(await card.boundingBox(), status).toEqual(before);
      spoken.push(
        await page
          .locator('[aria-live="polite"][role="status"]')
          .allTextContents()
          .then((all) => all.join("")),
      );
    }
    expect(spoken).toEqual([
      "Meeting notes.pdf: Downloading",
      "Meeting notes.pdf: Waiting for Carol Okafor to come online",
      "Meeting notes.pdf: Paused",
      "Meeting notes.pdf: Waiting for parts in flight",
      "Meeting notes.pdf: Assembling",
      "Meeting notes.pdf: Verifying",
      "Meeting notes.pdf: Failed",
      "Meeting notes.pdf: Done, verified",
    ]);
    await window.close();
  });

  it("loads older messages without moving what is read, and follows new ones only from the end", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.locator(`[data-chat="${BOB}"]`).click();
    const list = page.getByRole("region", { name: "Messages with Bob Lindqvist" });
    await list.waitFor();
    const distance = `(() => { const e = document.querySelector('section[aria-label^="Messages with"]'); return e.scrollHeight - e.scrollTop - e.clientHeight })()`;
    await expect.poll(() => page.evaluate(distance)).toBeLessThan(2);

    await window.fake(`fake.receive("${BOB}", "and one more")`);
    await list.getByText("and one more").waitFor();
    await expect.poll(() => page.evaluate(distance)).toBeLessThan(2);
    expect(await callsOf(window, "messages.list")).toHaveLength(1);

    await list.focus();
    for (let presses = 0; presses < 12; presses += 1) {
      await page.keyboard.press("PageUp");
      await page.waitForTimeout(60);
    }
    await expect.poll(async () => (await callsOf(window, "messages.list")) as unknown[]).toHaveLength(3);
    const away = Number(await page.evaluate(distance));
    expect(away).toBeGreaterThan(1000);
    await window.fake(`fake.receive("${BOB}", "while you were away")`);
    await page.getByRole("button", { name: "To the newest message" }).click();
    await list.getByText("while you were away").waitFor();
    await expect.poll(() => page.evaluate(distance)).toBeLessThan(2);
    expect(window.problems).toEqual([]);
    await window.close();
  });
});
