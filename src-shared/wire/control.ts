import * as v from "valibot";
import type { Bytes } from "../base/bytes.ts";
import { EnvelopeIdSchema, FileIdSchema, UserIdSchema } from "../base/ids.ts";
import {
  CHUNKS_PER_FILE_MAX,
  ENVELOPE_BYTES_MAX,
  HAVE_BITMAP_BYTES_MAX,
  HAVE_RUNS_MAX,
  LEAVES_PER_PAGE,
  LINK_HELLO_PADDING_MAX,
  REQUEST_INDICES_MAX,
  STRIPES_MAX,
  TRANSFER_WEIGHTS,
} from "../base/limits.ts";
import { fail, ok, type Result } from "../base/result.ts";
import { decodeControlFrame, encodeControlFrame, type FrameError } from "./frame.ts";
import { bytesField, type DecodeError, decodeJson, encodeJson } from "./json.ts";

/**
 * Messages of the `control` channel of a link. Protocol version {@link PROTOCOL_VERSION}.
 *
 *   hello, proof          handshake: both sides prove their account key over both DTLS fingerprints (docs/protocol.md)
 *   ping, pong            liveness and round-trip time
 *   credit                bulk bytes granted since the link opened (cumulative, so a repeat is harmless)
 *   stripe, stripeAck     further associations for bulk frames, and what has arrived on each (docs/protocol.md)
 *   fin, finAck           orderly end: nothing is lost between the last frame and the close
 *   envelope, envelopeAck sealed chat content and its durable receipt
 *   typing                somebody writes; worth nothing a second later
 *   open, accept, refuse  a downloader names a file and a tag; the seeder says what it holds, or why it will not serve
 *   have                  chunks a seeder holds: all of them, or a bitmap (bit i of byte i >> 3, least significant first);
 *                         later, as runs, those it has got since; and whether it can prove pages of leaves
 *   leaves                asks for a page of leaf hashes, which comes as a bulk frame
 *   request, cancel       chunks wanted, chunks no longer wanted
 *   unavailable           requested chunks that the seeder does not have or could not rebuild
 *   stop, stopped         the downloader needs nothing more; the seeder says how many frames it sent for this tag
 *
 * Unknown types are ignored and counted; malformed messages close the link with a reason.
 */
export const PROTOCOL_VERSION = 1;

const u32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffffffff));
const counter = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));
const index = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(CHUNKS_PER_FILE_MAX - 1));
const indices = v.pipe(v.array(index), v.minLength(1), v.maxLength(REQUEST_INDICES_MAX));
const page = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(CHUNKS_PER_FILE_MAX / LEAVES_PER_PAGE));
const runLength = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(CHUNKS_PER_FILE_MAX));
const word = v.pipe(v.string(), v.maxLength(64));
const stripeIndex = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(STRIPES_MAX));
const version = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000));

/** Reasons a seeder gives; a downloader shows an unknown one as it is. */
export type RefuseReason =
  | "no_access"
  | "not_held"
  | "unknown_file"
  | "file_changed"
  | "busy"
  | "too_many_requests"
  | "shutting_down";

