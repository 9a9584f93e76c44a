import { spawn } from "node:child_process";
import { mkdir, open, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CHUNK_TAG_BYTES } from "#shared/base/limits.ts";
import { chunkBytesFor } from "#shared/wire/manifest.ts";
import type { ChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import type { FileSpec } from "../../src-main/transfer/chunk-worker-protocol.ts";
import { counted } from "../support/counts.ts";
import { freshFileId, freshKey, must, payloadOf, startWorker, temporaryFolder } from "../support/files.ts";
import { hexOf, manyFiles, readTree, type Tree, writeTree } from "../support/folders.ts";

const KiB = 1024;
const KILLS = counted(12, 200);

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
  await using out = await open(sealed, "w");
  const source = { kind: "file", path } as const;
  for (let first = 0; first < chunkCount; first += 16) {
    const indices = Array.from({ length: Math.min(16, chunkCount - first) }, (_, i) => first + i);
    for (const frame of must(await owner.run("readChunks", { spec, source, indices }).result).frames) {
      const bytes = payloadOf(frame);
      await out.write(bytes, 0, bytes.length, frame.index * (chunkBytes + CHUNK_TAG_BYTES));
    }
  }
  const leaves = payloadOf(must(await owner.run("readLeaves", { spec, page: 0 }).result));
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

/** Kills the child when it has said `killAt`, and the given time later; null: never. */
const runChild = (
  file: string,
  kill: { at: string; afterMs: number } | null,
): Promise<{ text: string; killed: boolean }> =>
  new Promise((resolve, reject) => {
    const script = join(import.meta.dirname, "../support/download-child.ts");
    const child = spawn(process.execPath, [script, file], { stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    let errors = "";
    let isDue = false;
    child.stdout.on("data", (data: Buffer) => {
      text += data.toString();
      if (kill === null || isDue || !`\n${text}`.includes(`\n${kill.at}`)) return;
      isDue = true;
      setTimeout(() => child.kill("SIGKILL"), kill.afterMs);
    });
    child.stderr.on("data", (data: Buffer) => {
      errors += data.toString();
    });
    child.on("close", (code, signal) => {
      if (signal === "SIGKILL" || code === 0) resolve({ text, killed: signal === "SIGKILL" });
      else reject(new Error(errors));
    });
  });

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
      const plan = kills < KILLS ? { at, afterMs: Math.random() * (at === "R" ? 150 : 40) } : null;
      const { text, killed } = await runChild(file, plan);
      const lines = text.split("\n");
      for (const line of lines) if (line.startsWith("F ")) expect(stored.has(line.slice(2)), line).toBe(false);
      for (const line of lines) if (line.startsWith("S ")) stored.add(line.slice(2));
      done = lines.some((line) => line.startsWith("D "));
      if (killed) kills += 1;
      if (killed && !done && text.includes("\nA ")) killedInTheEnd += 1;
      const there = (await readdir(directory)).filter((name) => !name.endsWith(".part"));
      expect(there).toEqual(there.length === 0 ? [] : ["trip"]);
      // Under its final name a file is whole, and a folder that is not merged as well.
      const found = there.length === 0 ? {} : await readTree(saved);
      expect(hexOf(TREE)).toMatchObject(found);
      if (done || (there.length > 0 && !isMerge)) expect(found).toEqual(hexOf(TREE));
    }
    expect(await readdir(directory)).toEqual(["trip"]);
    await rm(directory, { recursive: true });
  }
  expect(killedInTheEnd).toBeGreaterThan(0);
});
