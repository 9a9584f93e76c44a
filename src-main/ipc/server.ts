import * as v from "valibot";
import type { Log } from "#shared/base/env.ts";
import { IPC_CALLS_PENDING_MAX } from "#shared/base/limits.ts";
import { fail, type Result } from "#shared/base/result.ts";
import { type CommandName, commands, isCommandName } from "#shared/ipc/contract.ts";
import type { Handlers } from "./handlers.ts";

/**
 * The one place where a call of a renderer becomes a call of a handler. Nothing a caller sends can throw out of it:
 *
 * | caller sends                          | answer            |
 * |---------------------------------------|-------------------|
 * | a name that is not in the contract    | `unknown_command` |
 * | an input that its schema refuses      | `bad_input`, with the path of the first fault in words |
 * | more calls at once than the limit     | `busy`            |
 * | a call whose handler throws (a bug)   | `internal`; the details stay in the log |
 */
export interface IpcServer {
  call(name: unknown, input: unknown): Promise<Result<unknown>>;
  /** Calls that have not been answered yet. */
  readonly pending: number;
}

export const createIpcServer = (handlers: Handlers, log: Log): IpcServer => {
  let pending = 0;

  const run = async <Name extends CommandName>(name: Name, input: unknown): Promise<Result<unknown>> => {
    const parsed = v.safeParse(commands[name].input, input, { abortEarly: true });
    if (!parsed.success) return fail("bad_input", `${name}: ${describeIssue(parsed.issues[0])}`);
    return handlers[name](parsed.output);
  };

  return {
    get pending() {
      return pending;
    },
    async call(name, input) {
      if (typeof name !== "string" || !isCommandName(name)) {
        return fail(
          "unknown_command",
          "Weir does not know this command. The window and the program may differ in version.",
        );
      }
      if (pending >= IPC_CALLS_PENDING_MAX) {
        return fail("busy", "Too many requests are waiting for an answer. Try again in a moment.");
      }
      pending++;
      try {
        return await run(name, input);
      } catch (thrown) {
        log.error("a command failed unexpectedly", { command: name, ...describeThrown(thrown) });
        return fail("internal", "Something went wrong inside Weir. The details are in its log.");
      } finally {
        pending--;
      }
    },
  };
};

/** "text.0.id: must be a user id", or the message alone when the fault is in the input as a whole. */
const describeIssue = (issue: v.BaseIssue<unknown>): string => {
  const path = v.getDotPath(issue);
  // valibot repeats the received value in its message; a value may be a message text or a path, so it stays out.
  const message = issue.message.replace(/ but received .*$/s, "");
  return path === null ? message : `${path}: ${message}`;
};

/** Frames of the stack without its first line: an exception's text may hold file names or message text. */
export const describeThrown = (thrown: unknown): { error: string; code?: string; at?: string[] } => {
  if (!(thrown instanceof Error)) return { error: typeof thrown };
  const frames = (thrown.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  const code = "code" in thrown && typeof thrown.code === "string" ? { code: thrown.code } : {};
  return { error: thrown.name, ...code, at: frames.slice(0, 8).map((line) => line.trim()) };
};
