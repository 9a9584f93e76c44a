import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { ok } from "#shared/base/result.ts";
import type { ChatView, ContactView, FileView, MessageView } from "#shared/ipc/views.ts";
import { findChromium } from "../../scripts/find-chromium.ts";
import { systemRandom } from "../../src-main/env.ts";
import { type Bridge, startBridge } from "../../src-main/host/headless/bridge.ts";
import { createIpcServer } from "../../src-main/ipc/server.ts";
import { buildFake } from "../support/electron-launch.ts";
import { createFakeApp, FAKE_USER, fakeHostHandlers, recordingLog } from "../support/fake-app.ts";
import { xssCorpus } from "../support/xss-corpus.ts";

/**
 * The corpus as what strangers can choose: message texts, names of people, names of files. Shown by the built window in
 * Chromium under the policy of the product, through the real headless bridge. Nothing may run, load or navigate.
 */
const PER_CHAT = 20;

const payloads = xssCorpus.map((text) => text.toWellFormed());
const chatCount = Math.ceil(payloads.length / PER_CHAT);
const letters = "abcdefghijklmnopqrstuvwxyz234567";
const userIdOf = (chat: number): string => `${letters[chat % 32]}${letters[Math.floor(chat / 32)]}`.padEnd(32, "a");
const messageIdOf = (index: number): string => String(index).padStart(22, "A");
const payloadsOf = (chat: number): string[] => payloads.slice(chat * PER_CHAT, (chat + 1) * PER_CHAT);
const nameOf = (chat: number): string => payloads[(chat * 7) % payloads.length] ?? "";

const fileOf = (index: number, ownerId: string): FileView => ({
  fileId: messageIdOf(index),
  name: payloads[index] ?? "",
  sizeBytes: 1000,
  sha256: "00".repeat(32),
  chunkCount: 1,
  ownerId,
  sharedWith: [FAKE_USER],
  version: 1,
  seeders: [ownerId],
  access: "granted",
});
/** Each payload as a text, and each tenth as the name of a file as well. */
const messagesOf = (chat: number): MessageView[] =>
  payloadsOf(chat).map((text, i) => {
    const index = chat * PER_CHAT + i;
    const senderId = userIdOf(chat);
    const file = index % 10 === 9 ? fileOf(index, senderId) : null;
    return {
      messageId: messageIdOf(index),
      chatId: senderId,
      senderId,
      sentAtMs: 1_700_000_000_000 + index,
      text: file === null ? text : "",
      state: "read",
      file,
    };
  });
const chats: ChatView[] = Array.from({ length: chatCount }, (_, chat) => ({
  chatId: userIdOf(chat),
  name: nameOf(chat),
  lastMessage: messagesOf(chat).at(-1) ?? null,
  unreadCount: 0,
  typing: false,
  sendBlocked: null,
}));
const contacts: ContactView[] = chats.map(({ chatId, name }) => ({
  userId: chatId,
  name,
  state: "accepted",
  verified: false,
  online: true,
  keyChanged: false,
  safetyWords: null,
  safetyNumber: null,
  addedAtMs: 0,
}));

