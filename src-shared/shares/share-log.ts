import * as v from "valibot";
import { assertNever } from "../base/assert.ts";
import { type Bytes, bytesEqual, concatBytes, utf8 } from "../base/bytes.ts";
import { type FileId, FileIdSchema, type UserId, UserIdSchema } from "../base/ids.ts";
import {
  SHARE_ADDS_VERSION_MAX,
  SHARE_MEMBERS_MAX,
  SHARE_OPERATIONS_MAX,
  SHARE_OPERATIONS_PAGE,
  SHARE_PAGE_BYTES,
} from "../base/limits.ts";
import type { LogCrypto } from "../base/log-crypto.ts";
import { fail, ok, type Result } from "../base/result.ts";
import { bytesField, type DecodeError, decodeJson, encodeJson } from "../wire/json.ts";

/**
 * Who may have a file: an append-only log of operations, each signed by its actor and bound to the one before it by a
 * hash. Server and clients check it with the same code. Lists are never merged: an operation fits the end of the log, or
 * it is refused and made anew for the new end.
 *
 * - The first operation is the owner's, and names the first members and the terms.
 * - The owner may do anything but leave. A member may leave, and may add people while the terms allow it; but whoever
 *   the owner revoked is added again by the owner alone.
 * - The owner may withdraw the file: nobody has access then, and nothing follows.
 * - `actorKey` is the actor's account key: the user id is its hash, so everybody can check everybody's signature.
 */
const KINDS = ["add", "revoke", "leave", "terms", "withdraw"] as const;

const timeMs = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(8.64e15));

export const ShareTermsSchema = v.strictObject({
  /** Whether members may add people. */
  membersMayAdd: v.boolean(),
  /** From then on nobody is served but the owner; null for never. */
  expiresAtMs: v.nullable(timeMs),
  /** So many people may fetch it: once as many have signed that they have it, nobody else is served. Null for no limit. */
  downloadLimit: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(SHARE_MEMBERS_MAX))),
});
export type ShareTerms = v.InferOutput<typeof ShareTermsSchema>;
export const defaultTerms: ShareTerms = { membersMayAdd: true, expiresAtMs: null, downloadLimit: null };

/** `field(n)` reads n bytes: as base64url in JSON, as they are on the socket to the server. */
export const shareOperationSchema = <Field extends v.GenericSchema<unknown, Bytes>>(field: (bytes: number) => Field) =>
  v.object({
    fileId: FileIdSchema,
    version: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(SHARE_OPERATIONS_MAX)),
    kind: v.picklist(KINDS),
    userIds: v.pipe(v.array(UserIdSchema), v.maxLength(SHARE_MEMBERS_MAX)),
    /** Of the first operation and of `terms`. */
    terms: v.nullable(ShareTermsSchema),
    actor: UserIdSchema,
    actorKey: field(32),
    /** The actor's clock; shown, never decided upon. */
    atMs: timeMs,
    /** Of the operation before; of the first one: {@link startHash}. */
    previousHash: field(32),
    signature: field(64),
  });
export const ShareOperationSchema = shareOperationSchema((bytes) => bytesField(bytes));
export type ShareOperation = v.InferOutput<typeof ShareOperationSchema>;
/** An operation before it is signed. */
export type ShareDraft = Omit<ShareOperation, "signature" | "actorKey">;

export interface ShareMember {
  readonly sinceMs: number;
  readonly addedBy: UserId;
}

/** What a log says up to `version`; 0 before the first operation. */
export interface ShareList {
  readonly fileId: FileId;
  readonly ownerId: UserId;
  readonly version: number;
  readonly head: Bytes;
  /** Without the owner, who always is one. */
  readonly members: ReadonlyMap<UserId, ShareMember>;
  /** Revoked by the owner and not added again by the owner since. */
  readonly barred: ReadonlySet<UserId>;
  readonly terms: ShareTerms;
  /** The last operation took the file back from everybody. */
  readonly withdrawn: boolean;
}

export type ShareErrorType =
  | "share_conflict"
  | "share_forged"
  | "share_not_allowed"
  | "share_no_change"
  | "share_full"
  | "share_malformed";
export type ShareError = { readonly type: ShareErrorType; readonly message: string };

/** What the first operation follows: it binds the log to the file and its owner. */
export const startHash = (fileId: FileId, ownerId: UserId, crypto: Pick<LogCrypto, "hash">): Bytes =>
  crypto.hash(utf8(`weir share log v1\0${fileId}\0${ownerId}`));

export const emptyList = (fileId: FileId, ownerId: UserId, crypto: Pick<LogCrypto, "hash">): ShareList => ({
  fileId,
  ownerId,
  version: 0,
  head: startHash(fileId, ownerId, crypto),
  members: new Map(),
  barred: new Set(),
  terms: defaultTerms,
  withdrawn: false,
});

