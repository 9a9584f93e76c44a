import type { FileId } from "#shared/base/ids.ts";
import { err, ok } from "#shared/base/result.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type { JobContext, JobResult, Jobs } from "../chunk-worker-protocol.ts";
import { writeErrorOf, yieldTurn } from "./io.ts";
import type { KnownFiles } from "./known-files.ts";

interface Tools {
  readonly tables: ChunkTables;
  readonly files: KnownFiles;
}

/**
 * Removes the chunks of a file, or everything of it, in small steps, so that other work is not held up; stops early when
 * `goesOn` says so. The row is looked up anew for every step: its number may belong to another file after a wait.
 */
export const removeRows = async (
  { tables, files }: Tools,
  fileId: FileId,
  what: "chunks" | "everything",
  { signal, goesOn = () => true }: { signal: AbortSignal; goesOn?: () => boolean },
): Promise<boolean> => {
  for (;;) {
    const row = tables.find(fileId);
    if (row === null) return false;
    if (!goesOn()) return false;
    // From here on a late chunk finds no file to belong to.
    files.forget(fileId);
    if (!tables.removeSomeChunks(row.file)) {
      if (what === "everything") tables.removeFile(row.file);
      else tables.endDownload(row.file);
      return true;
    }
    await yieldTurn(signal);
  }
};

/**
 * What chunks.db holds of files that nobody knows: the app was killed while a file was hashed for sharing, or what a
 * cancelled download left could not be deleted. Which ones they are is known when it begins; a file that is wanted again
 * meanwhile is spared.
 */
export class Orphans {
  readonly #tools: Tools;
  readonly #waiting = new Set<FileId>();

  constructor(tools: Tools) {
    this.#tools = tools;
  }

  /** A download of this file begins. */
  spare(fileId: FileId): void {
    this.#waiting.delete(fileId);
  }

  async sweep({ known }: Jobs["sweep"]["input"], { signal }: JobContext): Promise<JobResult<"sweep">> {
    const kept = new Set(known);
    for (const fileId of this.#tools.tables.fileIds()) if (!kept.has(fileId)) this.#waiting.add(fileId);
    try {
      let removed = 0;
      for (const fileId of [...this.#waiting]) {
        const goesOn = (): boolean => this.#waiting.has(fileId);
        if (await removeRows(this.#tools, fileId, "everything", { signal, goesOn })) removed += 1;
        this.#waiting.delete(fileId);
      }
      return ok(removed);
    } catch (error) {
      return err(writeErrorOf(error));
    }
  }
}
