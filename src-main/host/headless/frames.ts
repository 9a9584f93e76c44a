import * as v from "valibot";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { PublishedEvent } from "../../ipc/handlers.ts";

/**
 * JSON messages on the WebSocket `/ipc`:
 *
 *   in   {"id": 1, "call": "messages.send", "input": {...}}      id: a finite number or up to 64 characters
 *   out  {"id": 1, "ok": true, "value": ...}
 *   out  {"id": 1, "ok": false, "error": {"type": "...", "message": "..."}}
 *   out  {"event": "transfer.changed", "payload": {...}}
 *
 * An answer to a frame that cannot be read carries the frame's id when that much can be read, else null.
 */
export type CallId = number | string;
export interface CallFrame {
  readonly id: CallId;
  readonly call: string;
  readonly input: unknown;
}
export interface BadFrame {
  readonly id: CallId | null;
  readonly error: { type: "bad_frame"; message: string };
}

const Id = v.union([v.pipe(v.number(), v.finite()), v.pipe(v.string(), v.maxLength(64))]);
const Frame = v.strictObject({
  id: Id,
  call: v.pipe(v.string(), v.maxLength(128)),
  input: v.optional(v.unknown(), {}),
});

export const decodeCall = (text: string): { ok: true; value: CallFrame } | { ok: false; error: BadFrame } => {
  const bad = (id: CallId | null, message: string) =>
    ({ ok: false, error: { id, error: { type: "bad_frame", message } } }) as const;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return bad(null, "The message is not JSON.");
  }
  const frame = v.safeParse(Frame, value, { abortEarly: true });
  if (frame.success) return ok(frame.output);
  const id = v.safeParse(v.object({ id: Id }), value);
  return bad(id.success ? id.output.id : null, 'A call is {"id": ..., "call": "name", "input": {...}}.');
};

export const encodeAnswer = (id: CallId | null, result: Result<unknown>): string =>
  JSON.stringify(result.ok ? { id, ok: true, value: result.value } : { id, ok: false, error: result.error });

export const encodeEvent = (published: PublishedEvent): string => JSON.stringify(published);

export const tooLarge = fail("answer_too_large", "The answer is too large. Ask for less at a time.");
