import { constants } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { type Bytes, bytesEqual, freeNow } from "#shared/base/bytes.ts";
import {
  CHUNKS_PAGE_BYTES,
  DISK_RESERVE_BYTES,
  FILE_NAME_SUFFIX_MAX,
  WAL_PAGES_MAX,
  WRITE_PIECE_BYTES,
} from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import type { NativeFs } from "../../../native/index.ts";
import { emptyRoot, pageCountOf } from "../../crypto/hash-tree.ts";
import { reached } from "../../steps.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type {
  FileSpec,
  FolderChoice,
  FolderSelection,
  JobContext,
  JobResult,
  Jobs,
  OpenedDownload,
} from "../chunk-worker-protocol.ts";
import { foldName, partName, safeFileName, withSuffix } from "../file-name.ts";
import { selectedOf } from "../folder-selection.ts";
import { type FolderLists, isFolder, type KnownList, type SpecOfFolder } from "./folder-lists.ts";
import { chunksOfEntries, countsOf, type FolderPlans, hideUnwanted, listChunksOf } from "./folder-plan.ts";
import { failWork, isCode, openPart, WorkFailure, writeErrorOf, writeWhole, yieldTurn } from "./io.ts";
import type { KnownFiles } from "./known-files.ts";
import type { Follower, ReadBacks } from "./read-backs.ts";
import { removeRows } from "./sweep.ts";

/** The mark that operating systems keep on received files; it names the program, never the sender. */
export const ORIGIN_URL = "weir://received";
/** Written data is handed to the disk in steps of this size while assembling, so that the final fsync has little left to do. */
const SYNC_STEP_BYTES = 64 * 1024 * 1024;

export interface DownloadTools {
  readonly tables: ChunkTables;
  readonly files: KnownFiles;
  readonly lists: FolderLists;
  readonly plans: FolderPlans;
  readonly readBacks: ReadBacks;
  readonly native: NativeFs;
  /** Where chunks.db lies. */
  readonly dataDirectory: string;
  /** Gives back what chunks.db's WAL takes; false when it could not. */
  readonly shrinkWal: () => boolean;
}

export const partPath = (directory: string, spec: { fileId: string }): string => join(directory, partName(spec.fileId));

/** Makes the temporary file and reserves its blocks, so that a full disk is known before the first byte travels. */
export const prepare = async (
  { native, lists, dataDirectory, shrinkWal }: DownloadTools,
  { spec, directory, unstoredBytes, folder }: Jobs["prepare"]["input"],
): Promise<JobResult<"prepare">> => {
  try {
    const chosenBytes = folder?.selection == null ? null : chosenBytesOf(lists, spec, folder.selection);
    const expectedBytes = unstoredBytes + (chosenBytes ?? 0);
    const hasSpace = () => checkSpace(chosenBytes ?? spec.sizeBytes, expectedBytes, directory, dataDirectory);
    // The WAL may hold little but rows that were deleted since.
    if (!(await hasSpace()) && !(shrinkWal() && (await hasSpace())))
      failWork("disk_full", "There is not enough space for this file. Free some, or choose a folder on another disk.");
    // Of a folder there is nothing to reserve before its list is there.
    if (isFolder(spec)) {
      await mkdir(partPath(directory, spec), { recursive: true });
      return ok(null);
    }
    const file = await openPart(partPath(directory, spec));
    try {
      native.reserve(file.fd, spec.sizeBytes);
    } finally {
      await file.close();
    }
    return ok(null);
  } catch (error) {
    const failure = writeErrorOf(error);
    await rm(partPath(directory, spec), { force: true, recursive: true }).catch(() => undefined);
    return err(failure);
  }
};

/** Bytes that are fetched, as far as can be known: before a folder's list is here, the list alone. */
const chosenBytesOf = (lists: FolderLists, spec: FileSpec, selection: FolderSelection): number => {
  if (!isFolder(spec)) return 0;
  const known = lists.find(spec);
  if (known === null) return spec.folder.listBytes;
  let bytes = 0;
  for (const index of selectedOf(selection, known.list.entries.length))
    bytes += known.list.entries[index]?.sizeBytes ?? 0;
  return bytes;
};

