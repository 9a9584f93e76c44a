/** Codes that Node and SQLite give their errors, and what they mean for the person. */

type OpenDatabaseErrorType = "wrong_key" | "damaged" | "disk_full" | "not_accessible";

/** A database of the profile cannot be opened; the message says what to do. Nothing was changed. */
export class OpenDatabaseError extends Error {
  override readonly name = "OpenDatabaseError";
  readonly type: OpenDatabaseErrorType;

  constructor(type: OpenDatabaseErrorType, message: string, options?: ErrorOptions) {
    super(message, options);
    this.type = type;
  }
}

const codeOf = (error: unknown): string => {
  const code = error instanceof Error && "code" in error ? error.code : null;
  return typeof code === "string" ? code : "";
};

/** SHMSIZE: SQLite could not extend the file that it shares between connections, which only happens without room. */
const DISK_FULL: readonly string[] = ["SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "ENOSPC", "EDQUOT"];

/** SQLite's and the file system's ways to say that there is no room. */
export const isDiskFull = (error: unknown): boolean => DISK_FULL.includes(codeOf(error));

/** SQLite met something in the file that it never writes. */
export const isDamaged = (error: unknown): boolean => /^SQLITE_(CORRUPT|NOTADB)/.test(codeOf(error));

const NOT_ACCESSIBLE = /^(SQLITE_(CANTOPEN|READONLY|PERM|IOERR|BUSY|LOCKED)|EACCES|EPERM|EROFS|ENOENT|ENOTDIR|EISDIR)/;

/** The driver checks the folder itself and throws this without a code. */
const isMissingDirectory = (error: unknown): boolean =>
  error instanceof TypeError && error.message.includes("directory does not exist");

/** Null for errors that have another cause. With a wrong key every file looks as if it were no database. */
export const openErrorOf = (
  error: unknown,
  whenNotADatabase: "wrong_key" | "damaged",
): { type: OpenDatabaseErrorType; message: string } | null => {
  const code = codeOf(error);
  if (isDiskFull(error))
    return { type: "disk_full", message: "The disk with Weir's data is full. Free some space and start Weir again." };
  if (code === "SQLITE_NOTADB" && whenNotADatabase === "wrong_key")
    return {
      type: "wrong_key",
      message:
        "Weir's data cannot be decrypted with the stored key. The key belongs to another profile, or the file is " +
        "damaged. Restore the data folder and its key together from a backup.",
    };
  if (code === "SQLITE_NOTADB" || code.startsWith("SQLITE_CORRUPT"))
    return { type: "damaged", message: "Weir's data is damaged. Restore the data folder from a backup." };
  if (NOT_ACCESSIBLE.test(code) || isMissingDirectory(error))
    return {
      type: "not_accessible",
      message: "Weir cannot open its data folder for writing. Check that it exists, its permissions and its disk.",
    };
  return null;
};
