import type { FileId } from "#shared/base/ids.ts";
import type { ChunkSource, FileSpec } from "./chunk-worker-protocol.ts";
import type { Download } from "./download.ts";
import type { Files } from "./files.ts";
import type { PieceMap } from "./piece-map.ts";
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
  readonly #saved: Sources;

  constructor(
    files: Pick<Files, "sourceOf" | "reportChanged">,
    downloadOf: (fileId: FileId) => Download | null,
    onSavedChanged: (fileId: FileId) => void,
  ) {
    this.#files = files;
    this.#downloadOf = downloadOf;
    this.#saved = new Sources(onSavedChanged);
  }

  of(fileId: FileId): Offer | null {
    const own = this.#files.sourceOf(fileId);
    if (own !== null) return { ...own, held: null, leaves: true, own: true };
    const download = this.#downloadOf(fileId);
    if (download === null) return null;
    const { spec, state } = download;
    if (state.kind === "complete") {
      // What was taken of a folder is many files, of which some were there already.
      if (isFolder(download)) return null;
      if (!this.#saved.isThere(fileId)) {
        // Somebody wants it: perhaps it is back. They are told when it is.
        this.look(download);
        return null;
      }
      return { spec, source: { kind: "file", path: state.savedPath }, held: null, leaves: true, own: false };
    }
    if (!isServing(state)) return null;
    const { stored, pages, hidden } = state.pieces;
    // What nobody wants of a folder counts as stored, and is not here.
    if (hidden !== null && hidden.count > 0) return null;
    return { spec, source: { kind: "chunks" }, held: stored, leaves: pages.isFull, own: false };
  }

  /** Of a finished download: false when its file was changed, moved or deleted. */
  isThere(fileId: FileId): boolean {
    return this.#saved.isThere(fileId);
  }

  /** What was read is not what was shared or received. */
  changed(fileId: FileId): void {
    if (this.#files.sourceOf(fileId) !== null) this.#files.reportChanged(fileId);
    else if (this.#downloadOf(fileId)?.state.kind === "complete") this.#saved.gone(fileId);
  }

  /** Looks whether the finished file is still there. */
  look({ spec, state, file }: Download): void {
    if (state.kind !== "complete" || isFolder({ file })) return;
    void this.#saved.look({ fileId: spec.fileId, path: state.savedPath, sizeBytes: spec.sizeBytes, isFolder: false });
  }
}

const isFolder = ({ file }: Pick<Download, "file">): boolean => file.offer.folder !== undefined;

/** A download that is paused, or has failed, serves nobody: that is what pausing is for. */
const isServing = (
  state: State,
): state is Extract<State, { kind: "downloading" | "draining" | "assembling" | "verifying" }> =>
  ["downloading", "draining", "assembling", "verifying"].includes(state.kind);
