import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { canLaunch, launchElectron, root } from "../support/electron-launch.ts";

/** The program as it is built for people (out/), whole: real app, worker thread, databases, embedded server, window. */
test.skipIf(!canLaunch)(
  "first start: a name, a chat list, a setting that outlives a restart",
  async () => {
    const dir = await mkdtemp(join(tmpdir(), "weir-app-"));
    const start = async () => {
      const app = await launchElectron(root, { args: [`--data=${dir}`, `--downloads=${join(dir, "downloads")}`] });
      const exit = once(app.process(), "exit");
      return { app, exit, page: await app.firstWindow() };
    };
    try {
      const first = await start();
      await first.page.getByLabel("Your name").fill("Alice");
      await first.page.getByRole("button", { name: "Start using Weir" }).click();
      await first.page.getByRole("heading", { name: "Nobody here yet" }).waitFor();
      const themed = await first.page.evaluate('window.weir.call("settings.set", { theme: "dark" })');
      expect(themed).toMatchObject({ ok: true, value: { theme: "dark" } });
      await first.app.close();
      expect(await first.exit).toEqual([0, null]);
      // The key is sealed and the database is not readable without it.
      expect((await readFile(join(dir, "profile", "app.db"))).includes("Alice")).toBe(false);

      const second = await start();
      await second.page.getByRole("heading", { name: "Nobody here yet" }).waitFor();
      const profile = await second.page.evaluate('window.weir.call("profile.get", {})');
      expect(profile).toMatchObject({ ok: true, value: { name: "Alice" } });
      expect(await second.app.evaluate(({ nativeTheme }) => nativeTheme.themeSource)).toBe("dark");
      await second.app.close();
      expect(await second.exit).toEqual([0, null]);
    } finally {
      await rm(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    }
  },
  120_000,
);
