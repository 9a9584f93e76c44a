import { closeSync, constants, lstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { assert } from "#shared/base/assert.ts";
import { SMALL_FILE_BYTES } from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type { JobContext, JobResult, Jobs } from "../chunk-worker-protocol.ts";
import { type FolderLists, isFolder, type KnownList } from "./folder-lists.ts";
import { chunksOfEntries } from "./folder-plan.ts";
import { readErrorOf, readWhole, Turns } from "./io.ts";
import type { KnownFiles } from "./known-files.ts";
import type { SourceFiles } from "./source-files.ts";

const NO_HANG = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/**
 * Reads the plaintext of a folder: its files one after the other, then its list. What comes out is compared with its hash
 * by the caller, so it does not matter what else may have happened to the files. False when something is shorter now.
 */
export const readFolder = async (
  sources: SourceFiles,
  folder: KnownList & { readonly root: string },
  target: Uint8Array,
  position: number,
): Promise<boolean> => {
  const { root, list, bytes } = folder;
  const end = position + target.length;
  for (const { index, from, to, at } of list.parts(position, end)) {
    const entry = list.entries[index];
    const path = pathIn(root, folder, index);
    const part = target.subarray(at - position, at - position + to - from);
    const isSmall = (entry?.sizeBytes ?? 0) <= SMALL_FILE_BYTES;
    const isThere = isSmall ? readSmall(path, part, from) : await sources.use(path, (f) => readWhole(f, part, from));
    if (!isThere) return false;
  }
  const listFrom = Math.max(position, list.contentBytes);
  if (listFrom < end)
    target.set(bytes.subarray(listFrom - list.contentBytes, end - list.contentBytes), listFrom - position);
  return true;
};

/**
 * Which chunks of a folder that was received can be read from where it was saved. What its files contain is not looked at:
 * that is compared when they are read.
 */
export const findSaved = async (
  { tables, files, lists }: { tables: ChunkTables; files: KnownFiles; lists: FolderLists },
  { spec, path }: Jobs["findSaved"]["input"],
  { signal }: JobContext,
): Promise<JobResult<"findSaved">> => {
  try {
    assert(isFolder(spec), "only of a folder a part may be there");
    const held = new Uint8Array(Math.ceil(spec.chunkCount / 8));
    const known = lists.find(spec);
    if (known === null) return ok({ held, pages: 0 });
    const turns = new Turns(signal);
    const missing: number[] = [];
    for (const [index, entry] of known.list.entries.entries()) {
      if (entry.sizeBytes === 0) continue;
      const stats = lstatSync(pathIn(path, known, index), { throwIfNoEntry: false });
      if (stats?.isFile() !== true || stats.size !== entry.sizeBytes) missing.push(index);
      await turns.take(0);
    }
    for (let index = 0; index < spec.chunkCount; index += 1)
      held[index >> 3] = (held[index >> 3] ?? 0) | (1 << (index & 7));
    // A chunk with bytes of two files needs both.
    for (const index of chunksOfEntries(known.list, spec, missing))
      held[index >> 3] = (held[index >> 3] ?? 0) & ~(1 << (index & 7));
    return ok({ held, pages: tables.pages(files.get(spec).file).length });
  } catch (error) {
    return err(readErrorOf(error));
  }
};

const pathIn = (root: string, { list, sourcePaths }: KnownList, index: number): string =>
  join(root, sourcePaths.get(index) ?? list.entries[index]?.path ?? "");

/** Opened and closed at once: thousands of them would not all stay open, and waiting for each would cost more than reading. */
const readSmall = (path: string, target: Uint8Array, position: number): boolean => {
  const fd = openSync(path, NO_HANG);
  try {
    let at = 0;
    while (at < target.length) {
      const read = readSync(fd, target, at, target.length - at, position + at);
      if (read === 0) return false;
      at += read;
    }
    return true;
  } finally {
    closeSync(fd);
  }
};
