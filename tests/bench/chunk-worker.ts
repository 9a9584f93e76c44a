import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { WORK_BATCH_BYTES } from "#shared/base/limits.ts";
import { pageCountOf } from "../../src-main/crypto/hash-tree.ts";
import type { ReadFrame } from "../../src-main/transfer/chunk-worker-protocol.ts";
import { must, payloadOf, shareForTest, startWorker, writeRandomFile } from "../support/files.ts";

/**
 * `node tests/bench/chunk-worker.ts [--size MiB] [--sparse]`: what the chunk worker does without any network, as one JSON
 * line in MB/s: hashing for sharing, reading for a downloader, storing, assembling and verifying. `--sparse` only shares
 * a file of that size that is one hole.
 */
const { values } = parseArgs({
  options: { size: { type: "string", default: "256" }, sparse: { type: "boolean", default: false } },
});
const sizeBytes = Number(values.size) * 1024 * 1024;
const NO_COUNTERS = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
/** Chunks at the worker at once: about what the receive credit allows. */
const WINDOW = 64;

const directory = await mkdtemp(join(tmpdir(), "weir-bench-worker-"));
const owner = startWorker(join(directory, "owner.db"));
const receiver = startWorker(join(directory, "receiver.db"));

const report: Record<string, number> = {};
const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
  const [begun, cpu] = [performance.now(), process.cpuUsage()];
  const value = await work();
  report[name] = Math.round(sizeBytes / 1000 / (performance.now() - begun));
  const { user, system } = process.cpuUsage(cpu);
  report[name.replace("MBps", "CpuSeconds")] = Math.round((user + system) / 1e4) / 100;
  return value;
};

const run = async (): Promise<void> => {
  const path = join(directory, "file.bin");
  if (values.sparse) {
    const file = await open(path, "w");
    await file.truncate(sizeBytes);
    await file.close();
  } else await writeRandomFile(path, sizeBytes);
  const { spec, sha256 } = await timed("hashMBps", () => shareForTest(owner, path));
  if (values.sparse) return;

  must(await receiver.run("prepare", { spec, directory, unstoredBytes: spec.sizeBytes }).result);
  must(await receiver.run("open", { spec, directory }).result);
  for (let page = 0; page < pageCountOf(spec.chunkCount); page += 1) {
    const frame = must(await owner.run("readLeaves", { spec, page }).result);
    const payload = payloadOf(frame);
    must(await receiver.run("storeLeaves", { spec, page, payload }).result);
  }
  const frames: ReadFrame[] = [];
  await timed("seedReadMBps", async () => {
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < spec.chunkCount) {
        const count = Math.min(WORK_BATCH_BYTES / spec.chunkBytes, spec.chunkCount - next);
        const indices = Array.from({ length: count }, (_, i) => next + i);
        next += count;
        const source = { kind: "file", path } as const;
        frames.push(...must(await owner.run("readChunks", { spec, source, indices }).result).frames);
      }
    };
    await Promise.all([lane(), lane()]);
  });
  await timed("storeMBps", async () => {
    const lane = async (): Promise<void> => {
      for (let frame = frames.pop(); frame !== undefined; frame = frames.pop()) {
        const { index } = frame;
        const bytes = new Uint8Array(payloadOf(frame));
        const outcome = await new Promise((resolve) => {
          receiver.storeChunk(spec, NO_COUNTERS, { index, bytes }, resolve);
        });
        if (outcome !== "stored") throw new Error(JSON.stringify(outcome));
      }
    };
    await Promise.all(Array.from({ length: WINDOW }, lane));
  });
  await timed("assembleVerifyMBps", async () => {
    must(await timed("assembleMBps", () => receiver.run("assemble", { spec, directory }).result));
    must(await timed("verifyMBps", () => receiver.run("verify", { spec, directory, sha256 }).result));
  });
  // Once more over the same blocks: how fast it is without the file system's cost of new pages.
  must(await timed("assembleAgainMBps", () => receiver.run("assemble", { spec, directory }).result));
};

try {
  await run();
  process.stdout.write(`${JSON.stringify({ bench: "chunk-worker", sizeMiB: Number(values.size), ...report })}\n`);
} finally {
  await Promise.all([owner.dispose(), receiver.dispose()]);
  await rm(directory, { recursive: true, force: true });
}