/** Domain-separated bytes that the actor signs; the order of the fields is fixed here. */
export const shareSigningBytes = (operation: ShareDraft & { readonly actorKey: Bytes }): Bytes => {
  const { fileId, version, kind, userIds, terms, actor, actorKey, atMs, previousHash } = operation;
  const rules = terms === null ? null : [terms.membersMayAdd, terms.expiresAtMs, terms.downloadLimit];
  return concatBytes(
    utf8("weir share operation v1\0"),
    encodeJson([fileId, version, kind, userIds, rules, actor, actorKey, atMs, previousHash]),
  );
};

/** What the next operation names as `previousHash`. Without the signature: another valid one would say the same. */
export const operationHash = (operation: ShareOperation, crypto: Pick<LogCrypto, "hash">): Bytes =>
  crypto.hash(concatBytes(utf8("weir share head v1\0"), shareSigningBytes(operation)));

export const isMember = (list: ShareList, userId: string): boolean =>
  userId === list.ownerId || list.members.has(userId as UserId);

/** Whether an operation gives this person access or ends it; a withdrawal ends that of whoever has it then. */
export const concerns = ({ kind, userIds }: ShareOperation, userId: UserId): boolean =>
  kind === "withdraw" || userIds.includes(userId);

/** Nobody but the owner is served any more, by this clock; `withdrawn` and `limit_reached` whatever the time. */
export type Closing = "withdrawn" | "expired" | "limit_reached";

export interface Limits {
  readonly withdrawn: boolean;
  readonly expiresAtMs: number | null;
  readonly downloadLimit: number | null;
}

/** `downloads`: how many people have signed that they have the file; `hasIt`: whether this person did. */
export const closingOf = (limits: Limits, nowMs: number, downloads: number, hasIt: boolean): Closing | null => {
  if (limits.withdrawn) return "withdrawn";
  if (limits.expiresAtMs !== null && nowMs >= limits.expiresAtMs) return "expired";
  return limits.downloadLimit !== null && downloads >= limits.downloadLimit && !hasIt ? "limit_reached" : null;
};

const isSorted = (ids: readonly string[]): boolean => ids.every((id, i) => i === 0 || (ids[i - 1] ?? "") < id);

/** Why this operation cannot follow the list, its signature aside; null when it can. */
const refusalOf = (list: ShareList, operation: ShareDraft): ShareError | null => {
  const refuse = (type: ShareErrorType, message: string): ShareError => ({ type, message });
  const { kind, userIds, actor, terms } = operation;
  if (operation.fileId !== list.fileId) return refuse("share_malformed", "The operation is about another file.");
  if (operation.version !== list.version + 1 || !bytesEqual(operation.previousHash, list.head))
    return refuse("share_conflict", "The list of this file has changed meanwhile.");
  if (operation.version > SHARE_OPERATIONS_MAX) return refuse("share_full", "This list cannot be changed any more.");
  if (list.withdrawn) return refuse("share_not_allowed", "The owner has withdrawn this file.");
  const byOwner = actor === list.ownerId;
  const isFirst = list.version === 0;
  if (byOwner && kind === "leave")
    return refuse("share_not_allowed", "The owner cannot leave. Take everybody's access back instead.");
  if (!isSorted(userIds) || userIds.includes(list.ownerId))
    return refuse("share_malformed", "The operation names people twice, or the owner.");
  if ((terms !== null) !== (isFirst || kind === "terms"))
    return refuse("share_malformed", "The operation sets terms where it must not.");
  if (isFirst) {
    if (!byOwner || kind !== "add") return refuse("share_not_allowed", "A list begins with its owner's operation.");
    return null;
  }
  switch (kind) {
    case "add":
      if (!byOwner && !(list.terms.membersMayAdd && list.members.has(actor)))
        return refuse("share_not_allowed", "Only the owner can give others access to this file.");
      if (!byOwner && userIds.some((id) => list.barred.has(id)))
        return refuse("share_not_allowed", "The owner took the access back; only the owner can give it again.");
      if (operation.version > SHARE_ADDS_VERSION_MAX)
        return refuse("share_full", "This list was changed too often. Share the file anew.");
      if (userIds.length === 0 || userIds.some((id) => list.members.has(id)))
        return refuse("share_no_change", "Somebody of them has access already.");
      if (list.members.size + userIds.length > SHARE_MEMBERS_MAX)
        return refuse("share_full", "A file cannot be shared with more people.");
      return null;
    case "revoke":
      if (!byOwner) return refuse("share_not_allowed", "Only the owner can take access back.");
      if (userIds.length === 0 || !userIds.every((id) => list.members.has(id)))
        return refuse("share_no_change", "Somebody of them has no access already.");
      return null;
    case "leave":
      if (userIds.length !== 1 || userIds[0] !== actor)
        return refuse("share_not_allowed", "Everybody leaves for themselves.");
      return list.members.has(actor) ? null : refuse("share_no_change", "You have no access already.");
    case "withdraw":
    case "terms":
      if (!byOwner) return refuse("share_not_allowed", "Only the owner can change the terms or withdraw the file.");
      return userIds.length === 0 ? null : refuse("share_malformed", "The operation names people for nothing.");
    default:
      return assertNever(kind, "kind of operation");
  }
};

