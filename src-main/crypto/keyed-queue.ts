import { SESSION_QUEUE_MAX } from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";

type QueueFull = { type: "queue_full"; message: string };

/**
 * Runs tasks of the same key one after the other in order of arrival; tasks of different keys do not wait for each
 * other. A task that fails does not hold up the next one.
 */
export interface KeyedQueue {
  /** Rejects with what the task throws. `queue_full` when `max` tasks of this key run or wait: the task is not run. */
  run<T>(key: string, task: () => Promise<T>): Promise<Result<T, QueueFull>>;
  /** Ignores the bound: for the few operations that a person starts and that must not be refused. */
  force<T>(key: string, task: () => Promise<T>): Promise<T>;
}

export const createKeyedQueue = (max: number = SESSION_QUEUE_MAX): KeyedQueue => {
  /** Per key, the last task to end and how many have not. A key without tasks has no entry. */
  const tails = new Map<string, { last: Promise<unknown>; pending: number }>();

  const append = <T>(key: string, task: () => Promise<T>): Promise<T> => {
    const before = tails.get(key);
    const result = before === undefined ? task() : before.last.then(task, task);
    const tail = { last: result, pending: (before?.pending ?? 0) + 1 };
    tails.set(key, tail);
    const ended = (): void => {
      const now = tails.get(key);
      if (now === undefined || now.pending === 1) tails.delete(key);
      else now.pending -= 1;
    };
    return result.finally(ended);
  };

  return {
    run: async (key, task) => {
      const pending = tails.get(key)?.pending ?? 0;
      if (pending >= max) return fail("queue_full", "Too much is waiting for this contact. Try again in a moment.");
      return ok(await append(key, task));
    },
    force: append,
  };
};
