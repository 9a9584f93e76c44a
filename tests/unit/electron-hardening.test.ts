import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FuseV1Options, FuseVersion } from "@electron/fuses";
import { describe, expect, test } from "vitest";
import { fuses } from "../../build/fuses.ts";
import manifest from "../../package.json" with { type: "json" };
import { contentSecurityPolicy } from "../../src-main/host/policy/csp.ts";
import { permissionAllowed } from "../../src-main/host/policy/permissions.ts";
import { isTrustedSender } from "../../src-main/host/policy/sender.ts";
import { APP_ORIGIN, externalUrl, isUiUrl } from "../../src-main/host/policy/url-policy.ts";
import { windowOptions } from "../../src-main/host/policy/window-options.ts";

/**
 * The 20 items of Electron's security checklist (electronjs.org/docs/latest/tutorial/security) and its 9 fuses, each
 * held against the options and policies themselves, and against the few lines that hand them to Electron. That Electron
 * obeys them can only be seen in the real binary.
 */
const source = (path: string): Promise<string> =>
  readFile(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8");
const allSources = async (folder: string): Promise<string> => {
  const root = fileURLToPath(new URL(`../../${folder}`, import.meta.url));
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && /\.(ts|svelte|html)$/.test(entry.name));
  return (await Promise.all(files.map((file) => readFile(join(file.parentPath, file.name), "utf8")))).join("\n");
};

const options = windowOptions({ preload: "/p.cjs", dev: false, dark: false, bounds: { width: 1, height: 1 } });
const prefs: Readonly<Record<string, unknown>> = options.webPreferences;
const csp = contentSecurityPolicy();
const harden = await source("src-main/host/electron/harden.ts");
const run = await source("src-main/host/electron/run.ts");
const mainSources = (await allSources("src-main")) + (await allSources("src-preload"));

