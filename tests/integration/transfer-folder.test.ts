import { randomBytes } from "node:crypto";
import { mkdir, readdir, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { FileView, TransferView } from "#shared/ipc/views.ts";
import { specOf } from "../../src-main/transfer/files.ts";
import { hexOf, manyFiles, readTree, type Tree, writeTree } from "../support/folders.ts";
import { createTransferWorld, phasesOf, type TransferWorld, viewWhere } from "../support/transfer-world.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const bytes = (length: number): Uint8Array => new Uint8Array(randomBytes(length));
const errorType = (result: { ok: true } | { ok: false; error: { type: string } }): string | null =>
  result.ok ? null : result.error.type;

/** One world for all tests; each has a folder of its own name. */
let world: TransferWorld;
let name: string;
let source: string;
let tests = 0;
beforeAll(async () => {
  world = await createTransferWorld();
});
afterAll(() => world.dispose());
beforeEach(() => {
  tests += 1;
  name = `trip ${tests}`;
  source = join(world.folder, name);
  world.links.tamper = (frame) => [frame];
  world.links.connect();
  world.bob.views.length = 0;
  world.alice.notices.length = 0;
});

const share = async (tree: Tree): Promise<FileView> => {
  await writeTree(source, tree);
  return world.share(source);
};
const viewOfIt = (fits: (view: TransferView) => boolean): Promise<TransferView> =>
  viewWhere(world.bob, (view) => view.name === name && fits(view));
/** Whatever was chosen, what was asked for adds up. */
const complete = async (fits: (view: TransferView) => boolean = () => true): Promise<TransferView> => {
  const view = await viewOfIt((candidate) => candidate.phase === "complete" && fits(candidate));
  const { chunksStored, duplicateChunks, rejectedChunks, cancelledChunks } = view;
  expect(view.requestedChunks).toBe(chunksStored + duplicateChunks + rejectedChunks + cancelledChunks);
  expect(view).toMatchObject({ chunksStored: view.chunkCount, bytesStored: view.sizeBytes });
  return view;
};
const saved = (): Promise<Record<string, string>> => readTree(join(world.bob.downloads, name));
/** What of this test is in the download folder. */
const downloads = async (): Promise<string[]> =>
  (await readdir(world.bob.downloads)).filter((entry) => entry.startsWith(name) || entry.startsWith("."));

/** Children of a folder at Bob, by name. */
const childrenOf = async (fileId: string, path = "") => {
  const listed = await world.bob.files.entries(fileId, path, 0);
  if (!listed.ok) throw new Error(listed.error.type);
  return Object.fromEntries(listed.value.entries.map((entry) => [entry.name, entry]));
};
const rangesOf = (...entries: ({ first: number; entries: number } | undefined)[]): [number, number][] =>
  entries.map((entry) => [entry?.first ?? 0, (entry?.first ?? 0) + (entry?.entries ?? 0)]);

/** Fetches the list only, and rests. */
const choose = async (fileId: string): Promise<void> => {
  expect(errorType(await world.bob.transfers.start(fileId, undefined, "choose"))).toBeNull();
  await viewOfIt(({ paused, folder }) => paused && folder?.choosing === true);
};

/** Bob's finished folder as he serves it. */
const servedBy = (fileId: string) => {
  const record = world.bob.files.find(fileId);
  if (record === null) throw new Error("not known");
  return { spec: specOf(record.offer), path: world.bob.transfers.savedPath(fileId) ?? "" };
};

/** What Bob can give of it; each of those chunks can be read. */
const servable = async (fileId: string): Promise<{ held: number; pages: number }> => {
  const { spec, path } = servedBy(fileId);
  const found = await world.bob.worker.run("findSaved", { spec, path }).result;
  if (!found.ok) throw new Error(found.error.type);
  const indices = Array.from({ length: spec.chunkCount }, (_, index) => index);
  const held = indices.filter((index) => (((found.value.held[index >> 3] ?? 0) >> (index & 7)) & 1) === 1);
  const source = { kind: "file", path, mayLack: true } as const;
  const read = await world.bob.worker.run("readChunks", { spec, source, indices: held }).result;
  expect(read.ok ? read.value.frames.map(({ index }) => index) : read.error).toEqual(held);
  return { held: held.length, pages: found.value.pages };
};

const TREE: Tree = {
  "read me.txt": bytes(10),
  ".hidden/settings.json": bytes(200),
  "photos/a.jpg": bytes(MiB + 3),
  "photos/b.jpg": bytes(64 * KiB),
  "photos/raw/c.dng": bytes(3 * MiB),
  "photos/raw/none.txt": new Uint8Array(),
  empty: null,
  "many/deep/er/est": null,
};

describe("a shared folder", () => {
  test("passes every phase and arrives as it is", async () => {
    const file = await share(TREE);
    expect(file).toMatchObject({ name, folder: { files: 6 }, sizeBytes: 4 * MiB + 3 + 64 * KiB + 210 });
    expect(errorType(await world.bob.transfers.start(file.fileId))).toBeNull();
    const done = await complete();
    expect(done.savedPath).toBe(join(world.bob.downloads, name));
    expect(await saved()).toEqual(hexOf(TREE));
    expect(phasesOf(world.bob.views)).toEqual(["downloading", "draining", "assembling", "verifying", "complete"]);
    expect(done).toMatchObject({
      ...{ chunksStored: file.chunkCount, chunkCount: file.chunkCount, requestedChunks: file.chunkCount },
      ...{ duplicateChunks: 0, lateChunks: 0, folder: { filesWanted: 6, filesThere: 0, choosing: false } },
    });
    expect(await downloads()).toEqual([name]);
    const stored = world.bob.views.map(({ chunksStored }) => chunksStored);
    expect(stored).toEqual([...stored].sort((a, b) => a - b));
    // Whole and there: nothing to do.
    expect(errorType(await world.bob.transfers.start(file.fileId))).toBe("already_complete");
  });

  test("loses its links, and gets names that every system allows", async () => {
    await writeTree(source, {
      "a:b?.txt": bytes(5),
      "a_b_.txt": bytes(6),
      CON: bytes(7),
      "Same.txt": bytes(8),
      "same.txt": bytes(9),
    });
    await symlink("/etc/passwd", join(source, "link"));
    const file = await world.share(source);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await complete();
    const tree = await saved();
    expect(Object.keys(tree).sort()).toEqual(["Same.txt", "_CON", "a_b_ (2).txt", "a_b_.txt", "same (2).txt"]);
    // The one that was called so keeps its name.
    expect(tree["a_b_.txt"]).toHaveLength(12);
    expect(tree["_CON"]).toHaveLength(14);
  });

  test("of nothing at all is an empty folder", async () => {
    await mkdir(source);
    const file = await world.share(source);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await complete();
    expect(await saved()).toEqual({});
  });

  test("goes on after link losses and restarts without fetching a stored chunk again", async () => {
    const tree = manyFiles(400, 40 * KiB);
    const file = await share(tree);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await viewOfIt(({ chunksStored }) => chunksStored > 80);
    world.links.cut();
    world.links.connect();
    await viewOfIt(({ chunksStored }) => chunksStored > 150);
    await world.restartBob();
    world.links.connect();
    const done = await complete();
    expect(await saved()).toEqual(hexOf(tree));
    expect(done.requestedChunks).toBeLessThanOrEqual(file.chunkCount + 2 * 48);
  });

  test("that changed is refused, and nothing of the new contents is sent", async () => {
    const file = await share(TREE);
    await writeFile(join(source, "photos/a.jpg"), bytes(MiB + 3));
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const failed = await viewOfIt(({ phase }) => phase === "failed");
    expect(failed.error?.type).toBe("file_changed");
    expect(world.alice.notices).toMatchObject([{ type: "file_changed" }]);
    expect(errorType(world.bob.transfers.cancel(file.fileId))).toBeNull();
  });
});

describe("a part of a folder", () => {
  test("is chosen from its list; the rest can be taken later, and what is there is not fetched again", async () => {
    const file = await share(TREE);
    expect(errorType(await world.bob.files.entries(file.fileId, "", 0))).toBe("list_missing");
    await choose(file.fileId);
    const top = await childrenOf(file.fileId);
    expect(Object.keys(top)).toEqual([".hidden", "empty", "many", "photos", "read me.txt"]);
    expect(top["photos"]).toMatchObject({ kind: "folder", files: 4, sizeBytes: 4 * MiB + 3 + 64 * KiB });
    const raw = (await childrenOf(file.fileId, "photos"))["raw"];

    await world.bob.transfers.start(file.fileId, undefined, rangesOf(raw, top["read me.txt"]));
    const first = await complete();
    expect(Object.keys(await saved()).sort()).toEqual(["photos/raw/c.dng", "photos/raw/none.txt", "read me.txt"]);
    expect(first).toMatchObject({ folder: { filesWanted: 3, filesThere: 0 } });
    expect(first.chunksStored).toBe(first.chunkCount);
    expect(first.requestedChunks).toBeLessThan(file.chunkCount * 0.8);
    // The part is served to others, without the chunk at its start that has bytes of another file too.
    await viewOfIt(({ seeding }) => seeding === "part");
    expect(await servable(file.fileId)).toEqual({ held: 48, pages: 1 });

    await world.bob.transfers.start(file.fileId);
    const all = await complete(({ folder }) => folder?.filesWanted === 6);
    expect(all).toMatchObject({ folder: { filesThere: 3 }, savedPath: join(world.bob.downloads, name) });
    expect(await saved()).toEqual(hexOf(TREE));
    expect(all.requestedChunks).toBeLessThan(file.chunkCount * 0.5);
    expect(await downloads()).toEqual([name]);
  });

  test("is another one from then on when it is chosen while the first is under way", async () => {
    const file = await share(TREE);
    await choose(file.fileId);
    await world.restartBob();
    await viewOfIt(({ paused, folder }) => paused && folder?.choosing === true);
    const { photos, ...others } = await childrenOf(file.fileId);
    await world.bob.transfers.start(file.fileId, undefined, rangesOf(photos));
    await viewOfIt(({ folder, paused }) => folder?.filesWanted === 4 && !paused);
    expect(
      errorType(await world.bob.transfers.start(file.fileId, undefined, rangesOf(others["read me.txt"]))),
    ).toBeNull();
    world.links.connect();
    const done = await complete();
    expect(Object.keys(await saved())).toEqual(["read me.txt"]);
    expect(done).toMatchObject({ folder: { filesWanted: 1 }, chunksStored: done.chunkCount });
  });

  test("cannot be one of a file, nor one that ends before it begins", async () => {
    const path = join(world.folder, "one.bin");
    await writeFile(path, bytes(10));
    const file = await world.share(path);
    expect(errorType(await world.bob.transfers.start(file.fileId, undefined, [[0, 1]]))).toBe("bad_selection");
    const folder = await share({ a: bytes(1) });
    expect(errorType(await world.bob.transfers.start(folder.fileId, undefined, [[3, 3]]))).toBe("bad_selection");
  });
});

describe("a folder where there is one of its name already", () => {
  test("completes it when it has some of the files; a file with other contents stays, the shared one gets a number", async () => {
    const file = await share(TREE);
    const there = join(world.bob.downloads, name);
    const mine = bytes(10);
    await writeTree(there, {
      "photos/raw/c.dng": TREE["photos/raw/c.dng"] ?? null,
      "read me.txt": mine,
      "own.txt": bytes(3),
    });
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const done = await complete();
    expect(done).toMatchObject({ savedPath: there, folder: { filesWanted: 6, filesThere: 1 } });
    const tree = await saved();
    expect(tree["read me.txt"]).toBe(Buffer.from(mine).toString("hex"));
    expect(tree).toMatchObject({ ...hexOf(TREE), "read me.txt": expect.anything() });
    expect(tree["read me (2).txt"]).toBe(hexOf(TREE)["read me.txt"]);
    expect(done.requestedChunks).toBeLessThan(file.chunkCount * 0.5);
    // Others get the one with the number, and not the one that has its name and size.
    expect(await servable(file.fileId)).toMatchObject({ held: file.chunkCount });
    await writeFile(join(there, "read me (2).txt"), mine);
    const { spec } = servedBy(file.fileId);
    const source = { kind: "file", path: there, mayLack: true } as const;
    const indices = Array.from({ length: spec.chunkCount }, (_, index) => index);
    const read = await world.bob.worker.run("readChunks", { spec, source, indices }).result;
    expect(read).toMatchObject({ ok: false, error: { type: "corrupt_chunks", indices: [expect.any(Number)] } });
  });

  test("takes another name when that one is about something else, or is a file", async () => {
    const file = await share(TREE);
    await writeTree(world.bob.downloads, { [`${name}/own.txt`]: bytes(3), [`${name} (2)`]: bytes(4) });
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    expect((await complete()).savedPath).toBe(join(world.bob.downloads, `${name} (3)`));
    expect(Object.keys(await saved())).toEqual(["own.txt"]);
  });

  test("never writes through a link in it", async () => {
    const file = await share(TREE);
    const outside = join(world.folder, "outside");
    await mkdir(outside);
    const there = join(world.bob.downloads, name);
    await writeTree(there, { ".hidden/settings.json": TREE[".hidden/settings.json"] ?? null });
    await symlink(outside, join(there, "photos"));
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    const failed = await viewOfIt(({ phase }) => phase === "failed");
    expect(failed.error?.type).toBe("not_writable");
    expect(await readdir(outside)).toEqual([]);
  });

  test("fetches after all what was there and went away meanwhile", async () => {
    const file = await share(TREE);
    const there = join(world.bob.downloads, name);
    await writeTree(there, {
      "photos/a.jpg": TREE["photos/a.jpg"] ?? null,
      "photos/b.jpg": TREE["photos/b.jpg"] ?? null,
    });
    let arrived = 0;
    world.links.tamper = (frame) => (frame[0] === 2 && ++arrived === 10 ? [] : [frame]);
    world.links.connect();
    await world.bob.transfers.start(file.fileId);
    await viewOfIt(({ chunksStored, chunkCount }) => chunksStored === chunkCount - 1);
    await rm(join(there, "photos/a.jpg"));
    await utimes(join(there, "photos/b.jpg"), 1, 1);
    world.links.cut();
    world.links.connect();
    await complete();
    expect(await saved()).toEqual(hexOf(TREE));
  });
});
