import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  addGroup,
  BOB,
  CAROL,
  DMITRI,
  ELIF,
  FATIMA,
  GRETE,
  HIKERS,
  relayedReport,
} from "../support/fake-weir-sample.ts";
import { type OpenOptions, UiHarness, type Window } from "../support/ui-harness.ts";

/**
 * Every screen, light and dark: no accessibility rule broken, no error, no violation of the content security policy.
 * With WEIR_SCREENSHOTS=1 the pictures go to docs/screenshots/.
 */
const screenshots = join(import.meta.dirname, "../../docs/screenshots");
const takesScreenshots = process.env["WEIR_SCREENSHOTS"] === "1";

interface Screen extends Omit<OpenOptions, "theme"> {
  readonly name: string;
  readonly visit: (window: Window) => Promise<void>;
}

const DRAG_A_FILE_OVER = `(() => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["x"], "plan.pdf"));
  document.querySelector("textarea").dispatchEvent(new DragEvent("dragenter", { dataTransfer, bubbles: true }));
})()`;

/** Whether anything is on its way to another look; what turns for ever is not. */
const MOVES = `document.getAnimations().some((animation) =>
  animation.playState === "running" && animation.effect.getComputedTiming().iterations !== Infinity)`;

const openChat = async ({ page }: Window, userId: string): Promise<void> => {
  await page.locator(`[data-chat="${userId}"]`).click();
};

const openConnection = async ({ page }: Window, userId: string): Promise<void> => {
  await page.getByRole("button", { name: "Connections" }).click();
  await page.locator(`[data-link="${userId}"]`).click();
  await page.getByRole("heading", { name: "What was tried" }).waitFor();
};

const openSafetyNumber = async (window: Window): Promise<void> => {
  await openChat(window, CAROL);
  await window.page.getByRole("button", { name: "More about Carol Okafor" }).click();
  await window.page.getByRole("menuitem", { name: "Verify safety number" }).click();
  await window.page.getByRole("img", { name: "Safety number as a QR code" }).waitFor();
};

const openActivity = async ({ page }: Window): Promise<void> => {
  await page.getByRole("button", { name: "Activity" }).click();
  await page.getByRole("button", { name: "Run now" }).waitFor();
};

