import { describe, expect, it } from "vitest";
import {
  digitGroups,
  folderNameOf,
  formatBytes,
  formatBytesOf,
  formatCountdown,
  formatDay,
  formatDuration,
  formatListTime,
  initialsOf,
  isLoopbackUrl,
  spacedCode,
  textBytes,
} from "../../src-renderer/format.ts";

describe("sizes", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.0 kB"],
    [65_536, "65.5 kB"],
    [999_499, "999 kB"],
    [999_500, "1.0 MB"],
    [67_108_864, "67.1 MB"],
    [7_340_032_000, "7.3 GB"],
    [5_000_000_000_000_000, "5000 TB"],
  ])("%d bytes", (bytes, words) => {
    expect(formatBytes(bytes)).toBe(words);
  });

  it("writes both numbers of a progress in the unit of the total", () => {
    expect(formatBytesOf(23_400_000, 67_100_000)).toBe("23.4 of 67.1 MB");
    expect(formatBytesOf(0, 67_100_000)).toBe("0.0 of 67.1 MB");
    expect(formatBytesOf(1, 3)).toBe("1 of 3 B");
  });
});

describe("times", () => {
  it.each([
    [1, "1 s"],
    [8000, "8 s"],
    [60_000, "1 min"],
    [95_000, "1 min 35 s"],
    [11 * 60_000 + 20_000, "11 min"],
    [3_600_000, "1 h"],
    [80 * 60_000, "1 h 20 min"],
    [26 * 3_600_000, "1 d 2 h"],
  ])("%d ms", (ms, words) => {
    expect(formatDuration(ms)).toBe(words);
  });

  it("counts down to zero and not below", () => {
    expect(formatCountdown(587_000)).toBe("9:47");
    expect(formatCountdown(400)).toBe("0:01");
    expect(formatCountdown(-5000)).toBe("0:00");
  });

  it("names days by the calendar, not by 24 hours", () => {
    const now = new Date(2026, 10, 20, 0, 30).getTime();
    const lateYesterday = new Date(2026, 10, 19, 23, 59).getTime();
    expect(formatListTime(lateYesterday, now)).toBe("Yesterday");
    expect(formatDay(lateYesterday, now)).toBe("Yesterday");
    expect(formatDay(now - 60_000, now)).toBe("Today");
    expect(formatDay(now + 5 * 60_000, now)).toBe("Today");
    expect(formatListTime(now + 5 * 60_000, now)).toMatch(/^\d\d:\d\d/);
  });
});

describe("names and codes", () => {
  it.each([
    ["Bob Lindqvist", "BL"],
    ["  alice  ", "A"],
    ["Ada King Lovelace", "AL"],
    ["🦦 Otter", "🦦O"],
    ["", "?"],
  ])("initials of %j", (name, initials) => {
    expect(initialsOf(name)).toBe(initials);
  });

  it("groups what is read aloud", () => {
    expect(spacedCode("K7MQ4X")).toBe("K7M Q4X");
    expect(digitGroups("0".repeat(60))).toHaveLength(12);
  });

  it("finds the folder of a path of either system", () => {
    expect(folderNameOf("/home/alice/Downloads/a.bin")).toBe("Downloads");
    expect(folderNameOf("C:\\Users\\Alice\\Downloads\\a.bin")).toBe("Downloads");
    expect(folderNameOf("a.bin")).toBe("a.bin");
  });

  it("counts a text in bytes as it travels", () => {
    expect(textBytes("aé🙂")).toBe(1 + 2 + 4);
  });
});

it("tells a loopback address from one that others can reach", () => {
  for (const url of ["ws://127.0.0.1:80", "ws://localhost:3000/x", "ws://[::1]:9", "wss://127.9.9.9"])
    expect(isLoopbackUrl(url), url).toBe(true);
  for (const url of ["wss://weir.example", "ws://192.168.1.4:80", "ws://127.0.0.1.example", "", "nonsense"])
    expect(isLoopbackUrl(url), url).toBe(false);
});
