import { appendFileSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import type { Reached } from "../../src-main/steps.ts";

/**
 * Within a process that a test may end at a named moment: writes down every moment that is reached, and at the one that is
 * armed kills the processes it is told to, at once and from within, so that nothing happens in between.
 *
 *   FOLDER/pids    the processes of this program since it was last started, the main one first
 *   FOLDER/steps   moments, one JSON line each
 *   FOLDER/armed   see {@link Armed}; renamed to `fired` by who takes it
 */
export const STEPS_VARIABLE = "WEIR_TEST_STEPS";

export interface Armed {
  readonly step: string;
  /** At the n-th time from now on. */
  readonly nth: number;
  /** The folder, as above, of the program that is killed: this one or another. */
  readonly victim: string;
}
export type Moment = Pick<Reached, "fileId" | "indices"> & { readonly step: string };

export const joinSteps = (): ((moment: Moment) => void) => {
  const folder = process.env[STEPS_VARIABLE];
  if (folder === undefined) throw new Error(`${STEPS_VARIABLE} is not set`);
  appendFileSync(join(folder, "pids"), `${process.pid}\n`);
  let counting = "";
  let count = 0;
  return (moment) => {
    appendFileSync(join(folder, "steps"), `${JSON.stringify(moment)}\n`);
    const text = readOrNull(join(folder, "armed"));
    if (text === null) return;
    const armed = JSON.parse(text) as Armed;
    if (armed.step !== moment.step) return;
    count = counting === text ? count + 1 : 1;
    counting = text;
    if (count < armed.nth) return;
    try {
      renameSync(join(folder, "armed"), join(folder, "fired"));
    } catch {
      // Another thread was faster.
      return;
    }
    kill(pidsIn(armed.victim));
  };
};

export const pidsIn = (folder: string): number[] =>
  (readOrNull(join(folder, "pids")) ?? "")
    .split("\n")
    .filter((line) => line !== "")
    .map(Number);

const kill = (pids: readonly number[]): void => {
  for (const pid of pids)
    try {
      if (pid !== process.pid) process.kill(pid, "SIGKILL");
    } catch {
      // It is gone already.
    }
  if (!pids.includes(process.pid)) return;
  process.kill(process.pid, "SIGKILL");
  // This thread must not take another step until the signal is here.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
};

const readOrNull = (path: string): string | null => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
};
