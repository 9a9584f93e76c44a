import { assert } from "#shared/base/assert.ts";

/**
 * Which chunks (or pages) of a file are there: an immutable bitmap with its count. Changing one bit copies 128 bytes and
 * two short lists, whatever the size of the file, so the transfer machine can stay a pure function; runs that are full
 * or empty are skipped whole when it is searched.
 *
 * Bit i of byte i >> 3, least significant first, as in the `have` message.
 */
const LEAF_BITS = 1024;
const LEAF_BYTES = LEAF_BITS / 8;
const BRANCH_LEAVES = 128;
const BRANCH_BITS = LEAF_BITS * BRANCH_LEAVES;

interface Leaf {
  readonly bytes: Uint8Array;
  readonly count: number;
}
interface Branch {
  readonly leaves: readonly (Leaf | undefined)[];
  readonly count: number;
}

/** `count` pieces from `first` on. */
export type Run = readonly [first: number, count: number];

export class PieceMap {
  readonly size: number;
  readonly count: number;
  readonly #branches: readonly (Branch | undefined)[];

  private constructor(size: number, count: number, branches: readonly (Branch | undefined)[]) {
    this.size = size;
    this.count = count;
    this.#branches = branches;
  }

  static empty(size: number): PieceMap {
    return new PieceMap(size, 0, []);
  }

  /** Bits at `size` and beyond are ignored: a hostile `have` may hold some. */
  static fromBytes(size: number, bytes: Uint8Array): PieceMap {
    const branches: (Branch | undefined)[] = [];
    let total = 0;
    for (let start = 0; start < size; start += BRANCH_BITS) {
      const leaves: (Leaf | undefined)[] = [];
      let inBranch = 0;
      for (let first = start; first < Math.min(size, start + BRANCH_BITS); first += LEAF_BITS) {
        const leaf = readLeaf(bytes, first, Math.min(LEAF_BITS, size - first));
        leaves.push(leaf);
        inBranch += leaf?.count ?? 0;
      }
      branches.push(inBranch === 0 ? undefined : { leaves, count: inBranch });
      total += inBranch;
    }
    return new PieceMap(size, total, branches);
  }

  static full(size: number): PieceMap {
    return PieceMap.fromBytes(size, new Uint8Array(Math.ceil(size / 8)).fill(0xff));
  }

  get isFull(): boolean {
    return this.count === this.size;
  }

  has(index: number): boolean {
    const leaf = this.#leafOf(index);
    return leaf !== undefined && bitAt(leaf.bytes, index % LEAF_BITS);
  }

  /** The same map if nothing changes. */
  with(index: number): PieceMap {
    return this.#set(index, true);
  }

  without(index: number): PieceMap {
    return this.#set(index, false);
  }

  /** The smallest index >= `from` that this map lacks and `available` (all, if null) has; null when there is none. */
  nextMissing(from: number, available: PieceMap | null): number | null {
    assert(available === null || available.size === this.size, "maps of different files");
    let index = from;
    while (index < this.size) {
      const branch = this.#branches[Math.floor(index / BRANCH_BITS)];
      if (branch?.count === BRANCH_BITS || available?.lacksBranch(index)) {
        index = (Math.floor(index / BRANCH_BITS) + 1) * BRANCH_BITS;
        continue;
      }
      const leaf = branch?.leaves[Math.floor((index % BRANCH_BITS) / LEAF_BITS)];
      if (leaf?.count === LEAF_BITS || available?.lacksLeaf(index)) {
        index = (Math.floor(index / LEAF_BITS) + 1) * LEAF_BITS;
        continue;
      }
      const missing = leaf === undefined || !bitAt(leaf.bytes, index % LEAF_BITS);
      if (missing && (available === null || available.has(index))) return index;
      index += 1;
    }
    return null;
  }

  /** The pieces that `newer` has and this map lacks, from the first on, in at most `most` runs. */
  runsAddedBy(newer: PieceMap, most: number): Run[] {
    const runs: Run[] = [];
    for (let next = this.nextMissing(0, newer); next !== null; next = this.nextMissing(next, newer)) {
      const first = next;
      while (next < this.size && newer.has(next) && !this.has(next)) next += 1;
      runs.push([first, next - first]);
      if (runs.length === most) break;
    }
    return runs;
  }