const schemas = {
  hello: v.object({
    type: v.literal("hello"),
    protocol: v.object({ min: version, max: version }),
    capabilities: v.pipe(v.array(word), v.maxLength(32)),
    userId: UserIdSchema,
    generation: counter,
    nonce: bytesField(32),
    /** Another one after a start of the program: what was under way with the one before is lost. */
    runId: v.optional(word),
    /** Makes it larger than the packets that pass every network; says nothing. */
    padding: v.optional(v.pipe(v.string(), v.maxLength(LINK_HELLO_PADDING_MAX))),
  }),
  proof: v.object({ type: v.literal("proof"), signature: bytesField(64) }),
  ping: v.object({ type: v.literal("ping"), id: u32 }),
  pong: v.object({ type: v.literal("pong"), id: u32 }),
  credit: v.object({ type: v.literal("credit"), grantedBytes: counter }),
  /** `mine`: of a stripe that the sender of this message opened. */
  stripe: v.object({
    type: v.literal("stripe"),
    index: stripeIndex,
    mine: v.boolean(),
    said: v.variant("kind", [
      v.object({ kind: v.picklist(["offer", "answer"]), sdp: v.pipe(v.string(), v.maxLength(32_768)) }),
      v.object({
        kind: v.literal("candidate"),
        candidate: v.pipe(v.string(), v.maxLength(1024)),
        mid: word,
      }),
      /** Of who did not open it: frames may come. */
      v.object({ kind: v.literal("ready") }),
      v.object({ kind: v.literal("end"), receivedBytes: counter }),
    ]),
  }),
  stripeAck: v.object({
    type: v.literal("stripeAck"),
    received: v.pipe(
      v.array(v.object({ index: v.union([v.literal(0), stripeIndex]), bytes: counter })),
      v.maxLength(1 + STRIPES_MAX),
    ),
  }),
  /** `bulkBytes`: all that the sender ever put on the bulk channel, which this message may have overtaken. */
  fin: v.object({ type: v.literal("fin"), reason: word, bulkBytes: counter }),
  finAck: v.object({ type: v.literal("finAck"), bulkBytes: counter }),
  envelope: v.object({
    type: v.literal("envelope"),
    id: EnvelopeIdSchema,
    kind: v.picklist(["prekey", "message"]),
    body: bytesField(1, ENVELOPE_BYTES_MAX),
  }),
  envelopeAck: v.object({ type: v.literal("envelopeAck"), id: EnvelopeIdSchema }),
  typing: v.object({ type: v.literal("typing"), typing: v.boolean() }),
  open: v.object({ type: v.literal("open"), fileId: FileIdSchema, tag: u32 }),
  accept: v.object({ type: v.literal("accept"), tag: u32 }),
  refuse: v.object({ type: v.literal("refuse"), tag: u32, reason: word }),
  have: v.object({
    type: v.literal("have"),
    tag: u32,
    chunks: v.union([
      v.literal("all"),
      v.pipe(v.array(v.tuple([index, runLength])), v.maxLength(HAVE_RUNS_MAX)),
      bytesField(1, HAVE_BITMAP_BYTES_MAX),
    ]),
    leaves: v.optional(v.boolean()),
  }),
  leaves: v.object({ type: v.literal("leaves"), tag: u32, page }),
  /** `weight`: batches that this file gets in a row, beside the others that the same peer fetches. */
  request: v.object({
    type: v.literal("request"),
    tag: u32,
    indices,
    weight: v.optional(v.picklist(Object.values(TRANSFER_WEIGHTS))),
  }),
  cancel: v.object({ type: v.literal("cancel"), tag: u32, indices }),
  unavailable: v.object({ type: v.literal("unavailable"), tag: u32, indices }),
  stop: v.object({ type: v.literal("stop"), tag: u32 }),
  stopped: v.object({ type: v.literal("stopped"), tag: u32, framesSent: counter }),
} as const;

const ControlSchema = v.variant("type", [
  schemas.hello,
  schemas.proof,
  schemas.ping,
  schemas.pong,
  schemas.credit,
  schemas.stripe,
  schemas.stripeAck,
  schemas.fin,
  schemas.finAck,
  schemas.envelope,
  schemas.envelopeAck,
  schemas.typing,
  schemas.open,
  schemas.accept,
  schemas.refuse,
  schemas.have,
  schemas.leaves,
  schemas.request,
  schemas.cancel,
  schemas.unavailable,
  schemas.stop,
  schemas.stopped,
]);

export type ControlMessage = v.InferOutput<typeof ControlSchema>;
export type ControlOf<Type extends ControlMessage["type"]> = Extract<ControlMessage, { type: Type }>;

const TypeOnly = v.object({ type: v.string() });

export const encodeControl = (message: ControlMessage): Bytes => encodeControlFrame(encodeJson(message));

/** `unknown_type` is not a fault of the peer (it may be newer); the other errors close the link. */
export const decodeControl = (
  bytes: Bytes,
): Result<ControlMessage, FrameError | DecodeError | { type: "unknown_type"; message: string }> => {
  const json = decodeControlFrame(bytes);
  if (!json.ok) return json;
  const head = decodeJson(TypeOnly, json.value);
  if (!head.ok) return head;
  if (!Object.hasOwn(schemas, head.value.type)) return fail("unknown_type", "The message type is not known here.");
  const message = decodeJson(ControlSchema, json.value);
  return message.ok ? ok(message.value) : message;
};
