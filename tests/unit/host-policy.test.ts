import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PATH_GRANTS_MAX } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import { encodeInviteLink } from "#shared/wire/invite.ts";
import { systemRandom } from "../../src-main/env.ts";
import { answerAppRequest } from "../../src-main/host/policy/app-request.ts";
import { TrayWatch, UnreadWatch } from "../../src-main/host/policy/attention.ts";
import { dangerousExtension } from "../../src-main/host/policy/dangerous-files.ts";
import { inviteInArguments, inviteOf } from "../../src-main/host/policy/deep-link.ts";
import { downloadAllowed } from "../../src-main/host/policy/downloads.ts";
import { PathGrants, withPathGrants } from "../../src-main/host/policy/path-grants.ts";
import { permissionAllowed } from "../../src-main/host/policy/permissions.ts";
import { isTrustedSender } from "../../src-main/host/policy/sender.ts";
import { isInside, staticPath } from "../../src-main/host/policy/static-files.ts";
import { drawTrayIcon } from "../../src-main/host/policy/tray-icon.ts";
import { APP_ORIGIN, externalUrl, isUiUrl, requestAllowed, uiOrigin } from "../../src-main/host/policy/url-policy.ts";
import { type QuitState, stepQuit } from "../../src-main/host/quit-machine.ts";
import { fitBounds, readBounds, writeBounds } from "../../src-main/host/window-state.ts";
import type { Handlers } from "../../src-main/ipc/handlers.ts";
import { createIpcServer } from "../../src-main/ipc/server.ts";
import {
  createFakeApp,
  FAKE_USER,
  fakeHostHandlers,
  fakeSettings,
  recordingLog,
  transferView,
} from "../support/fake-app.ts";
import { friendlyUrls, hostileUrls } from "../support/hostile-urls.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "weir-policy-"));
  await mkdir(join(dir, "renderer/assets"), { recursive: true });
  await mkdir(join(dir, "renderer-evil"));
  await writeFile(join(dir, "renderer/index.html"), "<!doctype html>");
  await writeFile(join(dir, "renderer/assets/index-AbCdEf12.js"), "1;");
  await writeFile(join(dir, "renderer-evil/a.txt"), "SECRET");
  await writeFile(join(dir, "secret.txt"), "SECRET");
  await symlink(join(dir, "secret.txt"), join(dir, "renderer/link.txt"));
  await symlink(join(dir, "renderer-evil"), join(dir, "renderer/linked"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("links that leave the window", () => {
  test("more than 200 hostile addresses: none is opened", () => {
    expect(new Set(hostileUrls).size).toBeGreaterThan(200);
    expect(hostileUrls.filter((url) => externalUrl(url).ok)).toEqual([]);
  });
  test.each(friendlyUrls)("%s is opened as %s", (raw, opened) => {
    expect(externalUrl(raw)).toEqual(ok(opened));
  });
  test("whatever is opened is http, https or a bare e-mail address, and is stable", () => {
    const noise = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.webUrl({ withFragments: true, withQueryParameters: true }),
    );
    const prefixed = fc.tuple(fc.constantFrom("https://", "http://", "mailto:", "javascript:", "file:"), noise);
    fc.assert(
      fc.property(
        fc.oneof(
          noise,
          prefixed.map((parts) => parts.join("")),
        ),
        (raw) => {
          const url = externalUrl(raw);
          if (!url.ok) return;
          expect(url.value).toMatch(/^(https?:\/\/[^/@\s]+\/|mailto:[^\s?]+@[^\s?]+$)/);
          expect(externalUrl(url.value)).toEqual(url);
        },
      ),
      { numRuns: 3000 },
    );
  });
});

describe("our own page", () => {
  test.each([
    ["app://weir/index.html", true],
    ["app://weir/", true],
    ["app://weir.evil/", false],
    ["app://evil/", false],
    ["app://user@weir/", false],
    ["https://weir/", false],
    ["file:///weir/index.html", false],
    ["about:blank", false],
    ["", false],
    ["data:text/html,app://weir/", false],
  ])("%s: %s", (url, ours) => {
    expect(isUiUrl(url, APP_ORIGIN)).toBe(ours);
    expect(requestAllowed(url, APP_ORIGIN, false)).toBe(ours);
  });
  test("the development server counts only unpackaged and only on this machine", () => {
    expect(uiOrigin("http://localhost:5173", false)).toEqual({ protocol: "http:", host: "localhost:5173" });
    for (const [url, packaged] of [
      ["http://localhost:5173", true],
      ["http://evil.example", false],
      ["https://localhost", false],
      ["file:///x", false],
      [undefined, false],
    ] as const) {
      expect(uiOrigin(url, packaged)).toEqual(APP_ORIGIN);
    }
  });
  test("the page's requests: itself and its blobs, nothing else", () => {
    expect(requestAllowed("blob:app://weir/0b7e", APP_ORIGIN, false)).toBe(true);
    for (const url of [
      ...hostileUrls,
      "https://example.com/",
      "blob:https://x/1",
      "ws://localhost:1/",
      "devtools://x/",
    ]) {
      if (!isUiUrl(url, APP_ORIGIN)) expect(requestAllowed(url, APP_ORIGIN, false), url).toBe(false);
    }
    const dev = uiOrigin("http://localhost:5173", false);
    expect(requestAllowed("ws://localhost:5173/", dev, true)).toBe(true);
    expect(requestAllowed("https://example.com/", dev, true)).toBe(false);
  });
});

describe("what the page may save by itself", () => {
  const allowed = (url: string, filename = "weir-diagnostics.json") => downloadAllowed({ url, filename }, APP_ORIGIN);
  test("a report that it made, and nothing else", () => {
    expect(allowed("blob:app://weir/0b7e")).toBe(true);
    for (const url of [
      ...hostileUrls,
      "app://weir/index.html",
      "blob:https://weir/1",
      "blob:null/1",
      "blob:app://evil/1",
      "blob:app://weir@evil/1",
      "data:application/json,{}",
    ])
      expect(allowed(url), url).toBe(false);
  });
  test("under a plain name, which cannot pass for a program's", () => {
    for (const name of [
      "weir.exe",
      "weir.json.exe",
      "a\u202enosj.exe",
      "../x.json",
      "a b.json",
      ".json",
      "CON.json",
      "",
    ])
      expect(allowed("blob:app://weir/0b7e", name), name).toBe(false);
  });
});

describe("who may call", () => {
  const frame = { url: "app://weir/index.html", isMain: true };
  test.each([
    ["our page in our window", { webContentsId: 1, frame }, 1, true],
    ["another window", { webContentsId: 2, frame }, 1, false],
    ["no window", { webContentsId: 1, frame }, null, false],
    ["a subframe", { webContentsId: 1, frame: { ...frame, isMain: false } }, 1, false],
    ["a frame that is gone", { webContentsId: 1, frame: null }, 1, false],
    ["a foreign page", { webContentsId: 1, frame: { url: "https://evil.example/", isMain: true } }, 1, false],
    ["a look-alike host", { webContentsId: 1, frame: { url: "app://weir.evil/", isMain: true } }, 1, false],
    ["a blank page", { webContentsId: 1, frame: { url: "about:blank", isMain: true } }, 1, false],
    ["a data page", { webContentsId: 1, frame: { url: "data:text/html,x", isMain: true } }, 1, false],
  ])("%s: %#", (_who, sender, windowId, trusted) => {
    expect(isTrustedSender(sender, windowId, APP_ORIGIN)).toBe(trusted);
  });
});

test("permissions: two for our main frame, every other one and every other page denied", () => {
  const ours = { requestingUrl: "app://weir/index.html", isMainFrame: true };
  const all =
    `ar background-fetch background-sync clipboard-read clipboard-sanitized-write display-capture fileSystem fullscreen
    geolocation hid idle-detection keyboardLock local-fonts media mediaKeySystem midi midiSysex notifications openExternal
    payment-handler persistent-storage pointerLock screen-wake-lock sensors serial speaker-selection storage-access
    top-level-storage-access usb vr window-management unknown`.split(/\s+/);
  expect(all.filter((permission) => permissionAllowed(permission, ours, APP_ORIGIN))).toEqual([
    "clipboard-sanitized-write",
    "notifications",
  ]);
  for (const request of [
    { ...ours, isMainFrame: false },
    { ...ours, requestingUrl: "https://evil.example/" },
    { ...ours, requestingUrl: "" },
    { ...ours, requestingUrl: undefined },
  ]) {
    expect(all.filter((permission) => permissionAllowed(permission, request, APP_ORIGIN))).toEqual([]);
  }
});

describe("app://weir/", () => {
  const ask = (url: string, method = "GET") => answerAppRequest(new Request(url, { method }), join(dir, "renderer"));

  test("serves the renderer under the strict policy", async () => {
    const page = await ask("app://weir/index.html");
    expect(page.status).toBe(200);
    const csp = page.headers.get("content-security-policy") ?? "";
    expect(csp).toMatch(/default-src 'none'/);
    expect(csp).not.toMatch(/unsafe|https?:|\*|data:/);
    expect(page.headers.get("x-content-type-options")).toBe("nosniff");
    expect((await ask("app://weir/")).headers.get("content-type")).toBe("text/html; charset=utf-8");
  });

  test.each(["POST", "PUT", "DELETE", "HEAD"])("%s is refused", async (method) => {
    expect((await ask("app://weir/index.html", method)).status).toBe(405);
  });
  test.each(["app://evil/index.html", "app://weir.evil/index.html", "app:///index.html", "https://weir/index.html"])(
    "%s is refused",
    async (url) => expect((await ask(url)).status).toBe(404),
  );

  test("more than 200 traversal paths read nothing outside", async () => {
    const ups = [
      "../",
      "..%2f",
      "..%5c",
      "%2e%2e/",
      "%2e%2e%2f",
      "..\\",
      "....//",
      "..%c0%af",
      "..%252f",
      "..;/",
      ".%2e/",
    ];
    const paths = ["", "assets/", "/", "%00/", "linked/"].flatMap((prefix) =>
      ups.flatMap((up) =>
        ["secret.txt", "renderer-evil/a.txt"].flatMap((target) =>
          [1, 4].map((depth) => `${prefix}${up.repeat(depth)}${target}`),
        ),
      ),
    );
    paths.push("link.txt", "linked/a.txt", "%2fetc%2fpasswd", "C:/Windows/win.ini", ".hidden", "a%00.txt", "%", "%ff");
    expect(paths.length).toBeGreaterThan(200);
    for (const path of paths) {
      const answer = await ask(`app://weir/${path}`);
      expect(answer.status, path).toBe(404);
      expect(await answer.text(), path).not.toContain("SECRET");
    }
  });

  test("any path stays inside the root", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(..."./\\%2ef5c0aA \0:;~") }), (text) => {
        const path = staticPath(`/${text}`);
        if (path === null) return;
        expect(path).not.toMatch(/(^|\/)\.|\\|\0|^\/|:/);
        expect(isInside(dir, join(dir, path))).toBe(true);
      }),
      { numRuns: 5000 },
    );
    expect(isInside("/srv/root", "/srv/root-evil/a")).toBe(false);
    expect(isInside("/srv/root", "/srv/root")).toBe(false);
    expect(isInside("/", "/a")).toBe(true);
  });
});

