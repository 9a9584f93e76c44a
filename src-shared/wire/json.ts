import * as v from "valibot";
import { type Bytes, fromBase64Url, fromUtf8, toBase64Url, utf8 } from "../base/bytes.ts";
import { fail, ok, type Result } from "../base/result.ts";

export type DecodeError = { type: "bad_message"; message: string };

/** Binary fields travel as base64url in JSON; `bytesField(32)` accepts exactly 32 bytes, `bytesField(0, n)` up to n. */
export const bytesField = (min: number, max = min) =>
  v.pipe(
    v.string(),
    v.maxLength(Math.ceil((max * 4) / 3)),
    v.rawTransform<string, Bytes>(({ dataset, addIssue, NEVER }) => {
      const bytes = fromBase64Url(dataset.value);
      if (!bytes.ok || bytes.value.length < min || bytes.value.length > max) {
        addIssue({ message: `must be ${min}${max === min ? "" : ` to ${max}`} bytes in base64url` });
        return NEVER;
      }
      return bytes.value;
    }),
  );

/** Parses untrusted JSON against a schema. Never throws. */
export const decodeJson = <Schema extends v.GenericSchema>(
  schema: Schema,
  json: Uint8Array,
): Result<v.InferOutput<Schema>, DecodeError> => {
  const text = fromUtf8(json);
  if (!text.ok) return fail("bad_message", "The message is not UTF-8.");
  let value: unknown;
  try {
    value = JSON.parse(text.value);
  } catch {
    return fail("bad_message", "The message is not JSON.");
  }
  return decodeValue(schema, value);
};

export const decodeValue = <Schema extends v.GenericSchema>(
  schema: Schema,
  value: unknown,
): Result<v.InferOutput<Schema>, DecodeError> => {
  const parsed = v.safeParse(schema, value, { abortEarly: true });
  if (parsed.success) return ok(parsed.output);
  const issue = parsed.issues[0];
  const path = issue.path?.map((item) => String(item.key)).join(".") ?? "";
  return fail("bad_message", path === "" ? issue.message : `${path}: ${issue.message}`);
};

/** Writes a message whose schema reads binary fields with `bytesField`: every Uint8Array becomes base64url. */
export const encodeJson = (message: object): Bytes => utf8(JSON.stringify(toWire(message)));

const toWire = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return toBase64Url(value);
  if (Array.isArray(value)) return value.map(toWire);
  if (value !== null && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, toWire(item)]));
  return value;
};
