import { access, constants, mkdir, stat } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { fail, ok, type Result } from "#shared/base/result.ts";

export type FolderError = { type: "not_a_folder" | "not_writable"; message: string };

/**
 * The download folder of the settings, made if it is missing: it is Weir's own to keep, and a new computer has none. A folder
 * that is named for a single download is not made, because there a name that does not exist is most likely a mistake.
 */
export const makeDownloadFolder = async (path: string): Promise<Result<void, FolderError>> => {
  if (!isAbsolute(path))
    return fail("not_a_folder", "This is not the whole path of a folder. Write it from its start.");
  try {
    await mkdir(path, { recursive: true });
    if (!(await stat(path)).isDirectory()) return notAFolder();
    await access(path, constants.W_OK);
    return ok(undefined);
  } catch (thrown) {
    const code = thrown instanceof Error && "code" in thrown ? thrown.code : null;
    // A file has the name of the folder, or of one above it.
    if (code === "EEXIST" || code === "ENOTDIR") return notAFolder();
    return fail(
      "not_writable",
      "The download folder cannot be made or written to. Choose another one in the settings.",
    );
  }
};

const notAFolder = () => fail("not_a_folder", "There is a file in the place of this folder. Choose another folder.");
