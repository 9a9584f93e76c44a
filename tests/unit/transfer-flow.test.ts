import { expect, test } from "vitest";
import {
  CHUNK_BYTES,
  CHUNK_BYTES_LARGE,
  REQUEST_WINDOW_BYTES,
  REQUEST_WINDOW_CHUNKS,
  REQUEST_WINDOW_MIN_CHUNKS,
} from "#shared/base/limits.ts";
import { askedIdle, chunkCame, type Flow, freshFlow, windowOf } from "../../src-main/transfer/seeder-flow.ts";

const boundsOf = (chunkBytes: number) => ({
  first: REQUEST_WINDOW_MIN_CHUNKS,
  most: Math.min(REQUEST_WINDOW_CHUNKS, Math.floor(REQUEST_WINDOW_BYTES / chunkBytes)),
});

/** What a seeder with a chunk a millisecond delivers, each `tripMs` after it was asked for, in Mbit/s once settled. */
const settledRate = (chunkBytes: number, tripMs: number): number => {
  const bounds = boundsOf(chunkBytes);
  const due = new Map<number, number>();
  let flow = freshFlow(0);
  let owed = 0;
  let came = 0;
  const [countedFromMs, lastMs] = [3000, 6000];
  for (let nowMs = 1; nowMs < lastMs; nowMs += 1) {
    for (let at = due.get(nowMs) ?? 0; at > 0; at -= 1) {
      flow = chunkCame(flow, nowMs);
      owed -= 1;
      if (nowMs >= countedFromMs) came += 1;
    }
    for (; owed < windowOf(flow, bounds); owed += 1) {
      let atMs = nowMs + tripMs;
      while ((due.get(atMs) ?? 0) > 0) atMs += 1;
      due.set(atMs, 1);
    }
  }
  return (came * chunkBytes * 8) / 1000 / (lastMs - countedFromMs);
};

test.each([CHUNK_BYTES, CHUNK_BYTES_LARGE])(
  "a window of chunks of %i bytes grows to 333 Mbit/s over three round trips of 50 ms",
  (chunkBytes) => {
    expect(settledRate(chunkBytes, 150)).toBeGreaterThan(333);
  },
);

/** Asks for a whole window whenever all of the last one is here, which it is `tripMs` after it was asked for. */
const afterRounds = (rounds: number, tripMs: number, chunkEveryMs: number): number => {
  const bounds = boundsOf(CHUNK_BYTES_LARGE);
  // A slow beginning: two chunks in a sample's time.
  let flow: Flow = { ...freshFlow(0), chunksPerMs: 1 / 200, delayMs: tripMs };
  let nowMs = 0;
  for (let round = 0; round < rounds; round += 1) {
    const asked = windowOf(flow, bounds);
    flow = askedIdle(flow, nowMs);
    nowMs += tripMs;
    for (let came = 0; came < asked; came += 1) {
      nowMs += chunkEveryMs;
      flow = chunkCame(flow, nowMs);
    }
    // Until the disk has them.
    nowMs += 10;
  }
  return windowOf(flow, bounds);
};

test("a window that was all there before its speed could be measured grows", () => {
  expect(afterRounds(0, 50, 1)).toBe(REQUEST_WINDOW_MIN_CHUNKS);
  expect(afterRounds(6, 50, 1)).toBe(boundsOf(CHUNK_BYTES_LARGE).most);
});

test("a slow seeder's window stays small, however it is asked", () => {
  // A chunk of 256 KiB every 150 ms: three in the time that a window lasts.
  expect(afterRounds(50, 50, 150)).toBeLessThanOrEqual(4);
});
