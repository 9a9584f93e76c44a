import { describe, expect, test } from "vitest";
import { createKeyedQueue } from "../../src-main/crypto/keyed-queue.ts";

/** A task that waits until it is told to go on. */
const gate = <T>(value: T): { task: () => Promise<T>; open: () => void; started: () => boolean } => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let started = false;
  return {
    task: async () => {
      started = true;
      await promise;
      return value;
    },
    open: () => resolve(),
    started: () => started,
  };
};
const turns = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};

describe("a keyed queue", () => {
  test("runs tasks of one key one after the other, in order of arrival", async () => {
    const queue = createKeyedQueue();
    const order: string[] = [];
    let running = 0;
    const task = (name: string, yields: number) => async () => {
      expect(++running).toBe(1);
      order.push(`${name}+`);
      for (let i = 0; i < yields; i++) await Promise.resolve();
      order.push(`${name}-`);
      running--;
    };
    await Promise.all([queue.run("k", task("a", 9)), queue.run("k", task("b", 0)), queue.force("k", task("c", 3))]);
    await queue.run("k", task("d", 1));
    expect(order.join(" ")).toBe("a+ a- b+ b- c+ c- d+ d-");
  });

  test("does not make one key wait for another", async () => {
    const queue = createKeyedQueue();
    const slow = gate("slow");
    const first = queue.run("a", slow.task);
    expect(await queue.run("b", async () => "b")).toEqual({ ok: true, value: "b" });
    slow.open();
    expect(await first).toEqual({ ok: true, value: "slow" });
  });

  test("goes on after a task that fails, which its caller sees", async () => {
    const queue = createKeyedQueue();
    const failing = queue.run("k", async () => {
      throw new Error("no luck");
    });
    const next = queue.run("k", async () => 2);
    await expect(failing).rejects.toThrow("no luck");
    expect(await next).toEqual({ ok: true, value: 2 });
  });

  test("refuses more than its bound per key, runs nothing of what it refused, and takes more once there is room", async () => {
    const queue = createKeyedQueue(2);
    const [first, second, refused] = [gate(1), gate(2), gate(3)];
    const running = queue.run("k", first.task);
    const waiting = queue.run("k", second.task);
    expect(await queue.run("k", refused.task)).toMatchObject({ ok: false, error: { type: "queue_full" } });
    expect((await queue.run("other", async () => 0)).ok).toBe(true);
    const forced = queue.force("k", async () => "forced");
    await turns();
    expect([first.started(), second.started(), refused.started()]).toEqual([true, false, false]);
    first.open();
    second.open();
    await running;
    await waiting;
    expect(await forced).toBe("forced");
    expect(refused.started()).toBe(false);
    expect((await queue.run("k", async () => 4)).ok).toBe(true);
  });
});
