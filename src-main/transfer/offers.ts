import type { FileId } from "#shared/base/ids.ts";
import type { ChunkWorker } from "./chunk-worker-client.ts";
import type { ChunkSource, FileSpec } from "./chunk-worker-protocol.ts";
import type { Download } from "./download.ts";
import type { Files } from "./files.ts";
import type { PieceMap } from "./piece-map.ts";
import { SavedFolders } from "./saved-folders.ts";
import { Sources } from "./sources.ts";
import type { State } from "./transfer-state.ts";

/** What this side can serve of a file at this moment. */
export interface Offer {
  readonly spec: FileSpec;
  readonly source: ChunkSource;
  /** Null means every chunk. */
  readonly held: PieceMap | null;
  /** Whether pages of leaves can be proven: that takes the whole hash tree. */
  readonly leaves: boolean;
  /** A file of our own; the others we have received, or are receiving. */
  readonly own: boolean;
}

/**
 * What can be served: our own files, rows of downloads that run, and the finished files of those that are complete, as
 * long as they lie where they were saved. There is never a second copy.
 */
export class Offers {
  readonly #files: Pick<Files, "sourceOf" | "reportChanged">;
  readonly #downloadOf: (fileId: FileId) => Download | null;
  readonly #savedFiles: Sources;
  readonly #savedFolders: SavedFolders;

  constructor(
    files: Pick<Files, "sourceOf" | "reportChanged">,
    worker: Pick<ChunkWorker, "run">,
    downloadOf: (fileId: FileId) => Download | null,
    onSavedChanged: (fileId: FileId) => void,
  ) {
    this.#files = files;
    this.#downloadOf = downloadOf;
    this.#savedFiles = new Sources(onSavedChanged);
    this.#savedFolders = new SavedFolders(worker, onSavedChanged);
  }

  of(fileId: FileId): Offer | null {
    const own = this.#files.sourceOf(fileId);
    if (own !== null) return { ...own, held: null, leaves: true, own: true };
    const download = this.#downloadOf(fileId);
    if (download === null) return null;
    const { spec, state } = download;
    if (state.kind === "complete") {
      const source = { kind: "file", path: state.savedPath } as const;
      if (!isFolder(download))
        return this.#savedFiles.isThere(fileId) ? { spec, source, held: null, leaves: true, own: false } : null;
      const saved = this.#savedFolders.of(download);
      if (saved === null || saved.held.count === 0) return null;
      const held = saved.held.isFull ? null : saved.held;
      return { spec, source: { ...source, mayLack: true }, held, leaves: saved.leaves, own: false };
    }
    if (!isServing(state)) return null;
    const { stored, pages, hidden } = state.pieces;
    // What nobody wants of a folder counts as stored, and is not here.
    if (hidden !== null && hidden.count > 0) return null;
    return { spec, source: { kind: "chunks" }, held: stored, leaves: pages.isFull, own: false };
  }

  /** It is being found out; until then {@link of} knows of nothing. */
  isLooking(fileId: FileId): boolean {
    const download = this.#downloadOf(fileId);
    return download !== null && this.#savedFolders.isLooking(download);
  }

  /** How many chunks of a finished download can be given to others; null until that is known. */
  savedChunks(download: Download): number | null {
    if (isFolder(download)) return this.#savedFolders.of(download)?.held.count ?? null;
    return this.#savedFiles.isThere(download.spec.fileId) ? download.spec.chunkCount : 0;
  }

  /** What was read is not what was shared or received. */
  changed(fileId: FileId): void {
    const download = this.#downloadOf(fileId);
    if (this.#files.sourceOf(fileId) !== null) this.#files.reportChanged(fileId);
    else if (download?.state.kind === "complete" && !isFolder(download)) this.#savedFiles.gone(fileId);
  }

  /** Of a finished folder these cannot be read any more as they were received. */
  lost(fileId: FileId, indices: readonly number[]): void {
    const download = this.#downloadOf(fileId);
    if (download?.state.kind === "complete" && isFolder(download)) this.#savedFolders.lost(download, indices);
  }

  /** Somebody wants it: perhaps what was gone is back. They are told when it is. */
  wanted(fileId: FileId): void {
    const download = this.#downloadOf(fileId);
    if (download !== null && this.savedChunks(download) !== download.spec.chunkCount) this.look(download);
  }

  /** Looks what of a finished download is still there. */
  look(download: Download): void {
    const { spec, state } = download;
    if (state.kind !== "complete") return;
    if (isFolder(download)) this.#savedFolders.look(download);
    else {
      const { fileId, sizeBytes } = spec;
      void this.#savedFiles.look({ fileId, path: state.savedPath, sizeBytes, isFolder: false });
    }
  }
}

const isFolder = ({ file }: Pick<Download, "file">): boolean => file.offer.folder !== undefined;

/** A download that is paused, or has failed, serves nobody: that is what pausing is for. */
const isServing = (
  state: State,
): state is Extract<State, { kind: "downloading" | "draining" | "assembling" | "verifying" }> =>
  ["downloading", "draining", "assembling", "verifying"].includes(state.kind);
