import { type ChildProcess, spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { assert } from "#shared/base/assert.ts";
import { app } from "./app.ts";
import { CdpConnection, type CdpEvent } from "./cdp.ts";

/** The one Chromium whose pages are the windows. */
let child: ChildProcess | null = null;
let connection: CdpConnection | null = null;

export const cdp = (): CdpConnection => {
  assert(connection !== null, "no window before the app is ready");
  return connection;
};

const targetListeners = new Set<(method: string, params: CdpEvent) => void>();
export const onTargetEvent = (listener: (method: string, params: CdpEvent) => void): void => {
  targetListeners.add(listener);
};

const SWITCHES = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--no-startup-window",
  "--remote-debugging-port=0",
];

/** Starts Chromium with the app's switches; its stderr carries the line that Playwright waits for. */
export const startBrowser = async (): Promise<void> => {
  const profile = app.getPath("userData");
  await mkdir(profile, { recursive: true });
  const given = process.argv.slice(1).filter((argument) => argument.startsWith("--") && !isOurs(argument));
  const args = [...SWITCHES, `--user-data-dir=${profile}`, ...app.commandLine.switches, ...given];
  const started = spawn(process.env["STANDIN_CHROMIUM"] ?? "/usr/bin/chromium", args, {
    stdio: ["ignore", "ignore", "pipe"],
  });
  child = started;
  started.once("exit", () => {
    if (!app.quitting) app.exit(1);
  });
  const url = await new Promise<string>((resolve) => {
    let text = "";
    started.stderr.setEncoding("utf8").on("data", (piece: string) => {
      process.stderr.write(piece);
      if (text.length < 65_536) text += piece;
      const match = /DevTools listening on (ws:\S+)/.exec(text);
      if (match?.[1] !== undefined) resolve(match[1]);
    });
  });
  connection = await CdpConnection.open(url, (method, params) => {
    for (const listener of targetListeners) listener(method, params);
  });
  await connection.send("Target.setDiscoverTargets", { discover: true });
  app.becomeReady();
};

const isOurs = (argument: string): boolean =>
  /^--(inspect|remote-debugging|user-data-dir|data=|server=|name=|downloads=)/.test(argument);

/** Lets Chromium write its profile; false when it does not end by itself in time. */
export const closeBrowser = async (timeoutMs: number): Promise<void> => {
  const running = child;
  if (running === null || running.exitCode !== null || connection === null) return;
  const ended = new Promise<void>((resolve) => running.once("exit", () => resolve()));
  connection.send("Browser.close").catch(() => undefined);
  await Promise.race([ended, new Promise<void>((resolve) => setTimeout(resolve, timeoutMs).unref())]);
};

export const killBrowser = (): void => {
  child?.kill("SIGKILL");
};
process.on("exit", killBrowser);
