import { describe, expect, test } from "vitest";
import { decodeEvent } from "../../src-main/activity/events.ts";
import { TransferFollower } from "../../src-main/activity/progress.ts";
import type { ActivityMark } from "../../src-main/store/activity.ts";
import { transferView } from "../support/fake-app.ts";

const OWNER = "b".repeat(32);
const OTHER = "c".repeat(32);
const times = (ms: number) => ({ now: 1_000_000 + ms, monotonicMs: ms });
const dataOf = (event: { kind: string; data: string | null } | null | undefined): unknown =>
  event === null || event === undefined ? null : JSON.parse(event.data ?? "null");

const seeder = (userId: string, chunks: number) => ({
  userId,
  path: "lan" as const,
  bytesPerSecond: 0,
  chunks,
  held: 0,
});

describe("what is logged of a download", () => {
  test("phases with what the one before took, and each drain once although its start is read from two clocks", () => {
    const follower = new TransferFollower(transferView(), OWNER, 0, false);
    const drain = { startedAtMs: 1_004_990, remaining: 0, endedBy: "answered" as const };
    const events = [
      ...follower.see(
        transferView({ phase: "draining", drain: { ...drain, remaining: 3, endedBy: null } }),
        times(5000),
      ),
      ...follower.see(transferView({ phase: "assembling", drain }), times(5020)),
      ...follower.see(transferView({ phase: "assembling", drain: { ...drain, startedAtMs: 1_004_991 } }), times(5030)),
      ...follower.see(transferView({ phase: "complete", drain }), times(6020)),
    ];
    expect(events.map((event) => [event.kind, dataOf(event)])).toEqual([
      ["transfer.phase", { phase: "draining", from: "downloading", ms: 5000 }],
      ["transfer.drained", { ms: 30, endedBy: "answered" }],
      ["transfer.phase", { phase: "assembling", from: "draining", ms: 20 }],
      ["transfer.phase", { phase: "complete", from: "assembling", ms: 1000 }],
    ]);
    for (const event of events) expect(decodeEvent({ ...event, seq: 1, ref: null, offsetMin: 0 })).not.toBeNull();
  });

  test("bytes since the mark, whoever gave them, and never twice", () => {
    const follower = new TransferFollower(transferView(), OWNER, 0, false);
    let mark: ActivityMark = { runBytes: 0, totalBytes: 0 };
    const log = (ms: number): unknown => {
      const progress = follower.progress(mark, times(ms));
      mark = progress?.mark ?? mark;
      return dataOf(progress?.event);
    };
    follower.see(transferView({ bytesStored: 1000, seeders: [seeder(OWNER, 3), seeder(OTHER, 1)] }), times(10));
    expect(log(1000)).toMatchObject({
      ...{ bytes: 1000, ms: 1000 },
      shares: [
        { peer: OWNER, bytes: 750, chunks: 3 },
        { peer: OTHER, bytes: 250, chunks: 1 },
      ],
    });
    expect(log(1100)).toBeNull();
    // One has left; what it gave before it left counts for it.
    follower.see(transferView({ bytesStored: 1600, seeders: [seeder(OWNER, 5), seeder(OTHER, 2)] }), times(1200));
    follower.see(transferView({ bytesStored: 1900, seeders: [seeder(OTHER, 3)] }), times(1300));
    expect(log(2000)).toMatchObject({ bytes: 900, shares: [{ bytes: 450 }, { bytes: 450, chunks: 2 }] });
    expect(mark).toEqual({ runBytes: 1900, totalBytes: 1900 });
  });

  test("after a crash the rest comes with the next event, and a count that is older than the mark is not believed before the disk was read", () => {
    const restored = new TransferFollower(transferView({ bytesStored: 500, seeders: [] }), OWNER, 0, true);
    const mark = { runBytes: 2000, totalBytes: 2000 };
    expect(restored.progress(mark, times(10))).toBeNull();
    restored.see(transferView({ bytesStored: 2300, seeders: [] }), times(20));
    const progress = restored.progress(mark, times(30));
    expect(dataOf(progress?.event)).toMatchObject({ bytes: 300, shares: [{ peer: OWNER, bytes: 300, chunks: 0 }] });
    // Damaged parts were thrown away and are fetched again: then they are received again.
    restored.see(transferView({ bytesStored: 1300, inFlight: 4 }), times(40));
    expect(restored.progress({ runBytes: 2300, totalBytes: 2300 }, times(50))).toEqual({
      event: null,
      mark: { runBytes: 1300, totalBytes: 2300 },
    });
  });

  test("a cancelled one ends without progress, and what goes back is noticed", () => {
    const follower = new TransferFollower(transferView(), OWNER, 0, false);
    follower.see(transferView({ bytesStored: 700 }), times(10));
    const cancelled = transferView({ phase: "failed", error: { type: "cancelled", message: "" }, bytesStored: 0 });
    expect(follower.goesBack(cancelled)).toBe(true);
    follower.progress({ runBytes: 0, totalBytes: 0 }, times(20));
    follower.see(cancelled, times(30));
    expect(follower.isOver).toBe(true);
    expect(follower.progress({ runBytes: 700, totalBytes: 700 }, times(40))).toBeNull();
  });
});
