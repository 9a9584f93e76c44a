import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { _electron, type ElectronApplication } from "playwright-core";
import { findChromium } from "../../scripts/find-chromium.ts";

/** Starts the desktop program under Playwright: in the real Electron where its binary is, else in the stand-in. */
export const root = fileURLToPath(new URL("../../", import.meta.url));
const standInPath = fileURLToPath(new URL("./electron-standin/electron", import.meta.url));
const run = promisify(execFile);

const realElectron = (): string | null => {
  const folder = fileURLToPath(new URL("../../node_modules/electron/", import.meta.url));
  const names = { darwin: "Electron.app/Contents/MacOS/Electron", win32: "electron.exe" };
  const name = process.platform === "darwin" || process.platform === "win32" ? names[process.platform] : "electron";
  const path = `${folder}dist/${name}`;
  return existsSync(path) ? path : null;
};

export const isStandIn = realElectron() === null;
/** Without the binary and without Chromium there is nothing to run the tests in. */
const chromium = process.env["STANDIN_CHROMIUM"] ?? findChromium();
export const canLaunch = !isStandIn || (chromium !== null && process.platform !== "win32");

/** Builds the named parts around the fake app into a folder for one test file; returns the folder. */
export const buildFake = async (name: string, parts: readonly ("main" | "preload" | "renderer")[]): Promise<string> => {
  const folder = `${root}.weir/${name}`;
  const cli = createRequire(import.meta.url)
    .resolve("electron-vite/package.json")
    .replace(/package\.json$/, "");
  const args = [`${cli}bin/electron-vite.js`, "build", "-c", "tests/support/electron-fake.config.ts"];
  const env = { ...process.env, WEIR_BUILD_DIR: folder, WEIR_BUILD_PARTS: parts.join(",") };
  await run(process.execPath, args, { cwd: root, env });
  return folder;
};

/** `main`: a folder with package.json, or the built main file. */
export const launchElectron = (
  main: string,
  options: { readonly args?: readonly string[]; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<ElectronApplication> => {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries({
    ...process.env,
    STANDIN_CHROMIUM: chromium ?? undefined,
    ...options.env,
  })) {
    if (value !== undefined) env[name] = value;
  }
  const executablePath = realElectron() ?? standInPath;
  return _electron.launch({ executablePath, args: [main, ...(options.args ?? [])], env, cwd: root, timeout: 30_000 });
};
