import * as v from "valibot";
import type { Bytes } from "../base/bytes.ts";
import { concatBytes, utf8 } from "../base/bytes.ts";
import { EnvelopeIdSchema, FileIdSchema, RelayIdSchema, UserIdSchema } from "../base/ids.ts";
import {
  CHUNKS_PER_FILE_MAX,
  DIRECTORY_VALUE_BYTES_MAX,
  ENVELOPE_BYTES_MAX,
  FILE_BYTES_MAX,
  INVITE_CODE_LENGTH,
  MAILBOX_DEFERRED_MAX,
  MAILBOX_PUSH_WINDOW,
  PREKEY_BATCH,
  PRESENCE_WATCH_MAX,
  SHARE_OPERATIONS_PAGE,
} from "../base/limits.ts";
import { type Receipt, type ReceiptError, receiptSchema } from "../shares/receipt.ts";
import { type ShareErrorType, type ShareOperation, shareOperationSchema } from "../shares/share-log.ts";

/**
 * Client and rendezvous server, over one socket.io connection (websocket only, binary fields as they are).
 *
 *   server -> client  `challenge`  {nonce, serverId}                          at once after connecting
 *   client -> server  `request`    {key, name, input}  -> ack {ok, value | error}
 *   server -> client  `push`       {name, value}       -> ack where the table of pushes says so
 *   both ways         `relay`      a relayed frame (relay.ts), and `relayAck` from its reader
 *
 * `key` is an idempotency key: a repeat within IDEMPOTENCY_TTL_MS gets the first answer again and changes nothing.
 * Until `login` succeeded every other request answers `not_logged_in`.
 *
 * The server learns ids, sizes and times: no plaintext, no names, no keys of files, no SDP (invariant I8).
 */
export const PROTOCOL = 1;

export const binary = (min: number, max = min) =>
  v.pipe(
    v.instance(Uint8Array),
    v.check((b) => b.length >= min && b.length <= max, `must be ${min}${max === min ? "" : ` to ${max}`} bytes`),
    // Over the wire a Node server gets Buffers; a plain view keeps pool memory from being shared further.
    v.transform((b): Bytes => new Uint8Array(b)),
  );
export const keyId = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0xffffff));
export const timeMs = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(8.64e15));
export const count = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));

/** A libsignal EC public key: type byte and 32 bytes. */
export const ecKey = binary(33);
/** A serialised Kyber-1024 public key: type byte and 1,568 bytes. */
const kyberKey = binary(1569);

export const EcPreKeySchema = v.object({ id: keyId, key: ecKey });
const SignedEcPreKeySchema = v.object({ id: keyId, key: ecKey, signature: binary(64) });
export const KyberPreKeySchema = v.object({ id: keyId, key: kyberKey, signature: binary(64) });

/** Long-lived part of a device's keys; `signature` is Ed25519 by the account key over {@link deviceKeysSigningBytes}. */
export const DeviceKeysSchema = v.object({
  registrationId: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0x3fff)),
  identityKey: ecKey,
  signedPreKey: SignedEcPreKeySchema,
  lastResortKyber: KyberPreKeySchema,
  signature: binary(64),
});
export type DeviceKeys = v.InferOutput<typeof DeviceKeysSchema>;

export const deviceKeysSigningBytes = (keys: Omit<DeviceKeys, "signature">, userId: string, deviceId: number): Bytes =>
  concatBytes(
    utf8(`weir device keys v1\0${userId}\0${deviceId}\0${keys.registrationId}\0`),
    keys.identityKey,
    utf8(`${keys.signedPreKey.id}\0`),
    keys.signedPreKey.key,
    utf8(`${keys.lastResortKyber.id}\0`),
    keys.lastResortKyber.key,
  );

/**
 * What the client signs to log in. `host` is the host:port that the client dialled and the server compares it with
 * the Host header it was asked for, so that a hostile server cannot pass another server's challenge on.
 */
