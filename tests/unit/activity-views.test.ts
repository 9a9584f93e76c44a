import { describe, expect, test } from "vitest";
import { usualHours } from "../../src-main/activity/summary.ts";
import {
  bestHours,
  bytesByDay,
  csvOf,
  drainTimes,
  everyDay,
  jsonOf,
  pathMix,
  topContacts,
} from "../../src-renderer/state/activity-tables.ts";
import { isLastKnownCopy, lastKnownCopiesOf } from "../../src-renderer/state/last-copy.ts";
import { emptySummary, sampleSummary } from "../support/fake-activity.ts";
import { transferView } from "../support/fake-app.ts";
import { BOB, files, ME } from "../support/fake-weir-sample.ts";

const NOW = Date.UTC(2026, 10, 20, 12);

describe("the usual hours of somebody", () => {
  const day = (share: (hour: number) => number | null): (number | null)[] =>
    Array.from({ length: 24 }, (_, h) => share(h));

  test("are the longest stretch that is at least half as good as the best hour, also past midnight", () => {
    expect(usualHours(day((hour) => (hour >= 18 && hour < 23 ? 0.8 : 0.1)))).toEqual({ from: 18, to: 23 });
    expect(usualHours(day((hour) => (hour >= 22 || hour < 2 ? 0.6 : 0)))).toEqual({ from: 22, to: 2 });
    expect(usualHours(day((hour) => (hour === 8 || (hour >= 12 && hour < 15) ? 0.4 : 0)))).toEqual({
      from: 12,
      to: 15,
    });
  });

  test("are not told when nothing is known, hardly ever online, or always alike", () => {
    expect(usualHours(day(() => null))).toBeNull();
    expect(usualHours(day(() => 0.05))).toBeNull();
    expect(usualHours(day(() => 0.9))).toBeNull();
  });
});

test("the last known copy is ours when it is complete and nobody else is known to have the file", () => {
  const [file] = Object.values(files);
  if (file === undefined) throw new Error("a file");
  const complete = transferView({ phase: "complete" });
  expect(isLastKnownCopy({ ...file, seeders: [] }, complete, ME)).toBe(true);
  expect(isLastKnownCopy({ ...file, seeders: [ME] }, complete, ME)).toBe(true);
  expect(isLastKnownCopy({ ...file, seeders: [ME, BOB] }, complete, ME)).toBe(false);
  expect(isLastKnownCopy({ ...file, seeders: [] }, transferView(), ME)).toBe(false);
  expect(isLastKnownCopy({ ...file, seeders: [] }, undefined, ME)).toBe(false);

  const known = [
    { ...file, fileId: "last", ownerId: BOB, seeders: [] },
    { ...file, fileId: "elsewhere", ownerId: BOB, seeders: [BOB] },
    { ...file, fileId: "unfinished", ownerId: BOB, seeders: [] },
    { ...file, fileId: "of another", ownerId: "carol", seeders: [] },
  ];
  const transferOf = (fileId: string) => (fileId === "unfinished" ? transferView() : complete);
  expect(lastKnownCopiesOf(BOB, known, transferOf, ME).map(({ fileId }) => fileId)).toEqual(["last"]);
});

describe("the tables behind the plots", () => {
  const summary = sampleSummary(NOW, ["b".repeat(32)], []);

  test("have every day, also those on which nothing moved, and sum up to the totals", () => {
    const sparse = { ...summary, byDay: summary.byDay.filter((_, index) => index % 3 === 0) };
    expect(everyDay(sparse)).toHaveLength(30);
    const sum = (column: number): number =>
      bytesByDay(summary).rows.reduce((total, row) => total + Number(row[column]?.value), 0);
    expect([sum(1), sum(2)]).toEqual([summary.bytesReceived, summary.bytesSent]);
    expect(everyDay({ ...summary, fromDay: "1990-01-01" }, 370)).toHaveLength(370);
    expect(bytesByDay(emptySummary(NOW)).rows).toHaveLength(1);
  });

  test("name classes and ways in words", () => {
    expect(drainTimes(summary).rows.map(([name]) => name?.text)).toEqual([
      ...["At once", "Up to 1 ms", "Up to 10 ms", "Up to 50 ms", "Up to 100 ms", "Up to 250 ms", "Up to 500 ms"],
      "Over 500 ms",
    ]);
    expect(pathMix(summary).rows.map(([name]) => name?.text)).toEqual(["Local network", "Direct", "Relay"]);
    expect(
      bestHours(summary, () => "Bob")
        .rows[0]?.map(({ text }) => text)
        .slice(0, 8),
    ).toEqual([...["Bob", "not known", "not known", "not known", "not known", "not known", "not known", "8 %"]]);
  });

  test("name people, groups and files, and so do both exports", () => {
    const group = `g${"a".repeat(32)}`;
    const file = { fileId: "c".repeat(22), sizeBytes: 1000 };
    const mixed = sampleSummary(NOW, ["b".repeat(32), group], [file]);
    const nameOf = (id: string): string => (id === group ? "Hikers" : "Bob");
    const people = topContacts(mixed, nameOf);
    expect(people.rows.map(([name]) => name?.text).sort()).toEqual(["Bob", "Hikers"]);
    expect(csvOf([people])).toContain("Hikers,");
    expect(csvOf([people])).not.toContain(group);
    const exported = JSON.parse(jsonOf(mixed, nameOf, () => "map.bin")) as typeof mixed;
    expect(exported).toMatchObject({
      byContact: mixed.byContact.map((each) => ({ ...each, name: nameOf(each.userId) })),
      byFile: [{ fileId: file.fileId, name: "map.bin" }],
      bytesReceived: mixed.bytesReceived,
    });
    expect(exported.transfers.map((each) => ({ ...each, name: "map.bin" }))).toEqual(exported.transfers);
  });

  test("are exported whole, and no name becomes a formula or breaks a line", () => {
    const csv = csvOf([
      {
        title: "Files",
        columns: ["File", "Received"],
        rows: [
          [
            { text: "x", value: '=cmd|"a"!A1,\n' },
            { text: "1 kB", value: 1000 },
          ],
        ],
      },
      { title: "Days", columns: ["Day"], rows: [] },
    ]);
    expect(csv).toBe(`Files\r\nFile,Received\r\n"'=cmd|""a""!A1,\n",1000\r\n\r\nDays\r\nDay\r\n`);
  });
});