describe("files that run something", () => {
  test.each([
    ["setup.exe", "exe"],
    ["SETUP.EXE", "exe"],
    ["invoice.pdf.exe", "exe"],
    ["invoice.exe.", "exe"],
    ["invoice.exe . .", "exe"],
    ["invoice.exe::$DATA", "exe"],
    ["note: run.exe", "exe"],
    ["invoice\u202efdp.exe", "exe"],
    ["invoice.ex\u200be", "exe"],
    ["ｓetup．ｅｘｅ", "exe"],
    ["a.scr", "scr"],
    ["a.bat", "bat"],
    ["a.lnk", "lnk"],
    ["a.desktop", "desktop"],
    ["a.jar", "jar"],
    ["a.ps1", "ps1"],
    ["a.AppImage", "appimage"],
    ["a.command", "command"],
    ["a.svg", "svg"],
    ["a.html", "html"],
    ["photo.jpg", null],
    ["report.pdf", null],
    ["exe", null],
    ["archive.tar.gz", null],
    ["", null],
    ["...", null],
  ])("%j: %s", (name, extension) => {
    expect(dangerousExtension(name)).toBe(extension);
  });
});

describe("weir:// links", () => {
  const bytes = (length: number) => systemRandom.bytes(length);
  const link = encodeInviteLink({
    accountKey: bytes(32),
    identityKey: bytes(33),
    inviteId: bytes(16),
    secret: bytes(32),
    serverUrl: "ws://127.0.0.1:1",
  });
  test("only a whole invitation counts", () => {
    expect(inviteOf(link)).toBe(link);
    for (const bad of [
      "",
      "weir://",
      "weir://invite/",
      "weir://settings/x",
      `${link}x`,
      ` ${link}`,
      "x".repeat(10_000),
    ]) {
      expect(inviteOf(bad)).toBeNull();
    }
  });
  test("as an argument: the last one, options and paths ignored", () => {
    expect(inviteInArguments(["electron", ".", "--flag", link])).toBe(link);
    expect(inviteInArguments(["electron", `--open=${link}`, "weir://nope"])).toBeNull();
  });
});

