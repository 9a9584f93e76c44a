import * as v from "valibot";
import type { Bytes } from "../base/bytes.ts";
import { FileIdSchema, GroupIdSchema, MessageIdSchema } from "../base/ids.ts";
import {
  CONTENT_PADDING_BYTES,
  ENVELOPE_BYTES_MAX,
  GROUP_OPERATIONS_MAX,
  GROUP_PARENTS_MAX,
  GROUP_UNREAD_MAX,
  LEFT_SIGNALS_MAX,
  MESSAGE_TEXT_BYTES_MAX,
  PROFILE_NAME_LENGTH_MAX,
  SHARE_MEMBERS_MAX,
  SHARE_NOTICE_FILES_MAX,
} from "../base/limits.ts";
import { fail, ok, type Result } from "../base/result.ts";
import { GroupOperationSchema } from "../groups/group-log.ts";
import { ReceiptSchema } from "../shares/receipt.ts";
import { ShareOperationSchema } from "../shares/share-log.ts";
import { bytesField, type DecodeError, decodeJson, encodeJson } from "./json.ts";
import { FileOfferSchema } from "./manifest.ts";

/**
 * What a Signal ciphertext holds once opened, as padded JSON. `seq` counts the durable contents of one sender to one
 * recipient from 1 without gaps; the recipient shows them in that order. `received` is the other direction: everything
 * of the recipient up to this `seq` has arrived for good, so it need not be kept for another try. `oldest` is the first that
 * the sender still has: nothing before it will come any more. `link` contents are not durable and have none of them.
 *
 *   contactRequest   first message after an invitation: name and proof of the invitation
 *   contactReveal    answer to a request by code: opens the inviter's commitment, so that both can show the safety words
 *   contactAccept    both sides are contacts from now on
 *   profile          a new display name
 *   text, file       chat messages
 *   shareNotice      the end of share lists as the sender knows it: a hint to fetch them, and something to compare with
 *   keyRequest       asks for the key of a file that the sender says it may have
 *   fileKey          the key, to somebody whom the list names
 *   fileReceipt      somebody's signed word that they have the file, for its owner
 *   groupOps         operations of a group's log (groups/group-log.ts)
 *   groupAsk         what the sender has of a group's log: asks for the rest, and for messages that could not be read
 *   groupKey         the sender's key for a group, from the next message on (a SenderKeyDistributionMessage)
 *   groupMessage     a message to a group, sealed with that key once for everybody; inside is a {@link GroupBody}
 *   receipt          messages that arrived at, or were read by, the recipient
 *   sessionReset     the sender cannot decrypt what the recipient sends: asks for everything after `received` again
 *   link             a signal of the link machine (offer, answer, candidates); travels over the signal relay
 */
const name = v.pipe(v.string(), v.minLength(1), v.maxLength(PROFILE_NAME_LENGTH_MAX));
/** Far more than anybody sends, and far enough below 2^53 that `seq + 1` stays exact whatever a peer claims. */
const SEQ_MAX = 2 ** 48;
const seq = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(SEQ_MAX));
const received = v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(SEQ_MAX)), 0);
const oldest = v.optional(seq, 1);
const place = { seq, received, oldest };
const timeMs = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(8.64e15));
const generation = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));

const operations = v.pipe(v.array(GroupOperationSchema), v.minLength(1), v.maxLength(GROUP_OPERATIONS_MAX));
/** The newest operations of the group's log that the sender knew: whoever lacks one asks for it first. */
const heads = v.pipe(v.array(bytesField(32)), v.minLength(1), v.maxLength(GROUP_PARENTS_MAX));

