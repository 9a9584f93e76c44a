import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { type FileId, type UserId, UserIdSchema } from "#shared/base/ids.ts";
import {
  REQUEST_WINDOW_CHUNKS,
  SEEDER_QUEUE_CHUNKS_MAX,
  SEEDER_SESSIONS_PER_PEER_MAX,
  TRANSFERS_ACTIVE_MAX,
} from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import { BULK_HEADER_BYTES, bytesOf, decodeBulkFrame } from "#shared/wire/frame.ts";
import { systemClock } from "../../src-main/env.ts";
import type { AppMessage } from "../../src-main/links/links.ts";
import { TokenBucket } from "../../src-main/transfer/bandwidth.ts";
import type { ChunkWorker, RunningJob } from "../../src-main/transfer/chunk-worker-client.ts";
import type { FileSpec, JobName, JobResult, Jobs, WorkError } from "../../src-main/transfer/chunk-worker-protocol.ts";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";
import { Seeder } from "../../src-main/transfer/seeder.ts";
import { freshFileId, freshKey, quietLog } from "../support/files.ts";

const user = (letter: string): UserId => v.parse(UserIdSchema, letter.repeat(32));
const [BOB, CAROL] = [user("b"), user("c")];
const CHUNK = 64 * 1024;

/** A seeder among doubles that can be full, slow, and wrong. */
const createWorld = (files: FileId[] = [freshFileId()]) => {
  const control: { peer: UserId; message: AppMessage }[] = [];
  const frames: { peer: UserId; tag: number; index: number; sequence: number; kind: string }[] = [];
  const changed: FileId[] = [];
  const served: { peer: UserId; bytes: number }[] = [];
  const interested: UserId[] = [];
  const world = {
    served,
    control,
    frames,
    changed,
    file: files[0] ?? freshFileId(),
    /** Frames that a peer's link still takes. */
    room: new Map<UserId, number>(),
    access: true,
    later: false,
    upload: new TokenBucket(),
    own: true,
    held: null as PieceMap | null,
    interested,
    error: null as WorkError | null,
    lost: [] as number[],
    reading: 0,
    readingMax: 0,
    settle: async () => {
      for (let i = 0; i < 20; i += 1) await new Promise<void>((resolve) => setImmediate(resolve));
    },
    of: (type: AppMessage["type"]) =>
      control.filter(({ message }) => message.type === type).map(({ message }) => message),
  };
  const specOf = (fileId: FileId): FileSpec => ({
    ...{ fileId, sizeBytes: 4000 * CHUNK, chunkBytes: CHUNK, chunkCount: 4000 },
    ...{ root: new Uint8Array(32), key: freshKey() },
  });
  const answer = async <Name extends JobName>(name: Name, input: Jobs[Name]["input"]): Promise<JobResult<Name>> => {
    world.reading += 1;
    world.readingMax = Math.max(world.readingMax, world.reading);
    await Promise.resolve();
    world.reading -= 1;
    if (world.error !== null) return err(world.error);
    const frameOf = (index: number) => ({ index, bytes: new Uint8Array(BULK_HEADER_BYTES + CHUNK + 16) });
    const value =
      name === "readLeaves"
        ? frameOf((input as Jobs["readLeaves"]["input"]).page)
        : { frames: (input as Jobs["readChunks"]["input"]).indices.map(frameOf), unavailable: [] };
    return ok(value as Jobs[Name]["output"]);
  };
  const worker: Pick<ChunkWorker, "run" | "recycle" | "drop"> = {
    drop: () => undefined,
    recycle: () => undefined,
    run: <Name extends JobName>(name: Name, input: Jobs[Name]["input"]): RunningJob<Name> => ({
      result: answer(name, input),
      cancel: () => undefined,
    }),
  };
  const seeder = new Seeder({
    env: { log: quietLog, clock: systemClock },
    worker,
    links: {
      send: (peer, _generation, message) => {
        control.push({ peer, message });
        return true;
      },
      takesHeldFrames: () => false,
      sendBulk: (peer, _generation, bytes) => {
        const room = world.room.get(peer) ?? Number.POSITIVE_INFINITY;
        if (room === 0) return "full";
        world.room.set(peer, room - 1);
        const frame = decodeBulkFrame(new Uint8Array(bytesOf(bytes)));
        if (!frame.ok) throw new Error(frame.error.message);
        const { tag, index, sequence, kind } = frame.value;
        frames.push({ peer, tag, index, sequence, kind });
        return "sent";
      },
    },
    upload: world.upload,
    offerOf: (fileId) => {
      const source = { kind: "file", path: "/x" } as const;
      return files.includes(fileId)
        ? { spec: specOf(fileId), source, held: world.held, leaves: true, own: world.own }
        : null;
    },
    mayFetch: () => (world.access ? "serve" : world.later ? "later" : "refuse"),
    onInterest: (peer) => interested.push(peer),
    onServed: (entry) => served.push(entry),
    isLooking: () => false,
    onLost: (_fileId, indices) => world.lost.push(...indices),
    onChanged: (fileId) => changed.push(fileId),
  });
  return { world, seeder, file: world.file };
};

