import { expect, test } from "vitest";
import { counted } from "../support/counts.ts";
import { simulateManagers } from "../support/links-sim.ts";

/** Seeds that once failed; each stays. */
const FAILED_BEFORE: readonly number[] = [];
const runs = counted(60, 10_000);

test("seeds that failed before hold", async () => {
  for (const seed of FAILED_BEFORE) expect({ seed, ...(await simulateManagers(seed)) }).toMatchObject({ wrongs: [] });
}, 120_000);

test("whatever happens to two to four people, nothing of an older connection is taken for a newer one's, and all are linked in the end", async () => {
  let staleEvents = 0;
  let restarts = 0;
  const failed: { seed: number; wrongs: readonly string[] }[] = [];
  for (let seed = 1; seed <= runs; seed += 1) {
    const run = await simulateManagers(seed);
    staleEvents += run.staleEvents;
    restarts += run.restarts;
    if (run.wrongs.length > 0) failed.push({ seed, wrongs: run.wrongs });
  }
  expect(failed).toEqual([]);
  // Otherwise the runs were too tame to say anything.
  expect(staleEvents).toBeGreaterThan(runs);
  expect(restarts).toBeGreaterThan(runs);
}, 7_200_000);

test("a seed is a run: the same one again shows the same", async () => {
  for (const seed of [1, 2, 3]) {
    const [first, again] = [await simulateManagers(seed), await simulateManagers(seed)];
    expect(first.trace.length).toBeGreaterThan(1000);
    expect(again.trace).toBe(first.trace);
  }
}, 60_000);
