import fc from "fast-check";
import { expect, test } from "vitest";
import { utf8 } from "#shared/base/bytes.ts";
import { HAVE_BITMAP_BYTES_MAX } from "#shared/base/limits.ts";
import { type ControlMessage, decodeControl, encodeControl } from "#shared/wire/control.ts";
import { encodeControlFrame } from "#shared/wire/frame.ts";

const u32 = fc.nat(0xffffffff);
const counter = fc.maxSafeNat();
const bytes = (minLength: number, maxLength = minLength) =>
  fc.uint8Array({ minLength, maxLength }).map((data) => new Uint8Array(data));
const word = fc.string({ maxLength: 64 });
const indices = fc.array(fc.nat(2 ** 24 - 1), { minLength: 1, maxLength: 64 });

/** Messages without branded ids; those are covered by the unit tests of their schemas. */
const message: fc.Arbitrary<ControlMessage> = fc.oneof(
  fc.record({ type: fc.constant("proof" as const), signature: bytes(64) }),
  fc.record({ type: fc.constant("ping" as const), id: u32 }),
  fc.record({ type: fc.constant("pong" as const), id: u32 }),
  fc.record({ type: fc.constant("credit" as const), grantedBytes: counter }),
  fc.record({ type: fc.constant("fin" as const), reason: word, bulkBytes: counter }),
  fc.record({ type: fc.constant("finAck" as const), bulkBytes: counter }),
  fc.record({ type: fc.constant("typing" as const), typing: fc.boolean() }),
  fc.record({ type: fc.constant("refuse" as const), tag: u32, reason: word }),
  fc.record({
    type: fc.constant("have" as const),
    tag: u32,
    chunks: fc.oneof(fc.constant("all" as const), bytes(1, 300)),
  }),
  fc.record({ type: fc.constant("request" as const), tag: u32, indices }),
  fc.record({ type: fc.constant("cancel" as const), tag: u32, indices }),
  fc.record({ type: fc.constant("stopped" as const), tag: u32, framesSent: counter }),
);

test("a message comes back as it was", () => {
  fc.assert(
    fc.property(message, (value) => {
      expect(decodeControl(encodeControl(value))).toEqual({ ok: true, value });
    }),
  );
});

test("the largest bitmap of a `have` fits a control message, and a larger one is refused", () => {
  const have = (bytes: number) => ({ type: "have" as const, tag: 1, chunks: new Uint8Array(bytes).fill(0xff) });
  expect(decodeControl(encodeControl(have(HAVE_BITMAP_BYTES_MAX))).ok).toBe(true);
  expect(decodeControl(encodeControl(have(HAVE_BITMAP_BYTES_MAX + 1)))).toMatchObject({
    error: { type: "bad_message" },
  });
});

test("any flipped, cut or doubled byte gives a typed error or another valid message, never a throw", () => {
  fc.assert(
    fc.property(message, fc.nat(), fc.nat(255), fc.nat(), (value, at, mask, cut) => {
      const frame = encodeControl(value);
      const flipped = frame.slice();
      flipped[at % flipped.length] = (flipped[at % flipped.length] ?? 0) ^ mask;
      decodeControl(flipped);
      expect(decodeControl(frame.slice(0, cut % frame.length)).ok).toBe(false);
    }),
    { numRuns: 2000 },
  );
});

test("arbitrary JSON never throws, and only known types are accepted", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (json) => {
      const result = decodeControl(encodeControlFrame(utf8(JSON.stringify(json))));
      expect(result.ok).toBe(false);
    }),
    { numRuns: 2000 },
  );
});

test.each(["toString", "__proto__", "constructor", "hasOwnProperty", "later"])(
  "the type %s is unknown, not malformed",
  (type) => {
    const result = decodeControl(encodeControlFrame(utf8(JSON.stringify({ type }))));
    expect(result).toMatchObject({ ok: false, error: { type: "unknown_type" } });
  },
);

test("numbers outside their range are refused", () => {
  const refuse = (value: object) => decodeControl(encodeControlFrame(utf8(JSON.stringify(value)))).ok;
  expect(refuse({ type: "ping", id: -1 })).toBe(false);
  expect(refuse({ type: "ping", id: 1.5 })).toBe(false);
  expect(refuse({ type: "ping", id: 2 ** 32 })).toBe(false);
  expect(refuse({ type: "credit", grantedBytes: 2 ** 53 })).toBe(false);
  expect(refuse({ type: "request", tag: 1, indices: [] })).toBe(false);
  expect(refuse({ type: "request", tag: 1, indices: new Array(65).fill(1) })).toBe(false);
});
