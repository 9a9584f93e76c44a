import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CommandName } from "#shared/ipc/contract.ts";
import { addGroup, BOB, CAROL, HIKERS, HIRO } from "../support/fake-weir-sample.ts";
import { UiHarness, type Window } from "../support/ui-harness.ts";

const callsOf = async (window: Window, name: CommandName): Promise<unknown[]> =>
  (await window.fake(
    `return fake.calls.filter((call) => call.name === "${name}").map((call) => call.input)`,
  )) as unknown[];

describe("groups in the window", () => {
  let harness: UiHarness;
  beforeAll(async () => {
    harness = await UiHarness.start();
  }, 240_000);
  afterAll(() => harness.stop());

  it("makes one, writes there, and says in words what went wrong", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await page.getByRole("button", { name: "New group" }).click();
    const dialog = page.getByRole("dialog", { name: "New group" });
    const create = dialog.getByRole("button", { name: "Create group" });
    expect(await create.isDisabled()).toBe(true);
    await dialog.getByLabel("Name of the group").fill("Summit");
    await dialog.getByRole("checkbox", { name: "Bob Lindqvist" }).check();
    await dialog.getByRole("checkbox", { name: "Carol Okafor" }).check();
    await window.fake(`
      const { call } = fake.weir;
      fake.weir.call = async (name, input) => {
        if (name !== "chats.createGroup") return call(name, input);
        fake.weir.call = call;
        return { ok: false, error: { type: "too_many_groups", message: "You are in too many groups." } };
      };`);
    await create.click();
    await dialog.getByText("You are in too many groups.").waitFor();
    await create.click();
    await page.getByRole("heading", { name: "Summit" }).waitFor();
    await page.getByText("You, Bob Lindqvist, Carol Okafor").waitFor();
    expect(await callsOf(window, "chats.createGroup")).toEqual([{ name: "Summit", userIds: [BOB, CAROL] }]);
    await page.getByRole("textbox", { name: "Message to Summit" }).fill("Who has the rope?");
    await page.keyboard.press("Enter");
    await page.getByRole("region", { name: "Messages with Summit" }).getByText("Who has the rope?").last().waitFor();
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("an owner renames, makes an admin, adds, and removes after a question", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await window.fake(addGroup("owner"));
    await page.locator(`[data-chat="${HIKERS}"]`).click();
    // Who wrote is said once for what belongs together.
    expect(await page.getByText("Hiro Tanaka", { exact: true }).count()).toBe(1);
    await page.getByRole("button", { name: "People in Autumn hike" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name of the group").fill("Winter hike");
    await dialog.getByRole("button", { name: "Rename" }).click();
    await page.getByRole("dialog", { name: "Winter hike" }).waitFor();
    await dialog.getByRole("button", { name: "Change Carol Okafor" }).click();
    await page.getByRole("menuitem", { name: "Make admin" }).click();
    await expect.poll(() => dialog.getByText("Admin", { exact: true }).count()).toBe(2);
    await dialog.getByRole("button", { name: "Change Hiro Tanaka" }).click();
    await page.getByRole("menuitem", { name: "Remove from the group" }).click();
    await page.getByText("can read nothing that is written").waitFor();
    expect(await harness.axe(page)).toEqual([]);
    await page.getByRole("button", { name: "Remove", exact: true }).click();
    await page.getByRole("list", { name: "People in the group" }).waitFor();
    await page.keyboard.press("Escape");
    // The conversation says what was done, each thing once and in its place.
    const lines = page.getByRole("region", { name: "Messages with" }).locator("p");
    await lines.getByText("You removed Hiro Tanaka").waitFor();
    const texts = await lines.allTextContents();
    const place = (line: string): number => {
      const found = texts.flatMap((text, index) => (text.includes(line) ? [index] : []));
      expect(found, line).toHaveLength(1);
      return found[0] ?? 0;
    };
    const places = [
      "You created the group \u201cHike\u201d with Bob Lindqvist and Carol Okafor",
      "The hut is booked for the 12th, six beds. Bring your own sleeping bag.",
      "You renamed the group to \u201cAutumn hike\u201d",
      "You added Hiro Tanaka",
      "I can take the rope and the stove.",
      "You made Bob Lindqvist an admin",
      "You renamed the group to \u201cWinter hike\u201d",
      "You made Carol Okafor an admin",
      "You removed Hiro Tanaka",
    ].map(place);
    expect(places).toEqual(places.toSorted((a, b) => a - b));
    expect(await callsOf(window, "chats.removeMember")).toEqual([{ chatId: HIKERS, userId: HIRO }]);
    expect(await callsOf(window, "chats.settings")).toEqual([
      { chatId: HIKERS, name: "Winter hike" },
      { chatId: HIKERS, role: { userId: CAROL, role: "admin" } },
    ]);
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("a member sees who is in it and may only leave; a chat that was left can be put away", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await window.fake(addGroup("member"));
    // The page of figures names the group, and says that it is gone when its name is not known any more.
    await window.fake(`
      const { call } = fake.weir;
      fake.weir.call = async (name, input) => {
        const answer = await call(name, input);
        if (name !== "activity.summary") return answer;
        const [first] = answer.value.byContact;
        return { ok: true, value: { ...answer.value, byContact: [{ ...first, userId: "${HIKERS}" }] } };
      };`);
    const who = page.locator("section[aria-label='People and groups'] th[scope=row]");
    await page.getByRole("button", { name: "Activity" }).click();
    await expect.poll(() => who.allTextContents()).toEqual(["Autumn hike"]);
    await page.getByLabel("With", { exact: true }).selectOption("Autumn hike");
    await expect.poll(async () => (await callsOf(window, "activity.summary")).at(-1)).toMatchObject({ userId: HIKERS });
    await page.getByRole("button", { name: "Chats" }).click();
    await page.locator(`[data-chat="${HIKERS}"]`).click();
    await page.getByRole("button", { name: "People in Autumn hike" }).click();
    await page.getByText("The owner and admins add and remove people.").waitFor();
    expect(await page.getByRole("button", { name: /^Change / }).count()).toBe(0);
    await page.getByRole("button", { name: "Leave group" }).click();
    await page.getByRole("button", { name: "Leave group" }).click();
    await page.getByRole("button", { name: "Delete the chat…" }).click();
    await page.getByRole("button", { name: "Delete the chat", exact: true }).click();
    await expect.poll(() => page.locator(`[data-chat="${HIKERS}"]`).count()).toBe(0);
    expect(await callsOf(window, "chats.leave")).toEqual([{ chatId: HIKERS }, { chatId: HIKERS }]);
    await page.getByRole("button", { name: "Activity" }).click();
    await expect.poll(() => who.allTextContents()).toEqual(["A group that is gone"]);
    expect(window.problems).toEqual([]);
    await window.close();
  });

  it("says who has read a message, as receipts arrive, from the ticks and from the message's menu", async () => {
    const window = await harness.open({ scenario: "sample" });
    const { page } = window;
    await window.fake(addGroup("member"));
    await page.locator(`[data-chat="${HIKERS}"]`).click();
    const ticks = page.getByRole("button", { name: /Arrived at 2 of 3, read by 1\. Who has read this$/ });
    // What goes wrong is said, and can be tried again.
    await window.fake(`
      const { call } = fake.weir;
      fake.weir.call = async (name, input) => {
        if (name !== "messages.receipts") return call(name, input);
        fake.weir.call = call;
        return { ok: false, error: { type: "internal", message: "The list could not be read." } };
      };`);
    await ticks.focus();
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: "Who has read this" });
    await dialog.getByText("The list could not be read.").waitFor();
    expect(await harness.axe(page)).toEqual([]);
    await dialog.getByRole("button", { name: "Try again" }).press("Enter");
    const people = (list: string): Promise<string[]> =>
      dialog.getByRole("list", { name: list, exact: true }).locator("p:first-child").allTextContents();
    await expect.poll(() => people("Read by")).toEqual(["Bob Lindqvist"]);
    expect(await people("Delivered to")).toEqual(["Carol Okafor"]);
    expect(await people("Not delivered to yet")).toEqual(["Hiro Tanaka"]);
    await window.fake(`
      const message = fake.state.messages.findLast(({ chatId }) => chatId === "${HIKERS}");
      const at = (state, deliveredAtMs, readAtMs) => ({ state, deliveredAtMs, readAtMs });
      fake.receipts(message.messageId, [
        { userId: "${BOB}", name: "Bob Lindqvist", ...at("read", message.sentAtMs + 1000, message.sentAtMs + 2000) },
        { userId: "${CAROL}", name: "Carol Okafor", ...at("read", message.sentAtMs + 1000, message.sentAtMs + 1500) },
        { userId: "${HIRO}", name: "Hiro Tanaka", ...at("delivered", message.sentAtMs + 1000, null) },
      ]);`);
    await expect.poll(() => people("Read by")).toEqual(["Carol Okafor", "Bob Lindqvist"]);
    expect(await people("Delivered to")).toEqual(["Hiro Tanaka"]);
    await page.keyboard.press("Escape");
    await expect.poll(() => page.evaluate("document.activeElement.title")).toBe("Arrived at 3 of 3, read by 2");
    // The same from the menu of the message; the key for it opens it at what has the focus.
    await page.getByText("Do not be late this time.").last().click({ button: "right" });
    expect(await harness.axe(page)).toEqual([]);
    await page.getByRole("menuitem", { name: "Who has read this" }).click();
    await dialog.waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    // What others wrote has no receipts; its text can be copied all the same.
    await page.getByText("I can take the rope and the stove.").last().click({ button: "right" });
    await page.getByRole("menuitem", { name: "Copy text" }).waitFor();
    expect(await page.getByRole("menuitem").count()).toBe(1);
    await page.keyboard.press("Escape");
    // A direct chat has one other person.
    await page.locator(`[data-chat="${BOB}"]`).click();
    await page
      .getByRole("button", { name: /^Read\s+Message info$/ })
      .last()
      .click();
    const info = page.getByRole("dialog", { name: "Message info" });
    await info.getByRole("list", { name: "Read by" }).getByText("Bob Lindqvist").waitFor();
    expect(await info.getByRole("list").count()).toBe(1);
    expect(window.problems).toEqual([]);
    await window.close();
  });
});
