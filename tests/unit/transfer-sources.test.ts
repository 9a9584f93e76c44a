import { appendFile, mkdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Sources } from "../../src-main/transfer/sources.ts";
import { freshFileId, temporaryFolder } from "../support/files.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.dispose());

const fileId = freshFileId();

test("a file is there until it is shorter, gone or no file, and again when it is back; each change is told once", async () => {
  const path = join(folder.path, "a");
  const changes: boolean[] = [];
  const sources = new Sources(() => changes.push(sources.isThere(fileId)));
  const look = async (): Promise<boolean> => {
    await sources.look({ fileId, path, sizeBytes: 4, isFolder: false });
    return sources.isThere(fileId);
  };
  await writeFile(path, "1234");
  expect(await look()).toBe(true);
  await appendFile(path, "5");
  expect(await look()).toBe(true);
  await truncate(path, 3);
  expect(await look()).toBe(false);
  await rm(path);
  expect(await look()).toBe(false);
  await mkdir(path);
  expect(await look()).toBe(false);
  await rm(path, { recursive: true });
  await writeFile(path, "abcd");
  expect(await look()).toBe(true);
  sources.gone(fileId);
  sources.gone(fileId);
  expect(changes).toEqual([false, true, false]);
});
