import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { type Bytes, bytesEqual, concatBytes, utf8 } from "#shared/base/bytes.ts";
import { FOLDER_LISTS_KEPT } from "#shared/base/limits.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type { FileSpec } from "../chunk-worker-protocol.ts";
import { decodeFolderList, type FolderList } from "../folder-list.ts";
import { failWork, WorkFailure } from "./io.ts";
import type { KnownFile, KnownFiles } from "./known-files.ts";

/** A folder's list as this side has it. */
export interface KnownList {
  readonly list: FolderList;
  readonly bytes: Bytes;
  /**
   * Paths below the source folder, of entries that are called otherwise there: whose names are not allowed everywhere, or of
   * somebody else's folder whose names were taken.
   */
  readonly sourcePaths: ReadonlyMap<number, string>;
}

export type SpecOfFolder = FileSpec & { readonly folder: NonNullable<FileSpec["folder"]> };
export const isFolder = (spec: FileSpec): spec is SpecOfFolder => spec.folder !== undefined;

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const OPTIONS = { authTagLength: TAG_BYTES };

/**
 * The lists of shared folders. An own one is kept when the folder is hashed; one of somebody else is put together from
 * its chunks, which are at the end of the folder, and then kept as well, because the chunks are freed with the download.
 */
export class FolderLists {
  readonly #tables: ChunkTables;
  readonly #files: KnownFiles;
  readonly #lists = new Map<string, KnownList>();

  constructor(tables: ChunkTables, files: KnownFiles) {
    this.#tables = tables;
    this.#files = files;
  }

  /** Null while its chunks are not all here; a row that the disk has changed is removed. @throws WorkFailure `bad_folder`, `checksum_mismatch`. */
  get(spec: SpecOfFolder): KnownList | null {
    const cached = this.#lists.get(spec.fileId);
    if (cached !== undefined) {
      // To the end: the first of the map is the one that was not used for the longest time.
      this.#lists.delete(spec.fileId);
      this.#lists.set(spec.fileId, cached);
      return cached;
    }
    const known = this.#files.get(spec);
    const sealed = this.#tables.folderList(known.file);
    const opened = sealed === null ? null : unseal(spec, sealed);
    if (opened !== null) return this.#remember(spec, opened);
    const bytes = this.#assemble(spec, known);
    if (bytes === null) return null;
    if (!bytesEqual(createHash("sha256").update(bytes).digest(), spec.folder.listSha256))
      return failWork("checksum_mismatch", "The folder's list is not the one that was shared. Ask for it again.");
    const list = decodeFolderList(bytes, spec.sizeBytes - spec.folder.listBytes);
    if (!list.ok) throw new WorkFailure({ type: list.error.type, message: list.error.message });
    this.#tables.saveFolderList(known.file, seal(spec.key, bytes, new Map()));
    return this.#remember(spec, { list: list.value, bytes, sourcePaths: new Map() });
  }

  /** The same, also of a folder that was never opened here. */
  find(spec: SpecOfFolder): KnownList | null {
    return this.#tables.find(spec.fileId) === null ? null : this.get(spec);
  }

  /** @throws WorkFailure `list_missing`, and what {@link get} throws. */
  require(spec: SpecOfFolder): KnownList {
    return this.get(spec) ?? failWork("list_missing", "The list of this folder has not arrived yet.");
  }

  /** Where entries of somebody else's folder were saved, if not by their own names. */
  saved(spec: SpecOfFolder, sourcePaths: ReadonlyMap<number, string>): void {
    const known = this.require(spec);
    if (known.sourcePaths.size === 0 && sourcePaths.size === 0) return;
    this.#tables.saveFolderList(this.#files.get(spec).file, seal(spec.key, known.bytes, sourcePaths));
    this.#remember(spec, { ...known, sourcePaths });
  }

  forget(fileId: string): void {
    this.#lists.delete(fileId);
  }

  #remember(spec: SpecOfFolder, known: KnownList): KnownList {
    this.#lists.set(spec.fileId, known);
    const oldest = this.#lists.keys().next();
    if (this.#lists.size > FOLDER_LISTS_KEPT && oldest.done !== true) this.#lists.delete(oldest.value);
    return known;
  }

  #assemble({ sizeBytes, chunkBytes, chunkCount, folder }: SpecOfFolder, known: KnownFile): Bytes | null {
    const start = sizeBytes - folder.listBytes;
    const bytes = new Uint8Array(folder.listBytes);
    for (let index = Math.floor(start / chunkBytes); index < chunkCount; index += 1) {
      const data = this.#tables.chunk(known.file, index);
      const plaintext = data === null ? null : known.cipher.decrypt(index, data);
      if (plaintext === null) {
        // Missing, or changed by the disk: fetched again.
        this.#tables.removeChunk(known.file, index);
        return null;
      }
      const at = index * chunkBytes - start;
      bytes.set(plaintext.subarray(Math.max(0, -at)), Math.max(0, at));
    }
    return bytes;
  }
}

/** Sealed for this computer only. The nonce is random, so that it meets none of the chunks', which begin with zeros. */
export const seal = (key: Bytes, list: Bytes, sourcePaths: ReadonlyMap<number, string>): Bytes => {
  const nonce = randomBytes(NONCE_BYTES);
  nonce[0] = (nonce[0] ?? 0) | 1;
  const head = Buffer.alloc(4);
  head.writeUInt32BE(list.length);
  const cipher = createCipheriv("aes-256-gcm", key, nonce, OPTIONS);
  const body = cipher.update(concatBytes(head, list, utf8(JSON.stringify([...sourcePaths]))));
  cipher.final();
  return concatBytes(nonce, body, cipher.getAuthTag());
};

/** Null when the row was changed on the disk, or is of another folder. */
export const unseal = ({ key, sizeBytes, folder }: SpecOfFolder, sealed: Uint8Array): KnownList | null => {
  if (sealed.length < NONCE_BYTES + 4 + TAG_BYTES) return null;
  const bodyEnd = sealed.length - TAG_BYTES;
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, NONCE_BYTES), OPTIONS);
  decipher.setAuthTag(sealed.subarray(bodyEnd));
  const body = decipher.update(sealed.subarray(NONCE_BYTES, bodyEnd));
  try {
    decipher.final();
  } catch {
    return null;
  }
  const listEnd = 4 + body.readUInt32BE(0);
  const bytes: Bytes = new Uint8Array(body.subarray(4, listEnd));
  const list = decodeFolderList(bytes, sizeBytes - folder.listBytes);
  if (!list.ok) return null;
  // Written by `seal` under this key: no stranger's JSON.
  return { list: list.value, bytes, sourcePaths: new Map(JSON.parse(body.toString("utf8", listEnd))) };
};
