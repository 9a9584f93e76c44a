import { type Bytes, fromUtf8, utf8 } from "#shared/base/bytes.ts";
import {
  FILE_BYTES_MAX,
  FOLDER_DEPTH_MAX,
  FOLDER_ENTRIES_MAX,
  FOLDER_LIST_BYTES_MAX,
  FOLDER_PATH_BYTES_MAX,
} from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { foldName, isSafeEntryName } from "./file-name.ts";

/**
 * What is in a shared folder. The folder travels as one plaintext: the bytes of its files one after the other, in the
 * order of the list, then the list itself. So chunks, proofs and transfers know nothing of folders, and 10,000 small files
 * cost as much as one large one.
 *
 *   list    8 bytes "WEIRDIR1" | u32 entries | entry ...                                       (big-endian)
 *   entry   u8 kind | u16 bytes of the path | path in UTF-8 | a file: u64 size, 32 bytes SHA-256
 *   kind    0 an empty folder, 1 a file
 *
 * A path is names joined with "/", each of which is already what `safeEntryName` (file-name.ts) makes of it: no "..", no absolute path,
 * no drive, nothing that a system reserves. There are no links. Entries stand in the order of their paths, name by name,
 * so a folder is a range of entries; no two paths are the same file where case does not count; no file is a folder too.
 * A list that breaks any of this is refused whole.
 */
export interface FolderEntry {
  readonly path: string;
  readonly sizeBytes: number;
  /** Null: an empty folder. */
  readonly sha256: Bytes | null;
}

/** Entries [first, end) of a list. */
export type EntryRange = readonly [first: number, end: number];

/** One line of a folder as it is shown: entries [first, first + entries) lie in it. */
export interface FolderChild {
  readonly name: string;
  readonly kind: "file" | "folder";
  readonly sizeBytes: number;
  readonly first: number;
  readonly entries: number;
  /** Files among them. */
  readonly files: number;
}

/** The part [from, to) of an entry's bytes; `at` is where it stands in the plaintext. */
export interface EntryPart {
  readonly index: number;
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

export type ListError = { type: "bad_folder"; message: string };

const MAGIC = utf8("WEIRDIR1");
const HEAD_BYTES = MAGIC.length + 4;
const ENTRY_HEAD_BYTES = 3;
const FILE_TAIL_BYTES = 8 + 32;
const FOLDER = 0;
const FILE = 1;

/** "/" sorts before everything else, so that what is in a folder stands together. */
export const sortKey = (path: string): string => path.replaceAll("/", "\0");

export const listBytesOf = (entries: readonly Pick<FolderEntry, "path" | "sha256">[]): number =>
  entries.reduce(
    (sum, { path, sha256 }) => sum + ENTRY_HEAD_BYTES + utf8(path).length + (sha256 === null ? 0 : FILE_TAIL_BYTES),
    HEAD_BYTES,
  );

export const encodeFolderList = (entries: readonly FolderEntry[]): Bytes => {
  const bytes = new Uint8Array(listBytesOf(entries));
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint32(MAGIC.length, entries.length);
  let at = HEAD_BYTES;
  for (const { path, sizeBytes, sha256 } of entries) {
    const name = utf8(path);
    view.setUint8(at, sha256 === null ? FOLDER : FILE);
    view.setUint16(at + 1, name.length);
    bytes.set(name, at + ENTRY_HEAD_BYTES);
    at += ENTRY_HEAD_BYTES + name.length;
    if (sha256 === null) continue;
    view.setBigUint64(at, BigInt(sizeBytes));
    bytes.set(sha256, at + 8);
    at += FILE_TAIL_BYTES;
  }
  return bytes;
};

const bad = (why: string) =>
  fail("bad_folder", `The folder's list is broken (${why}). Ask the sender to share it again.`);

/** Never throws. `contentBytes`: what the files must add up to. */
export const decodeFolderList = (bytes: Uint8Array, contentBytes: number): Result<FolderList, ListError> => {
  if (bytes.length > FOLDER_LIST_BYTES_MAX) return bad("too long");
  if (bytes.length < HEAD_BYTES || MAGIC.some((byte, i) => bytes[i] !== byte)) return bad("not a list");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint32(MAGIC.length);
  if (count > FOLDER_ENTRIES_MAX) return bad("too many entries");
  const entries: FolderEntry[] = [];
  let at = HEAD_BYTES;
  for (let i = 0; i < count; i += 1) {
    if (at + ENTRY_HEAD_BYTES > bytes.length) return bad("cut short");
    const kind = view.getUint8(at);
    if (kind !== FOLDER && kind !== FILE) return bad("an unknown kind of entry");
    const pathEnd = at + ENTRY_HEAD_BYTES + view.getUint16(at + 1);
    const end = pathEnd + (kind === FILE ? FILE_TAIL_BYTES : 0);
    if (end > bytes.length) return bad("cut short");
    const path = fromUtf8(bytes.subarray(at + ENTRY_HEAD_BYTES, pathEnd));
    if (!path.ok) return bad("a path that is not text");
    if (kind === FILE) {
      const size = view.getBigUint64(pathEnd);
      if (size > BigInt(FILE_BYTES_MAX)) return bad("a size that cannot be");
      entries.push({
        path: path.value,
        sizeBytes: Number(size),
        sha256: new Uint8Array(bytes.slice(pathEnd + 8, end)),
      });
    } else entries.push({ path: path.value, sizeBytes: 0, sha256: null });
    at = end;
  }
  if (at !== bytes.length) return bad("something behind its end");
  const why = faultOf(entries);
  if (why !== null) return bad(why);
  const list = new FolderList(entries);
  return list.contentBytes === contentBytes ? ok(list) : bad("sizes that do not add up");
};

/** What is wrong with these entries as a list; null when nothing is. */
export const faultOf = (entries: readonly Pick<FolderEntry, "path" | "sha256">[]): string | null => {
  let before: string | null = null;
  /** Folded paths of files and empty folders; and of folders, with the one way in which they are written. */
  const leaves = new Set<string>();
  const folders = new Map<string, string>();
  for (const { path } of entries) {
    const names = path.split("/");
    if (names.length > FOLDER_DEPTH_MAX) return "folders too deep";
    if (utf8(path).length > FOLDER_PATH_BYTES_MAX) return "a path that is too long";
    if (!names.every(isSafeEntryName)) return "a name that is not allowed";
    const key = sortKey(path);
    if (before !== null && key <= before) return "entries out of order";
    before = key;
    const folded = foldName(path);
    if (leaves.has(folded) || folders.has(folded)) return "two entries with one name";
    leaves.add(folded);
    for (let end = path.lastIndexOf("/"); end > 0; end = path.lastIndexOf("/", end - 1)) {
      const parent = path.slice(0, end);
      const foldedParent = foldName(parent);
      const written = folders.get(foldedParent);
      if (written === parent) break;
      if (written !== undefined || leaves.has(foldedParent)) return "two entries with one name";
      folders.set(foldedParent, parent);
    }
  }
  return null;
};

export class FolderList {
  readonly entries: readonly FolderEntry[];
  /** Bytes of all files; the list itself begins there. */
  readonly contentBytes: number;
  /** Where the bytes of each entry begin. */
  readonly #offsets: Float64Array;

