import { createHash, webcrypto } from "node:crypto";
import { assert } from "#shared/base/assert.ts";
import { type Bytes, bytesEqual } from "#shared/base/bytes.ts";
import { CHUNKS_PER_FILE_MAX, LEAVES_PER_PAGE } from "#shared/base/limits.ts";

/**
 * SHA-256 Merkle tree over the ciphertext chunks of a file, as in RFC 6962 section 2.1:
 *
 *   leaf   SHA-256(0x00 | chunk)
 *   node   SHA-256(0x01 | left | right)
 *   empty  SHA-256 of nothing: the root of a file without chunks
 *
 * Built bottom-up in pairs; a node without a right neighbour moves up unchanged, which is exactly the RFC's "largest power
 * of two" split. Nothing is ever hashed with itself, so no two leaf lists share a root.
 *
 * Leaves travel in pages of LEAVES_PER_PAGE (a power of two, so a page is a whole subtree), each with the uncle hashes that
 * lead from the page's own root to the tree's root, lowest first (the way of BEP 52 hash requests):
 *
 *   payload of a `leaves` frame   uncles (32 B each) | leaves of the page (32 B each)
 *
 * How many of each there are follows from the chunk count alone, so a payload of another length is refused unread.
 */
export const HASH_BYTES = 32;
const LEAF_PREFIX = Uint8Array.of(0);
const NODE_PREFIX = Uint8Array.of(1);

assert(Number.isInteger(Math.log2(LEAVES_PER_PAGE)), "a page must be a whole subtree");

export const emptyRoot = (): Bytes => plain(createHash("sha256").digest());
export const leafHash = (chunk: Uint8Array): Bytes =>
  plain(createHash("sha256").update(LEAF_PREFIX).update(chunk).digest());
/** Bytes that {@link leafHashSoon} wants before the chunk. */
export const LEAF_PREFIX_BYTES = 1;
/**
 * The same on another core, of a chunk that lies behind LEAF_PREFIX_BYTES in `prefixed`. The bytes are copied before it
 * returns, so the buffer may be filled again at once.
 */
export const leafHashSoon = async (prefixed: Bytes): Promise<Bytes> => {
  prefixed.set(LEAF_PREFIX);
  return new Uint8Array(await webcrypto.subtle.digest("SHA-256", prefixed));
};
const nodeHash = (left: Uint8Array, right: Uint8Array): Bytes =>
  plain(createHash("sha256").update(NODE_PREFIX).update(left).update(right).digest());

const plain = (buffer: Buffer): Bytes => new Uint8Array(buffer);

export const pageCountOf = (chunkCount: number): number => Math.ceil(chunkCount / LEAVES_PER_PAGE);
export const pageOf = (chunkIndex: number): number => Math.floor(chunkIndex / LEAVES_PER_PAGE);
/** Leaves in this page: all pages are full but the last. */
export const leavesInPage = (chunkCount: number, page: number): number =>
  Math.min(LEAVES_PER_PAGE, chunkCount - page * LEAVES_PER_PAGE);

/** Hash `index` of hashes that stand one after the other. */
export const hashAt = (hashes: Uint8Array, index: number): Uint8Array => {
  assert((index + 1) * HASH_BYTES <= hashes.length, "hash index out of range");
  return hashes.subarray(index * HASH_BYTES, (index + 1) * HASH_BYTES);
};

/** One level up: pairs are hashed, an odd last one moves up as it is. */
const levelAbove = (level: Uint8Array): Bytes => {
  const count = level.length / HASH_BYTES;
  const above = new Uint8Array(Math.ceil(count / 2) * HASH_BYTES);
  for (let i = 0; i < count; i += 2) {
    const node = i + 1 < count ? nodeHash(hashAt(level, i), hashAt(level, i + 1)) : hashAt(level, i);
    above.set(node, (i / 2) * HASH_BYTES);
  }
  return above;
};

/** Root over hashes that stand one after the other; used for one page, and over the roots of all pages. */
export const rootOf = (hashes: Uint8Array): Bytes => {
  assert(hashes.length % HASH_BYTES === 0, "hashes have 32 bytes each");
  if (hashes.length === 0) return emptyRoot();
  let level = new Uint8Array(hashes);
  while (level.length > HASH_BYTES) level = levelAbove(level);
  return level;
};

