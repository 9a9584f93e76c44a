import { expect, test } from "vitest";
import { dateInputOf, endOf, limitOf } from "../../src-renderer/state/limits.ts";

test("an end is written as it was typed, and has to lie ahead", () => {
  const text = "2031-02-03T04:05";
  const end = endOf(text, 0);
  expect(end.ok && dateInputOf(end.value)).toBe(text);
  expect(dateInputOf(null)).toBe("");
  expect(endOf("", 0)).toEqual({ ok: true, value: null });
  const ms = new Date(text).getTime();
  expect([endOf(text, ms - 1).ok, endOf(text, ms).ok, endOf("soon", 0).ok]).toEqual([true, false, false]);
});

test.each([
  ["", { ok: true, value: null }],
  [" 12 ", { ok: true, value: 12 }],
  ["1000", { ok: true, value: 1000 }],
])("%j downloads", (text, expected) => {
  expect(limitOf(text, 1000)).toEqual(expected);
});
test.each(["0", "1001", "1.5", "-1", "many", "1e9"])("%j is no number of downloads", (text) => {
  expect(limitOf(text, 1000).ok).toBe(false);
});