/**
 * Chunks take about 1.15 times their size in chunks.db, besides the file itself, and up to 1.4 times in its WAL until that
 * is emptied; all may lie on one disk.
 */
const CHUNK_STORAGE_FACTOR = 1.15;
const CHUNK_WAL_FACTOR = 1.4;

const checkSpace = async (
  fileBytes: number,
  unstoredBytes: number,
  directory: string,
  dataDirectory: string,
): Promise<boolean> => {
  const walBytes = Math.min(unstoredBytes * CHUNK_WAL_FACTOR, WAL_PAGES_MAX * CHUNKS_PAGE_BYTES);
  const chunkBytes = Math.ceil(unstoredBytes * CHUNK_STORAGE_FACTOR + walBytes);
  const [target, data] = await Promise.all([stat(directory), stat(dataDirectory)]);
  if (!target.isDirectory()) failWork("not_writable", "The download folder is not a folder. Choose another one.");
  const isSameDisk = target.dev === data.dev;
  return (
    (await hasRoomFor(directory, fileBytes + (isSameDisk ? chunkBytes : 0))) &&
    (isSameDisk || (await hasRoomFor(dataDirectory, chunkBytes)))
  );
};

const hasRoomFor = async (directory: string, bytes: number): Promise<boolean> => {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize >= bytes + DISK_RESERVE_BYTES;
};

export const openDownload = async (
  tools: DownloadTools,
  { spec, directory, folder }: Jobs["open"]["input"],
  context: JobContext,
): Promise<JobResult<"open">> => {
  const { tables, files } = tools;
  try {
    if (spec.chunkCount === 0 && !bytesEqual(spec.root, emptyRoot()))
      return failWork(
        "checksum_mismatch",
        "The file's description contradicts itself. Ask the sender to share it again.",
      );
    const row = tables.ensure(spec.fileId);
    // Another build of the same id (after a cancel) must not meet the old one's cache.
    files.forget(spec.fileId);
    const finishedPath = await finishedBefore(spec, row.final_path, row.final_inode);
    if (finishedPath === null && row.final_path !== null) tables.setFinal(row.file, null);
    // Before the scan: it removes rows that the disk has changed.
    const list = isFolder(spec) && finishedPath === null ? tools.lists.get(spec) : null;
    const stored = new Uint8Array(Math.ceil(spec.chunkCount / 8));
    for (let next = 0; ; ) {
      const indices = tables.indicesFrom(row.file, next);
      for (const index of indices) if (index < spec.chunkCount) setBit(stored, index);
      const last = indices.at(-1);
      if (last === undefined) break;
      next = last + 1;
      await yieldTurn(context.signal);
    }
    const pages = new Uint8Array(Math.ceil(pageCountOf(spec.chunkCount) / 8));
    for (const { page } of tables.pages(row.file)) setBit(pages, page);
    const { requested, duplicate, late, rejected } = row;
    const counters = { requested, duplicate, late, rejected };
    const part =
      isFolder(spec) && folder !== undefined
        ? await openFolder(tools.plans, { spec, directory, choice: folder, stored, list, finishedPath }, context.signal)
        : { folder: null, hidden: null, isPartial: false, isUndecided: false };
    return ok({ stored, pages, counters, finishedPath, ...part });
  } catch (error) {
    return err(writeErrorOf(error));
  }
};

const setBit = (bits: Bytes, index: number): void => {
  bits[index >> 3] = (bits[index >> 3] ?? 0) | (1 << (index & 7));
};

/** The rename to the final name happened, and the app died before it could say so. */
const finishedBefore = async (spec: FileSpec, path: string | null, inode: string | null): Promise<string | null> => {
  if (path === null) return null;
  try {
    const there = await lstat(path, { bigint: true });
    const isWhole = isFolder(spec) ? there.isDirectory() : there.isFile() && there.size === BigInt(spec.sizeBytes);
    return isWhole && inodeOf(there) === inode ? path : null;
  } catch (error) {
    if (isCode(error, "ENOENT")) return null;
    throw error;
  }
};

