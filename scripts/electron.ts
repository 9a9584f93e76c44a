import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ended } from "./ended.ts";
import { note, root, run } from "./run.ts";

/** Finds the Electron binary, gets it where it can be had, and runs the built app in it. */
const PROBE_TIMEOUT_MS = 5_000;
/** About 120 MB over a slow line. */
const DOWNLOAD_TIMEOUT_MS = 15 * 60_000;
/** Long enough for the installer to take Electron from its cache when there is no network. */
const UNREACHABLE_DOWNLOAD_TIMEOUT_MS = 10_000;
/** An Electron that dies of a signal this early could not start at all (sandbox, display, libraries). */
const EARLY_CRASH_MS = 5_000;

const electronPackage = join(root, "node_modules", "electron");

type Electron =
  | { readonly type: "ready"; readonly executable: string }
  /** `reason` is the first half of a sentence. */
  | { readonly type: "unavailable"; readonly reason: string };

export const findElectron = async (): Promise<Electron> => {
  // Whoever names an Electron of their own knows where it runs.
  const hindrance = process.env["ELECTRON_OVERRIDE_DIST_PATH"] === undefined ? electronHindrance() : null;
  if (hindrance !== null) return { type: "unavailable", reason: hindrance };
  const present = electronExecutable();
  if (present !== null) return { type: "ready", executable: present };
  if (process.env["ELECTRON_OVERRIDE_DIST_PATH"] !== undefined) {
    return { type: "unavailable", reason: "ELECTRON_OVERRIDE_DIST_PATH holds no Electron" };
  }
  return downloadElectron();
};

/** What would keep any Electron from running here. */
const electronHindrance = (): string | null => {
  if (!existsSync(electronPackage)) return "Electron is not installed";
  if (process.platform !== "linux") return null;
  if (!process.env["DISPLAY"] && !process.env["WAYLAND_DISPLAY"]) return "There is no display for a window";
  return process.getuid?.() === 0 ? "Electron does not run as root" : null;
};

/** The executable where the package's own index.js would look for it; importing that file would start a download. */
const electronExecutable = (): string | null => {
  const names = { darwin: "Electron.app/Contents/MacOS/Electron", win32: "electron.exe" } as const;
  const name = process.platform === "darwin" || process.platform === "win32" ? names[process.platform] : "electron";
  const folder = process.env["ELECTRON_OVERRIDE_DIST_PATH"] ?? join(electronPackage, "dist");
  const executable = join(folder, name);
  return existsSync(executable) ? executable : null;
};

const downloadElectron = async (): Promise<Electron> => {
  const mirror = process.env["ELECTRON_MIRROR"] ?? "https://github.com/electron/electron/releases/";
  const unreachable = await probe(mirror);
  if (unreachable === null) note("Downloading Electron, once (about 120 MB) ...");
  const timeoutMs = unreachable === null ? DOWNLOAD_TIMEOUT_MS : UNREACHABLE_DOWNLOAD_TIMEOUT_MS;
  const installer = join(electronPackage, "install.js");
  const ran = await run(process.execPath, [installer], { timeoutMs, streams: "capture" });
  const executable = electronExecutable();
  if (ran.code === 0 && executable !== null) return { type: "ready", executable };
  if (unreachable !== null) {
    return {
      type: "unavailable",
      reason: `Electron cannot be downloaded from ${new URL(mirror).host} (${unreachable})`,
    };
  }
  const why = ran.timedOut
    ? "it took too long"
    : (ran.output.split("\n").find((line) => line.trim() !== "") ?? "no reason given");
  return { type: "unavailable", reason: `Electron cannot be downloaded (${why.trim()})` };
};

/** Null when the server answers at all, else why not. */
const probe = async (url: string): Promise<string | null> => {
  try {
    await fetch(url, { method: "HEAD", redirect: "manual", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    return null;
  } catch (error) {
    const cause = error instanceof Error ? (error.cause ?? error) : error;
    if (cause instanceof Error && "code" in cause && typeof cause.code === "string") return cause.code;
    return cause instanceof Error ? cause.message : String(cause);
  }
};

type ElectronEnd = { readonly type: "ended"; readonly code: number } | { readonly type: "crashedAtStart" };

/** `options` as src-main/host/electron/arguments.ts reads them. `stop` asks the program to end in order. */
export const launchElectron = (
  executable: string,
  options: readonly string[],
): { readonly ended: Promise<ElectronEnd>; stop(): void } => {
  const begun = performance.now();
  const child = spawn(executable, [root, ...options], { stdio: "inherit" });
  let stopped = false;
  const judge = async (): Promise<ElectronEnd> => {
    const { code, signal, asked } = await ended(child);
    if (code !== null) return { type: "ended", code };
    if (asked || stopped) return { type: "ended", code: 0 };
    note(signal === null ? "Electron could not be started" : `Electron was ended by ${signal}`);
    return performance.now() - begun < EARLY_CRASH_MS ? { type: "crashedAtStart" } : { type: "ended", code: 1 };
  };
  const stop = (): void => {
    stopped = true;
    child.kill("SIGTERM");
  };
  return { ended: judge(), stop };
};
