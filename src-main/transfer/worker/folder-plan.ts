import { createHash } from "node:crypto";
import { closeSync, constants, lstatSync, openSync, readSync, type Stats } from "node:fs";
import { lstat, open } from "node:fs/promises";
import { join } from "node:path";
import { type Bytes, bytesEqual } from "#shared/base/bytes.ts";
import { SMALL_FILE_BYTES, TRANSFERS_ACTIVE_MAX, WORK_BATCH_BYTES } from "#shared/base/limits.ts";
import { chunkLength } from "#shared/wire/manifest.ts";
import type { FileSpec, FolderChoice, FolderCounts } from "../chunk-worker-protocol.ts";
import { safeFileName, withSuffix } from "../file-name.ts";
import type { FolderEntry, FolderList } from "../folder-list.ts";
import { selectedOf } from "../folder-selection.ts";
import type { FolderLists, SpecOfFolder } from "./folder-lists.ts";
import { isCode, readWhole, Turns } from "./io.ts";

/** A file that was found where it would be saved, with the same contents. */
interface ThereFile {
  readonly index: number;
  readonly path: string;
  /** Tells whether it is still the same. */
  readonly identity: string;
}

/** What a download of a folder has to fetch and to write. */
export interface FolderPlan {
  readonly list: FolderList;
  /** Entries to write, in order. */
  readonly take: readonly number[];
  readonly there: readonly ThereFile[];
  readonly filesWanted: number;
  /** The folder that some of the files are in already, and the others go to; null: a new one is made. */
  readonly destination: string | null;
}

/** How many folders of the same name are looked into for files that are there. */
const CANDIDATES_MAX = 100;
/** How many files of the same name are: "a.txt", "a (2).txt", ... */
const NAMES_MAX = 20;

/**
 * Looks at the target folder. A folder of the same name that has some of the files, byte for byte, is completed; any other
 * is somebody else's and is left alone.
 */
export const planFolder = async (
  list: FolderList,
  directory: string,
  { selection, name }: FolderChoice,
  signal: AbortSignal,
): Promise<FolderPlan> => {
  const wanted = [...selectedOf(selection, list.entries.length)];
  const filesWanted = wanted.filter((index) => list.entries[index]?.sha256 != null).length;
  const safe = safeFileName(name);
  for (let number = 1; number <= CANDIDATES_MAX; number += 1) {
    const destination = join(directory, withSuffix(safe, number));
    const stats = await lstatOrNull(destination);
    if (stats === null) break;
    if (!stats.isDirectory()) continue;
    const there = await findThere(list, wanted, destination, signal);
    // Empty files are alike everywhere: they say nothing about the folder.
    if (!there.some(({ index }) => (list.entries[index]?.sizeBytes ?? 0) > 0)) continue;
    const found = new Set(there.map(({ index }) => index));
    return { list, take: wanted.filter((index) => !found.has(index)), there, filesWanted, destination };
  }
  return { list, take: wanted, there: [], filesWanted, destination: null };
};

const findThere = async (
  list: FolderList,
  wanted: readonly number[],
  destination: string,
  signal: AbortSignal,
): Promise<ThereFile[]> => {
  const turns = new Turns(signal);
  const buffer = Buffer.allocUnsafeSlow(WORK_BATCH_BYTES);
  const there: ThereFile[] = [];
  for (const index of wanted) {
    const entry = list.entries[index];
    if (entry === undefined || entry.sha256 === null) continue;
    for (const path of candidatesOf(destination, entry.path)) {
      const stats = lstatSync(path, { throwIfNoEntry: false });
      if (stats === undefined) break;
      if (!stats.isFile() || stats.size !== entry.sizeBytes) continue;
      if (!(await holds(path, entry, { buffer, turns }))) continue;
      there.push({ index, path, identity: identityOf(stats) });
      break;
    }
    await turns.take(0);
  }
  return there;
};

/** Where a file may have been saved: a name that was taken got a number. */
export function* candidatesOf(destination: string, entryPath: string, count = NAMES_MAX): Generator<string> {
  const slash = entryPath.lastIndexOf("/");
  const folder = join(destination, entryPath.slice(0, slash + 1));
  for (let number = 1; number <= count; number += 1) yield join(folder, withSuffix(entryPath.slice(slash + 1), number));
}

export const isStillThere = ({ path, identity }: ThereFile): boolean => {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats !== undefined && identityOf(stats) === identity;
};

const identityOf = (stats: Stats): string => [stats.size, stats.mtimeMs, stats.ino].join(":");

const lstatOrNull = async (path: string): Promise<Stats | null> => {
  try {
    return await lstat(path);
  } catch (error) {
    if (isCode(error, "ENOENT")) return null;
    throw error;
  }
};

const READ = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0);

