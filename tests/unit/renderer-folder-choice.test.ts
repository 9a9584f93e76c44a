import fc from "fast-check";
import { expect, test } from "vitest";
import { choose, chosenOf, leaveOut, type Ranges } from "../../src-renderer/state/folder-choice.ts";

const range = fc
  .tuple(fc.nat(30), fc.integer({ min: 1, max: 10 }))
  .map(([first, count]): [number, number] => [first, first + count]);
const members = (ranges: Ranges): number[] =>
  ranges.flatMap(([first, end]) => Array.from({ length: end - first }, (_, i) => first + i));

test("ranges that are chosen and left out hold exactly what a set would, in order and without two that touch", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), range), { maxLength: 20 }), (changes) => {
      let ranges: Ranges = [];
      const set = new Set<number>();
      for (const [isChosen, changed] of changes) {
        ranges = isChosen ? choose(ranges, changed) : leaveOut(ranges, changed);
        for (const item of members([changed])) isChosen ? set.add(item) : set.delete(item);
        const inside = members([changed]).filter((item) => set.has(item)).length;
        expect(chosenOf(ranges, changed)).toBe(inside === 0 ? "none" : "all");
      }
      expect(members(ranges)).toEqual([...set].sort((a, b) => a - b));
      for (const [i, [first]] of ranges.entries()) expect(first).toBeGreaterThan(ranges[i - 1]?.[1] ?? -1);
    }),
  );
});