describe("path handles", () => {
  const setUp = () => {
    const app = createFakeApp({ "files.share": () => ok("shared"), "transfers.start": () => ok("started") });
    const grants = new PathGrants(systemRandom);
    const handlers: Handlers = withPathGrants({ ...app.handlers, ...fakeHostHandlers }, grants);
    return { app, grants, server: createIpcServer(handlers, recordingLog()) };
  };
  const fileId = "AAAAAAAAAAAAAAAAAAAAAA";

  test("a granted handle becomes its path; a raw path or a made-up handle is refused", async () => {
    const { app, grants, server } = setUp();
    const handle = grants.grant("/home/me/film.mkv");
    expect(handle).toMatch(/^grant:[A-Za-z0-9_-]{22}$/);
    expect(await server.call("files.share", { chatId: FAKE_USER, path: handle })).toEqual(ok("shared"));
    expect(app.calls.at(-1)?.input).toEqual({ chatId: FAKE_USER, path: "/home/me/film.mkv" });
    const before = app.calls.length;
    for (const path of ["/etc/passwd", "/home/me/film.mkv", "grant:", `${handle}x`, "../x", "__proto__"]) {
      for (const [name, input] of [
        ["files.share", { chatId: FAKE_USER, path }],
        ["transfers.start", { fileId, directory: path }],
      ] as const) {
        expect(await server.call(name, input)).toMatchObject({ ok: false, error: { type: "path_not_granted" } });
      }
    }
    expect(app.calls).toHaveLength(before);
  });

  test("directories of transfers and settings", async () => {
    const { app, grants, server } = setUp();
    const handle = grants.grant("/media/disk");
    await server.call("transfers.start", { fileId, directory: handle });
    expect(app.calls.at(-1)?.input).toEqual({ fileId, directory: "/media/disk" });
    await server.call("transfers.start", { fileId });
    expect(app.calls.at(-1)?.input).toEqual({ fileId });
    await server.call("settings.set", { downloadDirectory: handle, theme: "dark" });
    expect(app.calls.at(-1)?.input).toEqual({ downloadDirectory: "/media/disk", theme: "dark" });
    const refused = await server.call("settings.set", { downloadDirectory: "/etc" });
    expect(refused).toMatchObject({ error: { type: "path_not_granted" } });
    const same = await server.call("settings.set", { downloadDirectory: fakeSettings.downloadDirectory });
    expect(same).toMatchObject({ ok: true });
  });

  test("the number of handles is bounded", () => {
    const grants = new PathGrants(systemRandom);
    const first = grants.grant("/first");
    for (let i = 0; i < PATH_GRANTS_MAX; i++) grants.grant(`/${i}`);
    expect(grants.resolve(first).ok).toBe(false);
  });
});

