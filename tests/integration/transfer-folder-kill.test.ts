import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { chunkBytesFor } from "#shared/wire/manifest.ts";
import type { ChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import type { FileSpec } from "../../src-main/transfer/chunk-worker-protocol.ts";
import { counted } from "../support/counts.ts";
import { runDownloadChild, sealInto } from "../support/described-download.ts";
import { freshFileId, freshKey, must, startWorker, temporaryFolder } from "../support/files.ts";
import { EMPTY_FOLDER, hexOf, manyFiles, readTree, type Tree, writeTree } from "../support/folders.ts";

const KiB = 1024;
const KILLS = counted(8, 200);

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let owner: ChunkWorker;
beforeAll(async () => {
  folder = await temporaryFolder();
  owner = startWorker(join(folder.path, "owner.db"));
});
afterAll(async () => {
  await owner.dispose();
  await folder.dispose();
});

const TREE: Tree = { ...manyFiles(300, 20 * KiB), "large.bin": new Uint8Array(1024 * KiB).fill(5), empty: null };
const SOME: Tree = { "part 1/file 1.bin": TREE["part 1/file 1.bin"] ?? null, "large.bin": TREE["large.bin"] ?? null };

interface Described {
  readonly file: string;
  readonly directory: string;
}

const describeDownload = async (): Promise<(round: number) => Promise<Described>> => {
  const path = join(folder.path, "source");
  await writeTree(path, TREE);
  const [fileId, key] = [freshFileId(), freshKey()];
  const { sizeBytes, root, sha256, folder: part } = must(await owner.run("hashFolder", { fileId, key, path }).result);
  const chunkBytes = chunkBytesFor(sizeBytes);
  const chunkCount = Math.ceil(sizeBytes / chunkBytes);
  const spec: FileSpec = {
    ...{ fileId, sizeBytes, chunkBytes, chunkCount, root, key },
    folder: { listBytes: part?.listBytes ?? 0, listSha256: sha256 },
  };
  const sealed = join(folder.path, "sealed");
  const leaves = await sealInto(sealed, owner, spec, path);
  return async (round) => {
    const directory = join(folder.path, `down-${round}`);
    await mkdir(directory);
    const file = join(folder.path, `describe-${round}.json`);
    const plainFolder = { listBytes: part?.listBytes, listSha256: [...sha256] };
    const description = {
      spec: { ...spec, root: [...root], key: [...key], folder: plainFolder },
      ...{ sha256: [...sha256], leaves: [...leaves], directory, name: "trip", sealed },
      ...{ choice: { selection: null, name: "trip" }, database: join(folder.path, `child-${round}.db`) },
    };
    await writeFile(file, JSON.stringify(description));
    return { file, directory };
  };
};

test(`a folder whose process is killed ${KILLS} times, mostly while it is assembled and saved, arrives whole and is fetched once`, {
  timeout: 600_000,
}, async () => {
  const next = await describeDownload();
  let kills = 0;
  let killedInTheEnd = 0;
  for (let round = 0; kills < KILLS; round += 1) {
    const { file, directory } = await next(round);
    const saved = join(directory, "trip");
    // Every other folder is there in part already, so that its files are moved into it one by one.
    const isMerge = round % 2 === 1;
    if (isMerge) await writeTree(saved, SOME);
    const stored = new Set<string>();
    for (let done = false; !done; ) {
      const at = ["R", "A ", "A ", "V"][kills % 4] ?? "R";
      const kill = kills < KILLS ? { at, afterMs: Math.random() * (at === "R" ? 150 : 40) } : null;
      const { lines, killed } = await runDownloadChild(file, { kill });
      for (const line of lines) if (line.startsWith("F ")) expect(stored.has(line.slice(2)), line).toBe(false);
      for (const line of lines) if (line.startsWith("S ")) stored.add(line.slice(2));
      done = lines.some((line) => line.startsWith("D "));
      if (killed) kills += 1;
      if (killed && !done && lines.some((line) => line.startsWith("A "))) killedInTheEnd += 1;
      const there = (await readdir(directory)).filter((name) => !name.endsWith(".part"));
      expect(there).toEqual(there.length === 0 ? [] : ["trip"]);
      // Under its final name a file is whole, and a folder that is not merged as well.
      const found = there.length === 0 ? {} : await readTree(saved);
      // Where files are moved one by one, a folder is made before the first of its own.
      const files = Object.entries(found).filter(([, contents]) => contents !== EMPTY_FOLDER);
      expect(hexOf(TREE)).toMatchObject(Object.fromEntries(files));
      if (done || (there.length > 0 && !isMerge)) expect(found).toEqual(hexOf(TREE));
    }
    expect(await readdir(directory)).toEqual(["trip"]);
    await rm(directory, { recursive: true });
  }
  expect(killedInTheEnd).toBeGreaterThan(0);
});
