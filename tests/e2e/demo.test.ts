import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Page } from "playwright-core";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { root } from "../../scripts/run.ts";
import { canLaunch, isStandIn } from "../support/electron-launch.ts";
import { ensureFreshBuild } from "../support/fresh-build.ts";
import { Person } from "../support/person.ts";

/** `npm run demo` as somebody starts it who wants to see Weir. */
beforeAll(ensureFreshBuild, 120_000);

describe("npm run demo", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "weir-demo-test-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));

  /** `electron` is the folder of the Electron to use. */
  const start = (electron: string) => {
    // Without a display nothing opens a browser on the machine of whoever runs the tests.
    const { DISPLAY, WAYLAND_DISPLAY, ...env } = process.env;
    const child = spawn(process.execPath, [join(root, "scripts", "demo.ts")], {
      env: { ...env, TMPDIR: dir, ELECTRON_OVERRIDE_DIST_PATH: electron },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
    }
    const exit = once(child, "exit");
    return { child, exit, output: () => output };
  };
  const patient = { timeout: 60_000, interval: 100 };

  /** The page of a stand-in's window, through the Chromium that it wrote its port of. */
  const pageIn = async (data: string): Promise<Page> => {
    const portFile = join(data, "DevToolsActivePort");
    await expect.poll(() => existsSync(portFile), patient).toBe(true);
    const port = (await readFile(portFile, "utf8")).split("\n")[0];
    const browser = await chromium.connectOverCDP(`http://127.0.0.1:${port}`);
    const pages = () => browser.contexts().flatMap((context) => context.pages());
    await expect.poll(() => pages().length, patient).toBe(1);
    const [page] = pages();
    if (page === undefined) throw new Error("the window is gone");
    return page;
  };

  test.skipIf(!(isStandIn && canLaunch))(
    "opens two windows in which Alice and Bob know each other, and leaves nothing when they are closed",
    async () => {
      const demo = start(join(root, "tests", "support", "electron-standin"));
      try {
        await expect.poll(demo.output, patient).toContain("removed when both windows are closed");
        const [home] = await readdir(dir);
        const [alice, bob] = await Promise.all(
          ["alice", "bob"].map(async (name) => new Person(name, await pageIn(join(dir, home ?? "", name)))),
        );
        if (alice === undefined || bob === undefined) throw new Error("two windows were expected");
        await alice.page.locator("[data-chat]").filter({ hasText: "Bob" }).click();
        await bob.page.locator("[data-chat]").filter({ hasText: "Alice" }).click();
        await alice.message("you send one first").waitFor();
        await alice.page.getByLabel("Message to Bob").fill("From window to window");
        await alice.page.keyboard.press("Enter");
        await bob.message("From window to window").waitFor();
        // The key of a demo's profile is where the desktop program keeps every key.
        const key = await readFile(join(dir, home ?? "", "alice", "profile", "key.json"), "utf8");
        expect(JSON.parse(key)).toMatchObject({ kind: "keystore" });
        for (const { page } of [alice, bob]) await page.close();
        expect(await demo.exit).toEqual([0, null]);
        expect(demo.output()).not.toContain("opens in the browser");
        expect(await readdir(dir)).toEqual([]);
      } finally {
        demo.child.kill("SIGTERM");
        await demo.exit;
      }
    },
    120_000,
  );

  test.skipIf(process.platform !== "linux")(
    "says in one line why there are no windows, and gives two pages instead",
    async () => {
      const demo = start(join(dir, "nowhere"));
      try {
        // Two streams: what is for people and what is for programs may arrive in any order.
        const lines = (): string[] => demo.output().trimEnd().split("\n").sort();
        await expect.poll(lines, patient).toHaveLength(4);
        expect(lines()).toEqual([
          expect.stringMatching(/^Alice {2}http:\/\/127\.0\.0\.1:\d+\/#\S+$/),
          expect.stringMatching(/^Bob {4}http:\/\/127\.0\.0\.1:\d+\/#\S+$/),
          "ELECTRON_OVERRIDE_DIST_PATH holds no Electron, so Alice and Bob open in the browser.",
          expect.stringMatching(/^Everything lives in .* is removed when you press Ctrl\+C\.$/),
        ]);
        for (const line of lines().filter((text) => /^(Alice|Bob) /.test(text))) {
          expect((await fetch(line.slice(7).trim())).status).toBe(200);
        }
      } finally {
        demo.child.kill("SIGTERM");
      }
      expect(await demo.exit).toEqual([0, null]);
      expect(await readdir(dir)).toEqual([]);
    },
    120_000,
  );
});
