import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toHex } from "#shared/base/bytes.ts";
import { LEAVES_PER_PAGE } from "#shared/base/limits.ts";
import {
  createPageTree,
  emptyRoot,
  HASH_BYTES,
  leafHash,
  leavesInPage,
  pageCountOf,
  provePage,
  rootOf,
  TreeBuilder,
} from "../../src-main/crypto/hash-tree.ts";

/** RFC 6962 section 2.1, written as its definition reads: split at the largest power of two. */
const rfc6962 = (leaves: readonly Uint8Array[]): Uint8Array => {
  const [first] = leaves;
  if (first === undefined) return createHash("sha256").digest();
  if (leaves.length === 1) return first;
  let split = 1;
  while (split * 2 < leaves.length) split *= 2;
  return createHash("sha256")
    .update(Uint8Array.of(1))
    .update(rfc6962(leaves.slice(0, split)))
    .update(rfc6962(leaves.slice(split)))
    .digest();
};

const build = (count: number) => {
  const leaves = Array.from({ length: count }, (_, i) => leafHash(Uint8Array.of(i & 255, i >> 8)));
  const pages: Uint8Array[] = [];
  const roots: Uint8Array[] = [];
  const builder = new TreeBuilder((page, hashes, pageRoot) => {
    pages[page] = hashes;
    roots[page] = pageRoot;
  });
  for (const leaf of leaves) builder.push(leaf);
  return { leaves, pages, root: builder.finish(), tree: createPageTree(Buffer.concat(roots)) };
};

/** The payload that a seeder sends for a page. */
const payloadOf = (built: ReturnType<typeof build>, page: number): Uint8Array => {
  const uncles = new Uint8Array(built.tree.uncleBytes(page));
  built.tree.writeUncles(uncles, page);
  return Buffer.concat([uncles, built.pages[page] ?? new Uint8Array()]);
};

describe("the hash tree", () => {
  test("of nothing and of one chunk are those of RFC 6962", () => {
    expect(toHex(emptyRoot())).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    // The test vector of certificate-transparency: the leaf hash of an empty entry.
    expect(toHex(leafHash(new Uint8Array()))).toBe("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    expect(build(0).root).toEqual(emptyRoot());
  });

  test.each([1, 2, 3, 5, 7, 8, 1023, 1024, 1025, 2048, 2049, 3 * 1024, 5 * 1024 + 1, 7 * 1024 + 9])(
    "over %i chunks has the root of the RFC's definition, and every page proves itself",
    (count) => {
      const built = build(count);
      expect(toHex(built.root)).toBe(toHex(rfc6962(built.leaves)));
      for (let page = 0; page < pageCountOf(count); page += 1) {
        const file = { chunkCount: count, root: built.root };
        const proven = provePage(file, page, payloadOf(built, page));
        expect(proven?.leaves.length).toBe(leavesInPage(count, page) * HASH_BYTES);
        expect(proven?.pageRoot).toEqual(rootOf(built.pages[page] ?? new Uint8Array()));
      }
    },
  );

  test("refuses a page that was changed anywhere, of another length, or from another place", () => {
    const built = build(5 * LEAVES_PER_PAGE + 3);
    const file = { chunkCount: built.leaves.length, root: built.root };
    const page = fc.integer({ min: 0, max: 5 });
    fc.assert(
      fc.property(page, page, fc.nat(), fc.integer({ min: 1, max: 255 }), (from, as, at, mask) => {
        const good = payloadOf(built, from);
        const bad = new Uint8Array(good);
        bad[at % bad.length] = (bad[at % bad.length] ?? 0) ^ mask;
        expect(provePage(file, from, bad)).toBeNull();
        expect(provePage(file, from, good.subarray(1))).toBeNull();
        if (as !== from) expect(provePage(file, as, good)).toBeNull();
      }),
      { numRuns: 60 },
    );
    for (const page of [-1, 6, 0.5, Number.NaN]) expect(provePage(file, page, payloadOf(built, 0))).toBeNull();
  });

  test("has another root for another number of equal leaves", () => {
    const leaf = leafHash(Uint8Array.of(1));
    const roots = [1, 2, 3, 4].map((count) => toHex(rootOf(Buffer.concat(Array.from({ length: count }, () => leaf)))));
    expect(new Set(roots).size).toBe(4);
  });
});