export const loginSigningBytes = (nonce: Uint8Array, serverId: string, host: string, userId: string): Bytes =>
  concatBytes(utf8(`weir login v1\0${serverId}\0${host}\0${userId}\0`), nonce);

export const deviceId = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(127));
const SealedSchema = v.object({ kind: v.picklist(["prekey", "message"]), body: binary(1, ENVELOPE_BYTES_MAX) });

/** A Signal ciphertext: kind tells libsignal how to open it. */
export type Sealed = v.InferOutput<typeof SealedSchema>;

export interface PreKeyBundle {
  readonly userId: string;
  readonly deviceId: number;
  readonly accountKey: Bytes;
  readonly keys: DeviceKeys;
  /** One-time keys, taken by this fetch and never given again; null when none was left. */
  readonly oneTimeEc: { id: number; key: Bytes } | null;
  readonly oneTimeKyber: { id: number; key: Bytes; signature: Bytes } | null;
}

/** The public record of a file; the server checks `signature` against the owner's account key. */
export const FileRecordSchema = v.object({
  fileId: FileIdSchema,
  ownerId: UserIdSchema,
  sizeBytes: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(FILE_BYTES_MAX)),
  chunkBytes: v.pipe(v.number(), v.integer(), v.minValue(1)),
  chunkCount: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(CHUNKS_PER_FILE_MAX)),
  root: binary(32),
  createdAtMs: timeMs,
  /** The owner's Ed25519 signature over `manifestSigningBytes` (wire/manifest). */
  signature: binary(64),
});
export type FileRecord = v.InferOutput<typeof FileRecordSchema>;

export const ShareOperationsSchema = v.pipe(
  v.array(shareOperationSchema((bytes) => binary(bytes))),
  v.maxLength(SHARE_OPERATIONS_PAGE),
);

/** A signed statement of what became of a file (src-shared/shares/receipt). */
export const ShareReceiptSchema = receiptSchema((bytes) => binary(bytes));

/** The end of a share list. */
export interface ShareHead {
  version: number;
  head: Bytes;
}

interface Request<Input extends v.GenericSchema, Output> {
  readonly input: Input;
  readonly output?: Output;
}
const request =
  <Output>() =>
  <Input extends v.GenericSchema>(input: Input): Request<Input, Output> => ({ input });
const none = v.strictObject({});

