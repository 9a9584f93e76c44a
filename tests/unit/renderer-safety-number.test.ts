import { describe, expect, it } from "vitest";
import { compareSafetyNumbers } from "../../src-renderer/state/safety-number.ts";

describe("comparing safety numbers", () => {
  const own = "0123456789".repeat(6);

  it.each([
    ["as it is", own],
    ["in groups", own.replace(/.{5}/g, "$& ")],
    ["over lines", own.replace(/.{20}/g, "$&\r\n")],
    ["inside words", `Carol: ${own}!`],
    ["in wide digits", own.replace(/\d/g, (digit) => String.fromCodePoint(0xff10 + Number(digit)))],
  ])("matches %s", (_how, entered) => {
    expect(compareSafetyNumbers(own, entered)).toEqual({ kind: "match" });
  });

  it("names the groups that differ", () => {
    const other = `1${own.slice(1, 59)}0`;
    expect(compareSafetyNumbers(own, other)).toEqual({ kind: "mismatch", groups: [1, 12] });
  });

  it.each([
    ["", 0],
    ["no digits here", 0],
    [own.slice(1), 59],
    [`${own}7`, 61],
    // Other scripts' digits are not guessed at.
    ["٠".repeat(60), 0],
  ])("does not judge %j", (entered, digits) => {
    expect(compareSafetyNumbers(own, entered)).toEqual({ kind: "unreadable", digits });
  });
});
