import { closeSync, constants, lstatSync, mkdirSync, openSync, writevSync } from "node:fs";
import { type FileHandle, mkdir, open, rm } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { assert, defined } from "#shared/base/assert.ts";
import { freeNow } from "#shared/base/bytes.ts";
import {
  FILE_NAME_SUFFIX_MAX,
  FOLDER_ENTRIES_PAGE,
  SMALL_FILE_BYTES,
  SYNC_TOGETHER_FILES,
  SYNCS_AT_ONCE,
  WORK_BATCH_BYTES,
  WRITE_PIECE_BYTES,
} from "#shared/base/limits.ts";
import { err, ok } from "#shared/base/result.ts";
import type { NativeFs } from "../../../native/index.ts";
import { reached } from "../../steps.ts";
import type { FolderChoice, JobContext, JobResult, Jobs } from "../chunk-worker-protocol.ts";
import { safeFileName } from "../file-name.ts";
import type { FolderEntry } from "../folder-list.ts";
import { type DownloadTools, inodeOf, ORIGIN_URL, partPath, rename } from "./download.ts";
import { type FolderLists, isFolder, type SpecOfFolder } from "./folder-lists.ts";
import { candidatesOf, chunksOfEntries, type FolderPlan, holds, isStillThere } from "./folder-plan.ts";
import { failWork, isCode, Turns, WorkFailure, writeErrorOf, writeWhole } from "./io.ts";

/**
 * The end of a folder's download. Its files are written into a temporary folder, read back and compared one by one, forced
 * to the disk, and then the folder gets its name in one step. Where some of them are in a folder already, the others
 * are moved into it one by one, each of them whole; after a kill in between, those that were moved are found there.
 */
interface FolderJob {
  readonly spec: SpecOfFolder;
  readonly directory: string;
  readonly choice: FolderChoice;
}

const jobOf = ({ spec, directory, folder }: Jobs["assemble"]["input"]): FolderJob => {
  assert(isFolder(spec) && folder !== undefined, "the download of a folder says what was chosen of it");
  return { spec, directory, choice: folder };
};

export const listFolder = async (
  lists: FolderLists,
  { spec, path, offset }: Jobs["listFolder"]["input"],
): Promise<JobResult<"listFolder">> => {
  try {
    if (!isFolder(spec)) return failWork("bad_folder", "This is a file, not a folder.");
    const known = lists.find(spec) ?? failWork("list_missing", "The list of this folder has not arrived yet.");
    const children = known.list.children(path) ?? failWork("list_missing", "There is no such folder in it.");
    return ok({ children: children.slice(offset, offset + FOLDER_ENTRIES_PAGE), total: children.length });
  } catch (error) {
    return err(writeErrorOf(error));
  }
};

export const assembleFolder = async (
  tools: DownloadTools,
  input: Jobs["assemble"]["input"],
  context: JobContext,
): Promise<JobResult<"assemble">> => {
  try {
    const { spec, directory, choice } = jobOf(input);
    const part = partPath(directory, spec);
    // What an earlier try left may be of another selection.
    await rm(part, { recursive: true, force: true });
    await mkdir(part);
    const plan = await tools.plans.of(spec, directory, choice, context.signal);
    checkThere(tools, spec, plan);
    reached("assembleStart", spec.fileId);
    await writeEntries(tools, spec, { plan, part }, context);
    reached("assembleEnd", spec.fileId);
    return ok(null);
  } catch (error) {
    return err(writeErrorOf(error));
  }
};

/** Files that were there and are not any more have to be fetched after all. */
const checkThere = (tools: DownloadTools, spec: SpecOfFolder, { list, there }: FolderPlan): void => {
  const gone = there.filter((file) => !isStillThere(file)).map(({ index }) => index);
  if (gone.length === 0) return;
  tools.plans.forget(spec.fileId);
  const known = tools.files.get(spec);
  const missing = [...chunksOfEntries(list, spec, gone)].filter((i) => tools.tables.chunk(known.file, i) === null);
  if (missing.length > 0) throw lostChunks(missing);
};