describe("outside the window", () => {
  const chat = (chatId: string, unreadCount: number) => ({
    chatId,
    name: "Alice",
    lastMessage: null,
    unreadCount,
    typing: false,
    sendBlocked: null,
  });

  test("a notification for what is new, not for history, not while the window is in front, without text", () => {
    const watch = new UnreadWatch([chat("a", 3)]);
    expect(watch.observe(chat("a", 3), false)).toBeNull();
    expect(watch.observe(chat("a", 4), false)).toEqual({ chatId: "a", title: "Alice", body: "New message" });
    expect(watch.observe(chat("a", 6), false)?.body).toBe("2 new messages");
    expect(watch.observe(chat("a", 7), true)).toBeNull();
    expect(watch.observe(chat("a", 0), false)).toBeNull();
    expect(watch.observe(chat("b", 1), false)?.chatId).toBe("b");
    expect(watch.total).toBe(1);
  });

  test("the tray follows server and transfers", () => {
    const watch = new TrayWatch("disconnected", []);
    expect([watch.state, watch.tooltip(0)]).toEqual(["offline", "Weir: not connected"]);
    watch.observeServer({ state: "connected", url: "", error: null });
    watch.observeTransfer(transferView({ bytesStored: 25, sizeBytes: 100 }));
    expect([watch.state, watch.tooltip(2)]).toEqual(["busy", "Weir: connected, 1 download, 25 %, 2 unread"]);
    watch.observeTransfer(transferView({ phase: "complete" }));
    expect(watch.state).toBe("online");
  });

  test("the icon has a shape, and a colour for each state", () => {
    const icons = (["online", "offline", "busy"] as const).map((state) => drawTrayIcon(32, state));
    for (const icon of icons) {
      expect(icon).toHaveLength(32 * 32 * 4);
      expect(icon[3]).toBe(0);
      expect(icon[(16 * 32 + 16) * 4 + 3]).toBe(255);
    }
    expect(new Set(icons.map((icon) => icon.toString("hex"))).size).toBe(3);
  });
});

