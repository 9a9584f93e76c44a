import { assert } from "#shared/base/assert.ts";
import { type Bytes, bytesEqual, freeNow } from "#shared/base/bytes.ts";
import { CHUNK_TAG_BYTES } from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import { BULK_HEADER_BYTES } from "#shared/wire/frame.ts";
import { chunkLength } from "#shared/wire/manifest.ts";
import { leafHash } from "../../crypto/hash-tree.ts";
import { reached } from "../../steps.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type { ChunkSource, FileSpec, JobResult, Jobs, ReadFrame } from "../chunk-worker-protocol.ts";
import { type FolderLists, isFolder } from "./folder-lists.ts";
import { readFolder } from "./folder-source.ts";
import type { FrameBuffers } from "./frame-buffers.ts";
import { failWork, readErrorOf, readWhole, WorkFailure, writeErrorOf } from "./io.ts";
import type { KnownFile, KnownFiles } from "./known-files.ts";
import type { SourceFiles } from "./source-files.ts";

/** What serving keeps between two batches. */
export interface ServeTools {
  readonly tables: ChunkTables;
  readonly files: KnownFiles;
  readonly lists: FolderLists;
  readonly sources: SourceFiles;
  readonly buffers: FrameBuffers;
}

/** A page of leaves with its uncles, ready to send; null while this side does not hold the whole tree. */
export const readLeaves = async (
  files: KnownFiles,
  { spec, page }: Jobs["readLeaves"]["input"],
): Promise<JobResult<"readLeaves">> => {
  try {
    const known = files.get(spec);
    const tree = known.pageTree();
    const leaves = tree === null ? null : known.leaves(page);
    if (tree === null || leaves === null) return ok(null);
    const uncleBytes = tree.uncleBytes(page);
    const bytes = new Uint8Array(BULK_HEADER_BYTES + uncleBytes + leaves.length);
    tree.writeUncles(bytes.subarray(BULK_HEADER_BYTES), page);
    bytes.set(leaves, BULK_HEADER_BYTES + uncleBytes);
    return ok({ index: page, bytes });
  } catch (error) {
    return err(writeErrorOf(error));
  }
};

/**
 * Encrypted chunks in frames that need only their header. A chunk that was rebuilt and does not hash to its leaf is never
 * sent: the file changed, and the same (key, nonce) must not encrypt two plaintexts.
 */
export const readChunks = async (
  tools: ServeTools,
  { spec, source, indices }: Jobs["readChunks"]["input"],
): Promise<JobResult<"readChunks">> => {
  try {
    const known = tools.files.get(spec);
    const read =
      source.kind === "file"
        ? { frames: await fromFile(tools, known, source, indices), unavailable: [] }
        : fromTables(tools.tables, known, indices);
    reached("chunksRead", spec.fileId, indices);
    return ok(read);
  } catch (error) {
    return err(source.kind === "file" ? readErrorOf(error) : writeErrorOf(error));
  }
};

const frameBytesOf = (spec: FileSpec, index: number): number =>
  BULK_HEADER_BYTES + chunkLength(spec, index) + CHUNK_TAG_BYTES;

/** One buffer for all frames of a batch: one transfer between threads, and one that comes back. */
const layOut = (buffers: FrameBuffers, spec: FileSpec, indices: readonly number[]): ReadFrame<Bytes>[] => {
  const sizes = indices.map((index) => frameBytesOf(spec, index));
  const buffer = buffers.take(sizes.reduce((sum, size) => sum + size, 0));
  let at = 0;
  return indices.map((index, i) => {
    const size = sizes[i] ?? 0;
    const bytes: Bytes = new Uint8Array(buffer, at, size);
    at += size;
    return { index, bytes };
  });
};

/** Fills `target` with the plaintext from `position` on; false when it is not there any more. */
type ReadPlaintext = (target: Uint8Array, position: number) => Promise<boolean>;

