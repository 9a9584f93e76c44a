import { assert } from "#shared/base/assert.ts";
import type { FileId } from "#shared/base/ids.ts";
import { LEAVES_PER_PAGE } from "#shared/base/limits.ts";
import { type ChunkCipher, createChunkCipher } from "../../crypto/chunk-cipher.ts";
import { createPageTree, HASH_BYTES, hashAt, type PageTree, pageCountOf, pageOf } from "../../crypto/hash-tree.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type { FileSpec } from "../chunk-worker-protocol.ts";
import { failWork } from "./io.ts";

/** Files whose row number, cipher and last pages stay in memory. */
const FILES_KEPT = 32;
/** Pages of leaves kept for one file; readers go forward, several of them at different places. */
const PAGES_KEPT = 4;

/** What the worker remembers of a file between two batches, read from chunks.db when it is first needed. */
export interface KnownFile {
  readonly spec: FileSpec;
  /** Its number in chunks.db. */
  readonly file: number;
  readonly cipher: ChunkCipher;
  /** The proven leaf of a chunk; null when its page is not there. */
  leaf(chunkIndex: number): Uint8Array | null;
  leaves(page: number): Uint8Array | null;
  /** Null while pages are missing. */
  pageTree(): PageTree | null;
  forgetPage(page: number): void;
}

export class KnownFiles {
  readonly #tables: ChunkTables;
  readonly #files = new Map<FileId, KnownFile>();

  constructor(tables: ChunkTables) {
    this.#tables = tables;
  }

  /** @throws WorkFailure `missing_leaves` when chunks.db does not know the file. */
  get(spec: FileSpec): KnownFile {
    const known = this.#files.get(spec.fileId);
    if (known !== undefined) {
      // To the end: the first of the map is the one that was not used for the longest time.
      this.#files.delete(spec.fileId);
      this.#files.set(spec.fileId, known);
      return known;
    }
    const row = this.#tables.find(spec.fileId);
    if (row === null) return failWork("missing_leaves", "This file is no longer known here. Start the download again.");
    const fresh = createKnownFile(this.#tables, row.file, spec);
    this.#files.set(spec.fileId, fresh);
    const oldest = this.#files.keys().next();
    if (this.#files.size > FILES_KEPT && oldest.done !== true) this.#files.delete(oldest.value);
    return fresh;
  }

  forget(fileId: FileId): void {
    this.#files.delete(fileId);
  }
}

const createKnownFile = (tables: ChunkTables, file: number, spec: FileSpec): KnownFile => {
  const pages = new Map<number, Uint8Array>();
  let tree: PageTree | null = null;

  const leaves = (page: number): Uint8Array | null => {
    const kept = pages.get(page);
    if (kept !== undefined) return kept;
    const read = tables.leaves(file, page);
    if (read === null) return null;
    pages.set(page, read);
    const oldest = pages.keys().next();
    if (pages.size > PAGES_KEPT && oldest.done !== true) pages.delete(oldest.value);
    return read;
  };

  const readTree = (): PageTree | null => {
    const stored = tables.pages(file);
    if (stored.length !== pageCountOf(spec.chunkCount)) return null;
    const roots = new Uint8Array(stored.length * HASH_BYTES);
    for (const { page, root } of stored) {
      assert(root.length === HASH_BYTES, "a page root has 32 bytes");
      roots.set(root, page * HASH_BYTES);
    }
    return createPageTree(roots);
  };

  return {
    spec,
    file,
    cipher: createChunkCipher(spec.fileId, spec.key, spec.chunkCount),
    leaves,
    leaf(chunkIndex) {
      const page = leaves(pageOf(chunkIndex));
      return page === null ? null : hashAt(page, chunkIndex % LEAVES_PER_PAGE);
    },
    pageTree() {
      tree ??= readTree();
      return tree;
    },
    forgetPage(page) {
      pages.delete(page);
      tree = null;
    },
  };
};
