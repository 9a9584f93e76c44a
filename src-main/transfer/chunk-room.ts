import type { Env } from "#shared/base/env.ts";
import type { FileId } from "#shared/base/ids.ts";
import { CHUNK_EVICTIONS_KEPT } from "#shared/base/limits.ts";
import type { ChunkEvictionView, ChunkUsageView, ErrorView, NoticeView } from "#shared/ipc/views.ts";
import { type ChunkClaim, evictionsFor, sumsOf } from "./chunk-quota.ts";
import type { Download } from "./download.ts";
import { expectedBytesOf, unstoredBytesOf } from "./transfer-places.ts";
import { storedCountOf } from "./transfer-state.ts";

export interface ChunkRoomDeps {
  readonly env: Env;
  /** What the user allows; null for no limit. */
  readonly limitBytes: () => number | null;
  readonly downloads: () => Iterable<Download>;
  /** Deletes a failed download. */
  readonly remove: (download: Download) => void;
  readonly notify: (notice: NoticeView) => void;
}

/** As file managers write it: 1 GB is 1,000,000,000 bytes. */
const inGigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(bytes < 1e10 ? 2 : 0)} GB`;

/** Keeps the chunks of unfinished downloads within what the user allows, by the rules of chunk-quota.ts. */
export class ChunkRoom {
  readonly #deps: ChunkRoomDeps;
  /** The newest first. */
  #evictions: readonly ChunkEvictionView[] = [];

  constructor(deps: ChunkRoomDeps) {
    this.#deps = deps;
  }

  usage(): ChunkUsageView {
    return { limitBytes: this.#deps.limitBytes(), ...sumsOf(this.#claims()), evictions: [...this.#evictions] };
  }

  /** For one that begins anew. @returns why there is no room for it. */
  begin(fileId: FileId, name: string, wantedBytes: number): ErrorView | null {
    const others = this.#claims().filter((claim) => claim.fileId !== fileId);
    return this.#make(name, others, wantedBytes);
  }

  /** For one that is paused or has failed. One that runs has its room. @returns why there is no room for it. */
  goOn({ file, spec, state, folder }: Download): ErrorView | null {
    if (expectedBytesOf(spec, state) > 0 || state.kind === "complete") return null;
    const others = this.#claims().map((claim) =>
      claim.fileId === spec.fileId ? { ...claim, isFailed: false } : claim,
    );
    const { selection = null, counts = null } = folder ?? {};
    const isKnown = selection === null || counts !== null;
    const wanted = isKnown ? Math.max(0, unstoredBytesOf(spec, state) - (counts?.skippedBytes ?? 0)) : 0;
    return this.#make(file.offer.name, others, wanted);
  }

  /** To a limit that has changed. What is needed stays, also when it is more than that. */
  keepTo(limitBytes: number | null): void {
    const claims = this.#claims();
    this.#evict(evictionsFor(claims, 0, limitBytes) ?? claims.filter(({ isFailed }) => isFailed), null);
  }

  #claims(): ChunkClaim[] {
    return [...this.#deps.downloads()]
      .filter(({ state }) => state.kind !== "complete" && state.kind !== "cancelled")
      .map(({ spec, state, startedAtMs }) => ({
        fileId: spec.fileId,
        storedBytes: Math.min(spec.sizeBytes, storedCountOf(state) * spec.chunkBytes),
        expectedBytes: expectedBytesOf(spec, state),
        isFailed: state.kind === "failed",
        startedAtMs,
      }));
  }

  /** Deletes what failed downloads have, if that is what it takes; says why not even that is enough. */
  #make(forName: string, claims: readonly ChunkClaim[], wanted: number): ErrorView | null {
    const limitBytes = this.#deps.limitBytes();
    const evictions = evictionsFor(claims, wanted, limitBytes);
    if (evictions === null) {
      const { usedBytes, expectedBytes, evictableBytes } = sumsOf(claims);
      const room = Math.max(0, (limitBytes ?? 0) - usedBytes - expectedBytes + evictableBytes);
      return {
        type: "quota_exceeded",
        message: `This takes ${inGigabytes(wanted)} while it is downloaded, and of the ${inGigabytes(limitBytes ?? 0)} that you allow for unfinished downloads ${inGigabytes(room)} are left. Finish or cancel others, or raise the limit in the settings.`,
      };
    }
    this.#evict(evictions, forName);
    return null;
  }

  #evict(claims: readonly ChunkClaim[], forName: string | null): void {
    const { env, downloads, notify, remove } = this.#deps;
    const failed = new Map<FileId, Download>();
    for (const download of downloads())
      if (download.state.kind === "failed") failed.set(download.spec.fileId, download);
    for (const { fileId, storedBytes: bytes } of claims) {
      const download = failed.get(fileId);
      if (download === undefined) continue;
      const { name } = download.file.offer;
      const atMs = env.clock.now();
      this.#evictions = [{ name, bytes, atMs, forName }, ...this.#evictions].slice(0, CHUNK_EVICTIONS_KEPT);
      env.log.info("a failed download was deleted to keep to the limit for chunks", { bytes });
      const why = forName === null ? "to keep to the new limit" : `to make room for “${forName}”`;
      notify({
        ...{ level: "info", type: "chunks_evicted", atMs },
        message: `“${name}” had failed; the ${inGigabytes(bytes)} that had arrived of it were deleted ${why}.`,
      });
      remove(download);
    }
  }
}