const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);

describe("a seeder", () => {
  test("accepts, serves in the order of the requests, counts its frames, and says so when it is stopped", async () => {
    const { seeder, world, file } = createWorld();
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 7 });
    expect(world.control.map(({ message }) => message.type)).toEqual(["accept", "have"]);
    seeder.onMessage(BOB, 1, { type: "leaves", tag: 7, page: 0 });
    seeder.onMessage(BOB, 1, { type: "request", tag: 7, indices: [5, 6, 2] });
    await world.settle();
    expect(world.frames.map(({ kind, index, sequence }) => [kind, index, sequence])).toEqual([
      ["leaves", 0, 0],
      ["chunk", 5, 1],
      ["chunk", 6, 2],
      ["chunk", 2, 3],
    ]);
    seeder.onMessage(BOB, 1, { type: "stop", tag: 7 });
    expect(world.of("stopped")).toEqual([{ type: "stopped", tag: 7, framesSent: 4 }]);
    // Chunks only, and the bytes of the file in them.
    expect(world.served.map(({ bytes }) => bytes)).toEqual([CHUNK, CHUNK, CHUNK]);
  });

  test("stops exactly: what was read but not sent never leaves, and is not counted", async () => {
    const { seeder, world, file } = createWorld();
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 1 });
    world.room.set(BOB, 3);
    seeder.onMessage(BOB, 1, { type: "request", tag: 1, indices: range(32) });
    await world.settle();
    seeder.onMessage(BOB, 1, { type: "stop", tag: 1 });
    world.room.set(BOB, 100);
    seeder.onDrained(BOB, 1);
    await world.settle();
    expect(world.frames).toHaveLength(3);
    expect(world.of("stopped")).toEqual([{ type: "stopped", tag: 1, framesSent: 3 }]);
  });

  test("waits while the link is full, reads no further ahead than two batches, and goes on when it drained", async () => {
    const { seeder, world, file } = createWorld();
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 1 });
    world.room.set(BOB, 5);
    for (const from of [0, 50, 100]) seeder.onMessage(BOB, 1, { type: "request", tag: 1, indices: range(50, from) });
    await world.settle();
    expect(world.frames).toHaveLength(5);
    expect(seeder.queuedFor(BOB)).toBeGreaterThanOrEqual(150 - 3 * 16);
    expect(world.readingMax).toBeLessThanOrEqual(2);
    world.room.set(BOB, 1000);
    seeder.onDrained(BOB, 1);
    await world.settle();
    expect(world.frames.map(({ index }) => index)).toEqual(range(150));
  });

  test("lets no peer and no file wait for another", async () => {
    const files = [freshFileId(), freshFileId()];
    const { seeder, world } = createWorld(files);
    files.forEach((fileId, tag) => {
      seeder.onMessage(BOB, 1, { type: "open", fileId, tag });
      seeder.onMessage(BOB, 1, { type: "request", tag, indices: range(64) });
    });
    seeder.onMessage(CAROL, 9, { type: "open", fileId: files[0] ?? world.file, tag: 5 });
    seeder.onMessage(CAROL, 9, { type: "request", tag: 5, indices: range(16) });
    world.room.set(BOB, 80);
    await world.settle();
    const bob = world.frames.filter(({ peer }) => peer === BOB);
    expect(new Set(bob.map(({ tag }) => tag))).toEqual(new Set([0, 1]));
    expect(world.frames.filter(({ peer }) => peer === CAROL)).toHaveLength(16);
  });

  test("checks the right when a file is opened, when chunks are asked for, and again before each is sent", async () => {
    const stranger = createWorld();
    stranger.world.access = false;
    stranger.seeder.onMessage(BOB, 1, { type: "open", fileId: stranger.file, tag: 1 });
    expect(stranger.world.of("refuse")).toEqual([{ type: "refuse", tag: 1, reason: "no_access" }]);

    const open = createWorld();
    open.seeder.onMessage(BOB, 1, { type: "open", fileId: open.file, tag: 2 });
    open.world.access = false;
    open.world.later = true;
    open.seeder.onMessage(BOB, 1, { type: "request", tag: 2, indices: [1] });
    // The list of who may is being fetched: it is to ask again.
    expect(open.world.of("refuse")).toEqual([{ type: "refuse", tag: 2, reason: "busy" }]);

    const late = createWorld();
    late.seeder.onMessage(BOB, 1, { type: "open", fileId: late.file, tag: 3 });
    late.seeder.onMessage(BOB, 1, { type: "request", tag: 3, indices: range(16) });
    late.world.access = false;
    await late.world.settle();
    expect(late.world.frames).toEqual([]);
    expect(late.world.of("refuse")).toEqual([{ type: "refuse", tag: 3, reason: "no_access" }]);
  });

  test("queues the whole windows of all downloads that one peer may have", () => {
    const files = Array.from({ length: TRANSFERS_ACTIVE_MAX }, freshFileId);
    const { seeder, world } = createWorld(files);
    world.room.set(BOB, 0);
    for (const [tag, fileId] of files.entries()) {
      seeder.onMessage(BOB, 1, { type: "open", fileId, tag });
      for (let from = 0; from < REQUEST_WINDOW_CHUNKS; from += 32)
        seeder.onMessage(BOB, 1, { type: "request", tag, indices: range(32, from) });
    }
    expect(world.of("refuse")).toEqual([]);
    // Batches of the first one are being read already.
    expect(seeder.queuedFor(BOB)).toBeGreaterThan((TRANSFERS_ACTIVE_MAX - 1) * REQUEST_WINDOW_CHUNKS);
  });

  test("bounds what one peer may queue and open", () => {
    const files = Array.from({ length: SEEDER_SESSIONS_PER_PEER_MAX + 1 }, freshFileId);
    const { seeder, world, file } = createWorld(files);
    world.room.set(BOB, 0);
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 1 });
    for (let from = 0; from < 2 * SEEDER_QUEUE_CHUNKS_MAX; from += 64)
      seeder.onMessage(BOB, 1, { type: "request", tag: 1, indices: range(64, from) });
    const [refusal, ...later] = world.of("refuse");
    expect(refusal).toEqual({ type: "refuse", tag: 1, reason: "too_many_requests" });
    // What comes after that finds nothing open, and is told so.
    for (const refused of later) expect(refused).toEqual({ type: "refuse", tag: 1, reason: "busy" });
    expect(seeder.queuedFor(BOB)).toBe(0);
    const refused = world.of("refuse").length;
    for (const [at, fileId] of files.entries()) seeder.onMessage(BOB, 1, { type: "open", fileId, tag: 2 + at });
    expect(world.of("refuse").slice(refused)).toEqual([{ type: "refuse", tag: 1 + files.length, reason: "busy" }]);
  });

  test("refuses with words when the file changed, and tells its owner", async () => {
    const { seeder, world, file } = createWorld();
    world.error = { type: "file_changed", message: "changed" };
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 1 });
    seeder.onMessage(BOB, 1, { type: "request", tag: 1, indices: range(40) });
    await world.settle();
    expect(world.of("refuse")).toEqual([{ type: "refuse", tag: 1, reason: "file_changed" }]);
    expect(world.changed).toEqual([file]);
  });

  test("lets a peer ask again when chunks are gone that it was told of, and claims them no longer", async () => {
    const { seeder, world, file } = createWorld();
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 1 });
    world.error = { type: "corrupt_chunks", message: "changed", indices: [2] };
    seeder.onMessage(BOB, 1, { type: "request", tag: 1, indices: [1, 2] });
    await world.settle();
    expect(world.lost).toEqual([2]);
    expect(world.of("refuse")).toEqual([{ type: "refuse", tag: 1, reason: "busy" }]);
    expect(world.frames).toEqual([]);

    world.error = null;
    world.held = PieceMap.full(1000).without(2);
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 2 });
    seeder.recheck(file);
    expect(world.of("refuse")).toHaveLength(1);
    world.held = world.held.without(3);
    seeder.recheck(file);
    expect(world.of("refuse")).toContainEqual({ type: "refuse", tag: 2, reason: "busy" });
    expect(world.of("unavailable")).toEqual([]);
    seeder.dispose();
  });

  test("forgets everything with the link, and drops what the next link did not ask for", async () => {
    const { seeder, world, file } = createWorld();
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 1 });
    seeder.onMessage(BOB, 1, { type: "request", tag: 1, indices: range(10) });
    seeder.onLinkLost(BOB);
    seeder.onMessage(BOB, 2, { type: "request", tag: 1, indices: [1] });
    await world.settle();
    expect(world.frames).toEqual([]);
  });

  test("goes on with what was opened over the link that has taken the place of a lost one", async () => {
    const files = [freshFileId(), freshFileId()];
    const { seeder, world } = createWorld(files);
    const [before, anew] = files as [FileId, FileId];
    world.room.set(BOB, 0);
    seeder.onMessage(BOB, 1, { type: "open", fileId: before, tag: 1 });
    seeder.onMessage(BOB, 1, { type: "request", tag: 1, indices: range(10) });
    // Bob's process has died and is back: here his new link is a better one of the same person, until the old one is given up.
    seeder.onMessage(BOB, 1, { type: "open", fileId: anew, tag: 2 }, 2);
    seeder.onMessage(BOB, 1, { type: "request", tag: 2, indices: [3, 4] }, 2);
    await world.settle();
    seeder.onLinkLost(BOB, 2);
    world.room.set(BOB, 100);
    seeder.onDrained(BOB, 2);
    seeder.onMessage(BOB, 2, { type: "request", tag: 2, indices: [5] }, 2);
    await world.settle();
    expect(world.frames.map(({ tag, index, sequence }) => [tag, index, sequence])).toEqual([
      [2, 3, 0],
      [2, 4, 1],
      [2, 5, 2],
    ]);
    expect(world.of("refuse")).toEqual([]);
    seeder.onMessage(BOB, 2, { type: "request", tag: 1, indices: [1] }, 2);
    expect(world.of("refuse")).toEqual([{ type: "refuse", tag: 1, reason: "busy" }]);
    seeder.onLinkLost(BOB, 3);
    seeder.onMessage(BOB, 3, { type: "request", tag: 2, indices: [6] }, 3);
    expect(world.of("refuse")).toHaveLength(2);
  });

  test("drops cancelled requests, and answers requests beyond the end", async () => {
    const { seeder, world, file } = createWorld();
    world.room.set(BOB, 0);
    seeder.onMessage(BOB, 1, { type: "open", fileId: file, tag: 1 });
    seeder.onMessage(BOB, 1, { type: "request", tag: 1, indices: [1, 2, 3, 4000] });
    expect(world.of("unavailable")).toEqual([{ type: "unavailable", tag: 1, indices: [4000] }]);
    await world.settle();
    seeder.onMessage(BOB, 1, { type: "cancel", tag: 1, indices: [2] });
    world.room.set(BOB, 10);
    seeder.onDrained(BOB, 1);
    await world.settle();
    expect(world.frames.map(({ index }) => index)).toEqual([1, 3]);
  });
});
