import * as v from "valibot";
import { UserIdSchema } from "../base/ids.ts";
import {
  DIRECTORY_VALUE_BYTES_MAX,
  ICE_SERVERS_MAX,
  INVITE_CODE_ALPHABET,
  INVITE_CODE_LENGTH,
  MAILBOX_PUSH_WINDOW,
  PRESENCE_WATCH_MAX,
  SHARE_MEMBERS_MAX,
  SHARE_OPERATIONS_PAGE,
  SHARE_RECEIPTS_MAX,
} from "../base/limits.ts";
import { type IceScheme, isIceUrl } from "./ice-url.ts";
import {
  binary,
  count,
  DeviceKeysSchema,
  deviceId,
  EcPreKeySchema,
  FileRecordSchema,
  KyberPreKeySchema,
  type RequestName,
  type RequestOutput,
  ShareOperationsSchema,
  ShareReceiptSchema,
  timeMs,
} from "./protocol.ts";

/**
 * What a server may answer. The client checks every answer, because the server is not trusted: what follows from an
 * answer (is this key signed by that account?) is checked above, but its shape and its bounds are checked here.
 */
type AnswerSchemas = { readonly [Name in RequestName]: v.GenericSchema<unknown, RequestOutput<Name>> };

const version = v.object({ version: v.pipe(count, v.minValue(1)) });
const shareHead = { version: count, head: binary(32) };
const keysLeft = { oneTimeEc: count, oneTimeKyber: count };
/** They go into a native library, so nothing unusual passes. */
const iceUrls = (scheme: IceScheme) =>
  v.pipe(
    v.array(
      v.pipe(
        v.string(),
        v.check((url) => isIceUrl(scheme, url)),
      ),
    ),
    v.maxLength(ICE_SERVERS_MAX),
  );
const printable = v.pipe(v.string(), v.regex(/^[!-~]{1,256}$/));

export const answers: AnswerSchemas = {
  login: v.object({ serverTimeMs: timeMs, pendingEnvelopes: count }),
  "keys.publish": v.object(keysLeft),
  "keys.status": v.object({ published: v.boolean(), ...keysLeft }),
  "keys.fetch": v.object({
    userId: UserIdSchema,
    deviceId,
    accountKey: binary(32),
    keys: DeviceKeysSchema,
    oneTimeEc: v.nullable(EcPreKeySchema),
    oneTimeKyber: v.nullable(KyberPreKeySchema),
  }),
  "mailbox.put": v.object({ stored: v.boolean() }),
  "mailbox.ack": v.object({ deleted: v.pipe(count, v.maxValue(MAILBOX_PUSH_WINDOW)) }),
  "mailbox.defer": v.strictObject({}),
  "signal.send": v.object({ delivered: v.boolean() }),
  "presence.watch": v.object({ online: v.pipe(v.array(UserIdSchema), v.maxLength(PRESENCE_WATCH_MAX)) }),
  "invites.create": v.object({
    code: v.pipe(
      v.string(),
      v.length(INVITE_CODE_LENGTH),
      v.check((code) => [...code].every((symbol) => INVITE_CODE_ALPHABET.includes(symbol)), "must be an invite code"),
    ),
    expiresAtMs: timeMs,
  }),
  "invites.resolve": v.object({
    inviteId: binary(16),
    userId: UserIdSchema,
    accountKey: binary(32),
    commitment: binary(32),
  }),
  "files.register": version,
  "files.get": v.object({
    record: FileRecordSchema,
    members: v.pipe(v.array(UserIdSchema), v.maxLength(SHARE_MEMBERS_MAX)),
    ...version.entries,
    // Members and the owner.
    seeders: v.pipe(
      v.array(v.object({ userId: UserIdSchema, complete: v.boolean() })),
      v.maxLength(SHARE_MEMBERS_MAX + 1),
    ),
  }),
  "files.announce": version,
  "files.operate": v.object(shareHead),
  "files.operations": v.object({ ...shareHead, operations: ShareOperationsSchema }),
  "files.receipt": v.object({ stored: v.boolean() }),
  "files.receipts": v.object({
    receipts: v.pipe(v.array(ShareReceiptSchema), v.maxLength(SHARE_OPERATIONS_PAGE)),
    total: v.pipe(count, v.maxValue(SHARE_RECEIPTS_MAX)),
  }),
  turn: v.object({
    stunUrls: iceUrls("stun"),
    turn: v.nullable(
      v.object({
        urls: iceUrls("turn"),
        username: printable,
        password: printable,
        expiresInMs: v.pipe(count, v.minValue(1), v.maxValue(0x7fffffff)),
      }),
    ),
  }),
  "directory.put": v.object({ expiresInMs: count }),
  "directory.get": v.object({ value: v.nullable(binary(1, DIRECTORY_VALUE_BYTES_MAX)) }),
  "relay.open": v.strictObject({}),
  "relay.accept": v.strictObject({}),
  "relay.close": v.strictObject({}),
};

/** A refusal. `retryAfterMs` comes with `rate_limited` when the same request may be repeated by itself. */
export const RefusalSchema = v.object({
  ok: v.literal(false),
  error: v.object({
    type: v.pipe(v.string(), v.regex(/^[a-z_]{1,64}$/)),
    message: v.pipe(v.string(), v.maxLength(500)),
    retryAfterMs: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0x7fffffff))),
  }),
});
