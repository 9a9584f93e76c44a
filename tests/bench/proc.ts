import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";

/** What the system tells about processes, and about the machine that a figure is of. */
const MiB = 1024 * 1024;

export const machine = {
  cores: availableParallelism(),
  memoryGiB: Math.round(totalmem() / 1024 ** 3),
  node: process.version,
};

/** Bytes from /proc; null where there is none (macOS, Windows). */
const procStatus = (pid: number | undefined, field: "VmRSS" | "VmHWM"): number | null => {
  try {
    const match = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return match === null ? null : Number(match[1]) * 1024;
  } catch {
    return null;
  }
};

/** The engine of a program; none where there is no /proc. */
const enginesOf = (pid: number | undefined): number[] => {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
};

/** Bytes of a program with its engine. */
export const memoryOf = (pid: number | undefined, field: "VmRSS" | "VmHWM"): number | null => {
  const all = [pid, ...enginesOf(pid)].map((each) => procStatus(each, field));
  return all.reduce((sum, bytes) => (sum === null || bytes === null ? null : sum + bytes), 0);
};

/** Processor seconds that a program used so far, by its threads and those of its engine; null where there is no /proc. */
export const cpuSecondsOf = (pid: number | undefined): Record<string, number> | null => {
  const seconds = threadSecondsOf(pid, "main");
  for (const engine of enginesOf(pid)) Object.assign(seconds ?? {}, threadSecondsOf(engine, "engine"));
  return seconds;
};

const threadSecondsOf = (pid: number | undefined, main: "main" | "engine"): Record<string, number> | null => {
  const prefix = main === "main" ? "" : "engine ";
  const seconds: Record<string, number> = {};
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8");
      const thisThread = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
      const name = String(pid) === thread ? main : `${prefix}${thisThread}`;
      // Fields 14 and 15 of proc(5), in hundredths of a second on every Linux that Node runs on.
      const [user = 0, system = 0] = stat
        .slice(stat.lastIndexOf(")") + 2)
        .split(" ")
        .slice(11, 13)
        .map(Number);
      seconds[name] = (seconds[name] ?? 0) + (user + system) / 100;
    }
    return seconds;
  } catch {
    return null;
  }
};

export const cpuBetween = (
  before: Record<string, number> | null,
  after: Record<string, number> | null,
): Record<string, number> | null => {
  if (before === null || after === null) return null;
  const used = Object.entries(after).map(([name, value]) => [name, value - (before[name] ?? 0)] as const);
  const all = used.reduce((sum, [, value]) => sum + value, 0);
  const shown = [["all", all] as const, ...used.filter(([, value]) => value >= 0.1)];
  return Object.fromEntries(shown.map(([name, value]) => [name, Math.round(value * 100) / 100]));
};

export const mib = (bytes: number | null): number | null =>
  bytes === null ? null : Math.round((bytes / MiB) * 10) / 10;
