import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toBase64Url, utf8 } from "#shared/base/bytes.ts";
import {
  CONTENT_PADDING_BYTES,
  ENVELOPE_BYTES_MAX,
  MESSAGE_TEXT_BYTES_MAX,
  SEAL_OVERHEAD_BYTES_MAX,
} from "#shared/base/limits.ts";
import { decodeContent, decodeLeftSignals, encodeContent } from "#shared/wire/content.ts";
import { counted } from "../support/counts.ts";

const RUNS = counted(3000, 10_000);
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const id = bytes(16).map(toBase64Url);
const seq = fc.integer({ min: 1, max: 2 ** 48 });
const place = { seq, received: fc.integer({ min: 0, max: 2 ** 48 }), oldest: seq };
const text = (maxLength: number) => fc.string({ unit: "binary", minLength: 1, maxLength });
const name = fc.string({ unit: "binary-ascii", minLength: 1, maxLength: 64 });
const generation = fc.nat();
const person = fc.constantFrom("a".repeat(32), "b".repeat(32));

const groupId = fc.constant(`g${"a".repeat(32)}`);
const hashes = (minLength: number) => fc.array(bytes(32), { minLength, maxLength: 3 });
const groupOperation = fc.record({
  kind: fc.constantFrom("create", "rename", "add", "remove", "leave", "role"),
  name: fc.option(name),
  people: fc.array(fc.record({ userId: fc.constant("b".repeat(32)), name }), { maxLength: 3 }),
  role: fc.option(fc.constantFrom("admin", "member")),
  parents: hashes(0),
  nonce: bytes(16),
  actor: fc.constant("c".repeat(32)),
  actorKey: bytes(32),
  atMs: fc.nat(),
  signature: bytes(64),
});

/** Plain data, as a schema would accept it; the codec must give back exactly this. */
const content = fc.oneof(
  fc.record({
    kind: fc.constant("contactRequest"),
    ...place,
    name,
    accountKey: bytes(32),
    identitySignature: bytes(64),
    proof: fc.oneof(
      fc.record({ via: fc.constant("link"), mac: bytes(32), inviteId: bytes(16) }),
      fc.record({ via: fc.constant("code"), inviteId: bytes(16), nonce: bytes(32) }),
    ),
  }),
  fc.record({ kind: fc.constant("contactReveal"), ...place, name, inviteId: bytes(16), nonce: bytes(32) }),
  fc.record({ kind: fc.constantFrom("contactAccept", "profile"), ...place, name }),
  fc.record({ kind: fc.constant("text"), ...place, messageId: id, sentAtMs: fc.nat(), text: text(500) }),
  fc.record({
    kind: fc.constant("file"),
    ...place,
    messageId: id,
    sentAtMs: fc.nat(),
    offer: fc.record({
      signed: fc.record({
        manifest: fc.record({
          fileId: id,
          ownerId: fc.constant("a".repeat(32)),
          sizeBytes: fc.constant(70_000),
          chunkBytes: fc.constant(65_536),
          chunkCount: fc.constant(2),
          root: bytes(32),
          createdAtMs: fc.nat(),
        }),
        signature: bytes(64),
      }),
      name: text(50),
      key: bytes(32),
      sha256: bytes(32),
    }),
  }),
  fc.record({
    kind: fc.constant("shareNotice"),
    ...place,
    shares: fc.array(fc.record({ fileId: id, version: seq, head: bytes(32) }), { minLength: 1, maxLength: 5 }),
  }),
  fc.record({
    ...{ kind: fc.constant("groupOps"), ...place, groupId },
    operations: fc.array(groupOperation, { minLength: 1, maxLength: 3 }),
  }),
  fc.record({
    kind: fc.constant("groupAsk"),
    ...place,
    groupId,
    heads: hashes(0),
    unread: fc.array(id, { maxLength: 3 }),
  }),
  fc.record({ kind: fc.constant("groupKey"), ...place, groupId, heads: hashes(1), distribution: bytes(96) }),
  fc.record({
    kind: fc.constant("groupMessage"),
    ...place,
    groupId,
    heads: hashes(1),
    messageId: id,
    body: bytes(200),
  }),
  fc.record({ kind: fc.constant("keyRequest"), ...place, fileId: id }),
  fc.record({
    kind: fc.constant("fileReceipt"),
    ...place,
    receipt: fc.record({
      ...{ fileId: id, kind: fc.constantFrom("offered", "completed"), subject: person, root: bytes(32), actor: person },
      ...{ actorKey: bytes(32), atMs: seq, signature: bytes(64) },
    }),
  }),
  fc.record({
    kind: fc.constant("receipt"),
    ...place,
    state: fc.constantFrom("delivered", "read"),
    messageIds: fc.array(id, { minLength: 1, maxLength: 20 }),
  }),
  fc.record({ kind: fc.constant("sessionReset"), ...place, resetId: id }),
  fc.record({
    kind: fc.constant("link"),
    signal: fc.oneof(
      fc.record({ type: fc.constant("dial"), generation }),
      fc.record({ type: fc.constantFrom("offer", "answer"), generation, sdp: text(200) }),
      fc.record({ type: fc.constant("candidate"), generation, candidate: text(100), mid: text(10) }),
      fc.record({ type: fc.constant("close"), generation, reason: text(20) }),
    ),
  }),
);
type Encodable = Parameters<typeof encodeContent>[0];
/** The generator makes what the schema accepts, which its type cannot say for branded ids. */
const encode = (value: unknown): Uint8Array<ArrayBuffer> => encodeContent(value as Encodable);
const padded = (json: Uint8Array): Uint8Array => {
  const whole = new Uint8Array(Math.ceil((json.length + 1) / CONTENT_PADDING_BYTES) * CONTENT_PADDING_BYTES);
  whole.set(json);
  whole[json.length] = 0x80;
  return whole;
};

