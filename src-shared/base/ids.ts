import * as v from "valibot";

/**
 * Branded identifiers. They are made in one place each, parsed at every border with the schemas below,
 * and never cast elsewhere.
 */
declare const brand: unique symbol;
type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** base32 (lower case, 32 characters) of the first 20 bytes of SHA3-512(account public key). */
export type UserId = Brand<string, "UserId">;
/** base64url of 16 random bytes, chosen by the owner. */
export type FileId = Brand<string, "FileId">;
/** base64url of 16 random bytes, chosen by the sender; unique per message for ever. */
export type MessageId = Brand<string, "MessageId">;
/** "g" and base32 (lower case) of the first 20 bytes of a hash of the operation that made the group. */
export type GroupId = Brand<string, "GroupId">;
/** A direct chat's id is the contact's user id, a group's its group id. */
export type ChatId = Brand<string, "ChatId">;
/** base64url of 16 random bytes; the unit of de-duplication of sealed envelopes. */
export type EnvelopeId = Brand<string, "EnvelopeId">;
/** base64url of 16 random bytes, chosen by the side that opens the relay. */
export type RelayId = Brand<string, "RelayId">;
/** Counts up with every enable and every link attempt; results that carry an older one are stale. */
export type Generation = number;

const id16 = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{22}$/, "must be 16 bytes in base64url"));
export const UserIdSchema = v.pipe(
  v.string(),
  v.regex(/^[a-z2-7]{32}$/, "must be a user id"),
  v.transform((text) => text as UserId),
);
export const FileIdSchema = v.pipe(
  id16,
  v.transform((text) => text as FileId),
);
export const MessageIdSchema = v.pipe(
  id16,
  v.transform((text) => text as MessageId),
);
export const EnvelopeIdSchema = v.pipe(
  id16,
  v.transform((text) => text as EnvelopeId),
);
/** Only the one canonical way to write 16 bytes, because the binary frames carry the bytes themselves. */
export const RelayIdSchema = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9_-]{21}[AQgw]$/, "must be 16 bytes in base64url"),
  v.transform((text) => text as RelayId),
);
export const GroupIdSchema = v.pipe(
  v.string(),
  v.regex(/^g[a-z2-7]{32}$/, "must be a group id"),
  v.transform((text) => text as GroupId),
);
export const ChatIdSchema = v.pipe(
  v.string(),
  v.regex(/^g?[a-z2-7]{32}$/, "must be a chat id"),
  v.transform((text) => text as ChatId),
);

export const chatIdOf = (peer: UserId): ChatId => peer as string as ChatId;
/** Of a direct chat. */
export const peerOfChat = (chat: ChatId): UserId => chat as string as UserId;
export const chatIdOfGroup = (group: GroupId): ChatId => group as string as ChatId;
/** Null for a direct chat. */
export const groupOfChat = (chat: ChatId): GroupId | null => {
  const group = v.safeParse(GroupIdSchema, chat);
  return group.success ? group.output : null;
};
