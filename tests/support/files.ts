import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { type Bytes, toBase64Url } from "#shared/base/bytes.ts";
import type { Env, Log } from "#shared/base/env.ts";
import { type FileId, FileIdSchema } from "#shared/base/ids.ts";
import { BULK_HEADER_BYTES, bytesOf } from "#shared/wire/frame.ts";
import { chunkBytesFor } from "#shared/wire/manifest.ts";
import { systemClock, systemRandom } from "../../src-main/env.ts";
import { chunkThread } from "../../src-main/transfer/chunk-thread.ts";
import { type ChunkWorker, createChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import type { FileSpec, ReadFrame } from "../../src-main/transfer/chunk-worker-protocol.ts";

export const quietLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quietLog,
};
/** The value of a job that has to succeed. */
export const must = <T>(result: { ok: true; value: T } | { ok: false; error: unknown }): T => {
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return result.value;
};
export const realEnv: Env = { clock: systemClock, random: systemRandom, log: quietLog };

export const freshFileId = (): FileId => v.parse(FileIdSchema, toBase64Url(new Uint8Array(randomBytes(16))));
export const freshKey = (): Bytes => new Uint8Array(randomBytes(32));

/** A folder of its own under the system's temporary folder; removed by `dispose`. */
export const temporaryFolder = async (): Promise<{ path: string; dispose(): Promise<void> }> => {
  const path = await mkdtemp(join(tmpdir(), "weir-test-"));
  return { path, dispose: () => rm(path, { recursive: true, force: true }) };
};

/** Writes `sizeBytes` random bytes and gives their SHA-256 in hexadecimal. */
export const writeRandomFile = async (path: string, sizeBytes: number): Promise<string> => {
  const hash = createHash("sha256");
  const file = await open(path, "w");
  for (let left = sizeBytes; left > 0; ) {
    const part = randomBytes(Math.min(left, 1 << 20));
    hash.update(part);
    await file.write(part);
    left -= part.length;
  }
  await file.close();
  return hash.digest("hex");
};

export const sha256OfFile = async (path: string): Promise<string> =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

export const workerUrl = new URL("../../src-main/transfer/chunk-worker.ts", import.meta.url);
export const hasherUrl = new URL("../../src-main/transfer/chunk-hasher.ts", import.meta.url);
export const checkpointerUrl = new URL("../../src-main/transfer/chunk-checkpointer.ts", import.meta.url);

export const startWorker = (databasePath: string, env: Pick<Env, "log"> = realEnv): ChunkWorker =>
  createChunkWorker({ env, start: chunkThread(workerUrl), databasePath });

/** What a frame of the worker carries behind its header. */
export const payloadOf = (frame: ReadFrame | null): Bytes =>
  frame === null ? new Uint8Array() : bytesOf(frame.bytes).subarray(BULK_HEADER_BYTES);

/** Hashes a file in the owner's worker and gives what a manifest would say about it. */
export const shareForTest = async (owner: ChunkWorker, path: string): Promise<{ spec: FileSpec; sha256: Bytes }> => {
  const fileId = freshFileId();
  const key = freshKey();
  const hashed = await owner.run("hashFile", { fileId, key, path }).result;
  if (!hashed.ok) throw new Error(hashed.error.message);
  const { sizeBytes, root, sha256 } = hashed.value;
  const chunkBytes = chunkBytesFor(sizeBytes);
  const chunkCount = Math.ceil(sizeBytes / chunkBytes);
  return { spec: { fileId, sizeBytes, chunkBytes, chunkCount, root, key }, sha256 };
};
