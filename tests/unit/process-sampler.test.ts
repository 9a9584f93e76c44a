import { expect, test } from "vitest";
import { countLeakOf, growthOf, memoryLeakOf, type Sample, sampleOf, slopeOf } from "../support/process-sampler.ts";
import { seededNumbers } from "../support/seeded.ts";

const HOUR_MS = 60 * 60 * 1000;

/** A run of so many hours that grows while everything is loaded, and then as told; memory breathes all the time. */
const run = (hours: number, mebibytesPerHour: number): Sample[] => {
  const number = seededNumbers(1);
  return Array.from({ length: 500 }, (_, i) => {
    const at = (i * hours) / 500;
    const rssMiB = 100 + 60 * Math.min(1, (10 * i) / 500) + mebibytesPerHour * at + 20 * number();
    return { atMs: at * HOUR_MS, rssMiB, files: 40, threads: 20 };
  });
};

test("the slope is that of the line", () => {
  const line = [1, 2, 3].map((x) => [x, 2 * x + 1] as const);
  expect(slopeOf(line)).toBeCloseTo(2);
  expect(slopeOf([[1, 3]])).toBe(0);
  expect(growthOf(run(24, 5)).mebibytesPerHour).toBeCloseTo(5, 0);
});

test("memory that only breathes is no leak, on a day and within minutes; memory that grows is one", () => {
  for (const hours of [0.01, 1, 24]) expect(memoryLeakOf(run(hours, 0), 0)).toBe(null);
  expect(memoryLeakOf(run(24, 0.7), 0)).toBe(null);
  expect(memoryLeakOf(run(24, 2), 0)).toMatch(/^memory grew by/);
  expect(memoryLeakOf(run(0.1, 1000), 0)).toMatch(/^memory grew by/);
});

test("what the native library keeps of each connection is allowed for", () => {
  expect(memoryLeakOf(run(24, 5), 0)).not.toBe(null);
  expect(memoryLeakOf(run(24, 5), 10_000)).toBe(null);
});

test("files and threads that stay open are named", () => {
  const before = { atMs: 0, rssMiB: 1, files: 40, threads: 20 };
  expect(countLeakOf(before, { ...before, files: 42, threads: 18 })).toBe(null);
  expect(countLeakOf(before, { ...before, files: 43 })).toBe("files grew from 40 to 43");
  expect(countLeakOf(before, { ...before, files: 43, threads: 23 })).toMatch(/^files .*, threads/);
});

test.runIf(process.platform === "linux")("a process is sampled, and one that is gone is not", () => {
  const sample = sampleOf(process.pid, 5);
  expect(sample?.rssMiB).toBeGreaterThan(10);
  expect(sample?.files).toBeGreaterThan(2);
  expect(sample?.threads).toBeGreaterThan(0);
  expect(sampleOf(2 ** 22 + 1, 5)).toBe(null);
});