/** Places of the uncles of a page, level by level: null where the node moves up alone. */
function* unclePlaces(pageCount: number, page: number): Generator<{ sibling: number | null; isRight: boolean }> {
  let index = page;
  for (let count = pageCount; count > 1; count = Math.ceil(count / 2)) {
    const sibling = index % 2 === 0 ? index + 1 : index - 1;
    yield { sibling: sibling < count ? sibling : null, isRight: index % 2 === 1 };
    index = Math.floor(index / 2);
  }
}

const uncleCount = (pageCount: number, page: number): number =>
  [...unclePlaces(pageCount, page)].filter((place) => place.sibling !== null).length;

/** The levels of the tree from the page roots up to the root; at most 1 MiB for the largest file. */
export const createPageTree = (pageRoots: Uint8Array) => {
  const levels: Uint8Array[] = [pageRoots];
  for (let top = pageRoots; top.length > HASH_BYTES; ) {
    top = levelAbove(top);
    levels.push(top);
  }
  return {
    /** Length in bytes of {@link writeUncles}'s output. */
    uncleBytes: (page: number): number => uncleCount(pageRoots.length / HASH_BYTES, page) * HASH_BYTES,
    writeUncles(target: Uint8Array, page: number): void {
      let at = 0;
      let level = 0;
      for (const { sibling } of unclePlaces(pageRoots.length / HASH_BYTES, page)) {
        const hashes = levels[level];
        assert(hashes !== undefined, "the page tree has a level for every uncle");
        level += 1;
        if (sibling === null) continue;
        target.set(hashAt(hashes, sibling), at);
        at += HASH_BYTES;
      }
    },
  };
};
export type PageTree = ReturnType<typeof createPageTree>;

/** Splits and proves the payload of a `leaves` frame. Null when its length is wrong or it does not lead to `root`. */
export const provePage = (
  file: { readonly chunkCount: number; readonly root: Uint8Array },
  page: number,
  payload: Uint8Array,
): { readonly leaves: Uint8Array; readonly pageRoot: Bytes } | null => {
  const pages = pageCountOf(file.chunkCount);
  if (!Number.isInteger(page) || page < 0 || page >= pages) return null;
  const uncleBytes = uncleCount(pages, page) * HASH_BYTES;
  if (payload.length !== uncleBytes + leavesInPage(file.chunkCount, page) * HASH_BYTES) return null;
  const leaves = payload.subarray(uncleBytes);
  const pageRoot = rootOf(leaves);
  let hash = pageRoot;
  let at = 0;
  for (const { sibling, isRight } of unclePlaces(pages, page)) {
    if (sibling === null) continue;
    const uncle = hashAt(payload, at);
    at += 1;
    hash = isRight ? nodeHash(uncle, hash) : nodeHash(hash, uncle);
  }
  return bytesEqual(hash, file.root) ? { leaves, pageRoot } : null;
};

/**
 * Takes leaves in order and hands every finished page to `onPage`, which keeps it; what stays in memory is one page and
 * 32 bytes per finished one (512 KiB for the largest file).
 */
export class TreeBuilder {
  readonly #onPage: (page: number, leaves: Bytes, pageRoot: Bytes) => void;
  readonly #page = new Uint8Array(LEAVES_PER_PAGE * HASH_BYTES);
  readonly #pageRoots: Bytes[] = [];
  #inPage = 0;

  constructor(onPage: (page: number, leaves: Bytes, pageRoot: Bytes) => void) {
    this.#onPage = onPage;
  }

  get leafCount(): number {
    return this.#pageRoots.length * LEAVES_PER_PAGE + this.#inPage;
  }

  push(leaf: Uint8Array): void {
    assert(leaf.length === HASH_BYTES, "a leaf has 32 bytes");
    assert(this.leafCount < CHUNKS_PER_FILE_MAX, "more leaves than a file may have");
    this.#page.set(leaf, this.#inPage * HASH_BYTES);
    this.#inPage += 1;
    if (this.#inPage === LEAVES_PER_PAGE) this.#endPage();
  }

  finish(): Bytes {
    if (this.#inPage > 0) this.#endPage();
    const roots = new Uint8Array(this.#pageRoots.length * HASH_BYTES);
    this.#pageRoots.forEach((root, page) => {
      roots.set(root, page * HASH_BYTES);
    });
    return rootOf(roots);
  }

  #endPage(): void {
    const leaves = this.#page.slice(0, this.#inPage * HASH_BYTES);
    const pageRoot = rootOf(leaves);
    this.#onPage(this.#pageRoots.length, leaves, pageRoot);
    this.#pageRoots.push(pageRoot);
    this.#inPage = 0;
  }
}