/** The list after an operation that was checked before: one that is read back from our own database. */
export const withOperation = (list: ShareList, operation: ShareOperation, crypto: LogCrypto): ShareList => {
  const { kind, userIds, actor, atMs, version } = operation;
  const withdrawn = kind === "withdraw";
  const members = new Map(withdrawn ? [] : list.members);
  const barred = new Set(list.barred);
  if (withdrawn) for (const userId of list.members.keys()) barred.add(userId);
  for (const userId of userIds) {
    if (kind === "add") {
      members.set(userId, { sinceMs: atMs, addedBy: actor });
      barred.delete(userId);
    } else members.delete(userId);
    if (kind === "revoke") barred.add(userId);
  }
  const head = operationHash(operation, crypto);
  return { ...list, version, head, members, barred, terms: operation.terms ?? list.terms, withdrawn };
};

/** The list after this operation, if it is genuine, fits the end and its actor may do that. */
export const append = (
  list: ShareList,
  operation: ShareOperation,
  crypto: LogCrypto,
): Result<ShareList, ShareError> => {
  const refusal = refusalOf(list, operation);
  if (refusal !== null) return { ok: false, error: refusal };
  const genuine =
    crypto.userIdOf(operation.actorKey) === operation.actor &&
    crypto.verify(operation.actorKey, shareSigningBytes(operation), operation.signature);
  if (!genuine) return fail("share_forged", "The operation is not signed by the person that it names.");
  return ok(withOperation(list, operation, crypto));
};

/** Something that a person wants to be so, whatever the list says by then. */
export type ShareWish =
  | { readonly kind: "add" | "revoke"; readonly userIds: readonly UserId[] }
  | { readonly kind: "leave" | "withdraw" }
  | { readonly kind: "terms"; readonly terms: ShareTerms };

/** The operation that makes a wish true on this list; `share_no_change` when it is so already. */
export const draftFor = (
  list: ShareList,
  wish: ShareWish,
  actor: UserId,
  atMs: number,
): Result<ShareDraft, ShareError> => {
  const draft: ShareDraft = {
    fileId: list.fileId,
    version: list.version + 1,
    kind: wish.kind,
    userIds: whom(list, wish, actor),
    terms: wish.kind === "terms" ? wish.terms : list.version === 0 ? list.terms : null,
    actor,
    atMs,
    previousHash: list.head,
  };
  const refusal = refusalOf(list, draft);
  return refusal === null ? ok(draft) : { ok: false, error: refusal };
};

const whom = (list: ShareList, wish: ShareWish, actor: UserId): UserId[] => {
  switch (wish.kind) {
    case "add":
      return [...new Set(wish.userIds)].filter((id) => !isMember(list, id)).sort();
    case "revoke":
      return [...new Set(wish.userIds)].filter((id) => list.members.has(id)).sort();
    case "leave":
      return [actor];
    default:
      return [];
  }
};

// ---- As it is kept -------------------------------------------------------------------------------------------------

const StoredListSchema = v.object({
  fileId: FileIdSchema,
  ownerId: UserIdSchema,
  version: v.number(),
  head: bytesField(32),
  members: v.array(v.tuple([UserIdSchema, timeMs, UserIdSchema])),
  barred: v.array(UserIdSchema),
  terms: ShareTermsSchema,
  withdrawn: v.optional(v.boolean(), false),
});

/** A list that was checked, for our own database: so that it need not be computed again from its operations. */
export const encodeList = (list: ShareList): Bytes =>
  encodeJson({
    ...list,
    members: [...list.members].map(([userId, { sinceMs, addedBy }]) => [userId, sinceMs, addedBy]),
    barred: [...list.barred],
  });

export const decodeList = (stored: Uint8Array): Result<ShareList, DecodeError> => {
  const read = decodeJson(StoredListSchema, stored);
  if (!read.ok) return read;
  const members = read.value.members.map(([userId, sinceMs, addedBy]) => [userId, { sinceMs, addedBy }] as const);
  return ok({ ...read.value, members: new Map(members), barred: new Set(read.value.barred) });
};

export const encodeOperation = (operation: ShareOperation): Bytes => encodeJson(operation);
export const decodeOperation = (stored: Uint8Array): Result<ShareOperation, DecodeError> =>
  decodeJson(ShareOperationSchema, stored);

/** About what an operation takes in a message, to fill pages by size. */
export const operationBytes = ({ userIds }: ShareOperation): number => 512 + 40 * userIds.length;

/** As many from the start as fit one message. */
export const pageOf = (operations: readonly ShareOperation[]): ShareOperation[] => {
  const page: ShareOperation[] = [];
  let room = SHARE_PAGE_BYTES;
  for (const operation of operations) {
    room -= operationBytes(operation);
    if (page.length > 0 && (room < 0 || page.length >= SHARE_OPERATIONS_PAGE)) break;
    page.push(operation);
  }
  return page;
};
