import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EARLY_MESSAGES_MAX } from "#shared/base/limits.ts";
import { type OrderEffect, type OrderState, step } from "../../src-main/messages/order-machine.ts";

const short = (effects: readonly OrderEffect[]): string =>
  effects
    .map((effect) => (effect.type === "missing" ? `missing ${effect.count}` : `${effect.type} ${effect.seq}`))
    .join(", ");

const run = (before: OrderState, seq: number): [OrderState, string] => {
  const [after, effects] = step(before, { type: "arrived", seq });
  return [after, short(effects)];
};

describe("one arrival", () => {
  test.each<[string, OrderState, number, OrderState, string]>([
    ["expected", { next: 4, early: [] }, 4, { next: 5, early: [] }, "apply 4"],
    ["closes a hole", { next: 4, early: [5, 6, 8] }, 4, { next: 7, early: [8] }, "apply 4, apply 5, apply 6"],
    ["early", { next: 4, early: [7] }, 6, { next: 4, early: [6, 7] }, "keep 6"],
    ["early again", { next: 4, early: [6] }, 6, { next: 4, early: [6] }, "drop 6"],
    ["late", { next: 4, early: [6] }, 2, { next: 4, early: [6] }, "apply 2"],
    ["the first of all", { next: null, early: [] }, 57, { next: 58, early: [] }, "apply 57"],
  ])("%s", (_, before, seq, after, effects) => {
    expect(run(before, seq)).toEqual([after, effects]);
  });
});

test("without room the hole is given up", () => {
  const early = Array.from({ length: EARLY_MESSAGES_MAX }, (_, i) => 10 + i * 2);
  const [near, shownNear] = run({ next: 4, early }, 11);
  expect(shownNear).toBe("missing 6, apply 10, apply 11, apply 12");
  expect(near).toEqual({ next: 13, early: early.slice(2) });
  const [far, shownFar] = run({ next: 4, early }, 10_000);
  expect(shownFar).toBe("missing 6, apply 10, keep 10000");
  expect(far.early).toHaveLength(EARLY_MESSAGES_MAX);
});

test.each<[string, OrderState, number, OrderState, string]>([
  ["up to here", { next: 4, early: [] }, 9, { next: 9, early: [] }, ""],
  ["what is early before it", { next: 4, early: [6, 8, 12] }, 9, { next: 9, early: [12] }, "apply 6, apply 8"],
  ["and what follows", { next: 4, early: [6, 9, 10] }, 9, { next: 11, early: [] }, "apply 6, apply 9, apply 10"],
  ["nothing that is expected anyway", { next: 4, early: [6] }, 4, { next: 4, early: [6] }, ""],
  ["nothing without an order", { next: null, early: [] }, 4, { next: null, early: [] }, ""],
])("what will never come is not waited for: %s", (_, before, oldest, after, effects) => {
  const [state, done] = step(before, { type: "skipped", oldest });
  expect([state, short(done)]).toEqual([after, effects]);
});

test("a hole that lasts too long is given up one at a time", () => {
  const [after, effects] = step({ next: 4, early: [6, 7, 9] }, { type: "gapExpired" });
  expect([after, short(effects)]).toEqual([{ next: 8, early: [9] }, "missing 2, apply 6, apply 7"]);
  expect(step({ next: 4, early: [] }, { type: "gapExpired" })).toEqual([{ next: 4, early: [] }, []]);
  expect(step({ next: null, early: [] }, { type: "gapExpired" })[1]).toEqual([]);
});

test("starting anew shows what was early and takes the next as it comes", () => {
  const [after, effects] = step({ next: 4, early: [6, 9] }, { type: "restarted" });
  expect([after, short(effects)]).toEqual([{ next: null, early: [] }, "apply 6, apply 9"]);
});

test("whatever the order of arrival: each once, in order, nothing missing", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 60 }).chain((n) => fc.shuffledSubarray(range(n), { minLength: n, maxLength: n })),
      fc.array(fc.nat(59)),
      (arrivals, repeats) => {
        let state: OrderState = { next: 1, early: [] };
        const applied: number[] = [];
        for (const seq of [...arrivals]) {
          const [after, effects] = step(state, { type: "arrived", seq });
          state = after;
          for (const effect of effects) {
            expect(["apply", "keep"]).toContain(effect.type);
            if (effect.type === "apply") applied.push(effect.seq);
          }
        }
        expect(applied).toEqual(range(arrivals.length));
        expect(state).toEqual({ next: arrivals.length + 1, early: [] });
        // Numbers that were used already never make a hole.
        for (const seq of repeats)
          expect(step(state, { type: "arrived", seq: seq + 1 })[0].early.length).toBeLessThan(2);
      },
    ),
  );
});

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);