const lostChunks = (indices: number[]): WorkFailure =>
  new WorkFailure({
    type: "corrupt_chunks",
    message: "Stored data was damaged on the disk. It is fetched again.",
    indices,
  });

const writeEntries = async (
  { tables, files, native }: DownloadTools,
  spec: SpecOfFolder,
  { plan, part }: { plan: FolderPlan; part: string },
  context: JobContext,
): Promise<void> => {
  const { list, take } = plan;
  const known = files.get(spec);
  const isTaken = new Uint8Array(list.entries.length);
  for (const index of take) isTaken[index] = 1;
  const turns = new Turns(context.signal);
  const writer = new FolderWriter(part, native);
  const corrupt: number[] = [];
  try {
    for (const index of take) {
      const entry = defined(list.entries[index], "an entry that was chosen");
      if (entry.sizeBytes === 0) writer.addEmpty(entry);
    }
    for (const index of chunksOfEntries(list, spec, take)) {
      const data = tables.chunk(known.file, index);
      const plaintext = data === null ? null : known.cipher.decrypt(index, data);
      if (data !== null) freeNow(data);
      if (plaintext === null) corrupt.push(index);
      // Once something is wrong, only the search for more goes on.
      else if (corrupt.length === 0) {
        const start = index * spec.chunkBytes;
        for (const { index: entry, from, to, at } of list.parts(start, start + plaintext.length))
          if (isTaken[entry] === 1)
            await writer.add(defined(list.entries[entry], "a part's entry"), {
              bytes: plaintext.subarray(at - start, at - start + to - from),
              from,
            });
        await writer.endChunk(plaintext);
        context.progress(index + 1);
        if (index === spec.chunkCount >> 1) reached("assembleMiddle", spec.fileId);
      }
      await turns.take(spec.chunkBytes);
    }
    await writer.end();
  } finally {
    await writer.close();
  }
  if (corrupt.length === 0) return;
  tables.transaction(() => {
    for (const index of corrupt) tables.removeChunk(known.file, index);
  });
  throw lostChunks(corrupt);
};

const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | (constants.O_NOFOLLOW ?? 0);

/** Writes files whose bytes come in order. Small ones in one go; a large one in batches, the last written while the next comes. */
class FolderWriter {
  readonly #root: string;
  readonly #native: NativeFs;
  readonly #folders = new Set<string>();
  #pending: { entry: FolderEntry; from: number; buffers: Uint8Array[]; bytes: number } | null = null;
  #large: FileHandle | null = null;
  #writing: Promise<void> = Promise.resolve();
  /** Buffers that the write under way reads from; and those of the batch that gathers. */
  #inWrite: Uint8Array[] = [];
  #inBatch: Uint8Array[] = [];

  constructor(root: string, native: NativeFs) {
    this.#root = root;
    this.#native = native;
  }

  addEmpty(entry: FolderEntry): void {
    if (entry.sha256 === null) this.#makeFolder(entry.path);
    else this.#writeSmall(entry, []);
  }

