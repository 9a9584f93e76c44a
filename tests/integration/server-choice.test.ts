import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Log } from "#shared/base/env.ts";
import { systemClock, systemRandom } from "../../src-main/env.ts";
import { ServerChoice } from "../../src-main/server-choice.ts";

const ignore = (): void => undefined;
const log: Log = { debug: ignore, info: ignore, warn: ignore, error: ignore, child: () => log };
const healthy = (url: string): Promise<boolean> =>
  fetch(`${url.replace("ws", "http")}/health`).then(
    (answer) => answer.ok,
    () => false,
  );

describe("the server in use", () => {
  let dataDir = "";
  let choice: ServerChoice;
  const enabled: string[] = [];
  const settings = { embeddedPort: 0 };

  beforeEach(async () => {
    dataDir = await mkdtemp(join(tmpdir(), "weir-choice-"));
    enabled.length = 0;
    settings.embeddedPort = 0;
    const env = { clock: systemClock, random: systemRandom, log };
    const signaling = { enable: (url: string) => void enabled.push(url) };
    choice = new ServerChoice({ env, dataDir, version: "test", settings, signaling });
  });
  afterEach(async () => {
    await choice.dispose();
    await rm(dataDir, { recursive: true, force: true });
  });

  test("the embedded one runs while it is chosen, and comes back on its port", async () => {
    const first = await choice.use("embedded");
    if (!first.ok) throw new Error(first.error.message);
    expect(await healthy(first.value)).toBe(true);
    await choice.use("ws://127.0.0.1:9");
    expect(await healthy(first.value)).toBe(false);
    expect(await choice.use("embedded")).toEqual(first);
    expect(enabled).toEqual([first.value, "ws://127.0.0.1:9", first.value]);
  });

  test("it moves when its port is taken", async () => {
    const other = createHttpServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    settings.embeddedPort = (other.address() as AddressInfo).port;
    const used = await choice.use("embedded");
    expect(used.ok && (await healthy(used.value))).toBe(true);
    expect(settings.embeddedPort).not.toBe((other.address() as AddressInfo).port);
    await new Promise((resolve) => other.close(resolve));
  });

  test("one that cannot start says why, and what was in use stays", async () => {
    await choice.use("ws://127.0.0.1:9");
    await mkdir(dataDir, { recursive: true });
    // A file where its folder should be.
    await writeFile(join(dataDir, "server"), "");
    expect(await choice.use("embedded")).toMatchObject({ ok: false, error: { type: "server_not_started" } });
    expect(enabled).toEqual(["ws://127.0.0.1:9"]);
    await rm(join(dataDir, "server"));
    expect((await choice.use("embedded")).ok).toBe(true);
  });

  test("changes asked for at once are made one after the other", async () => {
    const answers = await Promise.all([choice.use("embedded"), choice.use("ws://127.0.0.1:9"), choice.use("embedded")]);
    expect(answers.map((answer) => answer.ok)).toEqual([true, true, true]);
    expect(enabled[1]).toBe("ws://127.0.0.1:9");
    expect(enabled[0]).toBe(enabled[2]);
    expect(await healthy(enabled[2] ?? "")).toBe(true);
  });
});
