import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ElectronApplication, Page } from "playwright-core";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Result } from "#shared/base/result.ts";
import { encodeInviteLink } from "#shared/wire/invite.ts";
import { systemRandom } from "../../src-main/env.ts";
import { counted } from "../support/counts.ts";
import { buildFake, canLaunch, isStandIn, launchElectron } from "../support/electron-launch.ts";
import type { RecordedCall } from "../support/electron-standin/recorded.ts";
import { FAKE_USER } from "../support/fake-app.ts";
import { hostileUrls } from "../support/hostile-urls.ts";

/**
 * The desktop program with its real shell, preload script and page, around an app that keeps nothing: in the real
 * Electron where its binary is, else in the stand-in (see its README for what that cannot show).
 */
let main: string;
let dir: string;
let app: ElectronApplication;
let page: Page;
let child: ReturnType<ElectronApplication["process"]>;
let exit: Promise<unknown[]>;

const start = async (options: { args?: string[]; env?: NodeJS.ProcessEnv } = {}): Promise<void> => {
  app = await launchElectron(main, { ...options, args: [`--data=${dir}`, ...(options.args ?? [])] });
  child = app.process();
  exit = once(child, "exit");
  page = await app.firstWindow();
  await page.waitForSelector("#app > *");
};
/** What the page itself can do, in the words of the page. */
const inPage = <T>(expression: string): Promise<T> => page.evaluate(expression) as Promise<T>;
const recorded = (): Promise<RecordedCall[]> =>
  app.evaluate((electron) => (electron as unknown as { standin: { calls: RecordedCall[] } }).standin.calls);
const namesOf = async (name: string): Promise<RecordedCall[]> =>
  (await recorded()).filter((call) => call.name === name);
const answer = (name: "showMessageBox" | "showOpenDialog", value: number | string[]): Promise<void> =>
  app.evaluate(
    (electron, [key, given]) => {
      const { standin } = electron as unknown as { standin: { answers: Record<string, unknown> } };
      standin.answers[key as string] = given;
    },
    [name, value] as const,
  );

