import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Emitter } from "#shared/base/emitter.ts";
import { PROGRESS_INTERVAL_MS, PUBLISHER_PENDING_MAX } from "#shared/base/limits.ts";
import type { NoticeView, TransferPhase } from "#shared/ipc/views.ts";
import type { PublishedEvent } from "../../src-main/ipc/handlers.ts";
import { createPublisher } from "../../src-main/ipc/publisher.ts";
import { createManualClock, recordingLog, transferView } from "../support/fake-app.ts";

const setUp = () => {
  const source = new Emitter<PublishedEvent>(() => undefined);
  const clock = createManualClock();
  const log = recordingLog();
  const publisher = createPublisher(source.event, clock, log);
  const got: PublishedEvent[] = [];
  publisher.events((event) => got.push(event));
  return { source, clock, publisher, got, log };
};
const transfer = (chunksStored: number, phase: TransferPhase = "downloading", fileId = "a"): PublishedEvent => ({
  event: "transfer.changed",
  payload: transferView({ fileId, phase, chunksStored }),
});
const notice = (message: string): PublishedEvent => {
  const payload: NoticeView = { level: "info", type: "test", message, atMs: 0 };
  return { event: "notice", payload };
};
const link = (peerId: string, generation: number): PublishedEvent => ({
  event: "link.changed",
  payload: { peerId, state: "connecting", generation, path: null, rttMs: null, reason: null, staleEvents: 0 },
});
const stored = (events: readonly PublishedEvent[]): number[] =>
  events.flatMap((event) => (event.event === "transfer.changed" ? [event.payload.chunksStored] : []));

describe("transfers", () => {
  test("1,000 snapshots in a second become ten and a first one, and the newest always arrives", () => {
    const { source, clock, got } = setUp();
    for (let i = 0; i < 1000; i++) {
      source.emit(transfer(i));
      clock.advance(1);
    }
    clock.advance(PROGRESS_INTERVAL_MS);
    expect(got.length).toBeLessThanOrEqual(1000 / PROGRESS_INTERVAL_MS + 2);
    expect(got.length).toBeGreaterThanOrEqual(1000 / PROGRESS_INTERVAL_MS);
    expect(stored(got).at(-1)).toBe(999);
  });

  test("a change of phase is delivered at once, and nothing older after it", () => {
    const { source, clock, got } = setUp();
    source.emit(transfer(1));
    source.emit(transfer(2));
    source.emit(transfer(3, "draining"));
    source.emit(transfer(3, "assembling"));
    source.emit(transfer(3, "complete"));
    expect(got.map((event) => event.event === "transfer.changed" && event.payload.phase)).toEqual([
      "downloading",
      "draining",
      "assembling",
      "complete",
    ]);
    clock.advance(1000);
    expect(got).toHaveLength(4);
    expect(clock.timers()).toBe(0);
  });

  test("two transfers do not hold each other up", () => {
    const { source, got } = setUp();
    source.emit(transfer(1, "downloading", "a"));
    source.emit(transfer(1, "downloading", "b"));
    expect(got).toHaveLength(2);
  });
});

describe("everything else", () => {
  test("is delivered with the next tick, once per entity, newest only", () => {
    const { source, clock, got } = setUp();
    source.emit(link("p", 1));
    source.emit(link("q", 1));
    source.emit(link("p", 2));
    expect(got).toEqual([]);
    clock.advance(0);
    expect(got).toEqual([link("p", 2), link("q", 1)]);
  });

  test("every notice arrives, in order", () => {
    const { source, clock, got } = setUp();
    const notices = ["one", "one", "two"].map(notice);
    for (const each of notices) source.emit(each);
    clock.advance(0);
    expect(got).toEqual(notices);
  });

  test("what waits is bounded: at the limit it is delivered without a tick", () => {
    const { source, got } = setUp();
    for (let i = 0; i < PUBLISHER_PENDING_MAX; i++) source.emit(link(`p${i}`, 1));
    expect(got).toHaveLength(PUBLISHER_PENDING_MAX);
  });

  test("a listener that throws does not keep another from hearing", () => {
    const { source, clock, publisher, log } = setUp();
    publisher.events(() => {
      throw new Error("broken");
    });
    const late: PublishedEvent[] = [];
    publisher.events((event) => late.push(event));
    source.emit(link("p", 1));
    clock.advance(0);
    expect(late).toEqual([link("p", 1)]);
    expect(log.lines).toHaveLength(1);
  });

  test("after dispose nothing is delivered and no timer is left", () => {
    const { source, clock, publisher, got } = setUp();
    source.emit(transfer(1));
    source.emit(transfer(2));
    source.emit(link("p", 1));
    publisher.dispose();
    clock.advance(1000);
    expect(stored(got)).toEqual([1]);
    expect(clock.timers()).toBe(0);
    expect(source.listenerCount).toBe(0);
  });
});

test("whatever the order of events and time, every listener ends with the newest snapshot of each entity", () => {
  const step = fc.oneof(
    fc.record({ file: fc.constantFrom("a", "b"), phase: fc.constantFrom<TransferPhase>("downloading", "draining") }),
    fc.record({ peer: fc.constantFrom("p", "q") }),
    fc.record({ waitMs: fc.integer({ min: 0, max: 150 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { source, clock, got } = setUp();
      const newest = new Map<string, number>();
      for (const [i, each] of steps.entries()) {
        if ("waitMs" in each) {
          clock.advance(each.waitMs);
          continue;
        }
        newest.set("file" in each ? each.file : each.peer, i);
        source.emit("file" in each ? transfer(i, each.phase, each.file) : link(each.peer, i));
      }
      clock.advance(1000);
      const last = new Map<string, number>();
      for (const event of got) {
        if (event.event === "transfer.changed") last.set(event.payload.fileId, event.payload.chunksStored);
        if (event.event === "link.changed") last.set(event.payload.peerId, event.payload.generation);
      }
      expect(last).toEqual(newest);
      expect(clock.timers()).toBe(0);
    }),
    { numRuns: 500 },
  );
});
