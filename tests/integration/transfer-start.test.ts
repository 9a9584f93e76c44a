import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { chatIdOf, UserIdSchema } from "#shared/base/ids.ts";
import { forkEngine } from "../../src-main/host/headless/fork-engine.ts";
import { startApp } from "../../src-main/start-app.ts";
import { realEnv, temporaryFolder, workerUrl } from "../support/files.ts";

const NOBODY = chatIdOf(v.parse(UserIdSchema, "a".repeat(32)));

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.dispose());

const start = (dataDir: string) =>
  startApp({
    env: realEnv,
    dataDir,
    vault: { load: () => Promise.resolve({ key: new Uint8Array(32), protection: "file" }) },
    defaultDownloadDirectory: join(folder.path, "downloads"),
    chunkWorkerUrl: workerUrl,
    forkEngine,
    version: "0.0.0",
    recentLog: { entries: () => [] },
  });

describe("the app", () => {
  test("starts with a chunks.db that is damaged, makes a new one, and says so", async () => {
    const dataDir = join(folder.path, "profile");
    await mkdir(dataDir);
    await writeFile(join(dataDir, "chunks.db"), Buffer.alloc(200_000, 7));
    const app = await start(dataDir);
    const told: string[] = [];
    app.events((event) => {
      if (event.event === "notice") told.push(event.payload.type);
    });
    await expect.poll(() => told, { timeout: 30_000 }).toContain("storage_repaired");
    expect((await readdir(dataDir)).filter((name) => name.startsWith("chunks.db."))).toEqual([]);
    await app.stop();
  });

  test("refuses a file for nobody before it is read", async () => {
    const app = await start(join(folder.path, "profile"));
    const path = join(folder.path, "photo.bin");
    await writeFile(path, "some bytes");
    let read = 0;
    app.events(({ event }) => {
      if (event === "share.progress") read += 1;
    });
    const shared = await app.handlers["files.share"]({ chatId: NOBODY, path });
    expect(shared).toMatchObject({ ok: false, error: { type: "unknown_chat" } });
    expect(read).toBe(0);
    await app.stop();
  });
});
