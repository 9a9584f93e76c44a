import { describe, expect, test } from "vitest";
import { FairShare, TokenBucket } from "../../src-main/transfer/bandwidth.ts";

describe("a limit", () => {
  test("lets through what it says, whatever the pieces and the pauses", () => {
    const bucket = new TokenBucket();
    expect(bucket.waitMs(0)).toBe(0);
    bucket.limit(100_000, 0);
    let sent = 0;
    let now = 0;
    while (now < 60_000) {
      const wait = bucket.waitMs(now);
      if (wait > 0) now += wait;
      else {
        bucket.take(65_536);
        sent += 65_536;
      }
    }
    // One piece more at the beginning, one less at the end.
    expect(Math.abs(sent - 6_000_000)).toBeLessThanOrEqual(2 * 65_536);
    bucket.limit(null, now);
    expect(bucket.waitMs(now)).toBe(0);
  });

  test("saves up no more than a moment's worth", () => {
    const bucket = new TokenBucket();
    bucket.limit(100_000, 0);
    let burst = 0;
    while (bucket.waitMs(3_600_000) === 0) {
      bucket.take(1000);
      burst += 1000;
    }
    expect(burst).toBeLessThanOrEqual(21_000);
  });
});

describe("turns", () => {
  const count = (rounds: number, weights: Record<string, number>): Record<string, number> => {
    const share = new FairShare<string>();
    const had: Record<string, number> = {};
    for (let i = 0; i < rounds; i += 1) {
      const wanting = Object.entries(weights).map(([key, weight]) => ({ key, weight, amount: 10 }));
      const next = share.next(wanting) ?? "";
      had[next] = (had[next] ?? 0) + 1;
    }
    return had;
  };

  test("go by weight", () => {
    expect(count(700, { high: 4, normal: 2, low: 1 })).toEqual({ high: 400, normal: 200, low: 100 });
    expect(count(300, { a: 2, b: 2, c: 2 })).toEqual({ a: 100, b: 100, c: 100 });
  });

  test("make up for nothing when somebody comes later", () => {
    const share = new FairShare<string>();
    const one = { key: "a", weight: 1, amount: 10 };
    const other = { key: "b", weight: 1, amount: 10 };
    for (let i = 0; i < 100; i += 1) share.next([one]);
    const next = Array.from({ length: 10 }, () => share.next([one, other]));
    expect(next.filter((key) => key === "a")).toHaveLength(5);
    expect(share.next([])).toBeNull();
  });
});
