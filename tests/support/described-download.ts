import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CHUNK_TAG_BYTES } from "#shared/base/limits.ts";
import { chunkLength } from "#shared/wire/manifest.ts";
import type { ChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import type { FileSpec } from "../../src-main/transfer/chunk-worker-protocol.ts";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";
import { must, payloadOf, shareForTest, startWorker, writeRandomFile } from "./files.ts";

/** A download that `download-child.ts` can do alone, without an owner. */
export interface DescribedDownload {
  /** What the child reads. */
  readonly file: string;
  /** SHA-256 of what is to come of it. */
  readonly hex: string;
  readonly fileId: string;
  readonly directory: string;
  readonly database: string;
}

const READ_AT_ONCE = 16;

/** Writes the encrypted chunks of a file or folder one after the other. Gives its one page of hashes. */
export const sealInto = async (
  sealed: string,
  owner: ChunkWorker,
  spec: FileSpec,
  path: string,
): Promise<Uint8Array> => {
  await using out = await open(sealed, "w");
  for (let first = 0; first < spec.chunkCount; first += READ_AT_ONCE) {
    const indices = Array.from({ length: Math.min(READ_AT_ONCE, spec.chunkCount - first) }, (_, i) => first + i);
    const source = { kind: "file", path } as const;
    for (const frame of must(await owner.run("readChunks", { spec, source, indices }).result).frames) {
      const bytes = payloadOf(frame);
      await out.write(bytes, 0, bytes.length, frame.index * (spec.chunkBytes + CHUNK_TAG_BYTES));
    }
  }
  return payloadOf(must(await owner.run("readLeaves", { spec, page: 0 }).result));
};

/** `folder/receiver-NAME` is the only folder that the child writes to. The file ends as `final.bin` in `down` there. */
export const describeDownload = async (
  owner: ChunkWorker,
  folder: string,
  sizeBytes: number,
  name: string,
): Promise<DescribedDownload> => {
  const path = join(folder, `source-${name}`);
  const hex = await writeRandomFile(path, sizeBytes);
  const { spec, sha256 } = await shareForTest(owner, path);
  const sealed = join(folder, `sealed-${name}`);
  const leaves = await sealInto(sealed, owner, spec, path);
  const receiver = join(folder, `receiver-${name}`);
  const directory = join(receiver, "down");
  await mkdir(directory, { recursive: true });
  const description = {
    spec: { ...spec, root: [...spec.root], key: [...spec.key] },
    sha256: [...sha256],
    leaves: [...leaves],
    directory,
    name: "final.bin",
    sealed,
    database: join(receiver, "chunks.db"),
  };
  const file = join(folder, `describe-${name}.json`);
  await writeFile(file, JSON.stringify(description));
  return { file, hex, fileId: spec.fileId, directory, database: description.database };
};

/**
 * Receives what is described into a chunk worker of this process, and says what it fetched (F), what was stored for good (S),
 * how far it has assembled (A), that it compared (V), and where the finished file is (D).
 */
export const receiveDescribed = async (descriptionFile: string, say: (line: string) => void): Promise<void> => {
  const describe = JSON.parse(readFileSync(descriptionFile, "utf8"));
  const { directory, name, sealed, database, choice } = describe;
  const listSha256 = Uint8Array.from(describe.spec.folder?.listSha256 ?? []);
  const spec = {
    ...describe.spec,
    root: Uint8Array.from(describe.spec.root),
    key: Uint8Array.from(describe.spec.key),
    ...(describe.spec.folder === undefined ? {} : { folder: { ...describe.spec.folder, listSha256 } }),
  };
  /** Of a folder: what is wanted of it. */
  const folder = choice === undefined ? {} : { folder: choice };
  const sha256 = Uint8Array.from(describe.sha256);

  const worker = startWorker(database);
  let opened = must(await worker.run("open", { spec, directory, ...folder }).result);
  say("R");
  let { finishedPath } = opened;
  if (finishedPath === null) {
    const leaves = Uint8Array.from(describe.leaves);
    must(await worker.run("storeLeaves", { spec, page: 0, payload: leaves }).result);
    await using source = await open(sealed);
    const counters = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
    const fetchMissing = async (): Promise<void> => {
      const stored = PieceMap.fromBytes(spec.chunkCount, opened.stored);
      const pending: Promise<void>[] = [];
      for (let i = stored.nextMissing(0, null); i !== null; i = stored.nextMissing(i + 1, null)) {
        const index = i;
        say(`F ${index}`);
        const bytes = new Uint8Array(chunkLength(spec, index) + CHUNK_TAG_BYTES);
        await source.read(bytes, 0, bytes.length, index * (spec.chunkBytes + CHUNK_TAG_BYTES));
        const isStored = new Promise<void>((resolve, reject) => {
          worker.storeChunk(spec, counters, { index, bytes }, (outcome) => {
            if (typeof outcome !== "string" || outcome === "rejected")
              return reject(new Error(JSON.stringify(outcome)));
            say(`S ${index}`);
            resolve();
          });
        });
        pending.push(isStored);
        if (pending.length >= 32) await pending.shift();
      }
      await Promise.all(pending);
    };
    await fetchMissing();
    if (opened.isPartial) {
      opened = must(await worker.run("open", { spec, directory, ...folder }).result);
      await fetchMissing();
    }
    const onProgress = (chunks: number): void => say(`A ${chunks}`);
    must(await worker.run("assemble", { spec, directory, ...folder }, onProgress).result);
    must(await worker.run("verify", { spec, directory, sha256, ...folder }).result);
    say("V");
    finishedPath = must(await worker.run("finish", { spec, directory, name, ...folder }).result);
  }
  say(`D ${finishedPath}`);
  must(await worker.run("drop", { fileId: spec.fileId, directory: null, what: "chunks" }).result);
  await worker.dispose();
};

export interface ChildRun {
  readonly lines: string[];
  readonly errors: string;
  readonly code: number | null;
  readonly killed: boolean;
}

/** Killed when the child has said a line that begins so, and the given time later. */
export interface RandomKill {
  readonly at: string;
  readonly afterMs: number;
}

/** Runs the child to its end; rejects when a signal other than ours ended it. */
export const runDownloadChild = (
  file: string,
  { kill = null, env = {} }: { kill?: RandomKill | null; env?: NodeJS.ProcessEnv },
): Promise<ChildRun> =>
  new Promise((resolve, reject) => {
    const script = join(import.meta.dirname, "download-child.ts");
    const child = spawn(process.execPath, [script, file], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
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
      const lines = text.split("\n").filter((line) => line !== "");
      const killed = signal === "SIGKILL" && kill !== null;
      if (signal === null || killed) resolve({ lines, errors, code, killed });
      else reject(new Error(`ended by ${signal}: ${errors}`));
    });
  });

/** Numbers of the chunks in the child's lines: F fetched, S stored for good. */
export const chunksIn = (lines: readonly string[], kind: "F" | "S"): number[] =>
  lines.filter((line) => line.startsWith(`${kind} `)).map((line) => Number(line.slice(2)));
