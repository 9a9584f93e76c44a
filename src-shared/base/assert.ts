/** A broken internal rule: a bug in Weir, never a consequence of input. Nobody catches it to go on. */
export class BugError extends Error {
  static override readonly name = "BugError";
  override readonly name = "BugError";
}

/** @throws BugError when `condition` is false. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new BugError(message);
}

/** Makes a `switch` exhaustive at compile time, and loud at run time. @throws BugError always. */
export function assertNever(value: never, what = "value"): never {
  throw new BugError(`unexpected ${what}: ${JSON.stringify(value)}`);
}

/** @throws BugError when `value` is null or undefined. */
export function defined<T>(value: T | null | undefined, what: string): T {
  if (value === null || value === undefined) throw new BugError(`${what} is missing`);
  return value;
}
