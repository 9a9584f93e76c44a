import type { Selectable } from "kysely";
import { bytesEqual } from "#shared/base/bytes.ts";
import { FILES_PER_OWNER_MAX } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { FileRecord, RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import type { ShareList } from "#shared/shares/share-log.ts";
import { chunkBytesFor, manifestSigningBytes } from "#shared/wire/manifest.ts";
import { verifySignature } from "./account-key.ts";
import { type Answer, type Context, refuse, type WriteContext } from "./handler.ts";
import type { Db, Schema, Trx } from "./schema.ts";
import { extendShare, isClosedTo, listOf, unknownFile } from "./shares.ts";

/**
 * Who owns a file, who may have it and who holds it. The record is signed by the owner's account key and never changes;
 * who may have it changes by signed operations (shares.ts) and by nothing else: an announcement says "I hold it".
 */
const FIRST_VERSION = 1;
type FileRow = Selectable<Schema["files"]>;

export const registerFile = async (
  context: WriteContext,
  { record, operations }: RequestValue<"files.register">,
): Promise<Answer<RequestOutput<"files.register">>> => {
  const { trx, env, session } = context;
  if (record.ownerId !== session.userId) {
    return refuse("not_owner", "Only the owner of a file can register it. Share the file from your own account.");
  }
  const chunkBytes = chunkBytesFor(record.sizeBytes);
  if (record.chunkBytes !== chunkBytes || record.chunkCount !== Math.ceil(record.sizeBytes / chunkBytes)) {
    return refuse("bad_request", "The file's chunks do not fit its size. Update Weir and share the file again.");
  }
  if (!verifySignature(session.accountKey, manifestSigningBytes({ ...record, chunkBytes }), record.signature)) {
    return refuse("bad_signature", "The file's record is not signed by its owner. Share the file again.");
  }
  const existing = await fileRow(trx, record.fileId);
  if (existing !== undefined) {
    if (!sameRecord(existing, record))
      return refuse("conflict", "A file with this id is registered with other contents. Share the file again.");
    return versionOf(await extendShare(context, record, operations));
  }
  const owned = await trx
    .selectFrom("files")
    .select((e) => e.fn.countAll<number>().as("files"))
    .where("owner_id", "=", session.userId)
    .executeTakeFirstOrThrow();
  if (owned.files >= FILES_PER_OWNER_MAX) {
    return refuse("too_many_files", "This server keeps no more files of yours. Use another server for new ones.");
  }
  await insertFile(trx, record, env.clock.now());
  return versionOf(await extendShare(context, record, operations));
};

const versionOf = (list: Answer<ShareList>): Answer<{ version: number }> =>
  list.ok ? ok({ version: list.value.version }) : list;

const insertFile = async (trx: Trx, record: FileRecord, now: number): Promise<void> => {
  await trx
    .insertInto("files")
    .values({
      file_id: record.fileId,
      owner_id: record.ownerId,
      size_bytes: record.sizeBytes,
      chunk_bytes: record.chunkBytes,
      chunk_count: record.chunkCount,
      root: record.root,
      created_at: record.createdAtMs,
      signature: record.signature,
      version: FIRST_VERSION,
      registered_at: now,
    })
    .execute();
};

/** Ed25519 signatures are deterministic here, but another valid one over the same record would say the same. */
const sameRecord = (row: FileRow, record: FileRecord): boolean =>
  row.owner_id === record.ownerId &&
  row.size_bytes === record.sizeBytes &&
  row.chunk_bytes === record.chunkBytes &&
  row.chunk_count === record.chunkCount &&
  row.created_at === record.createdAtMs &&
  bytesEqual(row.root, record.root);

const fileRow = (db: Db | Trx, fileId: string): Promise<FileRow | undefined> =>
  db.selectFrom("files").selectAll().where("file_id", "=", fileId).executeTakeFirst();

/** Sorted; the owner is not among them. */
const membersOf = async (db: Db | Trx, fileId: string): Promise<string[]> => {
  const rows = await db.selectFrom("file_members").select("user_id").where("file_id", "=", fileId).execute();
  return rows.map((row) => row.user_id).sort();
};

const mayHave = (file: FileRow, members: readonly string[], userId: string): boolean =>
  file.owner_id === userId || members.includes(userId);

export const getFile = async (
  { db, env, session }: Context,
  { fileId }: RequestValue<"files.get">,
): Promise<Answer<RequestOutput<"files.get">>> => {
  const file = await fileRow(db, fileId);
  if (file === undefined) return unknownFile();
  const members = await membersOf(db, fileId);
  if (!mayHave(file, members, session.userId)) return unknownFile();
  const list = await listOf(db, fileId);
  const isClosed = list !== null && (await isClosedTo(db, list, session.userId, env.clock.now()));
  const seeders = await db
    .selectFrom("seeders")
    .select(["user_id", "complete"])
    .where("file_id", "=", fileId)
    .orderBy("user_id")
    .execute();
  return ok({
    record: {
      fileId,
      // Checked when it was registered.
      ownerId: file.owner_id as FileRecord["ownerId"],
      sizeBytes: file.size_bytes,
      chunkBytes: file.chunk_bytes,
      chunkCount: file.chunk_count,
      root: file.root,
      createdAtMs: file.created_at,
      signature: file.signature,
    },
    members,
    version: file.version,
    // Whom to ask is told to nobody who is not served.
    seeders: (isClosed ? [] : seeders)
      .filter((seeder) => mayHave(file, members, seeder.user_id))
      .map((seeder) => ({ userId: seeder.user_id, complete: seeder.complete === 1 })),
  });
};

export const announceFile = async (
  { trx, env, session }: WriteContext,
  { fileId, complete, chunksHeld }: RequestValue<"files.announce">,
): Promise<Answer<RequestOutput<"files.announce">>> => {
  const file = await fileRow(trx, fileId);
  if (file === undefined || !mayHave(file, await membersOf(trx, fileId), session.userId)) return unknownFile();
  if (chunksHeld > file.chunk_count) {
    return refuse("bad_request", "More chunks were announced than the file has. Update Weir.");
  }
  const row = { complete: complete ? 1 : 0, chunks_held: chunksHeld, announced_at: env.clock.now() };
  const list = await listOf(trx, fileId);
  const holdsNothing = (!complete && chunksHeld === 0) || list?.withdrawn === true;
  if (holdsNothing) {
    await trx.deleteFrom("seeders").where("file_id", "=", fileId).where("user_id", "=", session.userId).execute();
  } else {
    await trx
      .insertInto("seeders")
      .values({ file_id: fileId, user_id: session.userId, ...row })
      .onConflict((conflict) => conflict.columns(["file_id", "user_id"]).doUpdateSet(row))
      .execute();
  }
  return ok({ version: file.version });
};
