import fc from "fast-check";
import { expect, test } from "vitest";
import { LINK_MESSAGE_BYTES_MAX } from "#shared/base/limits.ts";
import {
  BULK_HEADER_BYTES,
  decodeBulkFrame,
  decodeControlFrame,
  encodeBulkFrame,
  encodeControlFrame,
} from "#shared/wire/frame.ts";

const u32 = fc.nat(0xffffffff);
const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((data) => new Uint8Array(data));

test("a bulk frame comes back as it was", () => {
  fc.assert(
    fc.property(
      fc.constantFrom("chunk" as const, "leaves" as const),
      u32,
      u32,
      u32,
      bytes(2000),
      (kind, tag, sequence, index, payload) => {
        const decoded = decodeBulkFrame(encodeBulkFrame({ kind, tag, sequence, index, payload }));
        expect(decoded).toEqual({ ok: true, value: { kind, tag, sequence, index, payload } });
      },
    ),
  );
});

test("a control frame comes back as it was", () => {
  fc.assert(
    fc.property(bytes(2000), (json) => {
      expect(decodeControlFrame(encodeControlFrame(json))).toEqual({ ok: true, value: json });
    }),
  );
});

test("any cut, longer or differently marked frame is refused", () => {
  fc.assert(
    fc.property(bytes(300), fc.integer({ min: 1, max: 40 }), fc.boolean(), (payload, by, isControl) => {
      const frame = isControl
        ? encodeControlFrame(payload)
        : encodeBulkFrame({ kind: "chunk", tag: 1, sequence: 2, index: 3, payload });
      const decode = isControl ? decodeControlFrame : decodeBulkFrame;
      expect(decode(frame.slice(0, Math.max(0, frame.length - by))).ok).toBe(false);
      const longer = new Uint8Array(frame.length + by);
      longer.set(frame);
      expect(decode(longer).ok).toBe(false);
      for (const at of [0, 1, 2, 3]) {
        const marked = frame.slice();
        marked[at] = (marked[at] ?? 0) ^ 0x80;
        expect(decode(marked).ok).toBe(false);
      }
    }),
  );
});

test("arbitrary bytes never throw and never give a payload of the wrong length", () => {
  fc.assert(
    fc.property(bytes(200), (data) => {
      const bulk = decodeBulkFrame(data);
      if (bulk.ok) expect(bulk.value.payload.length).toBe(data.length - BULK_HEADER_BYTES);
      else expect(bulk.error.type).toBe("bad_frame");
      const control = decodeControlFrame(data);
      if (control.ok) expect(control.value.length).toBe(data.length - 8);
    }),
    { numRuns: 5000 },
  );
});

test("a frame beyond the message bound is refused", () => {
  const payload = new Uint8Array(LINK_MESSAGE_BYTES_MAX);
  expect(decodeBulkFrame(encodeBulkFrame({ kind: "chunk", tag: 0, sequence: 0, index: 0, payload })).ok).toBe(false);
  expect(decodeControlFrame(encodeControlFrame(payload)).ok).toBe(false);
});
