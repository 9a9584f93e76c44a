import fc from "fast-check";
import { expect, test } from "vitest";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";

const size = fc.integer({ min: 1, max: 400_000 });

test("behaves like a set of numbers", () => {
  fc.assert(
    fc.property(
      size,
      fc.array(fc.tuple(fc.boolean(), fc.nat()), { maxLength: 60 }),
      fc.array(fc.nat()),
      (n, changes, starts) => {
        let map = PieceMap.empty(n);
        const model = new Set<number>();
        for (const [add, at] of changes) {
          const index = at % n;
          const before = map;
          const count = map.count;
          map = add ? map.with(index) : map.without(index);
          // The older map is untouched: states that are kept stay what they were.
          expect(before.count).toBe(count);
          if (add) model.add(index);
          else model.delete(index);
        }
        expect(map.count).toBe(model.size);
        for (const index of model) expect(map.has(index)).toBe(true);
        const bytes = new Uint8Array(Math.ceil(n / 8));
        for (const index of model) bytes[index >> 3] = (bytes[index >> 3] ?? 0) | (1 << (index & 7));
        expect(PieceMap.fromBytes(n, bytes).count).toBe(model.size);
        for (const start of starts) {
          let expected: number | null = start % n;
          while (expected !== null && model.has(expected)) expected = expected + 1 < n ? expected + 1 : null;
          expect(map.nextMissing(start % n, null)).toBe(expected);
          // Searching the full map for what this one has finds the smallest member.
          const present = [...model].filter((index) => index >= start % n).sort((a, b) => a - b)[0] ?? null;
          expect(PieceMap.empty(n).nextMissing(start % n, map)).toBe(present);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test("a full map lacks nothing, and bits beyond the end do not count", () => {
  for (const n of [1, 7, 8, 1024, 1025, 131_072, 131_073, 300_001]) {
    const full = PieceMap.fromBytes(n, new Uint8Array(Math.ceil(n / 8) + 3).fill(255));
    expect(full.count).toBe(n);
    expect(full.isFull).toBe(true);
    expect(full.nextMissing(0, null)).toBeNull();
    expect(full.without(n - 1).nextMissing(0, PieceMap.full(n))).toBe(n - 1);
  }
  expect(PieceMap.empty(0).isFull).toBe(true);
});
