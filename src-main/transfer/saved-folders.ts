import type { FileId } from "#shared/base/ids.ts";
import { pageCountOf } from "../crypto/hash-tree.ts";
import type { ChunkWorker } from "./chunk-worker-client.ts";
import type { Download } from "./download.ts";
import { PieceMap } from "./piece-map.ts";

/** Chunks of a finished folder that can be read from where it was saved, and whether its whole hash tree is here. */
export interface SavedChunks {
  readonly held: PieceMap;
  readonly leaves: boolean;
}

interface Known extends SavedChunks {
  /** Of files that are there by their sizes, and whose contents are others now. */
  readonly changed: ReadonlySet<number>;
}

/**
 * What of finished folders still lies where it was saved. A look at the disk tells by name and size which files are there;
 * that the contents of one are others is found out when its chunks are read, and told with `lost`. Either way only the
 * chunks of that file are not offered any more.
 */
export class SavedFolders {
  readonly #worker: Pick<ChunkWorker, "run">;
  readonly #onChanged: (fileId: FileId) => void;
  /** By download, because another one of the same folder is saved elsewhere. */
  readonly #known = new WeakMap<Download, Known>();
  readonly #looks = new WeakMap<Download, "looking" | "again">();

  constructor(worker: Pick<ChunkWorker, "run">, onChanged: (fileId: FileId) => void) {
    this.#worker = worker;
    this.#onChanged = onChanged;
  }

  /** Until somebody has looked: all of it, if all was taken, as it was saved whole; else null. */
  of(download: Download): SavedChunks | null {
    const known = this.#known.get(download);
    if (known !== undefined) return known;
    const { folder, spec } = download;
    return folder?.selection === null ? { held: PieceMap.full(spec.chunkCount), leaves: true } : null;
  }

  isLooking(download: Download): boolean {
    return this.#looks.has(download);
  }

  /** Looks what is there now. Never rejects. */
  look(download: Download): void {
    const isLooking = this.#looks.has(download);
    this.#looks.set(download, isLooking ? "again" : "looking");
    if (!isLooking) void this.#look(download);
  }

  /** What was read of these chunks is not what was received, or could not be read. */
  lost(download: Download, indices: readonly number[]): void {
    const saved = this.of(download);
    if (saved === null) return;
    this.#learn(download, {
      held: indices.reduce((map, index) => map.without(index), saved.held),
      leaves: saved.leaves,
      changed: new Set([...(this.#known.get(download)?.changed ?? []), ...indices]),
    });
    // Perhaps the file is gone, and with it more than these.
    this.look(download);
  }

  async #look(download: Download): Promise<void> {
    const { spec } = download;
    do {
      this.#looks.set(download, "looking");
      if (download.state.kind !== "complete") break;
      const found = await this.#worker.run("findSaved", { spec, path: download.state.savedPath }).result;
      // It stays as it is known, and whoever asks for it next makes us look again.
      if (!found.ok) break;
      const there = PieceMap.fromBytes(spec.chunkCount, found.value.held);
      // What is gone may come back; what is there with other contents stays as it is.
      const changed = new Set([...(this.#known.get(download)?.changed ?? [])].filter((index) => there.has(index)));
      const held = [...changed].reduce((map, index) => map.without(index), there);
      this.#learn(download, { held, leaves: found.value.pages === pageCountOf(spec.chunkCount), changed });
    } while (this.#looks.get(download) === "again");
    this.#looks.delete(download);
  }

  #learn(download: Download, known: Known): void {
    const before = this.of(download);
    this.#known.set(download, known);
    const isSame = before !== null && before.held.count === known.held.count && before.leaves === known.leaves;
    if (!isSame || before.held.runsAddedBy(known.held, 1).length > 0) this.#onChanged(download.spec.fileId);
  }
}