/** Whether the file has exactly these bytes. One that cannot be read has not. */
export const holds = async (
  path: string,
  { sizeBytes, sha256 }: FolderEntry,
  { buffer, turns }: { buffer: Buffer; turns: Turns },
): Promise<boolean> => {
  const hash = createHash("sha256");
  let isWhole = false;
  try {
    isWhole =
      sizeBytes <= SMALL_FILE_BYTES
        ? hashSmall(path, sizeBytes, buffer, hash)
        : await hashLarge(path, sizeBytes, { buffer, turns, hash });
  } catch (error) {
    if (!["EACCES", "EPERM", "ELOOP", "ENOENT"].some((code) => isCode(error, code))) throw error;
  }
  await turns.take(sizeBytes <= SMALL_FILE_BYTES ? sizeBytes : 0);
  return isWhole && sha256 !== null && bytesEqual(hash.digest(), sha256);
};

type Hash = ReturnType<typeof createHash>;

const hashSmall = (path: string, sizeBytes: number, buffer: Buffer, hash: Hash): boolean => {
  const fd = openSync(path, READ);
  try {
    let at = 0;
    // One byte more than it should have: a longer file is another one.
    for (let read = -1; read !== 0 && at <= sizeBytes; at += read)
      read = readSync(fd, buffer, at, sizeBytes + 1 - at, at);
    hash.update(buffer.subarray(0, Math.min(at, sizeBytes)));
    return at === sizeBytes;
  } finally {
    closeSync(fd);
  }
};

const hashLarge = async (
  path: string,
  sizeBytes: number,
  { buffer, turns, hash }: { buffer: Buffer; turns: Turns; hash: Hash },
): Promise<boolean> => {
  await using file = await open(path, READ);
  if ((await file.stat()).size !== sizeBytes) return false;
  for (let position = 0; position < sizeBytes; ) {
    const batch = buffer.subarray(0, Math.min(buffer.length, sizeBytes - position));
    if (!(await readWhole(file, batch, position))) return false;
    hash.update(batch);
    position += batch.length;
    await turns.take(batch.length);
  }
  return true;
};

/** The plans of the downloads that run. One that is not here any more is made anew: it follows from what lies on the disk. */
export class FolderPlans {
  readonly #lists: FolderLists;
  readonly #plans = new Map<string, FolderPlan>();

  constructor(lists: FolderLists) {
    this.#lists = lists;
  }

  /** Looks at the target folder now. */
  async fresh(spec: SpecOfFolder, directory: string, choice: FolderChoice, signal: AbortSignal): Promise<FolderPlan> {
    const plan = await planFolder(this.#lists.require(spec).list, directory, choice, signal);
    this.#plans.delete(spec.fileId);
    this.#plans.set(spec.fileId, plan);
    const oldest = this.#plans.keys().next();
    if (this.#plans.size > TRANSFERS_ACTIVE_MAX && oldest.done !== true) this.#plans.delete(oldest.value);
    return plan;
  }

  async of(spec: SpecOfFolder, directory: string, choice: FolderChoice, signal: AbortSignal): Promise<FolderPlan> {
    return this.#plans.get(spec.fileId) ?? this.fresh(spec, directory, choice, signal);
  }

  forget(fileId: string): void {
    this.#plans.delete(fileId);
  }
}

/** Chunks that hold bytes of these entries, in order, each once. */
export function* chunksOfEntries(list: FolderList, spec: FileSpec, indices: Iterable<number>): Generator<number> {
  let next = 0;
  for (const index of indices) {
    const size = list.entries[index]?.sizeBytes ?? 0;
    if (size === 0) continue;
    const offset = list.offsetOf(index);
    const end = Math.ceil((offset + size) / spec.chunkBytes);
    for (next = Math.max(next, Math.floor(offset / spec.chunkBytes)); next < end; next += 1) yield next;
  }
}

export const listChunksOf = (spec: FileSpec): { first: number; end: number } => ({
  first: Math.floor((spec.sizeBytes - (spec.folder?.listBytes ?? 0)) / spec.chunkBytes),
  end: spec.chunkCount,
});

/** Sets the bits of chunks that are neither wanted nor there, in `stored` and in a map of their own. */
export const hideUnwanted = (
  spec: FileSpec,
  stored: Uint8Array,
  wanted: Uint8Array,
): { hidden: Bytes; chunks: number; bytes: number } => {
  const hidden = new Uint8Array(stored.length);
  let chunks = 0;
  let bytes = 0;
  for (let index = 0; index < spec.chunkCount; index += 1) {
    const at = index >> 3;
    const bit = 1 << (index & 7);
    if ((((wanted[at] ?? 0) | (stored[at] ?? 0)) & bit) !== 0) continue;
    stored[at] = (stored[at] ?? 0) | bit;
    hidden[at] = (hidden[at] ?? 0) | bit;
    chunks += 1;
    bytes += chunkLength(spec, index);
  }
  return { hidden, chunks, bytes };
};

/** Without a plan only the list is fetched, and everything else is still to come. */
export const countsOf = (plan: FolderPlan | null, hidden: { chunks: number; bytes: number }): FolderCounts => ({
  filesWanted: plan?.filesWanted ?? 0,
  filesThere: plan?.there.length ?? 0,
  skippedChunks: plan === null ? 0 : hidden.chunks,
  skippedBytes: plan === null ? 0 : hidden.bytes,
});
