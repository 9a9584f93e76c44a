/** What comparing two safety numbers says. `groups`: which of the twelve groups of five digits differ, from 1. */
export type Comparison =
  | { readonly kind: "match" }
  | { readonly kind: "mismatch"; readonly groups: readonly number[] }
  | { readonly kind: "unreadable"; readonly digits: number };

const GROUP_DIGITS = 5;

/** `entered` is what the other person sent: digits in any grouping, also inside other words, also in wide letters of an IME. */
export const compareSafetyNumbers = (own: string, entered: string): Comparison => {
  const digits = entered.normalize("NFKC").replace(/[^0-9]/g, "");
  if (digits.length !== own.length) return { kind: "unreadable", digits: digits.length };
  const groups: number[] = [];
  for (let start = 0; start < own.length; start += GROUP_DIGITS) {
    const end = start + GROUP_DIGITS;
    if (own.slice(start, end) !== digits.slice(start, end)) groups.push(start / GROUP_DIGITS + 1);
  }
  return groups.length === 0 ? { kind: "match" } : { kind: "mismatch", groups };
};
