import { lstat, readdir, realpath, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Log, TimeMs } from "#shared/base/env.ts";
import { UPLOAD_KEPT_MS } from "#shared/base/limits.ts";
import { describeThrown } from "../../ipc/server.ts";
import { UPLOAD_FOLDER } from "./upload.ts";

/**
 * Removes uploads that no shared file lies in: the browser was closed before it was shared, sharing failed, or Weir was
 * killed in the middle. Only such that nobody has touched for a day, so that none is on its way. Never rejects.
 *
 * @returns how many were removed.
 */
export const removeAbandonedUploads = async (
  uploadsDir: string,
  sharedPaths: readonly string[],
  { now, log }: { readonly now: TimeMs; readonly log: Log },
): Promise<number> => {
  let removed = 0;
  try {
    // Shared files are known by their real paths.
    const directory = await realpath(uploadsDir);
    const shared = new Set(sharedPaths);
    for (const name of await readdir(directory)) {
      const folder = join(directory, name);
      // Anything else in there is not ours to delete.
      if (!UPLOAD_FOLDER.test(name) || !(await isAbandoned(folder, shared, now))) continue;
      await rm(folder, { recursive: true });
      removed++;
    }
  } catch (thrown) {
    const isNew = thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT";
    if (!isNew) log.warn("abandoned uploads could not be removed", describeThrown(thrown));
  }
  if (removed > 0) log.info("abandoned uploads were removed", { removed });
  return removed;
};

/** Removes the upload that this path lies in, if any: it could not be shared, or was taken back. Never rejects. */
export const removeUnshared = async (
  uploadsDir: string,
  path: string,
  { sharedPaths, log }: { readonly sharedPaths: readonly string[]; readonly log: Log },
): Promise<void> => {
  try {
    const folder = dirname(await realpath(path));
    const isUpload = dirname(folder) === (await realpath(uploadsDir)) && UPLOAD_FOLDER.test(basename(folder));
    if (isUpload && !sharedPaths.some((shared) => dirname(shared) === folder)) await rm(folder, { recursive: true });
  } catch (thrown) {
    // A path that is nowhere, or no upload was ever made: nothing to remove.
    const isNowhere = thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT";
    if (!isNowhere) log.warn("an upload that is not shared could not be removed", describeThrown(thrown));
  }
};

const isAbandoned = async (folder: string, shared: ReadonlySet<string>, now: TimeMs): Promise<boolean> => {
  const stats = await lstat(folder);
  if (!stats.isDirectory()) return false;
  let touchedAtMs = stats.mtimeMs;
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    if (shared.has(path)) return false;
    touchedAtMs = Math.max(touchedAtMs, (await lstat(path)).mtimeMs);
  }
  return now - touchedAtMs > UPLOAD_KEPT_MS;
};
