import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

/** Browsers of the Chromium family, where each system keeps them. */
const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
const PLACES: Partial<Record<NodeJS.Platform, readonly string[]>> = {
  darwin: [
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  ],
  win32: [
    "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
    "C:\\Program Files (x86)\\Google\\Chrome\\Application\\chrome.exe",
    "C:\\Program Files (x86)\\Microsoft\\Edge\\Application\\msedge.exe",
  ],
};

/** The browser for the end-to-end tests: `WEIR_CHROMIUM`, or one that is installed. Null when there is none. */
export const findChromium = (): string | null => {
  const named = process.env["WEIR_CHROMIUM"];
  if (named !== undefined) return existsSync(named) ? named : null;
  const inPath = (process.env["PATH"] ?? "")
    .split(delimiter)
    .flatMap((folder) => NAMES.map((name) => join(folder, name)));
  return [...inPath, ...(PLACES[process.platform] ?? [])].find((path) => existsSync(path)) ?? null;
};