let dir: string;
let bridge: Bridge;
let browser: Browser;
let page: Page;
const requests: string[] = [];
const dialogs: string[] = [];
const navigations: string[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "weir-xss-"));
  const built = await buildFake("electron-xss", ["renderer"]);
  const profile = {
    userId: FAKE_USER,
    name: "Me",
    fingerprint: "00".repeat(64),
    server: { state: "connected", url: "ws://127.0.0.1:1", error: null },
    keyProtection: "file",
  };
  const app = createFakeApp({
    "profile.get": () => ok(profile),
    "contacts.list": () => ok(contacts),
    "chats.list": () => ok(chats),
    "chats.markRead": () => ok(chats[0]),
    "files.list": () => ok(chats.flatMap((_, chat) => messagesOf(chat).flatMap(({ file }) => file ?? []))),
    "messages.list": (input) => {
      const { chatId, beforeId } = input as { chatId: string; beforeId?: string };
      const chat = chats.findIndex((each) => each.chatId === chatId);
      return ok(beforeId === undefined ? messagesOf(chat).reverse() : []);
    },
  });
  const log = recordingLog();
  bridge = await startBridge({
    port: 0,
    rendererDir: join(built, "renderer"),
    uploadsDir: join(dir, "uploads"),
    server: createIpcServer({ ...app.handlers, ...fakeHostHandlers }, log),
    events: app.events,
    random: systemRandom,
    log,
  });
  browser = await chromium.launch({ executablePath: defined(findChromium(), "Chromium"), args: ["--no-sandbox"] });
  page = await browser.newPage({ viewport: { width: 1400, height: 8000 } });
  page.on("request", (request) => requests.push(request.url()));
  page.on("dialog", (dialog) => {
    dialogs.push(dialog.message());
    void dialog.dismiss();
  });
  page.on("framenavigated", (frame) => navigations.push(frame.url()));
  page.on("popup", (popup) => navigations.push(popup.url()));
  await page.exposeFunction("reportXss", (what: string) => dialogs.push(what));
  await page.addInitScript(() => {
    const global = globalThis as unknown as { xss: () => void; reportXss: (what: string) => void };
    global.xss = () => global.reportXss("a script ran");
  });
  await page.goto(`${bridge.url}#${bridge.token}`);
  await page.locator("[data-chat]").first().waitFor();
}, 120_000);

afterAll(async () => {
  await browser?.close();
  await bridge?.stop();
  await rm(dir, { recursive: true, force: true });
});

const lettersOf = (text: string): string => text.replace(/[^A-Za-z0-9]/g, "");
const shownLetters = async (): Promise<string> => lettersOf((await page.locator("body").textContent()) ?? "");

test(`${payloads.length} payloads as texts, names and file names: 0 scripts, 0 requests, 0 navigations`, async () => {
  expect(new Set(payloads).size).toBeGreaterThanOrEqual(300);
  const before = navigations.length;
  let shown = 0;
  for (let chat = 0; chat < chatCount; chat++) {
    await page.locator(`[data-chat="${userIdOf(chat)}"]`).click();
    for (const { text, file } of messagesOf(chat)) {
      // Long file names are shortened, and invisible characters may be left out: what is compared is how it begins.
      const start = lettersOf(file === null ? text : file.name).slice(0, file === null ? 24 : 8);
      await expect.poll(async () => (await shownLetters()).includes(start), { message: start }).toBe(true);
      shown++;
    }
    // What only a pointer would set off.
    await page.mouse.move(700, 300);
    await page.mouse.move(900, 1500);
  }
  expect(shown).toBe(payloads.length);
  expect(dialogs).toEqual([]);
  expect(navigations.slice(before)).toEqual([]);
  expect(requests.filter((url) => !url.startsWith(bridge.url) && !url.startsWith("blob:"))).toEqual([]);
  const foreign =
    "script:not([src]), svg script, iframe, object, embed, frame, base, form[action], [onerror], [onload], [onclick]";
  expect(await page.locator(foreign).count()).toBe(0);
  const hrefs = await page
    .locator("a[href]")
    .evaluateAll((nodes) => nodes.map((node) => node.getAttribute("href") ?? ""));
  expect(hrefs.filter((href) => !/^(https?:\/\/|mailto:)/.test(href))).toEqual([]);
}, 240_000);

test("the harness itself notices a script that runs, and the policy a picture from elsewhere", async () => {
  await page.evaluate(() => (globalThis as unknown as { xss: () => void }).xss());
  await expect.poll(() => dialogs).toEqual(["a script ran"]);
  const violation = page.evaluate(`new Promise((resolve) => {
    document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective), { once: true });
    document.body.append(Object.assign(document.createElement("img"), { src: "https://evil.invalid/a.png" }));
  })`);
  expect(await violation).toBe("img-src");
});
