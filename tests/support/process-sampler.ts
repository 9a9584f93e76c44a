import { readdirSync, readFileSync } from "node:fs";

/** What a process holds over time, from /proc, and whether it grows. Linux only. */
export interface Sample {
  readonly atMs: number;
  readonly rssMiB: number;
  /** Open files, sockets included. */
  readonly files: number;
  readonly threads: number;
}

const MiB = 1024 * 1024;
const HOUR_MS = 60 * 60 * 1000;

/** Null when the process is gone. */
export const sampleOf = (pid: number, atMs: number): Sample | null => {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const value = (name: string): number => Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(status)?.[1]);
    const rssMiB = (value("VmRSS") * 1024) / MiB;
    return { atMs, rssMiB, files: readdirSync(`/proc/${pid}/fd`).length, threads: value("Threads") };
  } catch {
    return null;
  }
};

/** Processes that this one started, oldest first. */
export const childrenOf = (pid: number): number[] =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((child) => {
      try {
        // The name of the program, in brackets, can contain spaces.
        const [, parent] = readFileSync(`/proc/${child}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
        return Number(parent) === pid;
      } catch {
        return false;
      }
    })
    .sort((a, b) => a - b);

/** Least squares: how much `y` grows for each `x`. Zero for fewer than two points. */
export const slopeOf = (points: readonly (readonly [x: number, y: number])[]): number => {
  const n = points.length;
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / n;
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / n;
  const spread = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return spread === 0 ? 0 : points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) / spread;
};

export interface Growth {
  readonly hours: number;
  /** By the line through all samples. */
  readonly mebibytes: number;
  readonly mebibytesPerHour: number;
}

/** Growth of memory after the first quarter, at most an hour, in which everything is loaded, compiled and cached. */
export const growthOf = (samples: readonly Sample[]): Growth => {
  const begunMs = samples[0]?.atMs ?? 0;
  const lastedMs = (samples.at(-1)?.atMs ?? 0) - begunMs;
  const warm = samples.filter(({ atMs }) => atMs - begunMs >= Math.min(HOUR_MS, lastedMs / 4));
  const hours = ((warm.at(-1)?.atMs ?? 0) - (warm[0]?.atMs ?? 0)) / HOUR_MS;
  const mebibytesPerHour = slopeOf(warm.map(({ atMs, rssMiB }) => [atMs / HOUR_MS, rssMiB] as const));
  return { hours, mebibytes: mebibytesPerHour * hours, mebibytesPerHour };
};

/** A day at this slope is the bar; what a heap breathes within minutes says nothing about it. */
const MEBIBYTES_PER_HOUR_MAX = 1;
const BREATH_MIB = 24;
/** The native library keeps this much of each connection. */
const NATIVE_KIB_PER_CONNECT = 12;
const COUNT_GROWTH_MAX = 2;

/** Whether memory grew more than it may, in words. */
export const memoryLeakOf = (samples: readonly Sample[], connects: number): string | null => {
  const { hours, mebibytes, mebibytesPerHour } = growthOf(samples);
  const allowed = Math.max(BREATH_MIB, MEBIBYTES_PER_HOUR_MAX * hours) + (connects * NATIVE_KIB_PER_CONNECT) / 1024;
  if (mebibytes <= allowed) return null;
  return `memory grew by ${mebibytes.toFixed(1)} MiB (${mebibytesPerHour.toFixed(1)} MiB an hour)`;
};

/** Whether it holds more open files or threads than before, both times at rest, in words. */
export const countLeakOf = (before: Sample, after: Sample): string | null => {
  const more = (what: "files" | "threads"): string[] =>
    after[what] - before[what] > COUNT_GROWTH_MAX ? [`${what} grew from ${before[what]} to ${after[what]}`] : [];
  const found = [...more("files"), ...more("threads")];
  return found.length === 0 ? null : found.join(", ");
};