describe("the window's place", () => {
  const area = { x: 0, y: 0, width: 1920, height: 1080 };
  test("kept when it can be seen, dropped when its screen is gone, cut when the screen is smaller", () => {
    const saved = { x: 100, y: 100, width: 800, height: 600 };
    expect(fitBounds(saved, [area])).toEqual(saved);
    expect(fitBounds({ ...saved, x: 5000 }, [area])).toEqual({ width: 1120, height: 760 });
    expect(fitBounds({ ...saved, y: -500 }, [area])).toEqual({ width: 1120, height: 760 });
    expect(fitBounds({ ...saved, width: 9000, height: 9000 }, [area])).toMatchObject({ width: 1920, height: 1080 });
    expect(fitBounds(null, [])).toEqual({ width: 1120, height: 760 });
  });
  test("survives being written, and damage", async () => {
    const path = join(dir, "state", "window.json");
    expect(await readBounds(path)).toBeNull();
    await writeBounds(path, area);
    expect(await readBounds(path)).toEqual(area);
    await writeFile(path, '{"x":1e99}');
    expect(await readBounds(path)).toBeNull();
  });
});

test("quitting: stops once, exits once, whatever comes in which order", () => {
  const event = fc.constantFrom(
    { type: "quitRequested" } as const,
    { type: "stopped" } as const,
    { type: "stopFailed" } as const,
    { type: "timedOut" } as const,
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 12 }), (events) => {
      let state: QuitState = { kind: "running" };
      const effects: string[] = [];
      let exitCode: number | null = null;
      for (const each of events) {
        const [next, more] = stepQuit(state, each);
        state = next;
        for (const effect of more) {
          effects.push(effect.type);
          if (effect.type === "exit") exitCode = effect.code;
        }
      }
      const asked = events.findIndex(({ type }) => type === "quitRequested");
      const ended = asked < 0 ? undefined : events.slice(asked).find(({ type }) => type !== "quitRequested");
      const expected = asked < 0 ? [] : ["startTimer", "stopApp", ...(ended === undefined ? [] : ["exit"])];
      expect(effects).toEqual(expected);
      expect(exitCode).toBe(ended === undefined ? null : ended.type === "stopped" ? 0 : 1);
    }),
    { numRuns: 1000 },
  );
});
