import { lstat, mkdir, open, rmdir, statfs, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { toBase64Url } from "#shared/base/bytes.ts";
import type { Log, Random } from "#shared/base/env.ts";
import { DISK_RESERVE_BYTES, FOLDER_DEPTH_MAX } from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { describeThrown } from "../../ipc/server.ts";
import { safeEntryName, safeFileName } from "../../transfer/file-name.ts";

/**
 * Takes a file from the browser onto this machine's disk, so that it can be shared by its path. Of any size, never held
 * in memory. It stays there, because the shared file is what others download from.
 */

/** The folder of one upload: 16 random bytes. */
export const UPLOAD_FOLDER = /^[A-Za-z0-9_-]{22}$/;

export type UploadError = { type: "disk_full" | "not_writable" | "upload_failed"; message: string };

export const receiveUpload = async (
  body: Readable,
  options: { readonly directory: string; readonly name: string; readonly sizeBytes: number | null },
  deps: { readonly random: Random; readonly log: Log },
): Promise<Result<{ path: string }, UploadError>> => {
  const folder = join(options.directory, toBase64Url(deps.random.bytes(16)));
  const path = join(folder, uploadName(options.name));
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    if (options.sizeBytes !== null && !(await fits(folder, options.sizeBytes))) {
      await removeQuietly(path, folder);
      return uploadError("ENOSPC");
    }
    const written = await write(body, path);
    if (options.sizeBytes !== null && written !== options.sizeBytes) throw new CutShort();
    return ok({ path });
  } catch (thrown) {
    deps.log.warn("an upload failed", describeThrown(thrown));
    await removeQuietly(path, folder);
    return uploadError(thrown instanceof Error && "code" in thrown ? thrown.code : null);
  }
};

/**
 * An empty folder in which the files of a folder that is uploaded are put, one upload each. It has the name that others
 * will see.
 */
export const makeUploadFolder = async (
  options: { readonly directory: string; readonly name: string },
  deps: { readonly random: Random; readonly log: Log },
): Promise<Result<{ path: string }, UploadError>> => {
  const path = join(options.directory, toBase64Url(deps.random.bytes(16)), uploadName(options.name));
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    return ok({ path });
  } catch (thrown) {
    deps.log.warn("an upload failed", describeThrown(thrown));
    return uploadError(thrown instanceof Error && "code" in thrown ? thrown.code : null);
  }
};

/** Takes one file of a folder that {@link makeUploadFolder} made; `name` is its path in there. */
export const receiveIntoFolder = async (
  body: Readable,
  options: {
    readonly directory: string;
    readonly into: string;
    readonly name: string;
    readonly sizeBytes: number | null;
  },
  { log }: { readonly log: Log },
): Promise<Result<{ path: string }, UploadError>> => {
  const { directory, into } = options;
  const isOurs =
    join(dirname(dirname(into)), ".") === join(directory, ".") && UPLOAD_FOLDER.test(basename(dirname(into)));
  const names = options.name.split("/").map(safeEntryName);
  if (!isOurs || names.length > FOLDER_DEPTH_MAX) return uploadError(null);
  const path = join(into, ...names);
  try {
    // Whoever asks for another folder than one that was made finds none.
    if (!(await lstat(into)).isDirectory()) return uploadError(null);
    if (options.sizeBytes !== null && !(await fits(into, options.sizeBytes))) return uploadError("ENOSPC");
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const written = await write(body, path);
    if (options.sizeBytes !== null && written !== options.sizeBytes) throw new CutShort();
    return ok({ path: into });
  } catch (thrown) {
    log.warn("an upload failed", describeThrown(thrown));
    const code = thrown instanceof Error && "code" in thrown ? thrown.code : null;
    // Of one that is there already nothing was written.
    if (code !== "EEXIST") await unlink(path).catch(() => undefined);
    return uploadError(code);
  }
};

class CutShort extends Error {
  override readonly name = "CutShort";
}

/** Writes and syncs the body; returns the bytes written. Backpressure comes from the loop itself. */
const write = async (body: Readable, path: string): Promise<number> => {
  await using file = await open(path, "wx", 0o600);
  let written = 0;
  for await (const piece of body) {
    const { bytesWritten } = await file.write(piece);
    written += bytesWritten;
    if (bytesWritten !== piece.length) throw Object.assign(new Error("short write"), { code: "ENOSPC" });
  }
  await file.sync();
  return written;
};

/** Asked before the first byte, so that "disk full" is known at the start and not after hours. */
const fits = async (folder: string, sizeBytes: number): Promise<boolean> => {
  const { bavail, bsize } = await statfs(folder);
  return sizeBytes + DISK_RESERVE_BYTES <= bavail * bsize;
};

const removeQuietly = async (path: string, folder: string): Promise<void> => {
  await unlink(path).catch(() => undefined);
  await rmdir(folder).catch(() => undefined);
};

const uploadError = (code: unknown) => {
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return fail("disk_full", "There is not enough space on the disk for this file. Free some and try again.");
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return fail("not_writable", "Weir's data folder cannot be written to. Check its permissions and try again.");
    default:
      return fail("upload_failed", "The file did not arrive whole. Try again.");
  }
};

/** The last part of the name that a browser gave, made safe as a file name on every system. */
export const uploadName = (raw: string): string => safeFileName(raw.split(/[/\\]/).at(-1) ?? "");
