import { type Bytes, bytesEqual, freeNow } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { CHUNK_TAG_BYTES, STORE_BATCH_CHUNKS, STORE_GATHER_BYTES, STORE_GATHER_MS } from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import { BULK_HEADER_BYTES, bytesOf } from "#shared/wire/frame.ts";
import { chunkLength } from "#shared/wire/manifest.ts";
import { leafHash, provePage } from "../../crypto/hash-tree.ts";
import { reached } from "../../steps.ts";
import type { ChunkTables, DownloadCounters } from "../../store/chunks.ts";
import type { ChunkToStore, FileSpec, JobResult, Jobs, StoreOutcome } from "../chunk-worker-protocol.ts";
import { WorkFailure, writeErrorOf } from "./io.ts";
import type { KnownFile, KnownFiles } from "./known-files.ts";

interface Pending extends ChunkToStore<Bytes> {
  readonly spec: FileSpec;
  readonly counters: DownloadCounters;
}
export interface Stored {
  readonly job: number;
  readonly outcome: StoreOutcome;
}

/** Collects chunks and stores them in batches: proven first, then one transaction, and only after its commit the answers. */
export class ChunkReceiver {
  readonly #clock: Pick<Clock, "setTimer">;
  readonly #tables: ChunkTables;
  readonly #files: KnownFiles;
  readonly #answer: (results: Stored[]) => void;
  readonly #beforeBatch: (largestFileBytes: number) => void;
  #pending: Pending[] = [];
  /** Not committed before: more may come by then. Null while nothing is pending, or enough is. */
  #gathering: Disposable | null = null;
  #due = false;

  constructor(
    clock: Pick<Clock, "setTimer">,
    tables: ChunkTables,
    files: KnownFiles,
    answer: (results: Stored[]) => void,
    beforeBatch: (largestFileBytes: number) => void = () => undefined,
  ) {
    this.#clock = clock;
    this.#tables = tables;
    this.#files = files;
    this.#answer = answer;
    this.#beforeBatch = beforeBatch;
  }

  add(spec: FileSpec, counters: DownloadCounters, chunks: readonly ChunkToStore[]): void {
    for (const chunk of chunks) this.#pending.push({ ...chunk, bytes: bytesOf(chunk.bytes), spec, counters });
    this.#schedule();
  }

  /** Commits everything at once: before work that must see it, and before the end. */
  flush(): void {
    this.#gathering?.dispose();
    this.#gathering = null;
    while (this.#pending.length > 0) this.#commitBatch();
  }

  #schedule(): void {
    if (this.#pending.length === 0 || this.#due) return;
    const bytes = this.#pending.reduce((sum, chunk) => sum + chunk.bytes.length, 0);
    if (bytes < STORE_GATHER_BYTES) {
      this.#gathering ??= this.#clock.setTimer(STORE_GATHER_MS, () => this.#commitSoon());
      return;
    }
    this.#commitSoon();
  }

  /** After the messages that have already arrived, so that a batch grows while the disk is the slower side. */
  #commitSoon(): void {
    this.#gathering?.dispose();
    this.#gathering = null;
    this.#due = true;
    setImmediate(() => {
      this.#due = false;
      if (this.#pending.length > 0) this.#commitBatch();
      this.#schedule();
    });
  }

  #commitBatch(): void {
    const batch = this.#pending.slice(0, STORE_BATCH_CHUNKS);
    this.#pending = this.#pending.slice(STORE_BATCH_CHUNKS);
    this.#answer(this.#store(batch));
    for (const { bytes } of batch) freeNow(bytes, BULK_HEADER_BYTES);
  }

  #store(batch: readonly Pending[]): Stored[] {
    try {
      this.#beforeBatch(Math.max(...batch.map(({ spec }) => spec.sizeBytes)));
      const proven = batch.map((chunk) => ({ chunk, verdict: this.#prove(chunk) }));
      const stored = this.#tables.transaction(() => {
        const counted = new Map<number, DownloadCounters>();
        const results = proven.map(({ chunk, verdict }): Stored => {
          if ("outcome" in verdict) return { job: chunk.job, outcome: verdict.outcome };
          counted.set(verdict.known.file, chunk.counters);
          const outcome = this.#tables.saveChunk(verdict.known.file, chunk.index, chunk.bytes);
          return { job: chunk.job, outcome };
        });
        for (const [file, counters] of counted) this.#tables.setCounters(file, counters);
        return results;
      });
      for (const [i, { spec, index }] of batch.entries())
        if (stored[i]?.outcome === "stored" || stored[i]?.outcome === "replaced")
          reached("committed", spec.fileId, index);
      return stored;
    } catch (error) {
      const failure = writeErrorOf(error);
      return batch.map(({ job }) => ({ job, outcome: failure }));
    }
  }

  #prove({ spec, index, bytes }: Pending): { known: KnownFile } | { outcome: StoreOutcome } {
    try {
      const known = this.#files.get(spec);
      const leaf = known.leaf(index);
      if (leaf === null)
        return { outcome: { type: "missing_leaves", message: "The chunk came before its hash. Try again." } };
      const right = bytes.length === chunkLength(spec, index) + CHUNK_TAG_BYTES && bytesEqual(leafHash(bytes), leaf);
      return right ? { known } : { outcome: "rejected" };
    } catch (error) {
      if (error instanceof WorkFailure) return { outcome: error.error };
      throw error;
    }
  }
}

/** Proves a page of leaves against the root of the manifest and keeps it. */
export const storeLeaves = async (
  tables: ChunkTables,
  files: KnownFiles,
  { spec, page, payload }: Jobs["storeLeaves"]["input"],
): Promise<JobResult<"storeLeaves">> => {
  try {
    const proven = provePage(spec, page, bytesOf(payload));
    if (proven === null) return ok("rejected");
    const known = files.get(spec);
    tables.transaction(() => tables.savePage(known.file, page, proven.pageRoot, proven.leaves));
    known.forgetPage(page);
    reached("leavesStored", spec.fileId, page);
    return ok("stored");
  } catch (error) {
    return err(writeErrorOf(error));
  }
};
