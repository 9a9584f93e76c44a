import type { Browser, Locator, Page } from "playwright-core";
import type { HeadlessProfile } from "../../scripts/headless-process.ts";
import { PERSON_WATCH } from "./person-watch.ts";

/** What a page showed of a file's card; one entry for each change of status or of geometry. */
export interface CardSight {
  readonly name: string;
  readonly status: string;
  readonly headline: string;
  readonly size: string;
  /** Place of the bar in the card, and of its four parts; "" where the card shows none. */
  readonly bar: string;
}

/** A dropped file: its name and the SHA-256 of the random bytes that the page filled it with. */
export interface DroppedFile {
  readonly name: string;
  readonly sha256: string;
}

/** Of a page whose program is gone: the browser itself reports every attempt to connect. */
const HOST_GONE = /^console: WebSocket connection to '[^']+' failed/;

/** Somebody at the window of a headless profile. Everything is done through the page, as with mouse and keyboard. */
export class Person {
  readonly name: string;
  readonly page: Page;
  readonly #problems: string[] = [];
  #hostMayBeGone = false;

  /** `page` shows the window already; what it shows is not written down then. */
  constructor(name: string, page: Page) {
    this.name = name;
    this.page = page;
    page.on("console", (message) => {
      if (message.type() === "error") this.#problem(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => this.#problem(`page: ${error.message}`));
  }

  static async open(
    browser: Browser,
    profile: HeadlessProfile,
    options: { name: string; theme: "light" | "dark" },
  ): Promise<Person> {
    const context = await browser.newContext({
      viewport: { width: 1180, height: 780 },
      colorScheme: options.theme,
      reducedMotion: "reduce",
      locale: "en-GB",
    });
    const page = await context.newPage();
    const person = new Person(options.name, page);
    await page.exposeFunction("reportViolation", (text: string) => person.#problem(`policy: ${text}`));
    await page.addInitScript({ content: PERSON_WATCH });
    await person.visit(profile);
    return person;
  }

  /** Opens the address that the program printed, in the same tab as before. */
  async visit(profile: HeadlessProfile): Promise<void> {
    await this.page.goto(`${profile.ready.url}#${profile.ready.token}`);
    await this.page.getByRole("navigation", { name: "Main" }).waitFor();
    await this.page.evaluate("document.fonts.ready.then(() => undefined)");
    this.#hostMayBeGone = false;
  }

  /** From now until the next visit the page may fail to reach its program. */
  expectHostGone(): void {
    this.#hostMayBeGone = true;
  }

  /** Console errors, page errors and violations of the content security policy; must stay empty. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  #problem(text: string): void {
    if (!(this.#hostMayBeGone && HOST_GONE.test(text))) this.#problems.push(text);
  }

  /** Makes an invitation and returns its code as it is shown. */
  async invite(): Promise<string> {
    await this.page.getByRole("button", { name: "Invite someone" }).click();
    const code = this.page.getByTestId("invite-code").getByText(/^[A-Z2-9]{3} [A-Z2-9]{3}$/);
    await code.waitFor();
    return (await code.textContent()) ?? "";
  }

  async enterInvitation(code: string): Promise<void> {
    await this.page.getByRole("button", { name: "Enter an invitation" }).click();
    await this.page.getByLabel("Invitation link or code").pressSequentially(code);
    await this.page.getByRole("button", { name: "Connect", exact: true }).click();
  }

  async safetyWords(): Promise<string[]> {
    const words = this.page.getByRole("list", { name: "Safety words" });
    await words.waitFor();
    return words.getByRole("listitem").allInnerTexts();
  }

  /** The box to write to somebody; there only while the chat with that person is open. */
  box(other: Person): Locator {
    return this.page.getByLabel(`Message to ${other.name}`);
  }

  async openChat(other: Person): Promise<void> {
    await this.page.locator("[data-chat]").filter({ hasText: other.name }).click();
    await this.box(other).waitFor();
  }

  async say(other: Person, text: string): Promise<void> {
    await this.box(other).fill(text);
    await this.page.keyboard.press("Enter");
  }

  message(text: string): Locator {
    return this.page.getByRole("article").filter({ hasText: text });
  }

  card(name: string): Locator {
    return this.page.locator("[data-file]").filter({ hasText: name });
  }

  async statusOf(name: string): Promise<string | null> {
    const card = this.card(name);
    return (await card.count()) === 0 ? null : card.getAttribute("data-status");
  }

  /** Drags a file of this computer over the conversation and lets go, as the system's file manager does. */
  async dropFromDisk(path: string): Promise<void> {
    const box = await this.page.getByRole("textbox", { name: /^Message to/ }).boundingBox();
    if (box === null) throw new Error("no conversation is open to drop a file on");
    const [x, y] = [box.x + box.width / 2, box.y - 100];
    const session = await this.page.context().newCDPSession(this.page);
    const data = { items: [], files: [path], dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"] as const)
      await session.send("Input.dispatchDragEvent", { type, x, y, data });
    await session.detach();
  }

  /** Drops a new file of random bytes, made by the page itself, on the conversation. */
  async drop(name: string, sizeBytes: number): Promise<DroppedFile> {
    const sha256 = (await this.page.evaluate(`personWatch.drop(${JSON.stringify(name)}, ${sizeBytes})`)) as string;
    return { name, sha256 };
  }

  /** Chooses a file with the attach button. */
  async attach(path: string): Promise<void> {
    const chooser = this.page.waitForEvent("filechooser");
    await this.page.getByRole("button", { name: "Attach files" }).click();
    await (await chooser).setFiles(path);
  }

  /** Makes what the page sends to its program slow, until the returned function is called. */
  async slowUploads(bytesPerSecond: number): Promise<() => Promise<void>> {
    const session = await this.page.context().newCDPSession(this.page);
    const conditions = { offline: false, latency: 0, downloadThroughput: -1 };
    await session.send("Network.emulateNetworkConditions", { ...conditions, uploadThroughput: bytesPerSecond });
    return async () => {
      await session.send("Network.emulateNetworkConditions", { ...conditions, uploadThroughput: -1 });
      await session.detach();
    };
  }

  async seenOf(name: string): Promise<CardSight[]> {
    const all = (await this.page.evaluate("personWatch.cards")) as CardSight[];
    return all.filter((sight) => sight.name === name);
  }

  /** Every state that an own message was shown in, in order. */
  async statesOf(text: string): Promise<string[]> {
    return (await this.page.evaluate(`personWatch.states[${JSON.stringify(text)}] ?? []`)) as string[];
  }
}
