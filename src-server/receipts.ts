import { assert } from "#shared/base/assert.ts";
import { SHARE_OPERATIONS_PAGE, SHARE_RECEIPTS_MAX } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import { checkReceipt, decodeReceipt, encodeReceipt, isAbout, type Receipt } from "#shared/shares/receipt.ts";
import type { ShareList } from "#shared/shares/share-log.ts";
import { type Answer, type Context, refuse, type WriteContext } from "./handler.ts";
import { pushTo } from "./push.ts";
import type { Db, Trx } from "./schema.ts";
import { listOf, logCrypto, unknownFile } from "./shares.ts";

/**
 * Signed receipts of files. The server keeps them for those who are away, and can make none; it learns nothing from them
 * that lists and announcements have not told it.
 */
const hadAccess = async (trx: Trx, list: ShareList, userId: string): Promise<boolean> => {
  if (userId === list.ownerId || list.members.has(userId as Receipt["actor"])) return true;
  const left = await trx
    .selectFrom("share_leavers")
    .select("version")
    .where("file_id", "=", list.fileId)
    .where("user_id", "=", userId)
    .executeTakeFirst();
  return left !== undefined;
};

export const keepReceipt = async (
  context: WriteContext,
  { receipt }: RequestValue<"files.receipt">,
): Promise<Answer<RequestOutput<"files.receipt">>> => {
  const { trx, session, afterCommit } = context;
  const { fileId, kind, subject } = receipt;
  const list = await listOf(trx, fileId);
  if (list === null || !(await hadAccess(trx, list, session.userId))) return unknownFile();
  const checked = checkReceipt(receipt, logCrypto);
  if (!checked.ok) return refuse(checked.error.type, checked.error.message);
  const file = await trx.selectFrom("files").select("root").where("file_id", "=", fileId).executeTakeFirst();
  assert(file !== undefined, "a file with a list has a record");
  const related = new Set<string>([list.ownerId]);
  for (const userId of [receipt.actor, subject]) if (await hadAccess(trx, list, userId)) related.add(userId);
  const manifest = { fileId, ownerId: list.ownerId, root: new Uint8Array(file.root) };
  if (receipt.actor !== session.userId || !isAbout(receipt, manifest, related))
    return refuse("receipt_unrelated", "The receipt is not of somebody who has, or had, this file from somebody else.");
  const known = await trx
    .selectFrom("share_receipts")
    .select("number")
    .where("file_id", "=", fileId)
    .where("kind", "=", kind)
    .where("subject", "=", subject)
    .executeTakeFirst();
  if (known !== undefined) return ok({ stored: false });
  const total = await receiptCount(trx, fileId);
  if (total >= SHARE_RECEIPTS_MAX) return refuse("share_full", "The server keeps no more receipts of this file.");
  await trx
    .insertInto("share_receipts")
    .values({ file_id: fileId, number: total + 1, kind, subject, receipt: encodeReceipt(receipt) })
    .execute();
  afterCommit(() => tell(context, list));
  return ok({ stored: true });
};

/** The owner wants to know; members need to, where the number of downloads is limited. */
const tell = (context: WriteContext, list: ShareList): void => {
  const concerned = new Set([list.ownerId, ...(list.terms.downloadLimit === null ? [] : list.members.keys())]);
  concerned.delete(context.session.userId);
  for (const userId of concerned) pushTo(context, userId, { name: "receiptAdded", value: { fileId: list.fileId } });
};

const receiptCount = async (db: Db | Trx, fileId: string): Promise<number> => {
  const { receipts } = await db
    .selectFrom("share_receipts")
    .select((e) => e.fn.countAll<number>().as("receipts"))
    .where("file_id", "=", fileId)
    .executeTakeFirstOrThrow();
  return receipts;
};

export const shareReceipts = async (
  { db, session }: Context,
  { fileId, after }: RequestValue<"files.receipts">,
): Promise<Answer<RequestOutput<"files.receipts">>> => {
  const list = await listOf(db, fileId);
  if (list === null || !(session.userId === list.ownerId || list.members.has(session.userId))) return unknownFile();
  const rows = await db
    .selectFrom("share_receipts")
    .select("receipt")
    .where("file_id", "=", fileId)
    .where("number", ">", after)
    .orderBy("number")
    .limit(SHARE_OPERATIONS_PAGE)
    .execute();
  const receipts = rows.map((row) => {
    const receipt = decodeReceipt(row.receipt);
    assert(receipt.ok, "a stored receipt can be read");
    return receipt.value;
  });
  return ok({ receipts, total: await receiptCount(db, fileId) });
};
