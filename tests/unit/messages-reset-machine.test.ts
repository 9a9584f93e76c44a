import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { MessageIdSchema } from "#shared/base/ids.ts";
import { SESSION_RESET_WINDOW_MS, SESSION_RESETS_ANSWERED_MAX, SESSION_RESETS_MAX } from "#shared/base/limits.ts";
import {
  initialReset,
  type ResetEffect,
  type ResetEvent,
  type ResetState,
  step,
} from "../../src-main/messages/reset-machine.ts";

const idOf = (n: number) => v.parse(MessageIdSchema, String(n).padStart(22, "A"));
const unreadable = (n: number, nowMs = 0, lost = false): ResetEvent => ({
  ...{ type: "unreadable", nowMs, lost },
  ...{ resetId: idOf(n), received: n },
});
const requested = (n: number, nowMs = 0): ResetEvent => ({ type: "requested", nowMs, resetId: idOf(n) });

const run = (events: readonly ResetEvent[], from = initialReset): { state: ResetState; effects: ResetEffect[] } => {
  let state = from;
  const all: ResetEffect[] = [];
  for (const event of events) {
    const [after, effects] = step(state, event);
    state = after;
    all.push(...effects);
  }
  return { state, effects: all };
};
const types = (events: readonly ResetEvent[], from = initialReset) => run(events, from).effects.map(({ type }) => type);

describe("the repair of a session", () => {
  test("renews, asks once, waits for the answer", () => {
    const { state, effects } = run([unreadable(1), unreadable(2), { type: "renewed" }, unreadable(3)]);
    expect(effects).toEqual([{ type: "renew" }, { type: "ask", resetId: idOf(1) }]);
    expect(state.phase).toEqual({ kind: "asked", resetId: idOf(1), received: 1 });
    expect(step(state, { type: "answered", resetId: idOf(2) })[0]).toBe(state);
    const answered = step(state, { type: "answered", resetId: idOf(1) })[0];
    expect(answered.phase).toEqual({ kind: "calm" });
    expect(types([unreadable(4)], answered)).toEqual(["renew"]);
  });

  test("begins anew when the session that was made for it is gone, or when no answer comes", () => {
    const asked = run([unreadable(1), { type: "renewed" }]).state;
    expect(types([unreadable(2, 0, true)], asked)).toEqual(["renew"]);
    expect(types([unreadable(2, SESSION_RESET_WINDOW_MS - 1)], asked)).toEqual([]);
    expect(types([unreadable(2, SESSION_RESET_WINDOW_MS)], asked)).toEqual(["renew"]);
  });

  test("a request of the peer makes our own fresh session needless", () => {
    const { state, effects } = run([unreadable(1), requested(9), { type: "renewed" }]);
    expect(effects.map(({ type }) => type)).toEqual(["renew", "resend", "ask"]);
    expect(state.phase.kind).toBe("asked");
  });

  test("a request is answered once, however often it comes", () => {
    expect(types([requested(1), requested(1), requested(2), requested(1)])).toEqual(["resend", "resend"]);
  });

  test("what is over the limit comes when the hour is over", () => {
    const repairs = Array.from({ length: SESSION_RESETS_MAX }, (_, n): ResetEvent[] => [
      ...[unreadable(n, n), { type: "renewed" } as const],
      { type: "answered", resetId: idOf(n) },
    ]).flat();
    const { state } = run(repairs);
    const [due, effects] = step(state, unreadable(50, 100));
    expect(effects).toEqual([{ type: "wakeAt", atMs: SESSION_RESET_WINDOW_MS }]);
    expect(types([unreadable(51, 100, true)], due)).toEqual([]);
    expect(types([{ type: "timer", nowMs: 1000 }], due)).toEqual(["wakeAt"]);
    expect(types([{ type: "timer", nowMs: SESSION_RESET_WINDOW_MS }], due)).toEqual(["renew"]);
  });
});

const event: fc.Arbitrary<ResetEvent> = fc.oneof(
  fc.tuple(fc.nat(200), fc.boolean()).map(([n, lost]) => unreadable(n, 0, lost)),
  fc.constant<ResetEvent>({ type: "renewed" }),
  fc.nat(200).map((n): ResetEvent => ({ type: "answered", resetId: idOf(n) })),
  fc.nat(200).map((n) => requested(n)),
  fc.constant<ResetEvent>({ type: "timer", nowMs: 0 }),
);

test("whatever a peer does, an hour costs few prekeys, few requests and few repeats of the outbox", () => {
  fc.assert(
    fc.property(
      fc.array(event, { maxLength: 300 }),
      fc.integer({ min: 0, max: SESSION_RESET_WINDOW_MS - 1 }),
      (events, spread) => {
        const timed = events.map((one, i) => {
          const nowMs = Math.floor((spread * i) / events.length);
          return "nowMs" in one ? { ...one, nowMs } : one;
        });
        const count = (type: ResetEffect["type"]): number => types(timed).filter((one) => one === type).length;
        expect(count("renew")).toBeLessThanOrEqual(SESSION_RESETS_MAX);
        expect(count("ask")).toBeLessThanOrEqual(SESSION_RESETS_MAX);
        expect(count("resend")).toBeLessThanOrEqual(SESSION_RESETS_ANSWERED_MAX);
      },
    ),
    { numRuns: 1000 },
  );
});
