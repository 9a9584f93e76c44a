import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { TurnQueue } from "../../src-main/messages/turn-queue.ts";

test("begins no more in one turn than allowed, in order, and runs everything", async () => {
  const queue = new TurnQueue(7);
  const order: number[] = [];
  const all = Promise.all(
    Array.from({ length: 100 }, (_, i) =>
      queue.run(() => {
        order.push(i);
        return i;
      }),
    ),
  );
  const perTurn: number[] = [];
  for (let seen = 0; seen < 100; ) {
    perTurn.push(order.length - seen);
    seen = order.length;
    await nextTurn();
  }
  expect(await all).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expect(order).toEqual(await all);
  expect(Math.max(...perTurn)).toBeLessThanOrEqual(7);
});

test("what takes longer than a turn keeps its place, and a failure is its caller's alone", async () => {
  const queue = new TurnQueue(2);
  let begun = 0;
  const ends: (() => void)[] = [];
  const slow = (): Promise<void> => {
    begun += 1;
    return new Promise((resolve) => ends.push(resolve));
  };
  const slowOnes = [queue.run(slow), queue.run(slow)];
  const failing = queue.run(() => {
    throw new Error("broken");
  });
  const last = queue.run(() => "done");
  for (let i = 0; i < 5; i++) await nextTurn();
  expect(begun).toBe(2);
  let isOver = false;
  void failing.catch(() => {
    isOver = true;
  });
  await nextTurn();
  expect(isOver).toBe(false);
  ends[0]?.();
  await expect(failing).rejects.toThrow("broken");
  expect(await last).toBe("done");
  ends[1]?.();
  await Promise.all(slowOnes);
});
