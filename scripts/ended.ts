import type { ChildProcess } from "node:child_process";

interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Somebody had asked us to end. */
  readonly asked: boolean;
}

/** Waits for the end of a program and hands our own signals on, so that it can drain and end in order. */
export const ended = (child: ChildProcess): Promise<End> => {
  let asked = false;
  const stop = (signal: NodeJS.Signals): void => {
    asked = true;
    // A terminal sends Ctrl+C to the whole group; a second SIGINT would cut the orderly end short.
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  return new Promise((resolve) => {
    const end = (code: number | null, signal: NodeJS.Signals | null): void => {
      process.off("SIGINT", stop).off("SIGTERM", stop);
      resolve({ code, signal, asked });
    };
    child.once("error", () => end(null, null));
    child.once("exit", end);
  });
};
