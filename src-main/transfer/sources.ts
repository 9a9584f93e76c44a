import { stat } from "node:fs/promises";
import type { FileId } from "#shared/base/ids.ts";

interface Source {
  readonly fileId: FileId;
  readonly path: string;
  readonly sizeBytes: number;
  readonly isFolder: boolean;
}

/**
 * Which of our own shared files still lie where they were shared from. A look at the disk tells by the size only (a file
 * that grew still begins with what was shared); that the contents are others is found out when they are sent, and told
 * with `gone`.
 */
export class Sources {
  readonly #missing = new Set<FileId>();
  readonly #onChanged: (fileId: FileId) => void;

  constructor(onChanged: (fileId: FileId) => void) {
    this.#onChanged = onChanged;
  }

  isThere(fileId: FileId): boolean {
    return !this.#missing.has(fileId);
  }

  gone(fileId: FileId): void {
    if (this.#missing.has(fileId)) return;
    this.#missing.add(fileId);
    this.#onChanged(fileId);
  }

  /** Never rejects. */
  async look({ fileId, path, sizeBytes, isFolder }: Source): Promise<void> {
    const found = await stat(path).catch(() => null);
    const isThere = isFolder ? found?.isDirectory() : found?.isFile() === true && found.size >= sizeBytes;
    if (isThere !== true) this.gone(fileId);
    else if (this.#missing.delete(fileId)) this.#onChanged(fileId);
  }
}
