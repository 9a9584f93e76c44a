import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { ensureAppBuilt } from "./app-build.ts";
import { findElectron, launchElectron } from "./electron.ts";
import { ended } from "./ended.ts";
import { openBrowser } from "./open-browser.ts";
import { note, root, seconds } from "./run.ts";

/**
 * `npm start`: Weir in its window. Where Electron cannot run, one line says why and the same program opens in the browser.
 */
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
  const end = await launchElectron(electron.executable, parsed.options).ended;
  if (end.type === "ended") return end.code;
  note("Electron cannot start on this system (its own message is above), so Weir opens in the browser.");
  return startHeadless(parsed.options);
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

process.exitCode = await main(process.argv.slice(2));
