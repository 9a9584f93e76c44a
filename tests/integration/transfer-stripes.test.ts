import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { CHUNK_BYTES, REQUEST_WINDOW_CHUNKS } from "#shared/base/limits.ts";
import type { LinkView, TransferView } from "#shared/ipc/views.ts";
import { sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { pair } from "../../scripts/headless-process.ts";
import { FAR_VARIABLE, type FarSettings } from "../support/net/far.ts";
import type { Impairment } from "../support/net/impairment.ts";
import { createWorld } from "../support/profiles.ts";
import { expectInOrder } from "../support/transfer-order.ts";

/** Long and lossy enough that one association cannot carry it. */
const FAR: Partial<Impairment> = { delayMs: 20, lossRate: 0.004 };
const CHUNKS = 160;
const FRAMES_BEFORE_THE_BREAK = 60;

test("a file on a long path goes over several associations, and on after one of them has broken in the middle", {
  timeout: 180_000,
}, async () => {
  await using world = await createWorld();
  const log = join(world.dir, "frames");
  const settingsOf = (seed: number, breakAtFrame: number | null): NodeJS.ProcessEnv => ({
    [FAR_VARIABLE]: JSON.stringify({ impairment: FAR, seed, breakAtFrame, log } satisfies FarSettings),
  });
  const entry = "tests/support/net/far-headless-process.ts";
  const [alice, bob] = await Promise.all([
    world.profile("alice", { entry, env: settingsOf(1, FRAMES_BEFORE_THE_BREAK) }),
    world.profile("bob", { entry, env: settingsOf(2, null) }),
  ]);
  await pair(alice, bob);
  const linkOfBob = (): Promise<LinkView> =>
    bob.until(
      "a link",
      async () => (await bob.call("links.list", {})).find(({ state }) => state === "connected") ?? null,
      60_000,
    );
  const before = await linkOfBob();

  const path = join(world.dir, "far.bin");
  const sha256 = await writeRandomFile(path, CHUNKS * CHUNK_BYTES);
  const { fileId } = await alice.call("files.share", { chatId: bob.userId, path });
  await bob.until("the offer", async () =>
    (await bob.call("files.list", {})).some((file) => file.fileId === fileId) ? true : null,
  );
  const views: TransferView[] = [];
  bob.on("transfer.changed", (view) => void (view.fileId === fileId && views.push(view)));
  await bob.call("transfers.start", { fileId });
  const done = await bob.until(
    "the finished file",
    async () => (await bob.call("transfers.list", {})).find(({ phase }) => phase === "complete") ?? null,
    120_000,
  );
  expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
  expectInOrder(views);
  // What was on its way is asked for once more, and nothing that had come.
  expect(done.requestedChunks).toBeLessThanOrEqual(CHUNKS + REQUEST_WINDOW_CHUNKS);
  expect(done.duplicateChunks).toBe(0);

  const lines = readFileSync(log, "utf8").trim().split("\n");
  const at = lines.findIndex((line) => line.startsWith("broken"));
  expect(at).toBeGreaterThanOrEqual(FRAMES_BEFORE_THE_BREAK - 1);
  expect(new Set(lines.slice(0, at)).size).toBeGreaterThanOrEqual(3);
  // Whatever it carried is gone with it, and so is the link: another one takes over.
  expect((await linkOfBob()).generation).toBeGreaterThan(before.generation);
  expect(lines.slice(at + 1).some((line) => !lines.slice(0, at).includes(line))).toBe(true);
});