  /** Adds whole runs; what lies at `size` or beyond is ignored. */
  withRuns(runs: readonly Run[]): PieceMap {
    return runs.reduce<PieceMap>((map, [first, count]) => map.#withRun(first, Math.min(first + count, map.size)), this);
  }

  #withRun(first: number, end: number): PieceMap {
    let map: PieceMap = this;
    for (let at = map.nextMissing(first, null); at !== null && at < end; at = map.nextMissing(at, null)) {
      const leafEnd = at - (at % LEAF_BITS) + LEAF_BITS;
      map = map.#withinLeaf(at, Math.min(end, leafEnd));
    }
    return map;
  }

  #withinLeaf(first: number, end: number): PieceMap {
    const leaf = this.#leafOf(first);
    const bytes = leaf === undefined ? new Uint8Array(LEAF_BYTES) : leaf.bytes.slice();
    let added = 0;
    for (let index = first; index < end; index += 1) {
      const bit = index % LEAF_BITS;
      if (bitAt(bytes, bit)) continue;
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (1 << (bit & 7));
      added += 1;
    }
    return this.#replaceLeaf(first, { bytes, count: (leaf?.count ?? 0) + added }, added);
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(Math.ceil(this.size / 8));
    this.#branches.forEach((branch, b) => {
      branch?.leaves.forEach((leaf, l) => {
        const at = (b * BRANCH_BITS + l * LEAF_BITS) / 8;
        if (leaf !== undefined) bytes.set(leaf.bytes.subarray(0, bytes.length - at), at);
      });
    });
    return bytes;
  }

  lacksBranch(index: number): boolean {
    return this.#branches[Math.floor(index / BRANCH_BITS)] === undefined;
  }

  lacksLeaf(index: number): boolean {
    return this.#leafOf(index) === undefined;
  }

  #leafOf(index: number): Leaf | undefined {
    return this.#branches[Math.floor(index / BRANCH_BITS)]?.leaves[Math.floor((index % BRANCH_BITS) / LEAF_BITS)];
  }

  #set(index: number, value: boolean): PieceMap {
    assert(Number.isInteger(index) && index >= 0 && index < this.size, "piece index out of range");
    if (this.has(index) === value) return this;
    const leaf = this.#leafOf(index);
    const bytes = leaf === undefined ? new Uint8Array(LEAF_BYTES) : leaf.bytes.slice();
    const bit = index % LEAF_BITS;
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const step = value ? 1 : -1;
    return this.#replaceLeaf(index, { bytes, count: (leaf?.count ?? 0) + step }, step);
  }

  #replaceLeaf(index: number, leaf: Leaf, change: number): PieceMap {
    const branchAt = Math.floor(index / BRANCH_BITS);
    const branch = this.#branches[branchAt];
    const leaves = branch === undefined ? [] : branch.leaves.slice();
    leaves[Math.floor((index % BRANCH_BITS) / LEAF_BITS)] = leaf;
    const branches = this.#branches.slice();
    branches[branchAt] = { leaves, count: (branch?.count ?? 0) + change };
    return new PieceMap(this.size, this.count + change, branches);
  }
}

const bitAt = (bytes: Uint8Array, bit: number): boolean => (((bytes[bit >> 3] ?? 0) >> (bit & 7)) & 1) === 1;

const readLeaf = (source: Uint8Array, firstBit: number, bits: number): Leaf | undefined => {
  const bytes = new Uint8Array(LEAF_BYTES);
  bytes.set(source.subarray(firstBit / 8, firstBit / 8 + Math.ceil(bits / 8)));
  if (bits % 8 !== 0) bytes[bits >> 3] = (bytes[bits >> 3] ?? 0) & ((1 << (bits % 8)) - 1);
  let count = 0;
  for (const byte of bytes) for (let rest = byte; rest !== 0; rest &= rest - 1) count += 1;
  return count === 0 ? undefined : { bytes, count };
};