const LinkSignalSchema = v.variant("type", [
  /** Asks the dialer (the lower user id) for a fresh offer. */
  v.object({ type: v.literal("dial"), generation }),
  v.object({
    type: v.literal("offer"),
    generation,
    sdp: v.pipe(v.string(), v.maxLength(32_768)),
    /** Made for a path within one machine: who knows the peer to be on its own may send larger packets there. */
    local: v.optional(v.boolean()),
  }),
  /** `generation` is that of the offer it answers, so that an answer to an older offer is known as stale. */
  v.object({ type: v.literal("answer"), generation, sdp: v.pipe(v.string(), v.maxLength(32_768)) }),
  v.object({
    type: v.literal("candidate"),
    generation,
    candidate: v.pipe(v.string(), v.maxLength(1024)),
    mid: v.pipe(v.string(), v.maxLength(64)),
  }),
  v.object({ type: v.literal("close"), generation, reason: v.pipe(v.string(), v.maxLength(64)) }),
]);
export type LinkSignal = v.InferOutput<typeof LinkSignalSchema>;

const ContentSchema = v.variant("kind", [
  v.object({
    kind: v.literal("contactRequest"),
    ...place,
    name,
    accountKey: bytesField(32),
    /** By the account key over the identity key of the session that carries this: nobody can claim another's account. */
    identitySignature: bytesField(64),
    proof: v.variant("via", [
      /** HMAC-SHA256(secret of the link, "weir invite v1" | inviter | requester). */
      v.object({ via: v.literal("link"), mac: bytesField(32), inviteId: bytesField(16) }),
      v.object({ via: v.literal("code"), inviteId: bytesField(16), nonce: bytesField(32) }),
    ]),
  }),
  v.object({ kind: v.literal("contactReveal"), ...place, name, inviteId: bytesField(16), nonce: bytesField(32) }),
  v.object({ kind: v.literal("contactAccept"), ...place, name }),
  v.object({ kind: v.literal("profile"), ...place, name }),
  v.object({
    kind: v.literal("text"),
    ...place,
    messageId: MessageIdSchema,
    sentAtMs: timeMs,
    text: v.pipe(v.string(), v.minLength(1), v.maxBytes(MESSAGE_TEXT_BYTES_MAX)),
  }),
  v.object({
    kind: v.literal("file"),
    ...place,
    messageId: MessageIdSchema,
    sentAtMs: timeMs,
    offer: FileOfferSchema,
    /** The first operation of the share list: whose file it is, when it comes from somebody else. */
    start: v.optional(ShareOperationSchema),
  }),
  v.object({
    kind: v.literal("shareNotice"),
    ...place,
    shares: v.pipe(
      v.array(v.object({ fileId: FileIdSchema, version: seq, head: bytesField(32) })),
      v.minLength(1),
      v.maxLength(SHARE_NOTICE_FILES_MAX),
    ),
  }),
  v.object({ kind: v.literal("keyRequest"), ...place, fileId: FileIdSchema }),
  v.object({ kind: v.literal("fileKey"), ...place, offer: FileOfferSchema, start: ShareOperationSchema }),
  v.object({ kind: v.literal("fileReceipt"), ...place, receipt: ReceiptSchema }),
  v.object({ kind: v.literal("groupOps"), ...place, groupId: GroupIdSchema, operations }),
  v.object({
    kind: v.literal("groupAsk"),
    ...place,
    groupId: GroupIdSchema,
    heads: v.pipe(v.array(bytesField(32)), v.maxLength(GROUP_PARENTS_MAX)),
    unread: v.pipe(v.array(MessageIdSchema), v.maxLength(GROUP_UNREAD_MAX)),
  }),
  v.object({ kind: v.literal("groupKey"), ...place, groupId: GroupIdSchema, heads, distribution: bytesField(1, 1024) }),
  v.object({
    kind: v.literal("groupMessage"),
    ...place,
    groupId: GroupIdSchema,
    heads,
    messageId: MessageIdSchema,
    body: bytesField(1, ENVELOPE_BYTES_MAX),
  }),
  v.object({
    kind: v.literal("receipt"),
    ...place,
    state: v.picklist(["delivered", "read"]),
    messageIds: v.pipe(v.array(MessageIdSchema), v.minLength(1), v.maxLength(SHARE_MEMBERS_MAX)),
  }),
  /** `resetId` tells a request from a copy of it. */
  v.object({ kind: v.literal("sessionReset"), ...place, resetId: MessageIdSchema }),
  v.object({ kind: v.literal("link"), signal: LinkSignalSchema }),
]);
export type Content = v.InferOutput<typeof ContentSchema>;
export type ContentOf<Kind extends Content["kind"]> = Extract<Content, { kind: Kind }>;
/** Contents with a place in the sender's order. */
export type DurableContent = Exclude<Content, { kind: "link" }>;
type WithoutPlace<C> = C extends unknown ? Omit<C, keyof typeof place> : never;
/** A durable content before the outbox gives it its place. */
export type ContentDraft = WithoutPlace<DurableContent>;

