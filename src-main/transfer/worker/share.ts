import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { assert } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import { CHUNK_TAG_BYTES, FILE_BYTES_MAX, WORK_BATCH_BYTES } from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import { chunkBytesFor } from "#shared/wire/manifest.ts";
import { createChunkCipher } from "../../crypto/chunk-cipher.ts";
import { LEAF_PREFIX_BYTES, leafHashSoon, TreeBuilder } from "../../crypto/hash-tree.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type { JobContext, JobResult, Jobs } from "../chunk-worker-protocol.ts";
import { failWork, readErrorOf, readWhole, yieldTurn } from "./io.ts";

interface Identity {
  readonly sizeBytes: number;
  readonly key: string;
}

/** Reads a file once: leaves of its encrypted chunks go to chunks.db page by page, the file itself stays where it is. */
export const hashFile = async (
  tables: ChunkTables,
  input: Jobs["hashFile"]["input"],
  context: JobContext,
): Promise<JobResult<"hashFile">> => {
  let file: FileHandle | undefined;
  try {
    // O_NONBLOCK: opening a pipe must not hang.
    file = await open(input.path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const before = await identityOf(file);
    if (before.sizeBytes > FILE_BYTES_MAX) return failWork("too_large", "The file is larger than 4 TiB.");
    const hashed = await hashOpenFile(tables, file, before.sizeBytes, input, context);
    const after = await identityOf(file);
    const atPath = await stat(input.path, { bigint: true });
    if (before.key !== after.key || after.key !== keyOf(atPath))
      return failWork("file_changed", "The file changed while it was read. Share it again when it is finished.");
    return ok(hashed);
  } catch (error) {
    removeLeaves(tables, input.fileId);
    return err(readErrorOf(error));
  } finally {
    await file?.close();
  }
};

export const removeLeaves = (tables: ChunkTables, fileId: Jobs["hashFile"]["input"]["fileId"]): void => {
  const row = tables.find(fileId);
  if (row !== null) tables.removeFile(row.file);
};

const keyOf = (stats: { size: bigint; mtimeNs: bigint; ino: bigint; dev: bigint }): string =>
  [stats.size, stats.mtimeNs, stats.ino, stats.dev].join(":");

const identityOf = async (file: FileHandle): Promise<Identity> => {
  const stats = await file.stat({ bigint: true });
  if (!stats.isFile()) return failWork("not_a_file", "This is not a file. Choose a file.");
  return { sizeBytes: Number(stats.size), key: keyOf(stats) };
};

const hashOpenFile = async (
  tables: ChunkTables,
  file: FileHandle,
  sizeBytes: number,
  input: Jobs["hashFile"]["input"],
  context: JobContext,
): Promise<Jobs["hashFile"]["output"]> => {
  const chunkBytes = chunkBytesFor(sizeBytes);
  const chunkCount = Math.ceil(sizeBytes / chunkBytes);
  const cipher = createChunkCipher(input.fileId, input.key, chunkCount);
  const row = tables.ensure(input.fileId).file;
  const tree = new TreeBuilder((page, leaves, pageRoot) => tables.savePage(row, page, pageRoot, leaves));
  const whole = createHash("sha256");
  const sealed: Bytes = new Uint8Array(LEAF_PREFIX_BYTES + chunkBytes + CHUNK_TAG_BYTES);

  let sealedChunks = 0;
  let leaves: Promise<Bytes>[] = [];
  /** Most of the time goes into two SHA-256 of everything, so one of them is made elsewhere, while the next batch is on. */
  const hashBatch = async (plaintext: Uint8Array): Promise<void> => {
    const before = leaves;
    leaves = [];
    for (let at = 0; at < plaintext.length; at += chunkBytes) {
      const chunk = plaintext.subarray(at, at + chunkBytes);
      cipher.encryptInto(sealed.subarray(LEAF_PREFIX_BYTES), sealedChunks++, chunk);
      leaves.push(leafHashSoon(sealed.subarray(0, LEAF_PREFIX_BYTES + chunk.length + CHUNK_TAG_BYTES)));
    }
    whole.update(plaintext);
    for (const leaf of await Promise.all(before)) tree.push(leaf);
  };

  // Two buffers: the next batch is read while this one is hashed.
  let ready = Buffer.allocUnsafeSlow(WORK_BATCH_BYTES);
  let spare = Buffer.allocUnsafeSlow(WORK_BATCH_BYTES);
  const readBatch = async (target: Buffer, position: number): Promise<Uint8Array> => {
    const batch = target.subarray(0, Math.min(target.length, sizeBytes - position));
    if (!(await readWhole(file, batch, position)))
      return failWork("file_changed", "The file became shorter while it was read. Share it again.");
    return batch;
  };
  let reading = readBatch(ready, 0);
  for (let position = 0; position < sizeBytes; ) {
    const batch = await reading;
    position += batch.length;
    [ready, spare] = [spare, ready];
    reading = readBatch(ready, position);
    // A failed read ahead is awaited in the next round; until then it must not count as unhandled.
    reading.catch(() => undefined);
    await hashBatch(batch);
    context.progress(position);
    await yieldTurn(context.signal);
  }
  await reading;
  for (const leaf of await Promise.all(leaves)) tree.push(leaf);
  assert(tree.leafCount === chunkCount, "every chunk has its leaf");
  return { sizeBytes, root: tree.finish(), sha256: new Uint8Array(whole.digest()) };
};