const fromFile = (
  tools: ServeTools,
  known: KnownFile,
  { path, mayLack = false }: Extract<ChunkSource, { kind: "file" }>,
  indices: readonly number[],
): Promise<ReadFrame<Bytes>[]> => {
  const { spec } = known;
  const { sources, lists } = tools;
  if (!isFolder(spec))
    return sources.use(path, (file) => encrypted(tools, known, indices, (target, at) => readWhole(file, target, at)));
  const list = lists.get(spec) ?? failWork("missing_leaves", "The folder's list is missing. Share it again.");
  const read: ReadPlaintext = (target, at) => readFolder(sources, { root: path, ...list }, target, at);
  return mayLack ? withoutLost(tools, known, indices, read) : encrypted(tools, known, indices, read);
};

/** All of them, or which ones are to blame that it is not all. */
const withoutLost = async (
  tools: ServeTools,
  known: KnownFile,
  indices: readonly number[],
  read: ReadPlaintext,
): Promise<ReadFrame<Bytes>[]> => {
  const isLoss = (error: unknown): boolean => LOSSES.includes(readErrorOf(error).type);
  try {
    return await encrypted(tools, known, indices, read);
  } catch (error) {
    if (!isLoss(error)) throw error;
  }
  const lost: number[] = [];
  for (const index of indices) {
    try {
      await encrypted(tools, known, [index], read);
    } catch (error) {
      if (!isLoss(error)) throw error;
      lost.push(index);
    }
  }
  throw new WorkFailure({
    type: "corrupt_chunks",
    message: "Files of this folder were changed, moved or deleted.",
    indices: lost,
  });
};

/** Errors that are about one file, and not about the disk or the hashes of them all. */
const LOSSES: readonly string[] = ["file_changed", "file_missing", "file_unreadable", "not_a_file"];

const encrypted = async (
  { buffers }: ServeTools,
  known: KnownFile,
  indices: readonly number[],
  read: ReadPlaintext,
): Promise<ReadFrame<Bytes>[]> => {
  const { spec, cipher } = known;
  const frames = layOut(buffers, spec, indices);
  for (const run of runsOf(indices)) {
    const bytes = (run.count - 1) * spec.chunkBytes + chunkLength(spec, run.first + run.count - 1);
    const plaintext = Buffer.allocUnsafeSlow(bytes);
    if (!(await read(plaintext, run.first * spec.chunkBytes))) return changed();
    for (let i = 0; i < run.count; i += 1) {
      const frame = frames[run.at + i];
      assert(frame !== undefined && frame.index === run.first + i, "runs and frames are in the same order");
      const at = i * spec.chunkBytes;
      const payload = frame.bytes.subarray(BULK_HEADER_BYTES);
      cipher.encryptInto(payload, frame.index, plaintext.subarray(at, at + chunkLength(spec, frame.index)));
      const leaf = known.leaf(frame.index);
      if (leaf === null) return failWork("missing_leaves", "The file's hashes are missing. Share it again.");
      if (!bytesEqual(leafHash(payload), leaf)) return changed();
    }
    freeNow(plaintext);
  }
  return frames;
};

const changed = (): never =>
  failWork("file_changed", "The file was changed after it was shared. Share it again to send the new version.");

/** Indices that follow each other, so that each run is one read. */
const runsOf = (indices: readonly number[]): { first: number; at: number; count: number }[] => {
  const runs: { first: number; at: number; count: number }[] = [];
  indices.forEach((index, at) => {
    const last = runs.at(-1);
    if (last !== undefined && index === last.first + last.count) last.count += 1;
    else runs.push({ first: index, at, count: 1 });
  });
  return runs;
};

const fromTables = (
  tables: ChunkTables,
  known: KnownFile,
  indices: readonly number[],
): Jobs["readChunks"]["output"] => {
  const unavailable: number[] = [];
  const frames: ReadFrame[] = [];
  for (const index of indices) {
    const data = tables.chunk(known.file, index);
    const leaf = known.leaf(index);
    if (data === null || leaf === null || !bytesEqual(leafHash(data), leaf)) {
      unavailable.push(index);
      continue;
    }
    const bytes = new Uint8Array(BULK_HEADER_BYTES + data.length);
    bytes.set(data, BULK_HEADER_BYTES);
    frames.push({ index, bytes });
  }
  return { frames, unavailable };
};
