import { assert } from "../base/assert.ts";
import { type Bytes, concatBytes } from "../base/bytes.ts";
import { CONTROL_MESSAGE_BYTES_MAX, LINK_MESSAGE_BYTES_MAX } from "../base/limits.ts";
import { fail, ok, type Result } from "../base/result.ts";

/**
 * Frames on the two data channels of a link. All integers are big-endian.
 *
 *   control   u8 kind=1 | u8[3] zero | u32 length | length bytes of UTF-8 JSON
 *   bulk      u8 kind   | u8[3] zero | u32 tag | u32 sequence | u32 index | u32 length | length bytes
 *             kind 2 = chunk (index = chunk index, payload = ciphertext with tag)
 *             kind 3 = leaves (index = page, payload = uncle hashes then leaf hashes, see `hash-tree`)
 *
 * Every frame carries its length because libdatachannel cuts oversize messages instead of refusing them: a frame
 * whose length does not fit exactly is refused, and the link closed.
 */
export type FrameError = { type: "bad_frame"; message: string };

const CONTROL_KIND = 1;
export const CONTROL_HEADER_BYTES = 8;
export const BULK_HEADER_BYTES = 20;

export type BulkKind = "chunk" | "leaves";
const bulkKinds: Readonly<Record<number, BulkKind>> = { 2: "chunk", 3: "leaves" };
const bulkCodes: Readonly<Record<BulkKind, number>> = { chunk: 2, leaves: 3 };

export interface BulkHeader {
  readonly kind: BulkKind;
  /** Chosen by the downloader for one transfer on one link. */
  readonly tag: number;
  /** Counts the frames of this tag from 0, so that `stopped {framesSent}` can be compared. */
  readonly sequence: number;
  /** Chunk index, or page number for leaves. */
  readonly index: number;
}
/** Bytes of a frame that stay in the engine process (see `src-main/engine`), where they have this number. */
export interface HeldFrame {
  readonly frame: number;
  readonly byteLength: number;
}
/** What the main process passes on without looking into it. */
export type Payload = Bytes | HeldFrame;

/** The bytes of a payload that is known to be here. */
export const bytesOf = <B extends Uint8Array>(payload: B | HeldFrame): B => {
  assert(payload instanceof Uint8Array, "a held frame stays in the engine");
  return payload;
};

export interface BulkFrame<P extends Payload = Payload> extends BulkHeader {
  /** A view into the received message, valid as long as its buffer is. */
  readonly payload: P;
}

/** A frame with its header, ready to be sent. */
export type OutgoingFrame = Uint8Array | (HeldFrame & { readonly head: Bytes });

const bad = (message: string) => fail("bad_frame", message);
const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export const encodeControlFrame = (json: Uint8Array): Bytes => {
  const header = new Uint8Array(CONTROL_HEADER_BYTES);
  header[0] = CONTROL_KIND;
  viewOf(header).setUint32(4, json.length);
  return concatBytes(header, json);
};

/** Gives the JSON bytes of a control frame. */
export const decodeControlFrame = (bytes: Bytes): Result<Bytes, FrameError> => {
  if (bytes.length < CONTROL_HEADER_BYTES) return bad("The control frame is shorter than its header.");
  if (bytes.length > CONTROL_HEADER_BYTES + CONTROL_MESSAGE_BYTES_MAX) return bad("The control frame is too large.");
  const view = viewOf(bytes);
  if (view.getUint32(0) !== CONTROL_KIND << 24) return bad("This is not a control frame.");
  if (view.getUint32(4) !== bytes.length - CONTROL_HEADER_BYTES) return bad("The control frame is truncated.");
  return ok(bytes.subarray(CONTROL_HEADER_BYTES));
};

/** Writes the 20-byte header in front of a payload of `payloadBytes` that the caller fills in: saves a copy. */
export const writeBulkHeader = (target: Uint8Array, header: BulkHeader, payloadBytes: number): void => {
  const view = viewOf(target);
  view.setUint32(0, (bulkCodes[header.kind] << 24) >>> 0);
  view.setUint32(4, header.tag);
  view.setUint32(8, header.sequence);
  view.setUint32(12, header.index);
  view.setUint32(16, payloadBytes);
};

/** `frame` has room for its header in front; that of a held frame travels beside it. */
export const withBulkHeader = (frame: Payload, header: BulkHeader): OutgoingFrame => {
  const payloadBytes = frame.byteLength - BULK_HEADER_BYTES;
  const head = frame instanceof Uint8Array ? frame : new Uint8Array(BULK_HEADER_BYTES);
  writeBulkHeader(head, header, payloadBytes);
  return frame instanceof Uint8Array ? frame : { ...frame, head };
};

export const encodeBulkFrame = (frame: BulkFrame<Bytes>): Bytes => {
  const whole = new Uint8Array(BULK_HEADER_BYTES + frame.payload.length);
  writeBulkHeader(whole, frame, frame.payload.length);
  whole.set(frame.payload, BULK_HEADER_BYTES);
  return whole;
};

export const decodeBulkFrame = (bytes: Bytes): Result<BulkFrame<Bytes>, FrameError> =>
  decodeBulkHead(bytes.subarray(0, BULK_HEADER_BYTES), bytes.subarray(BULK_HEADER_BYTES));

/** `head`: the first BULK_HEADER_BYTES of the message, or all of a shorter one; `payload`: what follows. */
export const decodeBulkHead = <P extends Payload>(head: Bytes, payload: P): Result<BulkFrame<P>, FrameError> => {
  if (head.length < BULK_HEADER_BYTES) return bad("The bulk frame is shorter than its header.");
  if (head.length + payload.byteLength > LINK_MESSAGE_BYTES_MAX) return bad("The bulk frame is too large.");
  const view = viewOf(head);
  const kind = bulkKinds[view.getUint8(0)];
  if (kind === undefined || (view.getUint32(0) & 0xffffff) !== 0) return bad("This is not a bulk frame.");
  if (view.getUint32(16) !== payload.byteLength) return bad("The bulk frame is truncated.");
  return ok({
    kind,
    tag: view.getUint32(4),
    sequence: view.getUint32(8),
    index: view.getUint32(12),
    payload,
  });
};
