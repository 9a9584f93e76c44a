import { createHash } from "node:crypto";
import { closeSync, constants, type Dirent, fstatSync, lstatSync, openSync, readSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { assert } from "#shared/base/assert.ts";
import { type Bytes, utf8 } from "#shared/base/bytes.ts";
import {
  CHUNK_TAG_BYTES,
  FILE_BYTES_MAX,
  FOLDER_DEPTH_MAX,
  FOLDER_ENTRIES_MAX,
  FOLDER_LIST_BYTES_MAX,
  FOLDER_PATH_BYTES_MAX,
  SMALL_FILE_BYTES,
  WORK_BATCH_BYTES,
} from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import { chunkBytesFor } from "#shared/wire/manifest.ts";
import { type ChunkCipher, createChunkCipher } from "../../crypto/chunk-cipher.ts";
import { leafHash, TreeBuilder } from "../../crypto/hash-tree.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import type { JobContext, JobResult, Jobs } from "../chunk-worker-protocol.ts";
import { foldName, safeEntryName, withSuffix } from "../file-name.ts";
import { encodeFolderList, type FolderEntry, faultOf, listBytesOf } from "../folder-list.ts";
import { seal } from "./folder-lists.ts";
import { failWork, readErrorOf, readWhole, Turns, WorkFailure } from "./io.ts";
import { removeLeaves } from "./share.ts";

/** A file, or an empty folder, as it lies on the disk. */
interface Found {
  /** As others see it: names that not every system allows are replaced. */
  readonly path: string;
  /** As it is called here. */
  readonly sourcePath: string;
  readonly sizeBytes: number;
  readonly isFile: boolean;
}

const NO_HANG = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

export const measureFolder = async (
  { path }: Jobs["measureFolder"]["input"],
  context: JobContext,
): Promise<JobResult<"measureFolder">> => {
  try {
    return ok(contentBytesOf(await walk(path, context.signal)));
  } catch (error) {
    return err(readErrorOf(error));
  }
};

const contentBytesOf = (found: readonly Found[]): number => found.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);

/** Reads every file once. Links, devices and the like are left out: they mean nothing elsewhere. */
export const hashFolder = async (
  tables: ChunkTables,
  { fileId, key, path }: Jobs["hashFolder"]["input"],
  context: JobContext,
): Promise<JobResult<"hashFolder">> => {
  try {
    const found = await walk(path, context.signal);
    const contentBytes = contentBytesOf(found);
    const draft = found.map(({ path: entryPath, isFile }) => ({
      path: entryPath,
      sha256: isFile ? new Uint8Array(32) : null,
    }));
    const fault = faultOf(draft);
    assert(fault === null, `the list of an own folder keeps the rules: ${fault}`);
    const listBytes = listBytesOf(draft);
    const sizeBytes = contentBytes + listBytes;
    if (listBytes > FOLDER_LIST_BYTES_MAX) return tooLarge("The names in this folder are too long in sum");
    if (sizeBytes > FILE_BYTES_MAX) return failWork("too_large", "The folder is larger than 4 TiB.");
    const chunkBytes = chunkBytesFor(sizeBytes);
    const row = tables.ensure(fileId).file;
    const stream = new ChunkStream(
      createChunkCipher(fileId, key, Math.ceil(sizeBytes / chunkBytes)),
      chunkBytes,
      new TreeBuilder((page, leaves, pageRoot) => tables.savePage(row, page, pageRoot, leaves)),
    );
    const entries = await hashEntries(path, found, stream, context);
    const list = encodeFolderList(entries);
    stream.add(list);
    const root = stream.finish();
    const renamed = found.flatMap(({ path: entryPath, sourcePath }, index): [number, string][] =>
      entryPath === sourcePath ? [] : [[index, sourcePath]],
    );
    tables.saveFolderList(row, seal(key, list, new Map(renamed)));
    const sha256 = new Uint8Array(createHash("sha256").update(list).digest());
    const files = found.filter(({ isFile }) => isFile).length;
    return ok({ sizeBytes, root, sha256, folder: { listBytes, files } });
  } catch (error) {
    removeLeaves(tables, fileId);
    return err(readErrorOf(error));
  }
};

const tooLarge = (what: string): never =>
  failWork("folder_too_large", `${what}. Share parts of it, or pack it into an archive.`);

/** Everything in the folder in the order of the list. */
const walk = async (root: string, signal: AbortSignal): Promise<Found[]> => {
  const turns = new Turns(signal);
  const found: Found[] = [];
  const enter = async (path: string, sourcePath: string, depth: number): Promise<void> => {
    if (depth > FOLDER_DEPTH_MAX) tooLarge("There are too many folders in folders here");
    const before = found.length;
    const inside = await readdir(join(root, sourcePath), { withFileTypes: true });
    for (const [name, entry] of namedSafely(inside)) {
      const childPath = path === "" ? name : `${path}/${name}`;
      const childSource = path === "" ? entry.name : `${sourcePath}/${entry.name}`;
      if (utf8(childPath).length > FOLDER_PATH_BYTES_MAX) tooLarge("A path in this folder is too long");
      if (entry.isDirectory()) await enter(childPath, childSource, depth + 1);
      else if (entry.isFile()) {
        const sizeBytes = lstatSync(join(root, childSource)).size;
        found.push({ path: childPath, sourcePath: childSource, sizeBytes, isFile: true });
      }
      if (found.length > FOLDER_ENTRIES_MAX) tooLarge("There are too many files in this folder");
      await turns.take(0);
    }
    if (found.length === before && path !== "") found.push({ path, sourcePath, sizeBytes: 0, isFile: false });
  };
  await enter("", "", 0);
  return found;
};