describe("contents", () => {
  test("come back as they were, padded", () => {
    fc.assert(
      fc.property(content, (value) => {
        const encoded = encode(value);
        expect(encoded.length % CONTENT_PADDING_BYTES).toBe(0);
        expect(decodeContent(encoded)).toEqual({ ok: true, value });
      }),
      { numRuns: RUNS },
    );
  });

  test("any bytes: never throws", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (input) => {
        expect(decodeContent(input).ok).toBe(false);
        expect(typeof decodeContent(padded(input)).ok).toBe("boolean");
        expect(decodeLeftSignals(input).ok).toBe(false);
      }),
      { numRuns: RUNS },
    );
  });

  test("any JSON: never throws, never accepted unless it is a content", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 4 }), (json) => {
        expect(decodeContent(padded(utf8(json)))).toMatchObject({ ok: false, error: { type: "bad_message" } });
      }),
      { numRuns: RUNS },
    );
  });

  test("a content with one byte changed: never throws, and decodes to something that encodes again", () => {
    fc.assert(
      fc.property(content, fc.nat(), fc.integer({ min: 1, max: 255 }), (value, at, flip) => {
        const encoded = encode(value);
        const index = at % encoded.length;
        encoded[index] = (encoded[index] ?? 0) ^ flip;
        const decoded = decodeContent(encoded);
        if (decoded.ok) expect(decodeContent(encode(decoded.value))).toEqual(decoded);
      }),
      { numRuns: RUNS },
    );
  });

  test("broken padding is refused", () => {
    const good = encode({ kind: "contactAccept", seq: 1, received: 0, name: "x" });
    expect(decodeContent(good).ok).toBe(true);
    const json = good.subarray(0, good.lastIndexOf(0x80));
    for (const bad of [json, new Uint8Array(0), new Uint8Array(160), Uint8Array.of(...good, 1)])
      expect(decodeContent(bad)).toMatchObject({ ok: false });
  });

  test("numbers beyond the range are refused, so that the next one stays exact", () => {
    for (const bad of [0, -1, 1.5, 2 ** 48 + 1, Number.MAX_SAFE_INTEGER])
      expect(decodeContent(encode({ kind: "contactAccept", seq: bad, received: 0, name: "x" })).ok).toBe(false);
  });

  test("a content of before `received` and `oldest` existed reads as nothing received, and as everything to come", () => {
    const old = decodeContent(encode({ kind: "contactAccept", seq: 1, name: "x" }));
    expect(old).toMatchObject({ ok: true, value: { received: 0, oldest: 1 } });
  });

  test("the longest plain text fits an envelope", () => {
    const longest = { kind: "text", seq: 1, received: 0, messageId: "A".repeat(22), sentAtMs: 0 };
    const encoded = encode({ ...longest, text: "x".repeat(MESSAGE_TEXT_BYTES_MAX) });
    expect(decodeContent(encoded).ok).toBe(true);
    expect(encoded.length + SEAL_OVERHEAD_BYTES_MAX).toBeLessThanOrEqual(ENVELOPE_BYTES_MAX);
    expect(decodeContent(encode({ ...longest, text: "x".repeat(MESSAGE_TEXT_BYTES_MAX + 1) })).ok).toBe(false);
  });
});
