/**
 * Expected failures are values: `Result<T, E>`. Only bugs throw.
 * An error is plain data with a stable `type`, so that it survives IPC, workers and JSON unchanged.
 */
export interface AppError {
  /** Stable, machine-readable name in snake_case; the renderer and outside programs switch on it. */
  readonly type: string;
  /** One sentence for a person that says what to do about it. Never holds keys or message text. */
  readonly message: string;
}

export interface Ok<T> {
  readonly ok: true;
  readonly value: T;
}
export interface Err<E> {
  readonly ok: false;
  readonly error: E;
}
export type Result<T, E extends AppError = AppError> = Ok<T> | Err<E>;

export const ok = <T>(value: T): Ok<T> => ({ ok: true, value });
export const err = <E>(error: E): Err<E> => ({ ok: false, error });

/** Shorthand for the common case `err({type, message})`. */
export const fail = <const T extends string>(type: T, message: string): Err<{ type: T; message: string }> =>
  err({ type, message });

/** The text of anything that was thrown; for logs and for `internal` errors, never for control flow. */
export const messageOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown));
