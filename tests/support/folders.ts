import { randomBytes } from "node:crypto";
import { lstat, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

/** How {@link readTree} and {@link hexOf} tell an empty folder. */
export const EMPTY_FOLDER = "an empty folder";

/** Contents by path; null is an empty folder. */
export type Tree = Record<string, Uint8Array | null>;

export const writeTree = async (root: string, tree: Tree): Promise<void> => {
  await mkdir(root, { recursive: true });
  for (const [path, contents] of Object.entries(tree)) {
    const target = join(root, path);
    await mkdir(contents === null ? target : dirname(target), { recursive: true });
    if (contents !== null) await writeFile(target, contents);
  }
};

/** What lies there, links and all, as hex of the contents. */
export const readTree = async (root: string): Promise<Record<string, string>> => {
  const found: Record<string, string> = {};
  const enter = async (path: string): Promise<void> => {
    const names = await readdir(join(root, path));
    if (names.length === 0 && path !== "") found[path] = EMPTY_FOLDER;
    for (const name of names) {
      const child = path === "" ? name : `${path}/${name}`;
      const stats = await lstat(join(root, child));
      if (stats.isDirectory()) await enter(child);
      else found[child] = stats.isFile() ? (await readFile(join(root, child))).toString("hex") : "neither";
    }
  };
  await enter("");
  return found;
};

export const hexOf = (tree: Tree): Record<string, string> =>
  Object.fromEntries(
    Object.entries(tree).map(([path, contents]) => [
      path,
      contents === null ? EMPTY_FOLDER : Buffer.from(contents).toString("hex"),
    ]),
  );

/** Small files in folders, each with bytes of its own. */
export const manyFiles = (count: number, sizeBytes: number): Tree =>
  Object.fromEntries(
    Array.from({ length: count }, (_, i) => [`part ${i % 10}/file ${i}.bin`, new Uint8Array(randomBytes(sizeBytes))]),
  );
