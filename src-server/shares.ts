import { createHash } from "node:crypto";
import { assert } from "#shared/base/assert.ts";
import { type Bytes, bytesEqual } from "#shared/base/bytes.ts";
import type { FileId, UserId } from "#shared/base/ids.ts";
import { SHARE_OPERATIONS_PAGE } from "#shared/base/limits.ts";
import type { LogCrypto } from "#shared/base/log-crypto.ts";
import { ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue, ShareHead } from "#shared/rendezvous/protocol.ts";
import {
  append,
  closingOf,
  decodeList,
  decodeOperation,
  emptyList,
  encodeList,
  encodeOperation,
  operationHash,
  pageOf,
  type ShareList,
  type ShareOperation,
} from "#shared/shares/share-log.ts";
import { userIdOf, verifySignature } from "./account-key.ts";
import { type Answer, type Context, refuse, type WriteContext } from "./handler.ts";
import { pushTo } from "./push.ts";
import type { Db, Trx } from "./schema.ts";

/**
 * The share lists, in the order in which their operations came. The server gives the order and checks what every client
 * checks again; it can sign nothing, so it can neither add anybody nor take anybody's access.
 */
export const logCrypto: LogCrypto = {
  hash: (bytes): Bytes => new Uint8Array(createHash("sha256").update(bytes).digest()),
  verify: (key, bytes, signature) => verifySignature(new Uint8Array(key), bytes, signature),
  userIdOf,
};

export const unknownFile = () =>
  refuse("unknown_file", "The server does not know this file for you. Ask the person who shared it to share it again.");

interface FileKey {
  readonly fileId: FileId;
  readonly ownerId: UserId;
}

const storedList = async (db: Db | Trx, { fileId, ownerId }: FileKey): Promise<ShareList> => {
  const row = await db.selectFrom("share_lists").select("list").where("file_id", "=", fileId).executeTakeFirst();
  if (row === undefined) return emptyList(fileId, ownerId, logCrypto);
  const list = decodeList(row.list);
  assert(list.ok, "a stored share list can be read");
  return list.value;
};

/** Null for a file that the server does not know. */
export const listOf = async (db: Db | Trx, fileId: FileId): Promise<ShareList | null> => {
  const file = await db.selectFrom("files").select("owner_id").where("file_id", "=", fileId).executeTakeFirst();
  // Checked when it was registered.
  return file === undefined ? null : storedList(db, { fileId, ownerId: file.owner_id as UserId });
};

/** Nobody but the owner is to get this file any more. By the server's clock; those who hold the file go by theirs. */
export const isClosedTo = async (db: Db | Trx, list: ShareList, userId: UserId, nowMs: number): Promise<boolean> => {
  if (userId === list.ownerId) return list.withdrawn;
  const { withdrawn, terms } = list;
  const completed =
    terms.downloadLimit === null
      ? []
      : await db
          .selectFrom("share_receipts")
          .select("subject")
          .where("file_id", "=", list.fileId)
          .where("kind", "=", "completed")
          .execute();
  const hasIt = completed.some(({ subject }) => subject === userId);
  return closingOf({ ...terms, withdrawn }, nowMs, completed.length, hasIt) !== null;
};

const hashAt = async (trx: Trx, fileId: FileId, version: number): Promise<Bytes | null> => {
  const row = await trx
    .selectFrom("share_operations")
    .select("hash")
    .where("file_id", "=", fileId)
    .where("version", "=", version)
    .executeTakeFirst();
  return row?.hash ?? null;
};

/** Appends what the list does not have yet, and keeps what is derived from it. */
const extend = async (
  trx: Trx,
  start: ShareList,
  operations: readonly ShareOperation[],
): Promise<Answer<ShareList>> => {
  const { fileId } = start;
  let list = start;
  for (const operation of operations) {
    if (operation.version <= start.version) {
      const known = await hashAt(trx, fileId, operation.version);
      if (known !== null && bytesEqual(known, operationHash(operation, logCrypto))) continue;
      return refuse("share_conflict", "The list of this file has changed meanwhile.");
    }
    const next = append(list, operation, logCrypto);
    if (!next.ok) return refuse(next.error.type, next.error.message);
    await insertOperation(trx, operation, next.value.head);
    await moveMembers(trx, list, next.value);
    list = next.value;
  }
  if (list !== start) await storeList(trx, list);
  return ok(list);
};

const insertOperation = async (trx: Trx, operation: ShareOperation, hash: Bytes): Promise<void> => {
  const { fileId, version } = operation;
  await trx
    .insertInto("share_operations")
    .values({ file_id: fileId, version, hash, operation: encodeOperation(operation) })
    .execute();
};