  async add(entry: FolderEntry, { bytes, from }: { bytes: Uint8Array; from: number }): Promise<void> {
    if (this.#pending === null) this.#pending = { entry, from, buffers: [], bytes: 0 };
    const pending = this.#pending;
    assert(pending.entry === entry && pending.from + pending.bytes === from, "the parts of files come in order");
    pending.buffers.push(bytes);
    pending.bytes += bytes.length;
    const isEnd = from + bytes.length === entry.sizeBytes;
    if (entry.sizeBytes <= SMALL_FILE_BYTES) {
      if (!isEnd) return;
      this.#writeSmall(entry, pending.buffers);
      this.#pending = null;
    } else if (isEnd || pending.bytes >= WRITE_PIECE_BYTES) {
      await this.#flushLarge(pending);
      this.#pending = isEnd ? null : { entry, from: from + bytes.length, buffers: [], bytes: 0 };
      if (isEnd) await this.#endLarge();
    }
  }

  /** Gives the chunk's memory back as soon as nothing reads from it. */
  async endChunk(plaintext: Uint8Array): Promise<void> {
    const pending = this.#pending;
    if (pending !== null && pending.entry.sizeBytes <= SMALL_FILE_BYTES)
      // The start of a small file waits for the rest of it: a copy, so that the chunk need not wait.
      pending.buffers = pending.buffers.map((buffer) =>
        buffer.buffer === plaintext.buffer ? Buffer.from(buffer) : buffer,
      );
    if (this.#large === null && (pending === null || pending.entry.sizeBytes <= SMALL_FILE_BYTES)) freeNow(plaintext);
    else this.#inBatch.push(plaintext);
  }

  async end(): Promise<void> {
    assert(this.#pending === null, "every file that was begun is written to its end");
    await this.#writing;
  }

  async close(): Promise<void> {
    await this.#writing.catch(() => undefined);
    await this.#large?.close();
  }

  #pathOf(entry: FolderEntry): string {
    const slash = entry.path.lastIndexOf("/");
    if (slash > 0) this.#makeFolder(entry.path.slice(0, slash));
    return join(this.#root, entry.path);
  }

  #makeFolder(path: string): void {
    if (this.#folders.has(path)) return;
    mkdirSync(join(this.#root, path), { recursive: true });
    this.#folders.add(path);
  }

  #writeSmall(entry: FolderEntry, buffers: Uint8Array[]): void {
    const path = this.#pathOf(entry);
    const fd = openSync(path, CREATE, 0o666);
    try {
      const written = buffers.length === 0 ? 0 : writevSync(fd, buffers);
      // What is short here is short of space.
      if (written !== entry.sizeBytes) throw Object.assign(new Error("short write"), { code: "ENOSPC" });
    } finally {
      closeSync(fd);
    }
    this.#native.markQuarantine(path, ORIGIN_URL);
  }

  async #flushLarge({
    entry,
    from,
    buffers,
  }: {
    entry: FolderEntry;
    from: number;
    buffers: Uint8Array[];
  }): Promise<void> {
    if (this.#large === null) {
      const path = this.#pathOf(entry);
      this.#large = await open(path, CREATE, 0o666);
      this.#native.markQuarantine(path, ORIGIN_URL);
    }
    await this.#writing;
    for (const done of this.#inWrite) freeNow(done);
    this.#inWrite = this.#inBatch;
    this.#inBatch = [];
    this.#writing = writeWhole(this.#large, buffers, from);
    // Awaited with the next batch; until then it must not count as unhandled.
    this.#writing.catch(() => undefined);
  }

  async #endLarge(): Promise<void> {
    await this.#writing;
    for (const done of this.#inWrite) freeNow(done);
    this.#inWrite = [];
    await this.#large?.close();
    this.#large = null;
  }
}

export const verifyFolder = async (
  tools: DownloadTools,
  input: Jobs["verify"]["input"],
  context: JobContext,
): Promise<JobResult<"verify">> => {
  try {
    const { spec, directory, choice } = jobOf(input);
    const { list, take } = await tools.plans.of(spec, directory, choice, context.signal);
    const part = partPath(directory, spec);
    const turns = new Turns(context.signal);
    const buffer = Buffer.allocUnsafeSlow(WORK_BATCH_BYTES);
    let bytes = 0;
    for (const index of take) {
      const entry = defined(list.entries[index], "an entry that was chosen");
      if (entry.sha256 === null) continue;
      if (!(await holds(join(part, entry.path), entry, { buffer, turns })))
        return failWork("checksum_mismatch", `"${entry.path}" is not the file that was shared. Try again.`);
      bytes += entry.sizeBytes;
      context.progress(bytes);
    }
    return ok(null);
  } catch (error) {
    return err(writeErrorOf(error));
  }
};

export const finishFolder = async (
  tools: DownloadTools,
  input: Jobs["finish"]["input"],
  context: JobContext,
): Promise<JobResult<"finish">> => {
  try {
    const { spec, directory, choice } = jobOf(input);
    const plan = await tools.plans.of(spec, directory, choice, context.signal);
    const part = partPath(directory, spec);
    await syncEntries(tools.native, part, plan);
    reached("synced", spec.fileId);
    const { path, renamed } =
      plan.destination === null
        ? { path: await saveNew(tools, spec, { part, directory, name: choice.name }), renamed: new Map() }
        : await moveInto(tools.native, plan, { part, destination: plan.destination }, context);
    tools.lists.saved(spec, renamed);
    tools.plans.forget(spec.fileId);
    tools.native.fsyncDirectory(directory);
    reached("nameSynced", spec.fileId);
    return ok(path);
  } catch (error) {
    return err(writeErrorOf(error));
  }
};

/** All at once where the system can; else several at a time, because the file system's journal takes them together. */
const syncEntries = async (native: NativeFs, part: string, { list, take }: FolderPlan): Promise<void> => {
  // For a few files the whole file system, with what others write there, would take longer.
  if (take.length >= SYNC_TOGETHER_FILES && (await native.syncFileSystem(part))) return;
  const files = take.filter((index) => list.entries[index]?.sha256 != null);
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let at = next++; at < files.length; at = next++) {
      await using file = await open(join(part, list.entries[files[at] ?? 0]?.path ?? ""), constants.O_RDWR);
      await file.datasync();
    }
  };
  await Promise.all(Array.from({ length: SYNCS_AT_ONCE }, lane));
  const folders = new Set([""]);
  for (const index of take) {
    const { path, sha256 } = defined(list.entries[index], "an entry that was chosen");
    const names = path.split("/");
    for (let depth = 1; depth < names.length + (sha256 === null ? 1 : 0); depth += 1)
      folders.add(names.slice(0, depth).join("/"));
  }
  for (const folder of folders) native.fsyncDirectory(join(part, folder));
};

const saveNew = async (
  tools: DownloadTools,
  spec: SpecOfFolder,
  { part, directory, name }: { part: string; directory: string; name: string },
): Promise<string> => {
  const inode = inodeOf(lstatSync(part, { bigint: true }));
  return rename(tools, spec, { part, inode, directory, name: safeFileName(name) });
};

/** `renamed`: paths below the folder of entries that are there under other names than their own. */
const moveInto = async (
  native: NativeFs,
  { list, take, there }: FolderPlan,
  { part, destination }: { part: string; destination: string },
  context: JobContext,
): Promise<{ path: string; renamed: ReadonlyMap<number, string> }> => {
  const turns = new Turns(context.signal);
  const renamed = new Map<number, string>();
  const note = (index: number, path: string): void => {
    if (path !== join(destination, list.entries[index]?.path ?? "")) renamed.set(index, relative(destination, path));
  };
  for (const { index, path } of there) note(index, path);
  const ready = new Set([destination]);
  const touched = new Set<string>();
  for (const index of take) {
    const entry = defined(list.entries[index], "an entry that was chosen");
    const target = join(destination, entry.path);
    const folder = entry.sha256 === null ? target : dirname(target);
    ensureRealFolder(destination, folder, ready);
    if (entry.sha256 !== null) {
      const path = moveFile(native, join(part, entry.path), destination, entry.path);
      note(index, path);
      touched.add(dirname(path));
    }
    await turns.take(0);
  }
  for (const folder of touched) native.fsyncDirectory(folder);
  await rm(part, { recursive: true, force: true });
  return { path: destination, renamed };
};

/** Where it was moved to. Nothing is ever replaced: a name that is taken gets a number. */
const moveFile = (native: NativeFs, from: string, destination: string, entryPath: string): string => {
  for (const path of candidatesOf(destination, entryPath, FILE_NAME_SUFFIX_MAX)) {
    try {
      native.renameNoReplace(from, path);
      return path;
    } catch (error) {
      if (!isCode(error, "EEXIST")) throw error;
    }
  }
  return failWork("too_many_names", "Too many files in the folder have this name. Choose another folder.");
};

/** Makes the folder below `root`, and never goes through a link on the way. */
const ensureRealFolder = (root: string, folder: string, ready: Set<string>): void => {
  if (ready.has(folder)) return;
  assert(folder.length > root.length, "only folders below the destination are made");
  ensureRealFolder(root, dirname(folder), ready);
  const stats = lstatSync(folder, { throwIfNoEntry: false });
  if (stats === undefined) mkdirSync(folder);
  else if (!stats.isDirectory())
    failWork("not_writable", "Something else is in the place of a folder. Choose another download folder.");
  ready.add(folder);
};
