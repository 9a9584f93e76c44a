import { spawn } from "node:child_process";
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CHUNK_TAG_BYTES } from "#shared/base/limits.ts";
import type { ChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import type { FileSpec } from "../../src-main/transfer/chunk-worker-protocol.ts";
import { must, payloadOf, shareForTest, writeRandomFile } from "./files.ts";

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
