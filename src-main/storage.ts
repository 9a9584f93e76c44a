import type { Stats } from "node:fs";
import { lstat, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import type { Env } from "#shared/base/env.ts";
import { type FileId, FileIdSchema } from "#shared/base/ids.ts";
import { LEFTOVER_KEPT_MS } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { ChunkStorage } from "./store/chunks.ts";
import type { TransferRecord } from "./store/transfers.ts";
import type { ChunkWorker } from "./transfer/chunk-worker-client.ts";
import { fileIdOfPart } from "./transfer/file-name.ts";

/** What this profile takes up on the disk. `totalBytes` is the sum of the three above it. */
export interface StorageReport {
  /** Allocated bytes of each entry of the data folder: databases and their WALs, the ballast, uploads, the server. */
  readonly data: Readonly<Record<string, number>>;
  readonly temporaryFiles: { readonly count: number; readonly bytes: number };
  /** Temporary files in our download folders that no download of this profile needs. */
  readonly leftovers: { readonly count: number; readonly bytes: number };
  readonly totalBytes: number;
  /** Null when the chunk worker cannot say. No ids: the report goes into `diagnostics.export`. */
  readonly chunks: (Omit<ChunkStorage, "files"> & { readonly files: { chunks: number; bytes: number }[] }) | null;
}

export interface Storage {
  report(): Promise<StorageReport>;
  /** Deletes temporary files of downloads that are over, and says so in the log. Never rejects. @returns how many. */
  removeLeftovers(): Promise<number>;
}

interface PartFile {
  readonly path: string;
  readonly bytes: number;
  /** Of a folder that is downloaded. */
  readonly isFolder: boolean;
  readonly fileId: FileId;
  readonly modifiedAtMs: number;
  readonly isNeeded: boolean;
}

const BLOCK_BYTES = 512;

export const createStorage = (deps: {
  readonly env: Env;
  readonly dataDir: string;
  readonly worker: Pick<ChunkWorker, "run">;
  readonly records: () => readonly TransferRecord[];
  /** Whether this profile has heard of the file. */
  readonly isKnown: (fileId: FileId) => boolean;
  readonly downloadDirectory: () => string;
}): Storage => {
  const { env, dataDir, worker } = deps;

  const parts = async (): Promise<PartFile[]> => {
    const unfinished = deps.records().filter(({ status }) => status.kind !== "complete");
    const needed = new Set(unfinished.map(({ directory, fileId }) => join(directory, fileId)));
    const folders = new Set([deps.downloadDirectory(), ...deps.records().map(({ directory }) => directory)]);
    const found: PartFile[] = [];
    for (const folder of folders) {
      // A folder that is gone, or on a disk that is not there, holds nothing that could be looked at.
      for (const name of await readdir(folder).catch((): string[] => [])) {
        const fileId = v.safeParse(FileIdSchema, fileIdOfPart(name));
        const stats = fileId.success ? await lstatOrNull(join(folder, name)) : null;
        if (!fileId.success || stats === null || !(stats.isFile() || stats.isDirectory())) continue;
        found.push({
          path: join(folder, name),
          bytes: await bytesUnder(join(folder, name)),
          isFolder: stats.isDirectory(),
          fileId: fileId.output,
          modifiedAtMs: stats.mtimeMs,
          isNeeded: needed.has(join(folder, fileId.output)),
        });
      }
    }
    return found;
  };

  return {
    async report() {
      const [found, measured] = [await parts(), await worker.run("measure", {}).result];
      const data: Record<string, number> = {};
      for (const name of await readdir(dataDir)) data[name] = await bytesUnder(join(dataDir, name));
      // A download folder within the data folder is in its sums already.
      const outside = found.filter(({ path }) => !path.startsWith(join(dataDir, "/")));
      const temporaryFiles = sumOf(outside.filter(({ isNeeded }) => isNeeded));
      const leftovers = sumOf(outside.filter(({ isNeeded }) => !isNeeded));
      const dataBytes = Object.values(data).reduce((sum, bytes) => sum + bytes, 0);
      return {
        ...{ data, temporaryFiles, leftovers },
        totalBytes: dataBytes + temporaryFiles.bytes + leftovers.bytes,
        chunks: measured.ok
          ? { ...measured.value, files: measured.value.files.map(({ chunks, bytes }) => ({ chunks, bytes })) }
          : null,
      };
    },

    async removeLeftovers() {
      let removed = 0;
      let bytes = 0;
      for (const part of (await parts()).filter(({ isNeeded }) => !isNeeded)) {
        // Another profile may save to the same folder. It makes a file again when it needs it, but not half way, and what
        // is in a folder shows no time of its own.
        const mayBeInUse = part.isFolder || env.clock.now() - part.modifiedAtMs < LEFTOVER_KEPT_MS;
        if (!deps.isKnown(part.fileId) && mayBeInUse) continue;
        try {
          await rm(part.path, { recursive: true });
          removed += 1;
          bytes += part.bytes;
        } catch (error) {
          env.log.warn("a temporary file that nobody needs was not removed", { reason: messageOf(error) });
        }
      }
      if (removed > 0) env.log.info("temporary files that nobody needs were removed", { removed, bytes });
      return removed;
    },
  };
};

const sumOf = (files: readonly PartFile[]): { count: number; bytes: number } => ({
  count: files.length,
  bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
});

const lstatOrNull = (path: string): Promise<Stats | null> => lstat(path).catch(() => null);

/** What a file takes, which is less than its size where it has holes, and more where space is reserved. */
const allocatedBytes = (stats: Stats): number =>
  process.platform === "win32" ? stats.size : stats.blocks * BLOCK_BYTES;

const bytesUnder = async (path: string): Promise<number> => {
  // Files come and go while this looks.
  const stats = await lstatOrNull(path);
  if (stats === null) return 0;
  if (!stats.isDirectory()) return allocatedBytes(stats);
  let bytes = allocatedBytes(stats);
  for (const name of await readdir(path).catch((): string[] => [])) bytes += await bytesUnder(join(path, name));
  return bytes;
};
