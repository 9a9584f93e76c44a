import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { ensureAppBuilt } from "./app-build.ts";
import { openBrowser } from "./open-browser.ts";
import { note, root, run, seconds } from "./run.ts";

/**
 * `npm start`: Weir in its window. Where Electron cannot run, one line says why and the same program opens in the browser.
 */
const PROBE_TIMEOUT_MS = 5_000;
/** About 120 MB over a slow line. */
const DOWNLOAD_TIMEOUT_MS = 15 * 60_000;
/** Long enough for the installer to take Electron from its cache when there is no network. */
const UNREACHABLE_DOWNLOAD_TIMEOUT_MS = 10_000;
/** An Electron that dies of a signal this early could not start at all (sandbox, display, libraries). */
const EARLY_CRASH_MS = 5_000;

const electronPackage = join(root, "node_modules", "electron");

type Electron = { type: "ready"; executable: string } | { type: "unavailable"; reason: string };

const USAGE = "npm start -- [--headless] [--data DIR] [--server URL] [--name NAME] [--downloads DIR] [--port PORT]";

/** The options as both hosts take them: `--name=value`. `--port` is of use without a window only. */
type Options = readonly string[];

const parseOptions = (args: string[]): { headless: boolean; options: Options } => {
  const text = { type: "string" } as const;
  const options = {
    headless: { type: "boolean" },
    data: text,
    server: text,
    name: text,
    downloads: text,
    port: text,
  } as const;
  const { headless = false, ...values } = parseArgs({ args, options }).values;
  const data = values.data ?? process.env["WEIR_DATA"];
  return {
    headless,
    options: Object.entries({ ...values, data }).flatMap(([name, value]) => (value ? [`--${name}=${value}`] : [])),
  };
};

const main = async (args: string[]): Promise<number> => {
  let parsed: ReturnType<typeof parseOptions>;
  try {
    parsed = parseOptions(args);
  } catch (error) {
    note(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    return 2;
  }
  const build = await ensureAppBuilt();
  if (build.type === "failed" || build.type === "impossible") {
    note(build.message);
    return 1;
  }
  if (build.type === "built") note(`built the app (${seconds(build.ms)})`);
  if (parsed.headless) return startHeadless(parsed.options);

  const electron = await findElectron();
  if (electron.type === "unavailable") {
    note(`${electron.reason}, so Weir opens in the browser.`);
    return startHeadless(parsed.options);
  }
  const code = await startElectron(electron.executable, parsed.options);
  if (code !== "crashed at start") return code;
  note("Electron cannot start on this system (its own message is above), so Weir opens in the browser.");
  return startHeadless(parsed.options);
};

const findElectron = async (): Promise<Electron> => {
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

const startElectron = async (executable: string, options: Options): Promise<number | "crashed at start"> => {
  const begun = performance.now();
  const child = spawn(executable, [root, ...options], { stdio: "inherit" });
  const { code, signal } = await ended(child);
  if (code !== null) return code;
  if (stopping) return 0;
  note(signal === null ? "Electron could not be started" : `Electron was ended by ${signal}`);
  return performance.now() - begun < EARLY_CRASH_MS ? "crashed at start" : 1;
};

/** Not Electron's own folder: there the operating system keeps the key, here a key file does. */
const defaultDataDir = (): string => {
  const home = homedir();
  switch (process.platform) {
    case "darwin":
      return join(home, "Library", "Application Support", "weir-headless");
    case "win32":
      return join(process.env["APPDATA"] ?? join(home, "AppData", "Roaming"), "weir-headless");
    default:
      return join(process.env["XDG_DATA_HOME"] ?? join(home, ".local", "share"), "weir-headless");
  }
};

const startHeadless = async (options: Options): Promise<number> => {
  const data = defaultDataDir();
  const named = options.some((option) => option.startsWith("--data="));
  if (!named) await mkdir(data, { recursive: true, mode: 0o700 });
  const args = named ? options : [`--data=${data}`, ...options];
  const child = spawn(process.execPath, [join(root, "src-main", "headless.ts"), ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    // A person reads this terminal; whoever wants the log sets WEIR_LOG.
    env: { WEIR_LOG: "warn", ...process.env },
  });
  createInterface({ input: child.stdout }).once("line", (line) => {
    const { url, token }: { url: string; token: string } = JSON.parse(line);
    const page = `${url}#${token}`;
    note(`Weir is running at ${page}`);
    note(
      openBrowser(page)
        ? "It opens in your browser; Ctrl+C ends it."
        : "Open that address in a browser; Ctrl+C ends it.",
    );
  });
  const { code } = await ended(child);
  return code ?? 1;
};

let stopping = false;

/** Waits for the end of the program and hands our own signals on, so that it can drain and end in order. */
const ended = (child: ChildProcess): Promise<{ code: number | null; signal: NodeJS.Signals | null }> => {
  const stop = (signal: NodeJS.Signals): void => {
    stopping = true;
    // A terminal sends Ctrl+C to the whole group; a second SIGINT would cut the orderly end short.
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  return new Promise((resolve) => {
    child.once("error", () => resolve({ code: null, signal: null }));
    child.once("exit", (code, signal) => resolve({ code, signal }));
  });
};

process.exitCode = await main(process.argv.slice(2));