const screens: Screen[] = [
  {
    name: "first-start",
    scenario: "firstStart",
    visit: async ({ page }) => page.getByRole("button", { name: "Start using Weir" }).waitFor(),
  },
  {
    name: "empty",
    scenario: "empty",
    visit: async ({ page }) => page.getByRole("heading", { name: "Nobody here yet" }).waitFor(),
  },
  {
    name: "pair-invite",
    scenario: "empty",
    visit: async ({ page }) => {
      await page.getByRole("button", { name: "Add a contact" }).click();
      await page.getByText("K7M Q4X").waitFor();
    },
  },
  {
    name: "pair-accept-error",
    scenario: "empty",
    visit: async ({ page }) => {
      await page.getByRole("button", { name: "Enter an invitation" }).first().click();
      await page.getByLabel("Invitation link or code").fill("ABC234");
      await page.getByRole("button", { name: "Connect", exact: true }).click();
      await page.getByText("unknown or used up").waitFor();
    },
  },
  {
    name: "chat",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, BOB);
      await window.page.getByText("Call you when I have seen it.").last().waitFor();
    },
  },
  {
    name: "access",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, BOB);
      await window.page.getByRole("button", { name: "Who has access to Proposal v3.odt" }).click();
      await window.page.getByRole("list", { name: "People with access" }).getByText("has the file").first().waitFor();
    },
  },
  {
    name: "access-limits",
    scenario: "sample",
    height: 1180,
    visit: async (window) => {
      const { page } = window;
      await openChat(window, BOB);
      await page.getByRole("button", { name: "Who has access to Proposal v3.odt" }).click();
      const dialog = page.getByRole("dialog", { name: "Who has access" });
      await dialog.getByLabel("Available until").fill("2001-01-01T10:00");
      await dialog.getByRole("button", { name: "Save limits" }).click();
      await dialog.getByText("This time has passed already.").waitFor();
      await dialog.getByLabel("Available until").fill("2099-01-01T10:00");
      await dialog.getByLabel("Number of downloads").fill("3");
      await dialog.getByRole("button", { name: "Save limits" }).click();
      await dialog.getByText("1 of 3 downloads confirmed.").waitFor();
      await dialog.getByText("Withdraw file").scrollIntoViewIfNeeded();
    },
  },
  {
    name: "access-withdrawn",
    scenario: "sample",
    visit: async (window) => {
      const { page } = window;
      await openChat(window, BOB);
      await page.getByRole("button", { name: "Who has access to Proposal v3.odt" }).click();
      await page.getByRole("button", { name: "Withdraw file" }).click();
      await page.getByText("nobody can take back a finished copy").waitFor();
      await page.getByRole("button", { name: "Withdraw for everybody" }).click();
      await page.getByText("You withdrew this file.").waitFor();
      await page.keyboard.press("Escape");
      await page.getByText("Not given out any more").waitFor();
      // Not the button, whose tooltip would stay.
      await page.getByLabel("Message to Bob Lindqvist").focus();
      await page.getByRole("tooltip").waitFor({ state: "detached" });
    },
  },
  {
    name: "share-limits",
    scenario: "sample",
    visit: async (window) => {
      const { page } = window;
      await openChat(window, BOB);
      await page.getByRole("button", { name: "Limits for files that you send" }).click();
      await page.getByLabel("Number of downloads").fill("0");
      await page.getByRole("button", { name: "Use for the next files" }).click();
      await page.getByText("Type a number from 1 to").waitFor();
    },
  },
  {
    name: "access-revoke",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, BOB);
      await window.page.getByRole("button", { name: "Who has access to Proposal v3.odt" }).click();
      await window.page
        .getByRole("button", { name: /^Take back access of/ })
        .first()
        .click();
      await window.page.getByText("stays saved").waitFor();
    },
  },
  {
    name: "access-rekey",
    scenario: "sample",
    visit: async (window) => {
      const { page } = window;
      await openChat(window, BOB);
      await page.getByRole("button", { name: "Who has access to Proposal v3.odt" }).click();
      // Somebody who has not fetched it yet: only then another key is of use.
      await page.getByRole("button", { name: "Give access to Carol Okafor" }).click();
      await page.getByRole("button", { name: "Take back access of Bob Lindqvist" }).click();
      const rekey = page.getByRole("switch", { name: "Send the rest under another key" });
      await rekey.click();
      expect(await rekey.getAttribute("aria-checked")).toBe("true");
    },
  },
  {
    name: "chat-phases",
    scenario: "sample",
    height: 1040,
    visit: async (window) => {
      await openChat(window, CAROL);
      await window.page.getByText("Assembling").first().waitFor();
    },
  },
  {
    name: "group",
    scenario: "sample",
    visit: async (window) => {
      await window.fake(addGroup("owner"));
      await openChat(window, HIKERS);
      await window.page.getByText("Do not be late this time.").last().waitFor();
    },
  },
  {
    name: "group-people",
    scenario: "sample",
    height: 900,
    visit: async (window) => {
      await window.fake(addGroup("owner"));
      await openChat(window, HIKERS);
      await window.page.getByRole("button", { name: "People in Autumn hike" }).click();
      await window.page.getByRole("list", { name: "People in the group" }).getByText("Owner").waitFor();
    },
  },
  {
    name: "group-receipts",
    scenario: "sample",
    visit: async (window) => {
      const { page } = window;
      await window.fake(addGroup("owner"));
      await openChat(window, HIKERS);
      await page.getByRole("button", { name: /Who has read this$/ }).click();
      await page.getByRole("list", { name: "Not delivered to yet" }).getByText("Hiro Tanaka").waitFor();
    },
  },
  {
    name: "group-create",
    scenario: "sample",
    visit: async ({ page }) => {
      await page.getByRole("button", { name: "New group" }).click();
      await page.getByLabel("Name of the group").fill("Autumn hike");
      await page.getByRole("checkbox", { name: "Bob Lindqvist" }).check();
    },
  },
  {
    name: "group-left",
    scenario: "sample",
    visit: async (window) => {
      await window.fake(addGroup(null));
      await openChat(window, HIKERS);
      await window.page.getByRole("button", { name: "Delete the chat" }).waitFor();
    },
  },
  {
    name: "request",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, FATIMA);
      await window.page.getByRole("button", { name: "Accept" }).waitFor();
    },
  },
  {
    name: "outgoing",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, GRETE);
      await window.page.getByRole("button", { name: "Withdraw" }).waitFor();
    },
  },
  {
    name: "key-change",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, DMITRI);
      await window.page.getByRole("button", { name: "Review and accept" }).waitFor();
    },
  },
  {
    name: "verify",
    scenario: "sample",
    visit: async (window) => {
      await openSafetyNumber(window);
      await window.page.getByRole("button", { name: "Mark as verified" }).waitFor();
    },
  },
  {
    name: "verify-mismatch",
    scenario: "sample",
    visit: async (window) => {
      await openSafetyNumber(window);
      await window.page.getByLabel("Or paste the digits of the other side").fill("12345 ".repeat(12));
      await window.page.getByRole("button", { name: "Compare", exact: true }).click();
      await window.page.getByText("The numbers differ.").waitFor();
    },
  },
  {
    name: "transfers",
    scenario: "sample",
    height: 1180,
    visit: async ({ page }) => {
      await page.getByRole("button", { name: "Transfers" }).click();
      await page.getByRole("article").first().getByText("Details").click();
    },
  },
  {
    name: "transfer-cancel",
    scenario: "sample",
    visit: async ({ page }) => {
      await page.getByRole("button", { name: "Transfers" }).click();
      await page
        .getByRole("button", { name: /^Cancel / })
        .first()
        .click();
      await page.getByText("will be deleted").waitFor();
    },
  },
  {
    name: "links",
    scenario: "sample",
    visit: async ({ page }) => page.getByRole("button", { name: "Connections" }).click(),
  },
  {
    name: "connection",
    scenario: "sample",
    height: 1680,
    visit: async (window) => {
      await openConnection(window, BOB);
      await window.page.getByRole("button", { name: "Test connection" }).click();
      await window.page.getByText("It works: Local network").waitFor();
    },
  },
  {
    name: "connection-relayed",
    scenario: "sample",
    height: 1900,
    visit: async (window) => {
      const changes = JSON.stringify({ generation: 5, path: "relay", rttMs: 61 });
      await window.fake(`fake.link("${CAROL}", ${changes}, ${JSON.stringify(relayedReport())})`);
      await openConnection(window, CAROL);
      await window.page.getByText("UDP seems to be blocked").waitFor();
    },
  },
  {
    name: "connection-offline",
    scenario: "sample",
    height: 1680,
    visit: async (window) => {
      await window.fake(`fake.state.networks["${ELIF}"] = { policy: "afterAccept", acceptedByMe: false }`);
      await openConnection(window, ELIF);
      await window.page.getByText("Elif Yıldız is offline").waitFor();
    },
  },
  {
    name: "narrow-connection",
    scenario: "headless",
    width: 420,
    height: 1900,
    visit: async (window) => openConnection(window, BOB),
  },
  {
    name: "activity",
    scenario: "sample",
    height: 3350,
    visit: openActivity,
  },
  {
    name: "activity-empty",
    scenario: "empty",
    height: 2400,
    visit: openActivity,
  },
  {
    name: "narrow-activity",
    scenario: "headless",
    width: 420,
    height: 3200,
    visit: openActivity,
  },
  {
    name: "transfer-history",
    scenario: "sample",
    height: 1250,
    visit: async (window) => {
      await openActivity(window);
      await window.page
        .getByRole("button", { name: /^How it went/ })
        .first()
        .click();
      await window.page.getByRole("heading", { name: "Who gave how much" }).waitFor();
    },
  },
  {
    name: "settings",
    scenario: "sample",
    height: 1500,
    visit: async ({ page }) => page.getByRole("button", { name: "Settings" }).click(),
  },
  {
    name: "switcher",
    scenario: "sample",
    visit: async ({ page }) => {
      await page.keyboard.press("Control+k");
      await page.getByPlaceholder("Jump to a chat or page").waitFor();
    },
  },
  {
    name: "offline",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, BOB);
      await window.fake(`fake.server({ state: "disconnected" }); fake.chat("${BOB}", { typing: true });`);
      await window.page.getByText("The server cannot be reached.").waitFor();
    },
  },
  {
    name: "notices",
    scenario: "sample",
    visit: async (window) => {
      await window.fake(`
        fake.emit("notice", { level: "info", type: "i", message: "Grete Winkelmann accepted your invitation.", atMs: 0 });
        fake.emit("notice", { level: "error", type: "e", message: "The download folder cannot be written to. Choose another one in the settings.", atMs: 0 });
      `);
      await window.page.getByText("cannot be written to").waitFor();
    },
  },
  {
    name: "drop",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, BOB);
      await window.page.getByRole("region", { name: "Messages with Bob Lindqvist" }).waitFor();
      await window.page.evaluate(DRAG_A_FILE_OVER);
      await window.page.getByText("Send to Bob Lindqvist").waitFor();
    },
  },
  {
    name: "folder-choose",
    scenario: "sample",
    visit: async (window) => {
      await openChat(window, ELIF);
      await window.page.getByRole("button", { name: "Choose files of Lofoten trip" }).click();
      const dialog = window.page.getByRole("dialog", { name: "Lofoten trip" });
      await dialog.getByRole("button", { name: "Show what is in Photos" }).click();
      await dialog.getByRole("checkbox", { name: "Raw" }).uncheck();
      expect(
        await dialog
          .getByRole("checkbox", { name: "Photos" })
          .evaluate((box) => (box as { indeterminate?: boolean }).indeterminate),
      ).toBe(true);
      await dialog.getByRole("checkbox", { name: "Videos" }).uncheck();
      await dialog.getByRole("button", { name: "Show what is in Maps" }).click();
      await dialog.getByRole("checkbox", { name: "Reine.gpx" }).uncheck();
    },
  },
  {
    name: "narrow-empty",
    scenario: "empty",
    width: 420,
    height: 780,
    visit: async ({ page }) => page.getByRole("heading", { name: "No contacts yet" }).waitFor(),
  },
  {
    name: "narrow-list",
    scenario: "sample",
    width: 420,
    height: 780,
    visit: async ({ page }) => page.getByRole("heading", { name: "Requests" }).waitFor(),
  },
  {
    name: "narrow-chat",
    scenario: "headless",
    width: 420,
    height: 780,
    visit: async (window) => openChat(window, BOB),
  },
  {
    name: "narrow-transfers",
    scenario: "headless",
    width: 420,
    height: 780,
    visit: async ({ page }) => page.getByRole("button", { name: "Transfers" }).click(),
  },
];

describe("screens", () => {
  let harness: UiHarness;
  beforeAll(async () => {
    harness = await UiHarness.start();
    if (takesScreenshots) await mkdir(screenshots, { recursive: true });
  }, 120_000);
  afterAll(() => harness.stop());

  it.concurrent.for(screens)("$name, light and dark", async (screen, { expect }) => {
    const window = await harness.open({ ...screen, theme: "light" });
    const { page } = window;
    try {
      await screen.visit(window);
      for (const theme of ["light", "dark"] as const) {
        await page.emulateMedia({ colorScheme: theme });
        // The virtual list measures its rows over a few frames, and colours change over some.
        await page.waitForTimeout(350);
        await expect.poll(() => page.evaluate(MOVES)).toBe(false);
        if (takesScreenshots) await page.screenshot({ path: join(screenshots, `${screen.name}-${theme}.png`) });
        expect(await harness.axe(page, theme === "light" ? "all" : "colours"), theme).toEqual([]);
        const width = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
        expect(width, "nothing may be wider than the window").toBe(0);
      }
      expect(window.problems).toEqual([]);
    } finally {
      await window.close();
    }
  });
});
