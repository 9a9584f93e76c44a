import { mkdir, readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { removeAbandonedUploads, removeUnshared } from "../../src-main/host/headless/abandoned-uploads.ts";
import { makeUploadFolder, receiveIntoFolder } from "../../src-main/host/headless/upload.ts";
import { quietLog, realEnv, temporaryFolder } from "../support/files.ts";

const DAY_MS = 24 * 60 * 60 * 1000;
const deps = realEnv;

let home: Awaited<ReturnType<typeof temporaryFolder>>;
let uploads: string;
beforeAll(async () => {
  home = await temporaryFolder();
  uploads = join(home.path, "uploads");
});
afterAll(() => home.dispose());

const make = async (name: string): Promise<string> => {
  const made = await makeUploadFolder({ directory: uploads, name }, deps);
  if (!made.ok) throw new Error(made.error.type);
  return made.value.path;
};
const put = async (
  into: string,
  name: string,
  text: string,
  sizeBytes: number | null = text.length,
): Promise<boolean> =>
  (await receiveIntoFolder(Readable.from([Buffer.from(text)]), { directory: uploads, into, name, sizeBytes }, deps)).ok;

test("a folder is uploaded file by file, and every path stays within it", async () => {
  const into = await make("../../Trip");
  expect(basename(into)).toBe("Trip");
  expect(await put(into, "a/b/c.txt", "hello")).toBe(true);
  expect(await put(into, "../../../out.txt", "up")).toBe(true);
  expect(await put(into, "/etc/passwd", "root")).toBe(true);
  expect(await readFile(join(into, "a/b/c.txt"), "utf8")).toBe("hello");
  expect(await readdir(home.path)).toEqual(["uploads"]);
  // What is there is not written over, and what did not arrive whole is not kept.
  expect(await put(into, "a/b/c.txt", "other")).toBe(false);
  expect(await readFile(join(into, "a/b/c.txt"), "utf8")).toBe("hello");
  expect(await put(into, "short.txt", "abc", 4)).toBe(false);
  expect(await readdir(into)).not.toContain("short.txt");
});

test("files go into no other folder than one that was made for it", async () => {
  const elsewhere = join(home.path, "elsewhere");
  await mkdir(elsewhere);
  for (const into of [
    elsewhere,
    uploads,
    home.path,
    join(uploads, "x", "y"),
    join(uploads, "A".repeat(22), "none"),
    "",
  ])
    expect(await put(into, "a.txt", "x"), into).toBe(false);
  expect(await readdir(elsewhere)).toEqual([]);
});

test("a folder that was shared is kept, one that was not is removed after a day", async () => {
  const [shared, abandoned] = [await make("Shared"), await make("Abandoned")];
  await put(shared, "a.txt", "a");
  await put(abandoned, "a.txt", "a");
  await removeAbandonedUploads(uploads, [shared], { now: Date.now() + 2 * DAY_MS, log: quietLog });
  expect(await readdir(shared)).toEqual(["a.txt"]);
  await expect(readdir(abandoned)).rejects.toThrow("ENOENT");
});

test("an upload that could not be shared is removed at once, and nothing else", async () => {
  const [shared, refused] = [await make("Shared"), await make("Refused")];
  const elsewhere = join(dirname(uploads), "elsewhere", "A".repeat(22));
  await mkdir(elsewhere, { recursive: true });
  await put(shared, "a.txt", "a");
  await put(refused, "a.txt", "a");
  const remove = (path: string): Promise<void> =>
    removeUnshared(uploads, path, { sharedPaths: [shared], log: quietLog });
  for (const path of [refused, shared, elsewhere, join(uploads, "none"), uploads]) await remove(path);
  await expect(readdir(refused)).rejects.toThrow("ENOENT");
  expect(await readdir(shared)).toEqual(["a.txt"]);
  expect(await readdir(elsewhere)).toEqual([]);
});
