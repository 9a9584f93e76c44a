import { closeSync, constants, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { SMALL_FILE_BYTES } from "#shared/base/limits.ts";
import type { KnownList } from "./folder-lists.ts";
import { readWhole } from "./io.ts";
import type { SourceFiles } from "./source-files.ts";

const NO_HANG = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/**
 * Reads the plaintext of a folder: its files one after the other, then its list. What comes out is compared with its hash
 * by the caller, so it does not matter what else may have happened to the files. False when something is shorter now.
 */
export const readFolder = async (
  sources: SourceFiles,
  { root, list, bytes, sourcePaths }: KnownList & { readonly root: string },
  target: Uint8Array,
  position: number,
): Promise<boolean> => {
  const end = position + target.length;
  for (const { index, from, to, at } of list.parts(position, end)) {
    const entry = list.entries[index];
    const path = join(root, sourcePaths.get(index) ?? entry?.path ?? "");
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