describe.skipIf(!canLaunch)("the desktop program", () => {
  beforeAll(async () => {
    main = join(await buildFake("electron-shell", ["main", "preload", "renderer"]), "main", "main.js");
  }, 120_000);
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "weir-electron-"));
  });
  afterEach(async () => {
    if (child.exitCode === null) await app.close();
    await rm(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  });

  test("starts, shows its first screen, answers over IPC, and quits with 0", { timeout: 60_000 }, async () => {
    await start();
    expect(await page.title()).toContain("Weir");
    expect(await inPage("Object.isFrozen(window.weir) && Object.keys(window.weir).join()")).toBe("call,on,pathOf");
    expect(await inPage("typeof require + typeof process + typeof module")).toBe("undefinedundefinedundefined");
    const info = await inPage<Result<unknown>>('window.weir.call("host.info", {})');
    expect(info).toMatchObject({
      ok: true,
      value: { kind: "electron", canPick: true, canOpen: true, dataDirectory: join(dir, "profile") },
    });
    expect(await inPage('window.weir.call("messages.send", { chatId: "x" })')).toMatchObject({
      error: { type: "bad_input" },
    });
    await app.close();
    expect(await exit).toEqual([0, null]);
    // What it left behind: the profile folder, private, with the sealed key and the window's place.
    expect((await stat(join(dir, "profile"))).mode & 0o777).toBe(0o700);
    expect((await readdir(join(dir, "profile"))).sort()).toEqual(["key.json", "window.json"]);
    expect(JSON.parse(await readFile(join(dir, "profile", "key.json"), "utf8"))).toMatchObject({ kind: "keystore" });
  });

  test("closing the window ends the program", { timeout: 60_000 }, async () => {
    await start();
    await page.close();
    expect(await exit).toEqual([0, null]);
  });

  test("the page cannot leave, open windows, or load anything from elsewhere", { timeout: 60_000 }, async () => {
    await start();
    const before = page.url();
    await inPage("void (location.href = 'https://example.com/')");
    await inPage("void (location.href = 'data:text/html,x')");
    await inPage("void window.open('file:///etc/passwd')");
    const fetched = await inPage("fetch('https://example.com/').then(() => 'loaded', () => 'refused')");
    expect(fetched).toBe("refused");
    const inline = "document.head.append(Object.assign(document.createElement('style'), { textContent: 'x{}' }))";
    expect(await inPage(`(() => { ${inline}; return document.styleSheets.length })()`)).toBe(1);
    // In a timer: what the debugger evaluates itself is exempt from the policy.
    const evaluated = "try { eval('1'); done('ran') } catch (error) { done(error.name) }";
    expect(await inPage(`new Promise((done) => setTimeout(() => { ${evaluated} }))`)).toBe("EvalError");
    await expect(inPage("void (document.body.innerHTML = '<b>x</b>')")).rejects.toThrow(/TrustedHTML/);
    expect(page.url()).toBe(before);
    expect(app.windows()).toHaveLength(1);
    expect(await inPage('window.weir.call("host.info", {})')).toMatchObject({ ok: true });
  });

  test.runIf(isStandIn)(
    "hostile links open nothing; a good one opens once it was confirmed",
    { timeout: 60_000 },
    async () => {
      await start();
      await answer("showMessageBox", 1);
      // Chromium resolves and rewrites an address before it asks; what is http, https or mailto then is a link like any
      // other, and relative ones depend on the page's own scheme, which the stand-in replaces.
      const foreign = hostileUrls.filter((url) => !/^(https?|mailto):/.test(URL.parse(url)?.protocol ?? "https:"));
      expect(foreign.length).toBeGreaterThan(150);
      // What is decided about each is tested without a window; here every nth goes the whole way, which makes a window.
      const tried = foreign.filter((_, i) => i % counted(4, 1) === 0);
      for (const url of tried) {
        await inPage(`void window.open(${JSON.stringify(url)}, "_blank", "noopener")`).catch(() => undefined);
      }
      expect((await namesOf("window.open")).length).toBeGreaterThan(tried.length / 2);
      expect(await namesOf("shell.openExternal")).toEqual([]);
      expect(await namesOf("dialog.showMessageBox")).toEqual([]);
      await inPage("void window.open('https://example.com/a', '_blank', 'noopener')");
      await expect.poll(() => namesOf("shell.openExternal")).toHaveLength(1);
      expect(await namesOf("shell.openExternal")).toEqual([
        { name: "shell.openExternal", args: ["https://example.com/a"] },
      ]);
      await answer("showMessageBox", 0);
      const asked = (await namesOf("dialog.showMessageBox")).length;
      await inPage("void window.open('https://example.com/b', '_blank', 'noopener')");
      await expect.poll(async () => (await namesOf("dialog.showMessageBox")).length).toBe(asked + 1);
      expect(await namesOf("shell.openExternal")).toHaveLength(1);
      // The stand-in's browser makes the window before it is denied.
      await expect.poll(() => app.windows()).toHaveLength(1);
    },
  );

  test("the page saves its report where the person says, and nothing else", { timeout: 60_000 }, async () => {
    await start();
    const save = (url: string, filename: string) =>
      app.evaluate(
        ({ session }, [address, name]) => {
          const outcome: { prevented: boolean; defaultPath: string | null } = { prevented: false, defaultPath: null };
          const event = { preventDefault: () => Object.assign(outcome, { prevented: true }) };
          const item = {
            getURL: () => address,
            getFilename: () => name,
            setSaveDialogOptions: ({ defaultPath }: { defaultPath: string }) => Object.assign(outcome, { defaultPath }),
          };
          (session.defaultSession as unknown as NodeJS.EventEmitter).emit("will-download", event, item);
          return outcome;
        },
        [url, filename] as const,
      );
    expect(await save("blob:app://weir/1", "weir-diagnostics.json")).toEqual({
      prevented: false,
      defaultPath: expect.stringMatching(/weir-diagnostics\.json$/),
    });
    const stopped = { prevented: true, defaultPath: null };
    expect(await save("blob:https://evil.example/1", "weir-diagnostics.json")).toEqual(stopped);
    expect(await save("blob:app://weir/1", "weir.exe")).toEqual(stopped);
  });

  test("files are named by handles only", { timeout: 60_000 }, async () => {
    await start();
    const file = join(dir, "letter.txt");
    await writeFile(file, "x");
    await inPage(
      "void document.body.append(Object.assign(document.createElement('input'), { type: 'file', id: 'pick' }))",
    );
    await page.setInputFiles("#pick", file);
    const handle = await inPage<string>("window.weir.pathOf(document.getElementById('pick').files[0])");
    expect(handle).toMatch(/^grant:[A-Za-z0-9_-]{22}$/);
    const share = (path: string) =>
      inPage(`window.weir.call("files.share", { chatId: "${FAKE_USER}", path: ${JSON.stringify(path)} })`);
    // The fake app keeps nothing, so "not_found" is its own answer: the handle was accepted.
    expect(await share(handle)).toMatchObject({ error: { type: "not_found" } });
    expect(await share(file)).toMatchObject({ error: { type: "path_not_granted" } });
    expect(await inPage("window.weir.pathOf(new File(['x'], 'made-up')).catch((e) => e.message)")).toMatch(/disk/);
  });

  test.runIf(isStandIn)(
    "dialogs give handles, opening asks, and nothing is opened unasked",
    { timeout: 60_000 },
    async () => {
      await start();
      const file = join(dir, "letter.txt");
      await writeFile(file, "four");
      await answer("showOpenDialog", [file]);
      expect(await inPage('window.weir.call("host.pickFiles", {})')).toMatchObject({
        value: [{ path: expect.stringMatching(/^grant:/), name: "letter.txt", sizeBytes: 4 }],
      });
      await answer("showOpenDialog", []);
      expect(await inPage('window.weir.call("host.pickDirectory", {})')).toEqual({ ok: true, value: { path: null } });
      expect(await inPage('window.weir.call("host.open", { fileId: "AAAAAAAAAAAAAAAAAAAAAA" })')).toMatchObject({
        error: { type: "not_saved" },
      });
      expect(await namesOf("shell.openPath")).toEqual([]);
    },
  );

  test.runIf(isStandIn)(
    "an invitation link waits for the page; a malformed one is nothing",
    { timeout: 60_000 },
    async () => {
      const bytes = (length: number) => systemRandom.bytes(length);
      const link = encodeInviteLink({
        accountKey: bytes(32),
        identityKey: bytes(33),
        inviteId: bytes(16),
        secret: bytes(32),
        serverUrl: "ws://127.0.0.1:1",
      });
      await start();
      await inPage(
        "void (window.opened = [], window.weir.on('invite.opened', (opened) => window.opened.push(opened)))",
      );
      const second = (argument: string) =>
        app.evaluate(
          ({ app: electronApp }, argv) => void electronApp.emit("second-instance", {}, argv, ""),
          ["weir", argument],
        );
      await second("weir://invite/AAAA");
      await second(link);
      await expect.poll(() => inPage("window.opened")).toEqual([{ link }]);
    },
  );

  test("one profile, one program: a second one ends at once", { timeout: 60_000 }, async () => {
    await start();
    const { execFile } = await import("node:child_process");
    const second = execFile(app.process().spawnfile, [main, `--data=${dir}`], { env: process.env });
    const [code] = await once(second, "exit");
    expect(code).toBe(0);
    expect(await inPage('window.weir.call("host.info", {})')).toMatchObject({ ok: true });
  });

  test.runIf(isStandIn)(
    "without a keyring it starts, and the key moves when there is one",
    { timeout: 60_000 },
    async () => {
      const kind = async () => JSON.parse(await readFile(join(dir, "profile", "key.json"), "utf8")).kind;
      await start({ env: { STANDIN_KEYRING: "none" } });
      expect(await kind()).toBe("file");
      await app.close();
      await start();
      expect(await kind()).toBe("keystore");
    },
  );
});
