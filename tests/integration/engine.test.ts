import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { REQUEST_WINDOW_CHUNKS } from "#shared/base/limits.ts";
import { specOf } from "../../src-main/transfer/files.ts";
import { createEngineWorld, type EnginePerson, type EngineWorld } from "../support/engine-world.ts";
import { sha256OfFile, writeRandomFile } from "../support/files.ts";
import { viewWhere } from "../support/transfer-world.ts";

/** Two people in this process, whose WebRTC and chunk workers are in two engines. */
const MiB = 1024 * 1024;

let world: EngineWorld;
beforeEach(async () => {
  world = await createEngineWorld();
});
afterEach(() => world.dispose());

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};
const engineOf = ({ pids }: EnginePerson): number => pids.at(-1) ?? 0;

const startTransfer = async (sizeBytes: number) => {
  const path = join(world.folder, "film.bin");
  const sha256 = await writeRandomFile(path, sizeBytes);
  const file = await world.share(path);
  await world.connect();
  expect(await world.bob.transfers.start(file.fileId)).toMatchObject({ ok: true });
  return { file, sha256 };
};

const expectComplete = async (sha256: string) => {
  const done = await viewWhere(world.bob, ({ phase }) => phase === "complete" || phase === "failed", 60_000);
  expect(done.phase).toBe("complete");
  expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);
  return done;
};

describe("an engine process", () => {
  test("carries links and a file, and ends in order", async () => {
    const { file, sha256 } = await startTransfer(16 * MiB + 5);
    const done = await expectComplete(sha256);
    expect(done).toMatchObject({ requestedChunks: file.chunkCount, duplicateChunks: 0, lateChunks: 0 });
    expect(world.alice.links.view(world.bob.userId)).toMatchObject({ state: "connected", path: "lan" });
    const pids = [...world.alice.pids, ...world.bob.pids];
    expect(pids.filter(isAlive)).toHaveLength(2);
    await Promise.all([world.alice.dispose(), world.bob.dispose()]);
    expect(pids.filter(isAlive)).toEqual([]);
    for (const person of [world.alice, world.bob]) person.dispose = () => Promise.resolve();
  });

  // A throw in a callback of the addon ends in SIGABRT.
  test.each([
    ["alice", "SIGSEGV"],
    ["bob", "SIGSEGV"],
    ["bob", "SIGABRT"],
    ["alice", "SIGSTOP"],
    ["bob", "SIGSTOP"],
  ] as const)("of %s that ends by %s costs a reconnect, and no chunk twice", async (victim, signal) => {
    const { file, sha256 } = await startTransfer(48 * MiB);
    await viewWhere(world.bob, ({ chunksStored }) => chunksStored >= file.chunkCount / 4);
    // On a busy machine the hastened pings may end another link that only was slow.
    const first = world.bob.links.view(world.alice.userId).generation;
    const later = new Set<number>();
    const watching = world.bob.links.onChanged(({ state, generation }) => {
      if (state === "connected" && generation !== first) later.add(generation);
    });
    world.hastenPings();
    process.kill(engineOf(world[victim]), signal);
    const done = await expectComplete(sha256);
    watching.dispose();
    expect(later.size).toBeGreaterThan(0);
    expect(world[victim].pids).toHaveLength(2);
    // What was stored is not fetched again: twice is asked for only what was under way.
    expect(done.requestedChunks).toBeGreaterThan(file.chunkCount);
    expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + later.size * REQUEST_WINDOW_CHUNKS);
    expect(done.duplicateChunks).toBe(0);
  });

  test("tells what ended with its connection from the end of the chunk worker", async () => {
    const path = join(world.folder, "film.bin");
    await writeRandomFile(path, MiB);
    await world.share(path);
    const offer = world.alice.sent.at(-1)?.offer;
    if (offer === undefined) throw new Error("nothing was shared");
    const spec = specOf(offer);
    const { worker } = world.bob;
    // Numbers of frames begin far above this one.
    const payload = { frame: 1, byteLength: spec.chunkBytes };
    const counters = { requested: 1, duplicate: 0, late: 0, rejected: 0 };
    const outcome = new Promise((resolve) => worker.storeChunk(spec, counters, { index: 0, bytes: payload }, resolve));
    expect(await outcome).toBe("gone");
    const leaves = await worker.run("storeLeaves", { spec, page: 0, payload }).result;
    expect(leaves).toMatchObject({ ok: false, error: { type: "frame_gone" } });
  });

  test("that hangs does not keep Weir from ending", async () => {
    await world.connect();
    const [pid] = world.alice.pids;
    process.kill(pid ?? 0, "SIGSTOP");
    await world.alice.dispose();
    expect(isAlive(pid ?? 0)).toBe(false);
    world.alice.dispose = () => Promise.resolve();
  });

  test("that dies while a file is being shared makes the share say that it can be tried again", async () => {
    const path = join(world.folder, "film.bin");
    await writeRandomFile(path, 64 * MiB);
    const sharing = world.share(path);
    await new Promise<void>((resolve) => {
      const subscription = world.alice.files.onShareProgress(() => {
        subscription.dispose();
        resolve();
      });
    });
    process.kill(engineOf(world.alice), "SIGKILL");
    await expect(sharing).rejects.toThrow(/worker_ended: .*Try again/);
    await world.share(path);
  });
});
