import { expect, test } from "vitest";
import { RECEIVE_QUEUE_ITEMS } from "#shared/base/limits.ts";
import { ReceiveQueue } from "../../src-main/links/receive-queue.ts";
import { ManualClock } from "../support/links-fake-rtc.ts";

const queueOf = (whenFull: "dropOldest" | "refuse", capacity = RECEIVE_QUEUE_ITEMS) => {
  const clock = new ManualClock();
  return { clock, queue: new ReceiveQueue<number>({ clock, capacity, whenFull }) };
};
const all = (queue: ReceiveQueue<number>): number[] => {
  const got: number[] = [];
  for (let next = queue.take(); next.type === "item"; next = queue.take()) got.push(next.value);
  return got;
};

test("a burst of 20 into a lossy queue of 16 keeps the newest 16 and counts the others", () => {
  const { queue } = queueOf("dropOldest");
  for (let i = 0; i < 20; i += 1) expect(queue.push(i)).toBe("taken");
  expect(queue.dropped).toBe(4);
  expect(all(queue)).toEqual(Array.from({ length: 16 }, (_, i) => i + 4));
});

test("a full reliable queue refuses, loses nothing, and tells when there is room", async () => {
  const { queue } = queueOf("refuse", 2);
  expect([queue.push(1), queue.push(2), queue.push(3)]).toEqual(["taken", "taken", "full"]);
  const room = queue.room();
  expect(queue.take()).toEqual({ type: "item", value: 1 });
  expect(await room).toBe("room");
  expect(queue.push(3)).toBe("taken");
  expect([queue.dropped, all(queue)]).toEqual([0, [2, 3]]);
  expect(await queue.room()).toBe("room");
});

test("a receiver that only looks does not wait", async () => {
  const { queue, clock } = queueOf("refuse");
  expect(await queue.receive({ timeoutMs: 0 })).toEqual({ type: "timeout" });
  queue.push(7);
  expect(await queue.receive({ timeoutMs: 0 })).toEqual({ type: "item", value: 7 });
  expect(clock.timers).toBe(0);
});

test("a receiver with a timeout gets what comes in time, and hears when nothing did; no timer stays", async () => {
  const { queue, clock } = queueOf("refuse");
  const late = queue.receive({ timeoutMs: 100 });
  await clock.advance(99);
  queue.push(1);
  expect(await late).toEqual({ type: "item", value: 1 });
  expect(clock.timers).toBe(0);
  const never = queue.receive({ timeoutMs: 100 });
  await clock.advance(100);
  expect(await never).toEqual({ type: "timeout" });
  expect([clock.timers, queue.waiting]).toEqual([0, 0]);
});

test("a receiver that waits for as long as it takes costs no timer, and sleeps until there is something", async () => {
  const { queue, clock } = queueOf("refuse");
  const got = queue.receive({ timeoutMs: Number.POSITIVE_INFINITY });
  await clock.advance(3_600_000);
  expect([clock.timers, queue.waiting]).toEqual([0, 1]);
  queue.push(5);
  expect(await got).toEqual({ type: "item", value: 5 });
});

test("receivers are served in the order in which they came", async () => {
  const { queue } = queueOf("refuse");
  const waiting = [1, 2, 3].map(() => queue.receive({ timeoutMs: Number.POSITIVE_INFINITY }));
  for (const value of [10, 20, 30]) queue.push(value);
  expect(await Promise.all(waiting)).toEqual([10, 20, 30].map((value) => ({ type: "item", value })));
});

test("a receiver that was woken for an item that somebody else took goes on waiting for the rest of its time", async () => {
  const { queue, clock } = queueOf("refuse");
  const waiting = queue.receive({ timeoutMs: 100 });
  await clock.advance(60);
  queue.push(1);
  expect(queue.take()).toEqual({ type: "item", value: 1 });
  await clock.advance(39);
  expect(queue.waiting).toBe(1);
  await clock.advance(1);
  expect(await waiting).toEqual({ type: "timeout" });
});

test("closing wakes everybody who waits, whatever for, and nothing comes out afterwards", async () => {
  const { queue, clock } = queueOf("refuse", 1);
  const receivers = [queue.receive({ timeoutMs: Number.POSITIVE_INFINITY }), queue.receive({ timeoutMs: 5000 })];
  queue.close();
  expect(await Promise.all(receivers)).toEqual([{ type: "closed" }, { type: "closed" }]);
  expect(clock.timers).toBe(0);
  const full = queueOf("refuse", 1).queue;
  full.push(1);
  const room = full.room();
  full.close();
  full.close();
  expect([await room, full.push(2), full.take(), full.size]).toEqual(["closed", "closed", { type: "closed" }, 0]);
  expect(await full.receive({ timeoutMs: 1000 })).toEqual({ type: "closed" });
});
