import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import type { Clock } from "#shared/base/env.ts";
import { RELAY_CREDIT_STEP_BYTES, RELAY_WINDOW_BYTES } from "#shared/base/limits.ts";
import { DeviceBudget, TotalBudget } from "../../src-server/relay-budget.ts";
import { RelayFlow, TokenBucket } from "../../src-server/relay-flow.ts";

describe("the books of one direction", () => {
  test("never let more than one window be outstanding, whatever either side does", () => {
    const operation = fc.record({
      what: fc.constantFrom("grant", "receive", "handOver", "take"),
      bytes: fc.integer({ min: 1, max: 2 * RELAY_WINDOW_BYTES }),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 200 }), (operations) => {
        const flow = new RelayFlow();
        let [granted, received, handedOver, taken] = [0, 0, 0, 0];
        for (const { what, bytes } of operations) {
          if (what === "grant" && flow.room > 0) granted = flow.grant(Math.min(flow.room, bytes));
          else if (what === "receive" && flow.receive(bytes)) received += bytes;
          else if (what === "handOver" && received > handedOver) {
            const some = Math.min(bytes, received - handedOver);
            flow.handOver(some);
            handedOver += some;
          } else if (what === "take" && flow.take(bytes)) taken = bytes;
          expect(taken).toBeLessThanOrEqual(handedOver);
          expect(received).toBeLessThanOrEqual(granted);
          expect(granted - taken).toBeLessThanOrEqual(RELAY_WINDOW_BYTES);
          expect(flow.unused).toBe(granted - received);
        }
      }),
    );
  });

  it("refuse what is beyond the credit, and acknowledgements of what was not sent or is no news", () => {
    const flow = new RelayFlow();
    expect(flow.receive(1)).toBe(false);
    flow.grant(10_000);
    expect([flow.receive(6000), flow.receive(4001), flow.receive(4000)]).toEqual([true, false, true]);
    expect(flow.take(1000)).toBe(false);
    flow.handOver(6000);
    // Only the second and the last are for at least a frame that was sent.
    expect([6001, 5000, 5000, 4999, 5001, 5511, 5512].map((taken) => flow.take(taken))).toEqual([
      false,
      true,
      false,
      false,
      false,
      false,
      true,
    ]);
  });
});

describe("a token bucket", () => {
  it("holds a second's worth, refills with time and says how long to wait", () => {
    const bucket = new TokenBucket(1_000_000, 0);
    expect([bucket.take(1_000_000, 0), bucket.take(1, 0)]).toEqual([true, false]);
    expect(bucket.waitMs(250_000, 0)).toBe(250);
    expect([bucket.take(250_000, 249), bucket.take(250_000, 250)]).toEqual([false, true]);
    expect([bucket.isFull(1000), bucket.isFull(1250), bucket.isFull(1_000_000)]).toEqual([false, true, true]);
  });

  it("lets a clock that goes back take nothing away", () => {
    const bucket = new TokenBucket(1_000_000, 1000);
    expect(bucket.take(900_000, 500)).toBe(true);
    expect(bucket.take(100_000, 400)).toBe(true);
  });
});

/** A clock that stands still until it is told to go on. */
const standingClock = () => {
  let nowMs = 0;
  const timers = new Map<number, { atMs: number; fn: () => void }>();
  let ids = 0;
  const clock: Clock = {
    now: () => nowMs,
    monotonicMs: () => nowMs,
    setTimer(delayMs, fn) {
      const id = ids++;
      timers.set(id, { atMs: nowMs + delayMs, fn });
      return { dispose: () => void timers.delete(id) };
    },
  };
  const advance = (ms: number): void => {
    const endMs = nowMs + ms;
    for (;;) {
      const [next] = [...timers].filter(([, timer]) => timer.atMs <= endMs).sort((a, b) => a[1].atMs - b[1].atMs);
      if (next === undefined) break;
      timers.delete(next[0]);
      nowMs = next[1].atMs;
      next[1].fn();
    }
    nowMs = endMs;
  };
  return { clock, advance, pending: () => timers.size };
};

/** Sends whatever it may at once, to a reader that takes everything at once. */
const greedy = (budget: () => DeviceBudget) => {
  const flow = new RelayFlow();
  const sender = {
    flow,
    sent: 0,
    tell(granted: number): void {
      const bytes = granted - sender.sent;
      sender.sent = granted;
      flow.receive(bytes);
      flow.handOver(bytes);
      flow.take(granted);
      budget().serve();
    },
  };
  return sender;
};

describe("the budget of a device", () => {
  it("gives no more than its rate over time, and the same to each of its relays", () => {
    const { clock, advance, pending } = standingClock();
    const rate = 1_000_000;
    const budget: DeviceBudget = new DeviceBudget(clock, rate, new TotalBudget(clock, 1e9));
    const senders = [greedy(() => budget), greedy(() => budget), greedy(() => budget)];
    for (const sender of senders) budget.add(sender);
    advance(10_000);
    const sent = senders.map((sender) => sender.sent);
    const total = sent.reduce((a, b) => a + b);
    expect(total).toBeLessThanOrEqual(11 * rate);
    expect(total).toBeGreaterThan(10.5 * rate);
    expect(Math.max(...sent) - Math.min(...sent)).toBeLessThan(3 * RELAY_WINDOW_BYTES);
    for (const sender of senders) budget.remove(sender);
    expect(pending()).toBe(0);
    expect(budget.isIdle).toBe(false);
    advance(2000);
    expect(budget.isIdle).toBe(true);
  });

  it("is bounded together with that of all others, who get like shares", () => {
    const { clock, advance } = standingClock();
    const rate = 1_000_000;
    const total = new TotalBudget(clock, 2 * rate);
    const budgets = Array.from({ length: 8 }, () => new DeviceBudget(clock, rate, total));
    const senders = budgets.map((budget) => {
      const sender = greedy(() => budget);
      budget.add(sender);
      return sender;
    });
    advance(20_000);
    const sent = senders.map((sender) => sender.sent);
    const sum = sent.reduce((a, b) => a + b);
    expect(sum).toBeLessThanOrEqual(21 * 2 * rate);
    expect(sum).toBeGreaterThan(20 * 2 * rate);
    expect(Math.min(...sent)).toBeGreaterThan(sum / 8 / 2);
    for (const [i, budget] of budgets.entries()) for (const sender of senders.slice(i, i + 1)) budget.remove(sender);
  });

  it("takes back what an ended relay did not use", () => {
    const { clock } = standingClock();
    const budget = new DeviceBudget(clock, RELAY_WINDOW_BYTES, new TotalBudget(clock, 1e9));
    const idle = { flow: new RelayFlow(), tell: () => undefined };
    budget.add(idle);
    const next = {
      flow: new RelayFlow(),
      granted: 0,
      tell(bytes: number): void {
        next.granted = bytes;
      },
    };
    budget.add(next);
    expect(next.granted).toBe(0);
    budget.remove(idle);
    expect(next.granted).toBe(RELAY_WINDOW_BYTES);
  });

  it("tells an accident from a flood", () => {
    const { clock } = standingClock();
    const budget = new DeviceBudget(clock, RELAY_CREDIT_STEP_BYTES, new TotalBudget(clock, 1e9));
    expect(budget.charge(RELAY_WINDOW_BYTES)).toBe(true);
    let charges = 1;
    while (budget.charge(RELAY_WINDOW_BYTES) && charges < 1000) charges++;
    expect(charges).toBeLessThan(20);
  });
});