export const requests = {
  login: request<{ serverTimeMs: number; pendingEnvelopes: number }>()(
    v.object({
      protocol: v.literal(PROTOCOL),
      userId: UserIdSchema,
      deviceId,
      accountKey: binary(32),
      host: v.pipe(v.string(), v.maxLength(300)),
      signature: binary(64),
    }),
  ),

  /** Replaces the long-lived keys and adds one-time keys; existing ids are refused with `duplicate_key_id`. */
  "keys.publish": request<{ oneTimeEc: number; oneTimeKyber: number }>()(
    v.object({
      keys: DeviceKeysSchema,
      oneTimeEc: v.pipe(v.array(EcPreKeySchema), v.maxLength(PREKEY_BATCH)),
      oneTimeKyber: v.pipe(v.array(KyberPreKeySchema), v.maxLength(PREKEY_BATCH)),
    }),
  ),
  "keys.status": request<{ published: boolean; oneTimeEc: number; oneTimeKyber: number }>()(none),
  "keys.fetch": request<PreKeyBundle>()(v.object({ userId: UserIdSchema })),

  /** Durable once answered: it survives a kill -9 of the server. A repeat of the same envelope id is a success. */
  "mailbox.put": request<{ stored: boolean }>()(
    v.object({ to: UserIdSchema, id: EnvelopeIdSchema, sealed: SealedSchema }),
  ),
  "mailbox.ack": request<{ deleted: number }>()(
    v.object({ ids: v.pipe(v.array(EnvelopeIdSchema), v.minLength(1), v.maxLength(MAILBOX_PUSH_WINDOW)) }),
  ),
  /**
   * Replaces the set of senders whose envelopes this connection does not want for now. What was pushed of theirs leaves
   * the window, so that everybody else's mail goes on; who leaves the set is pushed again from the oldest on.
   */
  "mailbox.defer": request<Record<string, never>>()(
    v.object({ senders: v.pipe(v.array(UserIdSchema), v.maxLength(MAILBOX_DEFERRED_MAX)) }),
  ),

  /** Handed to the recipient if online and both watch each other, else dropped. */
  "signal.send": request<{ delivered: boolean }>()(v.object({ to: UserIdSchema, sealed: SealedSchema })),

  /** Replaces the set of watched users. Presence is told only where both watch each other. */
  "presence.watch": request<{ online: string[] }>()(
    v.object({ userIds: v.pipe(v.array(UserIdSchema), v.maxLength(PRESENCE_WATCH_MAX)) }),
  ),

  /** `commitment` = SHA-256("weir invite nonce v1" | nonce); it is opened towards the requester, never to the server. */
  "invites.create": request<{ code: string; expiresAtMs: number }>()(
    v.object({ inviteId: binary(16), commitment: binary(32) }),
  ),
  /** Single use. Wrong codes are rate limited per account and address. */
  "invites.resolve": request<{ inviteId: Bytes; userId: string; accountKey: Bytes; commitment: Bytes }>()(
    v.object({ code: v.pipe(v.string(), v.length(INVITE_CODE_LENGTH)) }),
  ),

  /**
   * Only the owner, once per file id; a repeat with the same content is a success. `operations`: the share list from its
   * start on, as in `files.operate`.
   */
  "files.register": request<{ version: number }>()(
    v.object({ record: FileRecordSchema, operations: v.pipe(ShareOperationsSchema, v.minLength(1)) }),
  ),
  /** For the owner and members only; everybody else gets `unknown_file`. */
  "files.get": request<{
    record: FileRecord;
    members: string[];
    version: number;
    seeders: { userId: string; complete: boolean }[];
  }>()(v.object({ fileId: FileIdSchema })),
  /** "I hold (part of) this file." Ignored with `unknown_file` for anybody who is not a member. Never changes members. */
  "files.announce": request<{ version: number }>()(
    v.object({ fileId: FileIdSchema, complete: v.boolean(), chunksHeld: count }),
  ),
  /**
   * Appends to the share list: compare-and-set. Operations that the list has already are passed over, so that a repeat
   * is a success; `share_conflict` when the first new one does not follow the end of the list.
   */
  "files.operate": request<ShareHead>()(
    v.object({ fileId: FileIdSchema, operations: v.pipe(ShareOperationsSchema, v.minLength(1)) }),
  ),
  /**
   * Operations after version `since`, as many as fit, and the end of the list. Whoever is no member any more gets the
   * list up to the operation that made it so, and nothing of what came after.
   */
  "files.operations": request<ShareHead & { operations: ShareOperation[] }>()(
    v.object({ fileId: FileIdSchema, since: count }),
  ),

  /**
   * Keeps a receipt of somebody who has, or had, access to the file; the first one of a kind and person stays. Errors:
   * `unknown_file`, `receipt_forged`, `receipt_malformed`, `receipt_unrelated`, `share_full`.
   */
  "files.receipt": request<{ stored: boolean }>()(v.object({ receipt: ShareReceiptSchema })),
  /** Receipts in the order in which they came, from after the first `after` of them, and how many there are. */
  "files.receipts": request<{ receipts: Receipt[]; total: number }>()(v.object({ fileId: FileIdSchema, after: count })),

  /** STUN servers, and TURN servers with credentials that end after `expiresInMs`; null where the server has none. */
  turn: request<{
    stunUrls: string[];
    turn: { urls: string[]; username: string; password: string; expiresInMs: number } | null;
  }>()(none),

  /**
   * A sealed value that stays for DIRECTORY_TTL_MS under the key SHA-256(`token`): who knows the token may replace it,
   * who knows only the key may read it.
   */
  "directory.put": request<{ expiresInMs: number }>()(
    v.object({ token: binary(32), value: binary(1, DIRECTORY_VALUE_BYTES_MAX) }),
  ),
  "directory.get": request<{ value: Bytes | null }>()(v.object({ key: binary(32) })),

  /** Asks for a relay to somebody who is online and watches back; frames may pass once that side has accepted it. */
  "relay.open": request<Record<string, never>>()(v.object({ relayId: RelayIdSchema, to: UserIdSchema })),
  "relay.accept": request<Record<string, never>>()(v.object({ relayId: RelayIdSchema, from: UserIdSchema })),
  /** Closing one that is gone already is a success. */
  "relay.close": request<Record<string, never>>()(v.object({ relayId: RelayIdSchema })),
} as const;

