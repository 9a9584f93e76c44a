import { EventEmitter } from "node:events";
import { closeSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { closeBrowser, killBrowser } from "./browser.ts";
import { PreventableEvent, record } from "./recorded.ts";

/** `app`: life cycle, paths, switches. Windows register themselves, so that quitting can close them. */
interface ClosableWindow {
  close(): Promise<void>;
}

class CommandLine {
  readonly switches: string[] = [];
  appendSwitch(name: string, value = ""): void {
    if (name !== "" && !name.startsWith("remote-debugging"))
      this.switches.push(`--${name}${value === "" ? "" : `=${value}`}`);
  }
  appendArgument(): void {}
  hasSwitch(name: string): boolean {
    return process.argv.some((argument) => argument === `--${name}` || argument.startsWith(`--${name}=`));
  }
  getSwitchValue(name: string): string {
    const prefix = `--${name}=`;
    return process.argv.find((argument) => argument.startsWith(prefix))?.slice(prefix.length) ?? "";
  }
}

class App extends EventEmitter {
  readonly commandLine = new CommandLine();
  readonly windows = new Set<ClosableWindow>();
  readonly isPackaged = false;
  quitting = false;
  name = "Electron";
  #version = "0.0.0";
  #folder = process.cwd();
  readonly #paths = new Map<string, string>();
  readonly #ready = Promise.withResolvers<void>();
  #isReady = false;
  #lockPath: string | null = null;

  load(folder: string, manifest: { name?: string; productName?: string; version?: string }): void {
    this.#folder = folder;
    this.name = manifest.productName ?? manifest.name ?? this.name;
    this.#version = manifest.version ?? this.#version;
  }
  becomeReady(): void {
    this.#isReady = true;
    this.emit("ready", {}, {});
    this.#ready.resolve();
  }

  whenReady(): Promise<void> {
    return this.#ready.promise;
  }
  isReady(): boolean {
    return this.#isReady;
  }
  getName(): string {
    return this.name;
  }
  getVersion(): string {
    return this.#version;
  }
  getAppPath(): string {
    return this.#folder;
  }
  getLocale(): string {
    return "en-US";
  }
  setPath(name: string, path: string): void {
    this.#paths.set(name, path);
  }
  getPath(name: string): string {
    const set = this.#paths.get(name);
    if (set !== undefined) return set;
    const appData = this.#paths.get("appData") ?? process.env["XDG_CONFIG_HOME"] ?? join(homedir(), ".config");
    switch (name) {
      case "home":
        return homedir();
      case "temp":
        return tmpdir();
      case "appData":
        return appData;
      case "userData":
      case "sessionData":
        return this.#paths.get("userData") ?? join(appData, this.name);
      default:
        return join(homedir(), `${name.charAt(0).toUpperCase()}${name.slice(1)}`);
    }
  }

  /** One instance a profile: a lock file with a process id. A second instance is refused; it does not call the first. */
  requestSingleInstanceLock(): boolean {
    const path = join(
      tmpdir(),
      `standin-${Buffer.from(this.getPath("userData")).toString("base64url").slice(-180)}.lock`,
    );
    for (let attempt = 0; attempt < 2; attempt++) {
      try {
        const file = openSync(path, "wx");
        writeSync(file, String(process.pid));
        closeSync(file);
        this.#lockPath = path;
        process.on("exit", () => this.releaseSingleInstanceLock());
        return true;
      } catch {
        if (holderLives(path)) return false;
        rmSync(path, { force: true });
      }
    }
    return false;
  }
  hasSingleInstanceLock(): boolean {
    return this.#lockPath !== null;
  }
  releaseSingleInstanceLock(): void {
    if (this.#lockPath !== null) rmSync(this.#lockPath, { force: true });
    this.#lockPath = null;
  }

  enableSandbox(): void {
    record("app.enableSandbox");
  }
  setAsDefaultProtocolClient(scheme: string): boolean {
    record("app.setAsDefaultProtocolClient", scheme);
    return true;
  }
  setAppUserModelId(id: string): void {
    record("app.setAppUserModelId", id);
  }
  setBadgeCount(count: number): boolean {
    record("app.setBadgeCount", count);
    return true;
  }
  disableHardwareAcceleration(): void {}
  focus(): void {}

  /** before-quit, every window closes (each may refuse), will-quit (may be prevented), quit, exit. */
  quit(): void {
    if (this.quitting) return;
    const before = new PreventableEvent();
    this.emit("before-quit", before);
    if (before.defaultPrevented) return;
    this.quitting = true;
    void this.#closeAndQuit();
  }
  async #closeAndQuit(): Promise<void> {
    await Promise.all([...this.windows].map((window) => window.close()));
    const will = new PreventableEvent();
    if (this.windows.size === 0) this.emit("will-quit", will);
    if (will.defaultPrevented || this.windows.size > 0) {
      this.quitting = false;
      return;
    }
    this.emit("quit", {}, 0);
    await this.#end(0);
  }
  exit(code = 0): void {
    this.quitting = true;
    void this.#end(code);
  }
  async #end(code: number): Promise<void> {
    await closeBrowser(5000);
    killBrowser();
    process.exit(code);
  }
  relaunch(): void {
    record("app.relaunch");
  }
}

const holderLives = (path: string): boolean => {
  try {
    process.kill(Number(readFileSync(path, "utf8")), 0);
    return true;
  } catch {
    return false;
  }
};

export const app = new App();
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => app.quit());
