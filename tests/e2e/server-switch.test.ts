import { join } from "node:path";
import { type Browser, chromium } from "playwright-core";
import { afterEach, beforeAll, expect, it } from "vitest";
import { findChromium } from "../../scripts/find-chromium.ts";
import { type HeadlessProfile, type ReadyProcess, startServer } from "../../scripts/headless-process.ts";
import { ensureFreshBuild } from "../support/fresh-build.ts";
import { Person } from "../support/person.ts";
import { createWorld, type World } from "../support/profiles.ts";

/** Somebody moves between two real servers at the window, while invitations are open on both sides of the move. */
beforeAll(ensureFreshBuild, 120_000);

let world: World | undefined;
let browser: Browser | undefined;
let second: ReadyProcess<{ url: string }> | undefined;
afterEach(async () => {
  await browser?.close();
  await world?.[Symbol.asyncDispose]();
  await second?.kill();
});

const PATIENT = { timeout: 30_000 };

const connectedTo = (profile: HeadlessProfile, url: string) =>
  profile.until(`the connection to ${url}`, async () => {
    const { server } = await profile.call("profile.get", {});
    return server.url === url && server.state === "connected" ? server : null;
  });

it("moves to the server of an invitation and back: what was given out before has ended, what was written arrives", async () => {
  const executablePath = findChromium();
  if (executablePath === null) throw new Error("no Chromium here: install it, or name it in WEIR_CHROMIUM");
  world = await createWorld();
  second = await startServer(join(world.dir, "second"));
  const [first, other] = [world.serverUrl(), second.ready.url];
  const alice = await world.profile("Alice");
  const [bobs, carol] = [await world.profile("Bob"), await world.profile("Carol")];
  for (const profile of [bobs, carol]) {
    await profile.call("settings.set", { server: other });
    await connectedTo(profile, other);
  }
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  const bob = await Person.open(browser, bobs, { name: "Bob", theme: "light" });
  const { page } = bob;

  // Bob has an invitation open where he is, and is invited from the other server.
  const bobsCode = (await bob.invite()).replace(" ", "");
  await page.keyboard.press("Escape");
  const invitation = await alice.call("invites.create", {});
  await bob.enterInvitation(invitation.link);
  await page.getByText(first).waitFor(PATIENT);
  expect(await bobs.call("contacts.list", {})).toEqual([]);
  await page.getByRole("button", { name: "Switch to that server and accept" }).click();
  await page.getByRole("heading", { name: /^Waiting for/ }).waitFor(PATIENT);
  await connectedTo(bobs, first);
  await alice.until("the request of Bob", async () => {
    const [contact] = await alice.call("contacts.list", {});
    return contact?.userId === bobs.userId && contact.state === "incoming" ? contact : null;
  });
  await alice.call("contacts.accept", { userId: bobs.userId });
  await page.getByLabel("Message to Alice").waitFor(PATIENT);

  // Carol answers the invitation that Bob left behind. The server there still knows it; Bob has ended it.
  await carol.call("invites.accept", { invite: bobsCode });
  expect((await carol.call("contacts.list", {})).map(({ userId, state }) => ({ userId, state }))).toEqual([
    { userId: bobs.userId, state: "outgoing" },
  ]);

  // Back through the settings, again with an invitation open: of Alice's server this time.
  const link = (await bobs.call("invites.create", {})).link;
  await page.getByRole("button", { name: "Settings" }).click();
  await page.getByLabel("Server address").fill(other);
  await page.getByText("Invitations that nobody has used yet end with the move.").waitFor();
  await page.keyboard.press("Enter");
  const section = page.getByRole("region", { name: "Server", exact: true });
  await section.getByText(other).waitFor(PATIENT);
  await section.getByText("Connected", { exact: true }).waitFor(PATIENT);
  await connectedTo(bobs, other);
  await page.getByRole("button", { name: /^Chats/ }).click();

  // Carol's answer came too late, and she can be invited anew.
  await bob.page.getByRole("button", { name: "Add a contact" }).click();
  const code = page.getByTestId("invite-code").getByText(/^[A-Z2-9]{3} [A-Z2-9]{3}$/);
  await code.waitFor(PATIENT);
  expect(await page.getByRole("heading", { name: "Carol wants to connect" }).count()).toBe(0);
  await carol.call("contacts.remove", { userId: bobs.userId });
  await carol.call("invites.accept", { invite: (await code.textContent()) ?? "" });
  await page.getByRole("button", { name: "Accept", exact: true }).click(PATIENT);
  await page.getByLabel("Message to Carol").fill("Hello on this side");
  await page.keyboard.press("Enter");
  await carol.until("Bob's message", async () => {
    const list = await carol.call("messages.list", { chatId: bobs.userId, limit: 5 });
    return list.find((message) => message.text === "Hello on this side") ?? null;
  });

  // A stranger with the link of the server that Bob left is refused by Bob when he comes back; Alice's chat goes on there.
  const dave = await world.profile("Dave");
  await dave.call("invites.accept", { invite: link });
  await page.getByRole("button", { name: "Settings" }).click();
  await page.getByLabel("Server address").fill(first);
  await page.getByRole("button", { name: "Use this server" }).click();
  await connectedTo(bobs, first);
  await page.getByRole("button", { name: /^Chats/ }).click();
  await page.locator("[data-chat]").filter({ hasText: "Alice" }).click();
  await page.getByLabel("Message to Alice").fill("Back on your side");
  await page.keyboard.press("Enter");
  await alice.until("Bob's message", async () => {
    const list = await alice.call("messages.list", { chatId: bobs.userId, limit: 5 });
    return list.find((message) => message.text === "Back on your side") ?? null;
  });
  expect((await bobs.call("contacts.list", {})).map(({ name, state }) => `${name} ${state}`).sort()).toEqual([
    "Alice accepted",
    "Carol accepted",
  ]);
  expect(bob.problems).toEqual([]);
}, 120_000);
