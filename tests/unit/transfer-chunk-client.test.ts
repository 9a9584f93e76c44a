import { describe, expect, test } from "vitest";
import type { HeldFrame } from "#shared/wire/frame.ts";
import type { StartWorker, WorkerListener } from "../../src-main/transfer/chunk-thread.ts";
import { createChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import type { FileSpec, StoreOutcome, ToWorker } from "../../src-main/transfer/chunk-worker-protocol.ts";
import { freshFileId, freshKey, realEnv } from "../support/files.ts";

const COUNTERS = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
const spec: FileSpec = {
  ...{ fileId: freshFileId(), sizeBytes: 1000, chunkBytes: 500, chunkCount: 2 },
  ...{ root: new Uint8Array(32), key: freshKey() },
};

/** A worker that is only listened to. */
const createWorld = () => {
  const runs: { listener: WorkerListener; posted: ToWorker[]; dropped: HeldFrame[] }[] = [];
  const start: StartWorker = (_, listener) => {
    const run: (typeof runs)[number] = { listener, posted: [], dropped: [] };
    runs.push(run);
    return { post: (message) => run.posted.push(message), drop: (frames) => run.dropped.push(...frames) };
  };
  return { runs, worker: createChunkWorker({ env: realEnv, start, databasePath: "" }) };
};
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("the client of the chunk worker", () => {
  test("answers what a worker had not got yet when that died, and never gives it to the next one", async () => {
    const { runs, worker } = createWorld();
    void worker.ready();
    const outcomes: StoreOutcome[] = [];
    worker.storeChunk(spec, COUNTERS, { index: 0, bytes: { frame: 7, byteLength: 516 } }, (o) => outcomes.push(o));
    runs[0]?.listener.exited();
    expect(outcomes).toMatchObject([{ type: "worker_ended" }]);
    expect(worker.uncommittedBytes).toBe(0);
    void worker.ready();
    await nextTurn();
    expect(runs.map(({ posted }) => posted)).toEqual([[], []]);
  });

  test("passes held frames on as they are, and drops them also after the worker has died", async () => {
    const { runs, worker } = createWorld();
    const held = { frame: 7, byteLength: 516 };
    worker.storeChunk(spec, COUNTERS, { index: 0, bytes: held }, () => undefined);
    await nextTurn();
    expect(runs[0]?.posted).toMatchObject([{ type: "store", chunks: [{ index: 0, bytes: held }] }]);
    runs[0]?.listener.exited();
    worker.drop([new Uint8Array(3), { frame: 8, byteLength: 516 }]);
    expect(runs[0]?.dropped).toEqual([{ frame: 8, byteLength: 516 }]);
  });
});
