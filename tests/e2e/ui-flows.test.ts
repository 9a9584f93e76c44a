import type { Locator } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CommandName } from "#shared/ipc/contract.ts";
import type { TransferView } from "#shared/ipc/views.ts";
import { encodeInviteLink } from "#shared/wire/invite.ts";
import { BOB, CAROL, DMITRI, emptyState, FATIMA, SAFETY_NUMBER } from "../support/fake-weir-sample.ts";
import { UiHarness, type Window } from "../support/ui-harness.ts";

const callsOf = async (window: Window, name: CommandName): Promise<unknown> =>
  window.fake(`return fake.calls.filter((call) => call.name === "${name}").map((call) => call.input)`);

describe("flows", () => {
  let harness: UiHarness;
  beforeAll(async () => {
    harness = await UiHarness.start();
  }, 120_000);
  afterAll(() => harness.stop());

  it("starts with a name and another server", async () => {
    const window = await harness.open({ scenario: "firstStart" });
    const { page } = window;
    await page.getByRole("button", { name: "Start using Weir" }).click();
    await page.getByText("Enter the name that your contacts will see.").waitFor();
    await page.getByLabel("Your name").fill("  Alice  ");
    await page.getByRole("button", { name: "Use another" }).click();
    await page.getByLabel("Server address").fill("https://example.org");
    await page.getByRole("button", { name: "Start using Weir" }).click();
    await page.getByText("must start with wss:// or ws://").waitFor();
    await page.getByLabel("Server address").fill("wss://meet.example.org");
    await page.getByRole("button", { name: "Start using Weir" }).click();
    await page.getByRole("heading", { name: "Nobody here yet" }).waitFor();
    expect(await callsOf(window, "settings.set")).toEqual([{ server: "wss://meet.example.org" }]);
    expect(await callsOf(window, "profile.update")).toEqual([{ name: "Alice" }]);
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("offers to switch to the server of an invitation, and accepts there", async () => {
    const window = await harness.open({ scenario: "empty" });
    const { page } = window;
    const bytes = (length: number): Uint8Array => new Uint8Array(length).fill(7);
    const link = encodeInviteLink({
      accountKey: bytes(32),
      identityKey: bytes(33),
      inviteId: bytes(16),
      secret: bytes(32),
      serverUrl: "wss://their.example.org",
    });
    const contact = emptyState().invitations["QRS234"];
    await window.fake(`
      const link = ${JSON.stringify(link)};
      fake.state.invitations[link] = { type: "other_server", message: "This invitation is from another server." };
      const { call } = fake.weir;
      fake.weir.call = async (name, input) => {
        if (name === "settings.set") fake.state.invitations[link] = ${JSON.stringify(contact)};
        return call(name, input);
      };`);
    await page.getByRole("button", { name: "Enter an invitation" }).click();
    await page.getByLabel("Invitation link or code").fill(link);
    await page.getByRole("button", { name: "Connect", exact: true }).click();
    await page.getByText("wss://their.example.org").waitFor();
    expect(await harness.axe(page)).toEqual([]);
    await page.getByRole("button", { name: "Switch to that server and accept" }).click();
    await page.getByRole("heading", { name: "Waiting for Hiro Tanaka" }).waitFor();
    expect(await callsOf(window, "settings.set")).toEqual([{ server: "wss://their.example.org" }]);
    expect(await callsOf(window, "invites.accept")).toHaveLength(2);
    await window.close();
  });

  it("fills in an invitation link that was opened outside", async () => {
    const window = await harness.open({ scenario: "empty" });
    const { page } = window;
    await page.getByRole("heading", { name: "Nobody here yet" }).waitFor();
    await window.fake(`fake.emit("invite.opened", { link: "weir://invite/first" })`);
    await expect.poll(() => page.getByLabel("Invitation link or code").inputValue()).toBe("weir://invite/first");
    await window.fake(`fake.emit("invite.opened", { link: "weir://invite/second" })`);
    await expect.poll(() => page.getByLabel("Invitation link or code").inputValue()).toBe("weir://invite/second");
    expect(await callsOf(window, "invites.accept")).toEqual([]);
    await window.close();
  });

  it("shows who answers an invitation while it is open", async () => {
    const window = await harness.open({ scenario: "empty" });
    const { page } = window;
    await page.getByRole("button", { name: "Invite someone" }).click();
    await page.getByText("K7M Q4X").waitFor();
    await window.fake(
      `fake.contact("${FATIMA}", { name: "Fatima Zahra", state: "incoming", safetyWords: ["amber", "falcon"] })`,
    );
    await page.getByText("amber").waitFor();
    await page.getByRole("button", { name: "Accept", exact: true }).click();
    await page.getByLabel("Message to Fatima Zahra").waitFor();
    expect(await callsOf(window, "contacts.accept")).toEqual([{ userId: FATIMA }]);
    await window.close();
  });

  it("blocks writing until a changed safety number is accepted", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.locator(`[data-chat="${DMITRI}"]`).click();
    await page.getByText("Accept Dmitri's new safety number").waitFor();
    expect(await page.getByLabel("Message to Dmitri Petrov").count()).toBe(0);
    await page.getByRole("button", { name: "Review and accept" }).click();
    await page.getByRole("button", { name: "Accept the new key" }).click();
    await window.fake(`fake.chat("${DMITRI}", { sendBlocked: null })`);
    await page.getByLabel("Message to Dmitri Petrov").waitFor();
    expect(await page.getByRole("button", { name: "Review and accept" }).count()).toBe(0);
    await window.close();
  });

  it("compares safety numbers: warns when they differ, verifies when they match", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    const compare = async (digits: string): Promise<void> => {
      await page.getByLabel("Or paste the digits of the other side").fill(digits);
      await page.keyboard.press("Enter");
    };
    await page.locator(`[data-chat="${CAROL}"]`).click();
    await page.getByRole("button", { name: "More about Carol Okafor" }).click();
    await page.getByRole("menuitem", { name: "Verify safety number" }).click();
    await page.getByRole("img", { name: "Safety number as a QR code" }).waitFor();
    expect(await callsOf(window, "contacts.safetyCode")).toEqual([{ userId: CAROL }]);
    await page.getByRole("button", { name: "Copy the digits" }).click();
    await page.getByText("Copied").waitFor();
    const own = String(await page.evaluate("navigator.clipboard.readText()"));
    expect(own.replaceAll(" ", "")).toBe(SAFETY_NUMBER);

    await compare(own.slice(0, -6));
    await page.getByRole("alert").filter({ hasText: "A safety number has 60 digits; this has 55." }).waitFor();
    await compare(own.replace(/^\d/, (digit) => String((Number(digit) + 1) % 10)));
    await page.getByRole("alert").filter({ hasText: "The numbers differ." }).waitFor();
    expect(await page.getByRole("button", { name: "Mark as verified" }).isDisabled()).toBe(true);
    expect(await page.locator("ol .text-bad").allTextContents()).toEqual([own.slice(0, 5)]);
    expect(await callsOf(window, "contacts.verify")).toEqual([]);

    await compare(`Carol's number: ${own}`);
    await page.getByText("The numbers match.").waitFor();
    await page.getByText("You verified Carol Okafor").waitFor();
    expect(await callsOf(window, "contacts.verify")).toEqual([{ userId: CAROL, verified: true }]);
    expect(await harness.axe(page)).toEqual([]);

    // The outcome is about the number that was compared; of a new one it says nothing.
    await window.fake(
      `fake.contact("${CAROL}", { safetyNumber: "${"13579".repeat(12)}", keyChanged: true, verified: false })`,
    );
    await page.getByRole("heading", { name: "Safety number changed" }).waitFor();
    expect(await page.getByText("The numbers match.").count()).toBe(0);
    expect(await callsOf(window, "contacts.safetyCode")).toHaveLength(2);
    await compare("13579 ".repeat(12));
    await page.getByText("The numbers match.").waitFor();
    expect(await callsOf(window, "contacts.verify")).toHaveLength(1);
    await page.getByRole("button", { name: "Accept the new key" }).click();
    await expect.poll(() => callsOf(window, "contacts.verify")).toHaveLength(2);
    expect(await callsOf(window, "contacts.accept")).toEqual([{ userId: CAROL }]);
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("sends what is dropped, picked and pasted", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.locator(`[data-chat="${BOB}"]`).click();
    await page.getByLabel("Message to Bob Lindqvist").waitFor();
    await page.evaluate(`(() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["dropped"], "dropped.bin"));
      const target = document.querySelector("textarea");
      for (const type of ["dragenter", "dragover", "drop"]) {
        target.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
      }
      const clipboardData = new DataTransfer();
      clipboardData.items.add(new File(["pasted"], "pasted.png"));
      target.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
    })()`);
    await page.getByRole("button", { name: "Attach files" }).click();
    await expect.poll(async () => (await callsOf(window, "files.share")) as unknown[]).toHaveLength(3);
    expect(await callsOf(window, "files.share")).toEqual([
      { chatId: BOB, path: "handle:7:dropped.bin" },
      { chatId: BOB, path: "handle:6:pasted.png" },
      { chatId: BOB, path: "handle:1:notes.pdf" },
    ]);
    await page.locator("[data-file]").filter({ hasText: "dropped.bin" }).getByText("Shared from this device").waitFor();
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("keeps what was written when it cannot be sent", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.locator(`[data-chat="${BOB}"]`).click();
    await window.fake(`
      const { call } = fake.weir;
      fake.weir.call = async (name, input) => name === "messages.send"
        ? { ok: false, error: { type: "outbox_full", message: "Too many messages wait for Bob." } }
        : call(name, input);`);
    await page.getByLabel("Message to Bob Lindqvist").fill("important");
    await page.keyboard.press("Enter");
    await page.getByText("Too many messages wait for Bob.").waitFor();
    expect(await page.getByLabel("Message to Bob Lindqvist").inputValue()).toBe("important");
    await window.close();
  });

  it("counts the bytes near the limit and refuses to go over it", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.locator(`[data-chat="${BOB}"]`).click();
    const box = page.getByLabel("Message to Bob Lindqvist");
    await box.fill("x".repeat(32_768 - 10));
    await page.getByText("10 bytes left").waitFor();
    await box.fill("é".repeat(16_385));
    await page.getByText("2 bytes too long").waitFor();
    await page.keyboard.press("Enter");
    expect(await callsOf(window, "messages.send")).toEqual([]);
    expect(await page.getByRole("button", { name: "Too long to send" }).isDisabled()).toBe(true);
    await window.close();
  });

  it("changes the theme at once and remembers it for the next start", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.getByRole("button", { name: "Settings" }).click();
    const background = "getComputedStyle(document.body).backgroundColor";
    const before = await page.evaluate(background);
    await page.getByRole("radio", { name: "Dark" }).click();
    await expect.poll(() => page.evaluate(background)).not.toBe(before);
    expect(await page.evaluate("localStorage.getItem('weir.theme')")).toBe("dark");
    await window.close();
  });

  it("asks before it removes or blocks a contact, and says when nobody else is known to have a file of theirs", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    const ask = async (): Promise<void> => {
      await page.getByRole("button", { name: "More about Bob Lindqvist" }).click();
      await page.getByRole("menuitem", { name: "Remove contact" }).click();
      await page.getByRole("dialog", { name: "Remove Bob Lindqvist?" }).waitFor();
    };
    const warning = page.getByText("Nobody else is known to have “IMG_20261118_raw.dng”");
    await page.locator(`[data-chat="${BOB}"]`).click();
    await ask();
    expect(await warning.isVisible()).toBe(false);
    await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    await window.fake(
      `fake.emit("file.changed", { ...fake.state.files.find(({ name }) => name === "IMG_20261118_raw.dng"), seeders: [] })`,
    );
    await ask();
    await warning.waitFor();
    expect(await harness.axe(page)).toEqual([]);
    await page.getByRole("button", { name: "Remove", exact: true }).click();
    await expect.poll(() => callsOf(window, "contacts.remove")).toEqual([{ userId: BOB }]);
    expect(await callsOf(window, "contacts.block")).toEqual([]);

    await page.locator(`[data-chat="${DMITRI}"]`).click();
    await page.getByRole("button", { name: /^More about Dmitri/ }).click();
    await page.getByRole("menuitem", { name: "Block" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Block" }).click();
    await expect.poll(() => callsOf(window, "contacts.block")).toEqual([{ userId: DMITRI }]);
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("gives access to a file, takes it back with and without another key, and gives up its own", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    const [proposal, raw] = (await window.fake(
      `return ["Proposal v3.odt", "IMG_20261118_raw.dng"].map((name) => fake.state.files.find((file) => file.name === name).fileId)`,
    )) as [string, string];
    await page.locator(`[data-chat="${BOB}"]`).click();
    await page.getByRole("button", { name: "Who has access to Proposal v3.odt" }).click();
    const dialog = page.getByRole("dialog", { name: "Who has access" });
    await dialog.getByRole("button", { name: /^Give access to Carol/ }).click();
    await expect.poll(() => callsOf(window, "files.grant")).toEqual([{ fileId: proposal, userIds: [CAROL] }]);
    await dialog.getByRole("button", { name: /^Take back access of Carol/ }).click();
    await page.getByRole("button", { name: "Take back access", exact: true }).click();
    await expect
      .poll(() => callsOf(window, "files.revoke"))
      .toEqual([{ fileId: proposal, userIds: [CAROL], rekey: false }]);
    await page.keyboard.press("Escape");

    await page.getByRole("button", { name: "Who has access to IMG_20261118_raw.dng" }).click();
    await dialog.getByRole("button", { name: "Give up" }).click();
    await page
      .getByRole("dialog", { name: "Give up your access?" })
      .getByRole("button", { name: "Give up access" })
      .click();
    await expect.poll(() => callsOf(window, "files.leave")).toEqual([{ fileId: raw }]);
    await expect.poll(() => page.getByRole("dialog").count()).toBe(0);
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("runs downloads from the list of all of them", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.getByRole("button", { name: "Transfers" }).click();
    const press = async (action: string): Promise<string> => {
      const button = page.getByRole("button", { name: new RegExp(`^${action}`) }).first();
      const label = (await button.getAttribute("aria-label")) ?? "";
      await button.click();
      return window.fake(
        `return fake.state.files.find(({ name }) => ${JSON.stringify(label)}.endsWith(name)).fileId`,
      ) as Promise<string>;
    };
    for (const [action, command] of [
      ["Pause ", "transfers.pause"],
      ["Resume ", "transfers.resume"],
      ["Retry ", "transfers.retry"],
      ["Open ", "host.open"],
      ["Show in folder: ", "host.showInFolder"],
    ] as const) {
      const fileId = await press(action);
      await expect.poll(() => callsOf(window, command)).toEqual([{ fileId }]);
    }
    for (const details of await page.getByText("Details", { exact: true }).all()) await details.click();
    await page.getByRole("combobox").first().selectOption("high");
    await expect
      .poll(() => callsOf(window, "transfers.prioritize"))
      .toEqual([{ fileId: expect.any(String), priority: "high" }]);
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("asks before it deletes what has arrived of a download, and not when nothing has", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    const dialog = page.getByRole("dialog", { name: "Cancel this download?" });
    const cancelled = (): Promise<unknown> => callsOf(window, "transfers.cancel");
    const begun = (await window.fake(
      `return fake.state.transfers.filter(({ phase, bytesStored }) => phase !== "complete" && phase !== "verifying" && bytesStored > 0)`,
    )) as TransferView[];
    expect(new Set(begun.map(({ phase }) => phase))).toEqual(
      new Set(["downloading", "draining", "assembling", "failed"]),
    );

    // Wherever a download is shown and whatever it does: the list of all of them, and the chat.
    const focused = async (): Promise<unknown> => (await page.locator(":focus").textContent())?.trim();
    const asks = async (fileId: string, button: Locator): Promise<void> => {
      const label = await button.getAttribute("aria-label");
      const open = async (): Promise<void> => {
        await page.keyboard.press("Enter");
        // The harmless answer has the focus, as in the other questions.
        await expect.poll(focused).toBe("Keep");
      };
      await button.focus();
      await open();
      const { name } = begun.find((transfer) => transfer.fileId === fileId) ?? {};
      expect(await dialog.textContent()).toMatch(
        new RegExp(`What has arrived of “${name?.replaceAll(".", "\\.")}”, [\\d.,]+ of [\\d.,]+ .?B, will be deleted`),
      );
      for (const answer of ["Enter", "Escape"]) {
        if (answer === "Escape") await open();
        await page.keyboard.press(answer);
        await dialog.waitFor({ state: "detached" });
        await expect.poll(() => page.locator(":focus").getAttribute("aria-label")).toBe(label);
      }
    };
    await page.getByRole("button", { name: "Transfers" }).click();
    for (const { fileId } of begun)
      await asks(fileId, page.locator(`[data-transfer="${fileId}"]`).getByRole("button", { name: /^Cancel / }));
    await page.getByRole("button", { name: "Chats" }).click();
    await page.locator(`[data-chat="${BOB}"]`).click();
    const inChat = page.locator("[data-file]").filter({ has: page.getByRole("button", { name: /^Cancel / }) });
    await inChat.first().waitFor();
    for (const card of await inChat.all()) {
      const fileId = (await card.getAttribute("data-file")) ?? "";
      if (begun.some((transfer) => transfer.fileId === fileId))
        await asks(fileId, card.getByRole("button", { name: /^Cancel / }));
    }
    expect(await cancelled()).toEqual([]);

    // The question goes away when the download is complete meanwhile.
    const [first, second] = begun;
    const cancelOf = (transfer: TransferView | undefined): Locator =>
      page.locator(`[data-transfer="${transfer?.fileId}"]`).getByRole("button", { name: /^Cancel / });
    await page.getByRole("button", { name: "Transfers" }).click();
    await cancelOf(first).click();
    await dialog.waitFor();
    await window.fake(
      `fake.emit("transfer.changed", { ...${JSON.stringify(first)}, phase: "complete", savedPath: "/home/alice/x" })`,
    );
    await dialog.waitFor({ state: "detached" });

    await cancelOf(second).click();
    expect(await harness.axe(page)).toEqual([]);
    await dialog.getByRole("button", { name: "Cancel download" }).click();
    await expect.poll(cancelled).toEqual([{ fileId: second?.fileId }]);
    await dialog.waitFor({ state: "detached" });

    const [, , third] = begun;
    await window.fake(
      `fake.emit("transfer.changed", { ...${JSON.stringify(third)}, chunksStored: 0, bytesStored: 0 })`,
    );
    await cancelOf(third).click();
    await expect.poll(cancelled).toEqual([{ fileId: second?.fileId }, { fileId: third?.fileId }]);
    expect(await dialog.count()).toBe(0);
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("disconnects and connects everybody, unblocks somebody, and deletes the history", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.getByRole("button", { name: "Connections" }).click();
    await page.getByRole("button", { name: "Disconnect all" }).click();
    await expect.poll(() => callsOf(window, "links.disable")).toEqual([{}]);
    await page.getByRole("button", { name: "Connect all", exact: true }).click();
    await expect.poll(() => callsOf(window, "links.enable")).toEqual([{}]);
    await page.getByRole("button", { name: "Settings" }).click();
    await window.fake(`fake.contact("${DMITRI}", { state: "blocked" })`);
    await page.getByRole("button", { name: /^Unblock Dmitri/ }).click();
    await expect.poll(() => callsOf(window, "contacts.unblock")).toEqual([{ userId: DMITRI }]);
    await page.getByRole("button", { name: "Activity" }).click();
    await page.getByRole("button", { name: "Check the figures" }).click();
    await expect.poll(() => callsOf(window, "activity.check")).toEqual([{ repair: false }]);
    await page.getByRole("button", { name: /^Delete (the )?history/ }).click();
    expect(await callsOf(window, "activity.deleteHistory")).toEqual([]);
    await page.getByRole("button", { name: "Delete for good" }).click();
    await expect.poll(() => callsOf(window, "activity.deleteHistory")).toEqual([{}]);
    expect(window.problems).toEqual([]);
    await window.close();
  });
});
