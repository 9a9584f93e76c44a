import type { FolderEntryView } from "#shared/ipc/views.ts";

/** Which entries of a shared folder are chosen: ranges [first, end) in order, none touching the next. Pure. */
export type Ranges = readonly (readonly [first: number, end: number])[];
export type Chosen = "all" | "some" | "none";

export const rangeOf = ({ first, entries }: Pick<FolderEntryView, "first" | "entries">): [number, number] => [
  first,
  first + entries,
];

export const chosenOf = (ranges: Ranges, [first, end]: readonly [number, number]): Chosen => {
  let chosen = 0;
  for (const [from, to] of ranges) chosen += Math.max(0, Math.min(to, end) - Math.max(from, first));
  if (chosen === 0) return "none";
  return chosen === end - first ? "all" : "some";
};

export const choose = (ranges: Ranges, [first, end]: readonly [number, number]): Ranges => {
  const apart = ranges.filter(([from, to]) => to < first || from > end);
  const touching = ranges.filter(([from, to]) => to >= first && from <= end);
  const joined: [number, number] = [
    Math.min(first, ...touching.map(([from]) => from)),
    Math.max(end, ...touching.map(([, to]) => to)),
  ];
  return [...apart, joined].sort(([a], [b]) => a - b);
};

export const leaveOut = (ranges: Ranges, [first, end]: readonly [number, number]): Ranges =>
  ranges.flatMap(([from, to]): [number, number][] => {
    const before: [number, number] = [from, Math.min(to, first)];
    const after: [number, number] = [Math.max(from, end), to];
    return [before, after].filter(([a, b]) => a < b);
  });
