import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";

/** Runs a program to its end. @throws Error with what it wrote to stderr when it fails. */
export const runProgram = async (command: readonly string[], input = ""): Promise<string> => {
  const [program = "", ...args] = command;
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
  const failed = new Promise<never>((_, reject) => child.once("error", reject));
  child.stdin.on("error", () => undefined);
  child.stdin.end(input);
  const ended = Promise.all([once(child, "close"), text(child.stdout), text(child.stderr)]);
  const [[code], stdout, stderr] = await Promise.race([ended, failed]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${stderr}${stdout}`);
  return stdout;
};

/** SIGKILL and wait. */
export const killProcess = async (child: ChildProcess): Promise<void> => {
  const ended = (): boolean => child.exitCode !== null || child.signalCode !== null || child.pid === undefined;
  if (ended()) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  if (!ended()) await exited;
};
