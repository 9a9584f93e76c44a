import { execFileSync } from "node:child_process";
import {
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  statfsSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import type { NativeFs } from "./index.ts";

/** What is weaker without the addon, in words for the log. */
export const WEAKER_GUARANTEES = {
  reserve: "disk space is checked before a download but not reserved: the disk can still fill up meanwhile",
  rename: "a name is taken by link and unlink: a crash between them leaves the part file beside the finished one",
  directory: "a finished rename may be undone by a power loss",
  quarantine: "received files carry no mark of where they came from",
} as const;

export type WeakerGuarantee = keyof typeof WEAKER_GUARANTEES;

/** The guarantees that {@link createFallback} cannot give on this platform; none of them costs correctness in normal running. */
export const weakerGuarantees = (platform: NodeJS.Platform = process.platform): WeakerGuarantee[] => {
  switch (platform) {
    // NTFS allocates when a file is extended, and streams are ordinary files to Node.
    case "win32":
      return ["rename", "directory"];
    case "darwin":
      return ["reserve", "rename"];
    default:
      return ["reserve", "rename", "quarantine"];
  }
};

/** An error with Node's fields, for failures that no system call of Node's reported. */
export const systemError = (code: string, message: string, syscall: string): Error =>
  Object.assign(new Error(`${code}: ${message}, ${syscall}`), { code, syscall });

export const errorCode = (error: unknown): string | null =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : null;

/** The same calls with what Node itself offers; it has none that syncs a whole file system. */
export const createFallback = (): Omit<NativeFs, "kind" | "syncFileSystem"> => ({
  reserve,
  renameNoReplace,
  fsyncDirectory,
  markQuarantine,
});

function reserve(fd: number, bytes: number): void {
  const file = fstatSync(fd);
  if (file.size >= bytes) return;
  const free = freeBytes(fd);
  if (free !== null && bytes - file.blocks * 512 > free) {
    throw systemError("ENOSPC", "no space left on device", "statfs");
  }
  ftruncateSync(fd, bytes);
}

/** Free space of the disk a file is on; null where only a path, and not a descriptor, can be asked. */
function freeBytes(fd: number): number | null {
  if (process.platform !== "linux") return null;
  try {
    const disk = statfsSync(`/proc/self/fd/${fd}`);
    return disk.blocks === 0 ? null : disk.bavail * disk.bsize;
  } catch {
    // Without /proc the download itself finds out.
    return null;
  }
}

/** Errors by which file systems say that they have no hard links (FAT, exFAT, some network and FUSE ones). */
const NO_HARD_LINKS: readonly (string | null)[] = [
  "ENOTSUP",
  "EOPNOTSUPP",
  "ENOSYS",
  "EPERM",
  "EISDIR",
  "EINVAL",
  "EMLINK",
];

function renameNoReplace(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    if (!NO_HARD_LINKS.includes(errorCode(error))) throw error;
    renameAfterCheck(from, to);
    return;
  }
  unlinkSync(from);
}

/** Last resort: a file that another program makes between the two calls is replaced. */
function renameAfterCheck(from: string, to: string): void {
  if (lstatSync(to, { throwIfNoEntry: false })) throw systemError("EEXIST", "file already exists", "rename");
  renameSync(from, to);
}

function fsyncDirectory(path: string): void {
  if (!statSync(path).isDirectory()) throw systemError("ENOTDIR", "not a directory", "open");
  // Windows refuses to open directories through the C runtime.
  if (process.platform === "win32") return;
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Longest wait for macOS' own tool, which takes a few milliseconds. */
const XATTR_TIMEOUT_MS = 5_000;

function markQuarantine(path: string, originUrl: string): void {
  statSync(path); // ENOENT with Node's own words; writing a stream would create the file
  switch (process.platform) {
    case "win32":
      writeFileSync(`${path}:Zone.Identifier`, `[ZoneTransfer]\r\nZoneId=3\r\nHostUrl=${originUrl}\r\n`);
      return;
    case "darwin":
      markWithXattrTool(path);
      return;
    default:
      throw systemError("ENOTSUP", "operation not supported", "setxattr");
  }
}

function markWithXattrTool(path: string): void {
  const seconds = Math.floor(Date.now() / 1000)
    .toString(16)
    .padStart(8, "0");
  try {
    const value = `0081;${seconds};Weir;`;
    execFileSync("/usr/bin/xattr", ["-w", "com.apple.quarantine", value, path], {
      timeout: XATTR_TIMEOUT_MS,
      stdio: "ignore",
    });
  } catch {
    throw systemError("ENOTSUP", "operation not supported", "xattr");
  }
}
