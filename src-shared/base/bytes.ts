import { base32nopad, base64urlnopad, hex } from "@scure/base";
import { fail, ok, type Result } from "./result.ts";

export type Bytes = Uint8Array<ArrayBuffer>;

export const toHex = (bytes: Uint8Array): string => hex.encode(bytes);
export const toBase64Url = (bytes: Uint8Array): string => base64urlnopad.encode(bytes);
/** RFC 4648 base32, lower case, without padding. */
export const toBase32 = (bytes: Uint8Array): string => base32nopad.encode(bytes).toLowerCase();

const decoder =
  (name: string, decode: (text: string) => Uint8Array) =>
  (text: string): Result<Bytes, { type: "bad_encoding"; message: string }> => {
    try {
      return ok(new Uint8Array(decode(text)));
    } catch {
      return fail("bad_encoding", `This is not valid ${name}.`);
    }
  };

export const fromHex = decoder("hexadecimal text", (text) => hex.decode(text));
export const fromBase64Url = decoder("base64url text", (text) => base64urlnopad.decode(text));

/** Not constant-time: for ids and public values only, never for secrets or MACs. */
export const bytesEqual = (a: Uint8Array, b: Uint8Array): boolean => {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
};

/**
 * Gives the memory of `bytes` back now instead of at some collection: a transfer makes gigabytes of buffers that are dead
 * after a moment, and the collector, which is told of their sizes, would run for them again and again. Whoever else holds
 * a view of the buffer finds it empty, so this is for buffers that nobody shares; one that holds more than `overhead`
 * bytes besides (a pool, or the frames of a batch) is left alone.
 */
export const freeNow = (bytes: Uint8Array, overhead = 0): void => {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength <= bytes.length + overhead) buffer.transfer(0);
};

export const concatBytes = (...parts: readonly Uint8Array[]): Bytes => {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};

// TextEncoder and TextDecoder are in Node, browsers and workers alike, but TypeScript knows them only through
// the DOM or Node libraries, which this layer must not see.
declare class TextEncoder {
  encode(text: string): Bytes;
}
declare class TextDecoder {
  constructor(label: "utf-8", options: { fatal: boolean });
  decode(bytes: Uint8Array): string;
}
const encoder = new TextEncoder();
const fatalDecoder = new TextDecoder("utf-8", { fatal: true });

export const utf8 = (text: string): Bytes => encoder.encode(text);

/** Refuses malformed UTF-8 instead of replacing it. */
export const fromUtf8 = (bytes: Uint8Array): Result<string, { type: "bad_encoding"; message: string }> => {
  try {
    return ok(fatalDecoder.decode(bytes));
  } catch {
    return fail("bad_encoding", "This is not valid UTF-8 text.");
  }
};
