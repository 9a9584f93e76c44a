import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { follow, sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { canLaunch, launchElectron, root } from "../support/electron-launch.ts";
import { ensureFreshBuild } from "../support/fresh-build.ts";
import { Person } from "../support/person.ts";
import { createWorld } from "../support/profiles.ts";

/** The program as it is built for people (out/), whole: real app, worker thread, databases, embedded server, window. */
beforeAll(ensureFreshBuild, 120_000);

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

/** One in the desktop window, one without: both with real programs and a real server. */
test.skipIf(!canLaunch)(
  "pairs, writes, and sends and receives files; only what was dropped can be sent",
  async () => {
    await using world = await createWorld();
    const bob = await world.profile("Bob");
    const data = join(world.dir, "Alice");
    const app = await launchElectron(root, {
      args: [`--data=${data}`, `--server=${world.serverUrl()}`, "--name=Alice", `--downloads=${join(data, "files")}`],
    });
    try {
      const alice = new Person("Alice", await app.firstWindow());
      const code = await alice.invite();
      await bob.call("invites.accept", { invite: code });
      await alice.page.getByRole("heading", { name: "Bob wants to connect" }).waitFor();
      expect(await alice.safetyWords()).toEqual((await bob.call("contacts.list", {}))[0]?.safetyWords);
      await alice.page.getByRole("button", { name: "Accept", exact: true }).click();
      await alice.page.getByLabel("Message to Bob").fill("From the desktop");
      await alice.page.keyboard.press("Enter");
      const [contact] = await bob.call("contacts.list", {});
      const chatId = contact?.userId ?? "";
      const ofBob = (text: string) =>
        bob.until(text, async () => {
          const list = await bob.call("messages.list", { chatId, limit: 10 });
          return list.find((message) => message.text === text || message.file?.name === text) ?? null;
        });
      await ofBob("From the desktop");
      await bob.call("messages.send", { chatId, text: "To the desktop" });
      await alice.message("To the desktop").waitFor();

      const path = join(world.dir, "dropped.bin");
      const sha256 = await writeRandomFile(path, 3_000_000);
      const refused = `window.weir.call("files.share", ${JSON.stringify({ chatId: bob.userId, path })})`;
      expect(await alice.page.evaluate(refused)).toMatchObject({ ok: false, error: { type: "path_not_granted" } });
      await alice.dropFromDisk(path);
      await alice.card("dropped.bin").getByText("Shared from this device").waitFor();
      const { file } = await ofBob("dropped.bin");
      expect(file).toMatchObject({ sizeBytes: 3_000_000, sha256 });
      const { view } = await follow(bob, file?.fileId ?? "", 30_000);
      expect(await sha256OfFile(view.savedPath ?? "")).toBe(sha256);

      const back = join(world.dir, "back.bin");
      const backSha256 = await writeRandomFile(back, 5_000_000);
      await bob.call("files.share", { chatId, path: back });
      await alice.page.getByRole("button", { name: "Download back.bin" }).click();
      await alice.card("back.bin").getByText("Done, verified").waitFor();
      expect(await sha256OfFile(join(data, "files", "back.bin"))).toBe(backSha256);
      expect(alice.problems).toEqual([]);
    } finally {
      await app.close();
    }
  },
  120_000,
);
