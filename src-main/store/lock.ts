import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { type Disposable, toDisposable } from "#shared/base/disposable.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { makePrivate } from "./database.ts";

type ProfileInUse = { type: "profile_in_use"; message: string };

/**
 * Keeps a second process from opening the same profile: two would advance the same ratchets and lose messages.
 *
 * The lock is an exclusive transaction that stays open on a tiny database of its own, so the operating system releases
 * it whenever the process ends, also by SIGKILL or a crash; a file that merely exists would stay behind. The process id
 * is written beside it for the message only. It is not in the same file, because POSIX drops a process's locks on a file
 * when any descriptor of that file is closed.
 *
 * @throws what the file system or SQLite throws when the folder cannot be written.
 */
export const lockProfile = (dataDir: string): Result<Disposable, ProfileInUse> => {
  const pidPath = join(dataDir, "lock.pid");
  const path = join(dataDir, "lock.db");
  makePrivate(path);
  const sql = new Sqlite(path, { timeout: 0 });
  try {
    sql.pragma("locking_mode = EXCLUSIVE");
    sql.exec("BEGIN EXCLUSIVE");
    writeFileSync(pidPath, `${process.pid}\n`, { mode: 0o600 });
  } catch (error) {
    sql.close();
    if (error instanceof Sqlite.SqliteError && error.code.startsWith("SQLITE_BUSY")) return inUse(pidPath);
    throw error;
  }
  return ok(toDisposable(() => sql.close()));
};

const inUse = (pidPath: string) => {
  const pid = readPid(pidPath);
  return fail(
    "profile_in_use",
    `Weir is already running with this profile${pid === null ? "" : ` (process ${pid})`}. ` +
      "Use that window, close it first, or choose another data folder.",
  );
};

const readPid = (path: string): string | null => {
  try {
    const pid = readFileSync(path, "utf8").trim();
    return /^[0-9]{1,10}$/.test(pid) ? pid : null;
  } catch {
    // It is for the message only; the other process may be about to write it.
    return null;
  }
};