export type RequestName = keyof typeof requests;
export type RequestInput<Name extends RequestName> = v.InferInput<(typeof requests)[Name]["input"]>;
export type RequestValue<Name extends RequestName> = v.InferOutput<(typeof requests)[Name]["input"]>;
export type RequestOutput<Name extends RequestName> = NonNullable<(typeof requests)[Name]["output"]>;

/** Pushed by the server; the client validates them too, because the server is not trusted. */
export const pushes = {
  /** In order of arrival per recipient, at most MAILBOX_PUSH_WINDOW before `mailbox.ack`. */
  envelope: v.object({ id: EnvelopeIdSchema, from: UserIdSchema, sealed: SealedSchema, receivedAtMs: timeMs }),
  /** The client acknowledges it at once (socket.io ack): that is what `delivered` means. */
  signal: v.object({ from: UserIdSchema, sealed: SealedSchema }),
  presence: v.object({ userId: UserIdSchema, online: v.boolean() }),
  /** Fewer one-time keys are left than PREKEY_REFILL_BELOW. */
  keysLow: v.object({ oneTimeEc: count, oneTimeKyber: count }),
  /** How many bytes this side may have sent in all (see relay.ts for what a frame counts). The first one opens the relay. */
  relayCredit: v.object({ relayId: RelayIdSchema, grantedBytes: count }),
  /** The share list of a file that this user has, or had, grew: a hint to fetch it, nothing more. */
  shareChanged: v.object({ fileId: FileIdSchema, version: count }),
  /** Somebody confirmed something about a file that this user has: a hint to fetch the receipts, nothing more. */
  receiptAdded: v.object({ fileId: FileIdSchema }),
  relayClosed: v.object({ relayId: RelayIdSchema, reason: v.pipe(v.string(), v.regex(/^[a-z_]{1,64}$/)) }),
} as const;
export type PushName = keyof typeof pushes;
export type Push = { [Name in PushName]: { name: Name; value: v.InferOutput<(typeof pushes)[Name]> } }[PushName];

export const ChallengeSchema = v.object({ nonce: binary(32), serverId: v.pipe(v.string(), v.maxLength(64)) });
export const RequestEnvelopeSchema = v.object({
  key: EnvelopeIdSchema,
  name: v.pipe(v.string(), v.maxLength(64)),
  input: v.unknown(),
});

/** `type`s a server answers with. `internal` says nothing more on purpose. */
export type ServerErrorType =
  | "not_logged_in"
  | "bad_request"
  | "unknown_request"
  | "login_refused"
  | "rate_limited"
  | "unknown_user"
  | "duplicate_key_id"
  | "mailbox_full"
  | "unknown_code"
  | "too_many_invites"
  | "unknown_file"
  | "too_many_files"
  | "not_owner"
  | "bad_signature"
  | "conflict"
  | ShareErrorType
  | ReceiptError["type"]
  | "receipt_unrelated"
  | "directory_full"
  | "relay_off"
  | "relay_quota"
  | "too_many_relays"
  | "peer_offline"
  | "unknown_relay"
  | "internal";