/**
 * What two contacts leave for each other in the server's directory while no live signal passes: the newest signals of one
 * of them. Another kind of JSON than {@link Content}: what is left there means nothing in a mailbox, and the other way round.
 */
const LeftSignalsSchema = v.object({
  kind: v.literal("leftSignals"),
  atMs: timeMs,
  signals: v.pipe(v.array(LinkSignalSchema), v.minLength(1), v.maxLength(LEFT_SIGNALS_MAX)),
});
export type LeftSignals = v.InferOutput<typeof LeftSignalsSchema>;

/**
 * What a group's sender key seals. Ids and group are inside as well, so that nobody who passes it on can put it elsewhere.
 */
const GroupBodySchema = v.variant("kind", [
  v.object({
    kind: v.literal("text"),
    groupId: GroupIdSchema,
    messageId: MessageIdSchema,
    sentAtMs: timeMs,
    text: v.pipe(v.string(), v.minLength(1), v.maxBytes(MESSAGE_TEXT_BYTES_MAX)),
  }),
  v.object({
    kind: v.literal("file"),
    groupId: GroupIdSchema,
    messageId: MessageIdSchema,
    sentAtMs: timeMs,
    offer: FileOfferSchema,
    start: ShareOperationSchema,
  }),
]);
export type GroupBody = v.InferOutput<typeof GroupBodySchema>;

/** JSON, then 0x80, then zeros up to a multiple of {@link CONTENT_PADDING_BYTES} (ISO/IEC 7816-4). */
const encodePadded = (value: Content | LeftSignals | GroupBody): Bytes => {
  const json = encodeJson(value);
  const padded = new Uint8Array(Math.ceil((json.length + 1) / CONTENT_PADDING_BYTES) * CONTENT_PADDING_BYTES);
  padded.set(json);
  padded[json.length] = 0x80;
  return padded;
};
export const encodeContent = (content: Content): Bytes => encodePadded(content);
export const encodeGroupBody = (body: GroupBody): Bytes => encodePadded(body);
export const encodeLeftSignals = (left: LeftSignals): Bytes => encodePadded(left);

const unpadded = (padded: Uint8Array): Result<Uint8Array, DecodeError> => {
  const end = padded.lastIndexOf(0x80);
  if (end < 0 || padded.subarray(end + 1).some((byte) => byte !== 0))
    return fail("bad_message", "The padding is broken.");
  return ok(padded.subarray(0, end));
};
export const decodeContent = (padded: Uint8Array): Result<Content, DecodeError> => {
  const json = unpadded(padded);
  return json.ok ? decodeJson(ContentSchema, json.value) : json;
};
export const decodeLeftSignals = (padded: Uint8Array): Result<LeftSignals, DecodeError> => {
  const json = unpadded(padded);
  return json.ok ? decodeJson(LeftSignalsSchema, json.value) : json;
};
export const decodeGroupBody = (padded: Uint8Array): Result<GroupBody, DecodeError> => {
  const json = unpadded(padded);
  return json.ok ? decodeJson(GroupBodySchema, json.value) : json;
};
