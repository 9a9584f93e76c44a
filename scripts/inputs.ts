import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { root } from "./run.ts";

/**
 * A digest of the names and contents of these files and folders (relative to the project). Times would mislead: a checkout
 * of an older commit makes new files.
 */
export const inputsDigest = (inputs: readonly string[], salt = ""): string => {
  const hash = createHash("sha256").update(salt);
  for (const file of inputs.flatMap((input) => filesUnder(join(root, input)))) {
    hash.update(relative(root, file)).update("\0").update(readFileSync(file)).update("\0");
  }
  return hash.digest("hex");
};

/** The digest that a finished build left behind; null before the first. */
export const readStamp = (path: string): string | null => (existsSync(path) ? readFileSync(path, "utf8") : null);

const filesUnder = (path: string): string[] => {
  if (!existsSync(path)) return [];
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
};
