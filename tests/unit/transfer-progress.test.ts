import { expect, test } from "vitest";
import { PROGRESS_INTERVAL_MS } from "#shared/base/limits.ts";
import { Progress } from "../../src-main/transfer/worker/io.ts";

test("tells at once, then as often as people are told, and always the last value", () => {
  const told: number[] = [];
  let nowMs = 5;
  const progress = new Progress((value) => told.push(value), { monotonicMs: () => nowMs });
  for (let value = 1; value <= 10; value += 1) progress.report(value);
  expect(told).toEqual([1]);
  nowMs += PROGRESS_INTERVAL_MS - 1;
  progress.report(11);
  expect(told).toEqual([1]);
  nowMs += 1;
  progress.report(12);
  progress.report(13);
  expect(told).toEqual([1, 12]);
  progress.flush();
  progress.flush();
  expect(told).toEqual([1, 12, 13]);
});

test("tells nothing of a job that said nothing", () => {
  const told: number[] = [];
  new Progress((value) => told.push(value)).flush();
  expect(told).toEqual([]);
});