/** `file_members` answers who may have a file; a seeder who left is none any more. */
const moveMembers = async (trx: Trx, before: ShareList, after: ShareList): Promise<void> => {
  const { fileId, version } = after;
  if (after.withdrawn) await trx.deleteFrom("seeders").where("file_id", "=", fileId).execute();
  if (before.version === 0) await trx.deleteFrom("file_members").where("file_id", "=", fileId).execute();
  const added = [...after.members.keys()].filter((userId) => !before.members.has(userId));
  const gone = [...before.members.keys()].filter((userId) => !after.members.has(userId));
  for (const userId of added) {
    await trx.insertInto("file_members").values({ file_id: fileId, user_id: userId }).execute();
    await trx.deleteFrom("share_leavers").where("file_id", "=", fileId).where("user_id", "=", userId).execute();
  }
  for (const userId of gone) {
    await trx.deleteFrom("file_members").where("file_id", "=", fileId).where("user_id", "=", userId).execute();
    await trx.deleteFrom("seeders").where("file_id", "=", fileId).where("user_id", "=", userId).execute();
    await trx.insertInto("share_leavers").values({ file_id: fileId, user_id: userId, version }).execute();
  }
};

const storeList = async (trx: Trx, list: ShareList): Promise<void> => {
  const row = { list: encodeList(list) };
  await trx
    .insertInto("share_lists")
    .values({ file_id: list.fileId, ...row })
    .onConflict((conflict) => conflict.column("file_id").doUpdateSet(row))
    .execute();
  await trx.updateTable("files").set({ version: list.version }).where("file_id", "=", list.fileId).execute();
};

/** Extends the list of a file and, once that is committed, tells everybody online whom it concerns. */
export const extendShare = async (
  context: WriteContext,
  file: FileKey,
  operations: readonly ShareOperation[],
): Promise<Answer<ShareList>> => {
  const { trx, session, afterCommit } = context;
  const before = await storedList(trx, file);
  const after = await extend(trx, before, operations);
  if (!after.ok || after.value.version === before.version) return after;
  const concerned = new Set<UserId>([file.ownerId, ...before.members.keys(), ...after.value.members.keys()]);
  // Who made the change knows it already.
  concerned.delete(session.userId);
  afterCommit(() => tell(context, concerned, after.value));
  return after;
};

const tell = (context: WriteContext, userIds: ReadonlySet<UserId>, { fileId, version }: ShareList): void => {
  for (const userId of userIds) pushTo(context, userId, { name: "shareChanged", value: { fileId, version } });
};

const headOf = ({ version, head }: ShareList): ShareHead => ({ version, head });

export const operateShare = async (
  context: WriteContext,
  { fileId, operations }: RequestValue<"files.operate">,
): Promise<Answer<RequestOutput<"files.operate">>> => {
  const list = await listOf(context.trx, fileId);
  const { userId } = context.session;
  if (list === null || !(userId === list.ownerId || list.members.has(userId))) return unknownFile();
  const extended = await extendShare(context, list, operations);
  return extended.ok ? ok(headOf(extended.value)) : extended;
};

export const shareOperations = async (
  { db, session }: Context,
  { fileId, since }: RequestValue<"files.operations">,
): Promise<Answer<RequestOutput<"files.operations">>> => {
  const list = await listOf(db, fileId);
  if (list === null) return unknownFile();
  const end = await visibleEnd(db, list, session.userId);
  if (end === null) return unknownFile();
  const rows = await db
    .selectFrom("share_operations")
    .select("operation")
    .where("file_id", "=", fileId)
    .where("version", ">", since)
    .where("version", "<=", end.version)
    .orderBy("version")
    .limit(SHARE_OPERATIONS_PAGE)
    .execute();
  const operations = rows.map((row) => {
    const operation = decodeOperation(row.operation);
    assert(operation.ok, "a stored operation can be read");
    return operation.value;
  });
  return ok({ ...end, operations: pageOf(operations) });
};

/** How far this person may read the list; null for a stranger. */
const visibleEnd = async (db: Db, list: ShareList, userId: UserId): Promise<ShareHead | null> => {
  if (userId === list.ownerId || list.members.has(userId)) return headOf(list);
  const left = await db
    .selectFrom("share_leavers as l")
    .innerJoin("share_operations as o", (join) =>
      join.onRef("o.file_id", "=", "l.file_id").onRef("o.version", "=", "l.version"),
    )
    .select(["o.version", "o.hash"])
    .where("l.file_id", "=", list.fileId)
    .where("l.user_id", "=", userId)
    .executeTakeFirst();
  return left === undefined ? null : { version: left.version, head: new Uint8Array(left.hash) };
};