/** Inode numbers are used again, so the time of the last write belongs to it; a rename changes neither. */
export const inodeOf = (stats: { dev: bigint; ino: bigint; mtimeNs: bigint }): string =>
  `${stats.dev}:${stats.ino}:${stats.mtimeNs}`;

/** Hides what is not wanted of a folder: all but its list while that is missing, then what was not chosen or is there. */
const openFolder = async (
  plans: FolderPlans,
  {
    spec,
    directory,
    choice,
    stored,
    list,
    finishedPath,
  }: {
    spec: SpecOfFolder;
    directory: string;
    choice: FolderChoice;
    stored: Bytes;
    list: KnownList | null;
    finishedPath: string | null;
  },
  signal: AbortSignal,
): Promise<Pick<OpenedDownload, "folder" | "hidden" | "isPartial" | "isUndecided">> => {
  if (finishedPath !== null) {
    // Nothing is wanted any more.
    const { hidden } = hideUnwanted(spec, stored, new Uint8Array(stored.length));
    return { folder: null, hidden, isPartial: false, isUndecided: false };
  }
  const isUndecided = list !== null && choice.selection === "choose";
  const plan = list === null || isUndecided ? null : await plans.fresh(spec, directory, choice, signal);
  const wanted = new Uint8Array(stored.length);
  if (plan === null) for (let { first, end } = listChunksOf(spec); first < end; first += 1) setBit(wanted, first);
  else for (const index of chunksOfEntries(plan.list, spec, plan.take)) setBit(wanted, index);
  const unwanted = hideUnwanted(spec, stored, wanted);
  return { folder: countsOf(plan, unwanted), hidden: unwanted.hidden, isPartial: plan === null, isUndecided };
};

/** Decrypts all chunks in order into the temporary file. A row that is missing or was changed on disk is removed and named. */
export const assemble = async (
  tools: DownloadTools,
  { spec, directory }: Jobs["assemble"]["input"],
  context: JobContext,
): Promise<JobResult<"assemble">> => {
  let file: FileHandle | undefined;
  try {
    const path = partPath(directory, spec);
    file = await openPart(path);
    tools.native.reserve(file.fd, spec.sizeBytes);
    await file.truncate(spec.sizeBytes);
    reached("assembleStart", spec.fileId);
    await assembleInto(tools, file, spec, { context, follower: tools.readBacks.begin(spec, path) });
    reached("assembleEnd", spec.fileId);
    return ok(null);
  } catch (error) {
    tools.readBacks.forget(spec.fileId);
    return err(writeErrorOf(error));
  } finally {
    await file?.close();
  }
};

const assembleInto = async (
  { tables, files }: DownloadTools,
  file: FileHandle,
  spec: FileSpec,
  { context, follower }: { context: JobContext; follower: Follower | null },
): Promise<void> => {
  const known = files.get(spec);
  const batchChunks = WRITE_PIECE_BYTES / spec.chunkBytes;
  const corrupt: number[] = [];
  let writing: Promise<void> = Promise.resolve();
  let written: Uint8Array[] = [];
  let syncing: Promise<void> = Promise.resolve();
  let unsyncedBytes = 0;
  for (let first = 0; first < spec.chunkCount; first += batchChunks) {
    const end = Math.min(first + batchChunks, spec.chunkCount);
    const plaintexts: Uint8Array[] = [];
    for (let index = first; index < end; index += 1) {
      const data = tables.chunk(known.file, index);
      const plaintext = data === null ? null : known.cipher.decrypt(index, data);
      if (data !== null) freeNow(data);
      if (plaintext === null) corrupt.push(index);
      else plaintexts.push(plaintext);
    }
    // The last piece is written while this one was decrypted. Once something is wrong, only the search goes on.
    await writing;
    for (const plaintext of written) freeNow(plaintext);
    written = plaintexts;
    if (corrupt.length === 0) {
      follower?.written(first * spec.chunkBytes);
      writing = writeWhole(file, plaintexts, first * spec.chunkBytes);
      // Awaited in the next round; until then it must not count as unhandled.
      writing.catch(() => undefined);
      unsyncedBytes += WRITE_PIECE_BYTES;
      if (unsyncedBytes >= SYNC_STEP_BYTES) {
        unsyncedBytes = 0;
        await syncing;
        syncing = file.datasync();
        syncing.catch(() => undefined);
      }
      context.progress(end);
      if (first < spec.chunkCount / 2 && spec.chunkCount / 2 <= end) reached("assembleMiddle", spec.fileId);
    }
    await yieldTurn(context.signal);
  }
  await writing;
  if (corrupt.length === 0) follower?.written(spec.sizeBytes);
  await syncing;
  if (corrupt.length === 0) return;
  tables.transaction(() => {
    for (const index of corrupt) tables.removeChunk(known.file, index);
  });
  throw new WorkFailure({
    type: "corrupt_chunks",
    message: "Stored data was damaged on the disk. It is fetched again.",
    indices: corrupt,
  });
};

