import fc from "fast-check";
import { expect, test } from "vitest";
import {
  CONTROL_BURST_BYTES,
  CONTROL_BURST_MESSAGES,
  CONTROL_MESSAGES_PER_SECOND,
  RECEIVE_CREDIT_BYTES,
  RECEIVE_CREDIT_STEP_BYTES,
  SEND_QUEUED_BYTES_LOW,
  SEND_QUEUED_BYTES_MAX,
} from "#shared/base/limits.ts";
import { ControlBudget, ReceiveCredit, SendGate } from "../../src-main/links/flow.ts";

test("nothing is sent without credit, and one drained follows a full", () => {
  const gate = new SendGate();
  expect(gate.admit(1000, 0)).toBe("full");
  expect(gate.credit(999, 0)).toBe(false);
  expect(gate.credit(5000, 0)).toBe(true);
  expect(gate.credit(6000, 0)).toBe(false);
  expect(gate.admit(5000, 0)).toBe("sent");
});

test("an older credit takes nothing back", () => {
  const gate = new SendGate();
  gate.credit(5000, 0);
  gate.credit(10, 0);
  expect(gate.admit(5000, 0)).toBe("sent");
});

test("the queue bounds as well as the credit, and drains at the low mark", () => {
  const gate = new SendGate();
  gate.credit(100_000_000, 0);
  expect(gate.admit(1000, SEND_QUEUED_BYTES_MAX - 999)).toBe("full");
  expect(gate.queueLow(SEND_QUEUED_BYTES_LOW + 1)).toBe(false);
  expect(gate.queueLow(SEND_QUEUED_BYTES_LOW)).toBe(true);
  expect(gate.queueLow(0)).toBe(false);
});

test("sender and receiver never block each other for good, and never exceed the credit", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 20, max: 512 * 1024 }), { minLength: 1, maxLength: 200 }), (sizes) => {
      const gate = new SendGate();
      const credit = new ReceiveCredit();
      gate.credit(credit.open(), 0);
      let unreleased = 0;
      for (const size of sizes) {
        while (gate.admit(size, 0) === "full") {
          // Full means that a step or more of credit is in use, so releasing it must renew.
          expect(unreleased).toBeGreaterThanOrEqual(RECEIVE_CREDIT_STEP_BYTES);
          const granted = credit.release(unreleased);
          unreleased = 0;
          expect(granted).not.toBeNull();
          expect(gate.credit(granted ?? 0, 0)).toBe(true);
        }
        expect(credit.take(size)).toBe(true);
        unreleased += size;
        expect(unreleased).toBeLessThanOrEqual(RECEIVE_CREDIT_BYTES);
      }
    }),
  );
});

test("the credit carries 333 Mbit/s although what it allows takes three round trips of 50 ms", () => {
  const tripMs = 75;
  const frame = 64 * 1024;
  const gate = new SendGate();
  const credit = new ReceiveCredit();
  gate.credit(credit.open(), 0);
  const frames = new Map<number, number>();
  const grants = new Map<number, number>();
  let received = 0;
  const lastMs = 3000;
  for (let nowMs = 0; nowMs < lastMs; nowMs += 1) {
    gate.credit(grants.get(nowMs) ?? 0, 0);
    const bytes = frames.get(nowMs) ?? 0;
    expect(credit.take(bytes)).toBe(true);
    received += bytes;
    const granted = credit.release(bytes);
    if (granted !== null) grants.set(nowMs + tripMs, granted);
    // The way itself carries a frame each millisecond.
    if (gate.admit(frame, 0) === "sent") frames.set(nowMs + tripMs, frame);
  }
  expect((received * 8) / 1000 / (lastMs - tripMs)).toBeGreaterThan(333);
});

test("more than the credit is told, and releasing more than came grants nothing extra", () => {
  const credit = new ReceiveCredit();
  expect(credit.take(1)).toBe(false);
  const other = new ReceiveCredit();
  other.open();
  other.take(RECEIVE_CREDIT_STEP_BYTES);
  expect(other.release(100 * RECEIVE_CREDIT_BYTES)).toBe(RECEIVE_CREDIT_BYTES + RECEIVE_CREDIT_STEP_BYTES);
});

test("the control budget is used up by messages or by bytes, and comes back with time", () => {
  const budget = new ControlBudget(0);
  for (let i = 0; i < CONTROL_BURST_MESSAGES; i += 1) expect(budget.take(10, 0)).toBe(true);
  expect(budget.take(10, 0)).toBe(false);
  const later = new ControlBudget(0);
  expect(later.take(CONTROL_BURST_BYTES + 1, 0)).toBe(false);
  const steady = new ControlBudget(0);
  for (let i = 0; i < 3 * CONTROL_BURST_MESSAGES; i += 1)
    expect(steady.take(10, (i * 1000) / CONTROL_MESSAGES_PER_SECOND)).toBe(true);
});