  /** `entries` must be in order and have no fault. */
  constructor(entries: readonly FolderEntry[]) {
    this.entries = entries;
    this.#offsets = new Float64Array(entries.length);
    let offset = 0;
    entries.forEach(({ sizeBytes }, i) => {
      this.#offsets[i] = offset;
      offset += sizeBytes;
    });
    this.contentBytes = offset;
  }

  offsetOf(index: number): number {
    return this.#offsets[index] ?? this.contentBytes;
  }

  /** The parts of files that stand in [start, end) of the plaintext, in order. */
  *parts(start: number, end: number): Generator<EntryPart> {
    for (let index = this.#firstAt(start); index < this.entries.length; index += 1) {
      const offset = this.offsetOf(index);
      if (offset >= end) return;
      const size = this.entries[index]?.sizeBytes ?? 0;
      const from = Math.max(0, start - offset);
      const to = Math.min(size, end - offset);
      if (from < to) yield { index, from, to, at: offset + from };
    }
  }

  /** The first entry that begins at or after `position`, or the one that reaches over it. */
  #firstAt(position: number): number {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.offsetOf(middle) + (this.entries[middle]?.sizeBytes ?? 0) > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** What lies directly in the folder `path` ("" is the shared folder itself), in order; null when there is no such folder. */
  children(path: string): FolderChild[] | null {
    const prefix = path === "" ? "" : `${path}/`;
    const children: FolderChild[] = [];
    for (let i = this.#firstWith(prefix); i < this.entries.length; ) {
      const entry = this.entries[i];
      if (entry === undefined || !entry.path.startsWith(prefix)) break;
      const slash = entry.path.indexOf("/", prefix.length);
      const name = entry.path.slice(prefix.length, slash === -1 ? undefined : slash);
      const first = i;
      let sizeBytes = 0;
      let files = 0;
      const within = `${prefix}${name}/`;
      do {
        const { sizeBytes: size = 0, sha256 = null } = this.entries[i] ?? {};
        sizeBytes += size;
        files += sha256 === null ? 0 : 1;
        i += 1;
      } while (slash !== -1 && this.entries[i]?.path.startsWith(within));
      const kind = slash === -1 && entry.sha256 !== null ? "file" : "folder";
      children.push({ name, kind, sizeBytes, first, entries: i - first, files });
    }
    return children.length === 0 && path !== "" && !this.#isEmptyFolder(path) ? null : children;
  }

  #isEmptyFolder(path: string): boolean {
    return this.entries.some((entry) => entry.path === path && entry.sha256 === null);
  }

  #firstWith(prefix: string): number {
    const key = sortKey(prefix);
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sortKey(this.entries[middle]?.path ?? "") >= key) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