/** What lies in one folder by names that are allowed everywhere, in their order. Two that would be one get different ones. */
const namedSafely = (inside: readonly Dirent[]): [string, Dirent][] => {
  const named: [string, Dirent][] = [];
  const taken = new Set<string>();
  // Names that stay as they are come first, so that they do.
  const isKept = ({ name }: Dirent): number => (safeEntryName(name) === name ? 0 : 1);
  const order = inside
    .filter((entry) => entry.isFile() || entry.isDirectory())
    .sort((a, b) => isKept(a) - isKept(b) || (a.name < b.name ? -1 : 1));
  for (const entry of order) {
    const safe = safeEntryName(entry.name);
    for (let number = 1; ; number += 1) {
      const name = withSuffix(safe, number);
      if (taken.has(foldName(name))) continue;
      taken.add(foldName(name));
      named.push([name, entry]);
      break;
    }
  }
  return named.sort(([a], [b]) => (a < b ? -1 : 1));
};

const changed = (path: string): never =>
  failWork("file_changed", `"${path}" changed while the folder was read. Share it again when it is finished.`);

const hashEntries = async (
  root: string,
  found: readonly Found[],
  stream: ChunkStream,
  context: JobContext,
): Promise<FolderEntry[]> => {
  const turns = new Turns(context.signal);
  const buffer = Buffer.allocUnsafeSlow(WORK_BATCH_BYTES);
  const entries: FolderEntry[] = [];
  let bytesRead = 0;
  for (const item of found) {
    if (!item.isFile) {
      entries.push({ path: item.path, sizeBytes: 0, sha256: null });
      continue;
    }
    const onRead = async (bytes: number): Promise<void> => {
      bytesRead += bytes;
      context.progress(bytesRead);
      await turns.take(bytes);
    };
    try {
      const whole = createHash("sha256");
      const add = (bytes: Uint8Array): void => {
        whole.update(bytes);
        stream.add(bytes);
      };
      if (item.sizeBytes <= SMALL_FILE_BYTES) {
        add(readSmall(join(root, item.sourcePath), item, buffer));
        await turns.take(item.sizeBytes);
        bytesRead += item.sizeBytes;
        context.progress(bytesRead);
      } else await readLarge(join(root, item.sourcePath), item, { buffer, add, onRead });
      entries.push({ path: item.path, sizeBytes: item.sizeBytes, sha256: new Uint8Array(whole.digest()) });
    } catch (error) {
      throw namedIn(error, item);
    }
  }
  context.progress(bytesRead);
  return entries;
};

/** Among thousands of files it matters which one it is. */
const namedIn = (error: unknown, { path }: Found): WorkFailure => {
  const described = readErrorOf(error);
  return described.type === "corrupt_chunks" || described.message.includes(path)
    ? new WorkFailure(described)
    : new WorkFailure({ type: described.type, message: `"${path}": ${described.message}` });
};

const identity = (stats: { size: number; mtimeMs: number; ino: number }): string =>
  [stats.size, stats.mtimeMs, stats.ino].join(":");

const readSmall = (path: string, { path: shown, sizeBytes }: Found, buffer: Buffer): Uint8Array => {
  const fd = openSync(path, NO_HANG);
  try {
    const before = fstatSync(fd);
    if (!before.isFile() || before.size !== sizeBytes) return changed(shown);
    let at = 0;
    while (at < sizeBytes) {
      const read = readSync(fd, buffer, at, sizeBytes - at, at);
      if (read === 0) return changed(shown);
      at += read;
    }
    return identity(fstatSync(fd)) === identity(before) ? buffer.subarray(0, sizeBytes) : changed(shown);
  } finally {
    closeSync(fd);
  }
};

const readLarge = async (
  path: string,
  { path: shown, sizeBytes }: Found,
  to: { buffer: Buffer; add: (bytes: Uint8Array) => void; onRead: (bytes: number) => Promise<void> },
): Promise<void> => {
  await using file = await open(path, NO_HANG);
  const before = await file.stat();
  if (!before.isFile() || before.size !== sizeBytes) return changed(shown);
  for (let position = 0; position < sizeBytes; ) {
    const batch = to.buffer.subarray(0, Math.min(to.buffer.length, sizeBytes - position));
    if (!(await readWhole(file, batch, position))) return changed(shown);
    to.add(batch);
    position += batch.length;
    await to.onRead(batch.length);
  }
  if (identity(await file.stat()) !== identity(before)) changed(shown);
};

/** Cuts a stream of plaintext into chunks, and gives each chunk's ciphertext to the tree. */
class ChunkStream {
  readonly #cipher: ChunkCipher;
  readonly #tree: TreeBuilder;
  readonly #chunk: Buffer;
  readonly #sealed: Buffer;
  #filled = 0;

  constructor(cipher: ChunkCipher, chunkBytes: number, tree: TreeBuilder) {
    this.#cipher = cipher;
    this.#tree = tree;
    this.#chunk = Buffer.allocUnsafeSlow(chunkBytes);
    this.#sealed = Buffer.allocUnsafeSlow(chunkBytes + CHUNK_TAG_BYTES);
  }

  add(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + this.#chunk.length - this.#filled);
      this.#chunk.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === this.#chunk.length) this.#push();
    }
  }

  finish(): Bytes {
    if (this.#filled > 0) this.#push();
    return this.#tree.finish();
  }

  #push(): void {
    this.#cipher.encryptInto(this.#sealed, this.#tree.leafCount, this.#chunk.subarray(0, this.#filled));
    this.#tree.push(leafHash(this.#sealed.subarray(0, this.#filled + CHUNK_TAG_BYTES)));
    this.#filled = 0;
  }
}