const checklist: readonly (readonly [item: number, what: string, check: () => void])[] = [
  [1, "only secure content: the policy names no host at all", () => expect(csp).not.toMatch(/https?:|wss?:|\*/)],
  [
    2,
    "no Node integration, in workers and frames neither",
    () => {
      expect(prefs).toMatchObject({
        nodeIntegration: false,
        nodeIntegrationInWorker: false,
        nodeIntegrationInSubFrames: false,
      });
    },
  ],
  [3, "context isolation", () => expect(prefs["contextIsolation"]).toBe(true)],
  [
    4,
    "sandbox, for every process",
    () => {
      expect(prefs["sandbox"]).toBe(true);
      expect(run).toContain("electronApp.enableSandbox()");
      expect(mainSources).not.toContain("no-sandbox");
    },
  ],
  [
    5,
    "permissions: request and check handler, deny by default",
    () => {
      expect(harden).toContain("setPermissionRequestHandler");
      expect(harden).toContain("setPermissionCheckHandler");
      expect(harden).toContain("setDevicePermissionHandler(() => false)");
      const ours = { requestingUrl: "app://weir/", isMainFrame: true };
      expect(permissionAllowed("media", ours, APP_ORIGIN)).toBe(false);
      expect(permissionAllowed("openExternal", ours, APP_ORIGIN)).toBe(false);
    },
  ],
  [6, "webSecurity stays on", () => expect(prefs["webSecurity"]).toBe(true)],
  [
    7,
    "a content security policy without inline, eval or default",
    () => {
      expect(csp).toContain("default-src 'none'");
      expect(csp).toContain("script-src 'self';");
      expect(csp).toContain("style-src 'self';");
      expect(csp).toContain("require-trusted-types-for 'script'");
      expect(csp).not.toContain("unsafe");
      for (const directive of ["object-src", "base-uri", "form-action", "frame-ancestors", "frame-src"]) {
        expect(csp).toContain(`${directive} 'none'`);
      }
    },
  ],
  [8, "no insecure content", () => expect(prefs["allowRunningInsecureContent"]).toBe(false)],
  [9, "no experimental features", () => expect(prefs["experimentalFeatures"]).toBe(false)],
  [10, "no Blink features switched on", () => expect(prefs).not.toHaveProperty("enableBlinkFeatures")],
  [11, "no webview, so no popups of one", () => expect(prefs["webviewTag"]).toBe(false)],
  [
    12,
    "a webview that is attached all the same is refused",
    () => expect(harden).toMatch(/will-attach-webview.*preventDefault/),
  ],
  [
    13,
    "navigation stays on our page",
    () => {
      for (const event of ["will-navigate", "will-frame-navigate", "will-redirect"])
        expect(harden).toContain(`"${event}"`);
      expect(isUiUrl("https://evil.example/", APP_ORIGIN)).toBe(false);
    },
  ],
  [14, "no new windows", () => expect(harden).toMatch(/setWindowOpenHandler[\s\S]{0,120}action: "deny"/)],
  [
    15,
    "openExternal only after the policy, in one place",
    async () => {
      expect(mainSources.match(/\.openExternal\(/g)).toHaveLength(1);
      expect(await source("src-main/host/electron/links.ts")).toMatch(/externalUrl\(raw\)[\s\S]*openExternal\(url\)/);
      expect(externalUrl("file:///etc/passwd").ok).toBe(false);
    },
  ],
  [16, "a current Electron, pinned", () => expect(manifest.devDependencies.electron).toMatch(/^45\.\d+\.\d+$/)],
  [
    17,
    "every IPC message's sender is checked",
    async () => {
      const ipc = await source("src-main/host/electron/ipc.ts");
      expect(ipc.match(/ipcMain\.handle\(/g)).toHaveLength(1);
      expect(ipc).toMatch(/ipcMain\.handle\(channel, \(event[^)]*\) =>\s*\(?trusted\(event\)/);
      expect(mainSources).not.toMatch(/ipcMain\.on\(/);
      const frame = { url: "https://evil.example/", isMain: true };
      expect(isTrustedSender({ webContentsId: 1, frame }, 1, APP_ORIGIN)).toBe(false);
    },
  ],
  [
    18,
    "no file: pages, a scheme of our own",
    () => {
      expect(mainSources).not.toMatch(/\.loadFile\(|file:\/\/\$\{|bypassCSP/);
      expect(APP_ORIGIN.protocol).toBe("app:");
    },
  ],
  [19, "fuses: the nine below", () => expect(fuses.strictlyRequireAllFuses).toBe(true)],
  [
    20,
    "no Electron object is handed to the page",
    async () => {
      const preload = await source("src-preload/preload.ts");
      expect(preload.match(/exposeInMainWorld\(/g)).toHaveLength(1);
      expect(preload).toContain('exposeInMainWorld("weir", { call, on, pathOf })');
    },
  ],
];

describe("Electron's security checklist", () => {
  test("is complete", () => {
    expect(checklist.map(([item]) => item)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
  });
  test.each(checklist)("%i %s", (_item, _what, check) => check());
  test("beyond it: no developer tools, no spell checker that phones home, no drag navigation, no plugins", () => {
    expect(prefs).toMatchObject({ devTools: false, spellcheck: false, navigateOnDragDrop: false, plugins: false });
    expect(
      windowOptions({ preload: "", dev: true, dark: true, bounds: { width: 1, height: 1 } }).webPreferences,
    ).toEqual({
      ...options.webPreferences,
      preload: "",
      devTools: true,
    });
  });
  test("electron is imported under host/electron only", async () => {
    const root = fileURLToPath(new URL("../../src-main", import.meta.url));
    for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || entry.parentPath.includes(join("host", "electron"))) continue;
      expect(await readFile(join(entry.parentPath, entry.name), "utf8"), entry.name).not.toMatch(/from "electron"/);
    }
  });
});

describe("fuses", () => {
  test.each([
    ["RunAsNode", false],
    ["EnableCookieEncryption", true],
    ["EnableNodeOptionsEnvironmentVariable", false],
    ["EnableNodeCliInspectArguments", false],
    ["EnableEmbeddedAsarIntegrityValidation", true],
    ["OnlyLoadAppFromAsar", true],
    ["LoadBrowserProcessSpecificV8Snapshot", false],
    ["GrantFileProtocolExtraPrivileges", false],
    ["WasmTrapHandlers", true],
  ] as const)("%s: %s", (name, value) => {
    expect(fuses[FuseV1Options[name]]).toBe(value);
  });
  test("every fuse that this Electron has is stated", () => {
    const known = Object.values(FuseV1Options).filter((value) => typeof value === "number");
    expect(known).toHaveLength(9);
    expect(fuses.version).toBe(FuseVersion.V1);
  });
});
