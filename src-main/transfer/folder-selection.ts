import { FOLDER_ENTRIES_MAX, FOLDER_RANGES_MAX } from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { FolderSelection } from "./chunk-worker-protocol.ts";
import type { EntryRange } from "./folder-list.ts";

/** Which entries of a folder somebody wants. Pure. */

/** Ranges in order, joined where they touch; null when they cover every folder whole. Errors: `bad_selection`. */
export const selectionOf = (ranges: readonly EntryRange[]): Result<readonly EntryRange[] | null> => {
  if (ranges.length > FOLDER_RANGES_MAX)
    return fail("bad_selection", "Too many single files were chosen. Choose whole folders instead.");
  const joined: [number, number][] = [];
  for (const [first, end] of [...ranges].sort(([a], [b]) => a - b)) {
    if (first >= end) return fail("bad_selection", "A range of files ends before it begins.");
    const last = joined.at(-1);
    if (last !== undefined && first <= last[1]) last[1] = Math.max(last[1], end);
    else joined.push([first, end]);
  }
  const [only] = joined;
  return ok(joined.length === 1 && only?.[0] === 0 && only[1] >= FOLDER_ENTRIES_MAX ? null : joined);
};

export const isSameSelection = (a: FolderSelection, b: FolderSelection): boolean =>
  JSON.stringify(a) === JSON.stringify(b);

/** The chosen ones of `count` entries, in order. */
export function* selectedOf(selection: FolderSelection, count: number): Generator<number> {
  if (selection === "choose") return;
  for (const [first, end] of selection ?? [[0, count] as const])
    for (let index = first; index < Math.min(end, count); index += 1) yield index;
}