/**
 * fsync, then the final name without replacing anything, then fsync of the folder. The name is noted in chunks.db before
 * the rename, with the inode, so that after a crash in between the file is recognised and not written a second time.
 */
export const finish = async (
  tools: DownloadTools,
  { spec, directory, name }: Jobs["finish"]["input"],
): Promise<JobResult<"finish">> => {
  let file: FileHandle | undefined;
  try {
    const part = partPath(directory, spec);
    file = await open(part, constants.O_RDWR | (constants.O_NOFOLLOW ?? 0));
    tools.native.markQuarantine(part, ORIGIN_URL);
    await file.sync();
    reached("synced", spec.fileId);
    const inode = inodeOf(await file.stat({ bigint: true }));
    const path = await rename(tools, spec, { part, inode, directory, name: safeFileName(name) });
    tools.native.fsyncDirectory(directory);
    reached("nameSynced", spec.fileId);
    return ok(path);
  } catch (error) {
    return err(writeErrorOf(error));
  } finally {
    await file?.close();
  }
};

/** Gives the temporary file, or folder, the first free name. */
export const rename = async (
  { tables, files, native }: Pick<DownloadTools, "tables" | "files" | "native">,
  spec: FileSpec,
  { part, inode, directory, name }: { part: string; inode: string; directory: string; name: string },
): Promise<string> => {
  const taken = new Set((await readdir(directory)).map(foldName));
  for (let number = 1; number <= FILE_NAME_SUFFIX_MAX; number += 1) {
    const candidate = withSuffix(name, number);
    if (taken.has(foldName(candidate))) continue;
    const path = join(directory, candidate);
    tables.setFinal(files.get(spec).file, { path, inode });
    reached("nameNoted", spec.fileId);
    try {
      native.renameNoReplace(part, path);
      reached("renamed", spec.fileId);
      return path;
    } catch (error) {
      // Somebody made it since the folder was read.
      if (!isCode(error, "EEXIST")) throw error;
    }
  }
  return failWork("too_many_names", "Too many files in the folder have this name. Choose another folder.");
};

/** Gives back what a download used. The rows first: they are the larger part, and need no folder that may be gone. */
export const drop = async (
  tools: DownloadTools,
  { fileId, directory, what }: Jobs["drop"]["input"],
): Promise<JobResult<"drop">> => {
  try {
    tools.plans.forget(fileId);
    tools.readBacks.forget(fileId);
    if (what === "everything") tools.lists.forget(fileId);
    if (what !== "part") await removeRows(tools, fileId, what, { signal: new AbortController().signal });
    if (what !== "part") reached("chunksDropped", fileId);
    if (directory !== null) await rm(join(directory, partName(fileId)), { force: true, recursive: true });
    return ok(null);
  } catch (error) {
    return err(writeErrorOf(error));
  }
};
