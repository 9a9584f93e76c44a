import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Bytes } from "#shared/base/bytes.ts";
import { CHUNK_TAG_BYTES, WORK_BATCH_BYTES } from "#shared/base/limits.ts";
import { loadNative } from "../../native/index.ts";
import { createChunkCipher } from "../../src-main/crypto/chunk-cipher.ts";
import { ContentMac } from "../../src-main/crypto/content-mac.ts";
import { ChunkTables } from "../../src-main/store/chunks.ts";
import { Database } from "../../src-main/store/database.ts";
import { chunksMigrations } from "../../src-main/store/schema/chunks.ts";
import { assemble, drop, partPath } from "../../src-main/transfer/worker/download.ts";
import { FolderLists } from "../../src-main/transfer/worker/folder-lists.ts";
import { FolderPlans } from "../../src-main/transfer/worker/folder-plan.ts";
import { KnownFiles } from "../../src-main/transfer/worker/known-files.ts";
import { hasherThread, ReadBacks, type StartHasher } from "../../src-main/transfer/worker/read-backs.ts";
import { verify } from "../../src-main/transfer/worker/verify.ts";
import { freshFileId, freshKey, hasherUrl, must, quietLog, writeRandomFile } from "../support/files.ts";

const SIZE = 3 * WORK_BATCH_BYTES + 12_345;
let directory: string;
const undo: (() => Promise<void> | void)[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "weir-read-backs-"));
});
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
  rmSync(directory, { recursive: true });
});

const sha256Of = (bytes: Uint8Array): Bytes => new Uint8Array(createHash("sha256").update(bytes).digest());

/** A temporary file with its content; `count` says how many threads there were and are. */
const prepare = async (start: StartHasher = hasherThread(hasherUrl, quietLog)) => {
  const count = { started: 0, running: 0 };
  const warnings: unknown[] = [];
  const readBacks = new ReadBacks({
    log: { warn: (_message, fields) => warnings.push(fields) },
    fileBytesMin: SIZE,
    start: (input, listener) => {
      count.started += 1;
      count.running += 1;
      return start(input, {
        result: (message) => listener.result(message),
        exited: () => {
          count.running -= 1;
          listener.exited();
        },
      });
    },
  });
  undo.push(() => readBacks.dispose());
  const spec = {
    ...{ fileId: freshFileId(), sizeBytes: SIZE, chunkBytes: 65_536, chunkCount: Math.ceil(SIZE / 65_536) },
    ...{ root: new Uint8Array(32), key: freshKey() },
  };
  const path = partPath(directory, spec);
  await writeRandomFile(path, SIZE);
  const content = await readFile(path);
  const sha256 = sha256Of(content);
  const progress: number[] = [];
  const abort = new AbortController();
  const verifyNow = async () => {
    const context = { signal: abort.signal, progress: (value: number) => progress.push(value) };
    const result = await verify({ readBacks }, { spec, directory, sha256 }, context);
    return result.ok ? "right" : result.error.type;
  };
  return { readBacks, spec, path, content, sha256, count, warnings, progress, abort, verifyNow };
};

const flipByte = async (path: string, at: number): Promise<void> => {
  await using file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  await file.write(Buffer.of((byte[0] ?? 0) ^ 1), 0, 1, at);
};

/** A thread that says what it is told to, at once. */
const claiming =
  (claim: (macKey: Bytes) => { sha256: Bytes; mac: Bytes }): StartHasher =>
  ({ macKey }, listener) => {
    listener.result({ type: "hashed", ...claim(macKey) });
    listener.exited();
    return { post: () => undefined };
  };

const macOf = (key: Bytes, content: Uint8Array): Bytes => {
  const mac = new ContentMac(key);
  // In other pieces than it is read in.
  for (let at = 0; at < content.length; at += 100_000) mac.update(content.subarray(at, at + 100_000));
  return mac.digest();
};

/** What `assemble` needs, with the chunks of the file. */
const prepareAssembling = async () => {
  const prepared = await prepare();
  const { spec, content, readBacks, abort } = prepared;
  const db = Database.openChunks(join(directory, "chunks.db"), chunksMigrations);
  undo.push(() => db.dispose());
  const tables = new ChunkTables(db);
  const files = new KnownFiles(tables);
  const { file } = tables.ensure(spec.fileId);
  const cipher = createChunkCipher(spec.fileId, spec.key, spec.chunkCount);
  const saveChunk = (index: number): void => {
    const plaintext = content.subarray(index * spec.chunkBytes, (index + 1) * spec.chunkBytes);
    const sealed = new Uint8Array(plaintext.length + CHUNK_TAG_BYTES);
    cipher.encryptInto(sealed, index, plaintext);
    tables.saveChunk(file, index, sealed);
  };
  tables.transaction(() => {
    for (let index = 0; index < spec.chunkCount; index += 1) saveChunk(index);
  });
  const lists = new FolderLists(tables, files);
  const tools = {
    ...{ tables, files, lists, readBacks, plans: new FolderPlans(lists), native: loadNative() },
    ...{ dataDirectory: directory, shrinkWal: () => true },
  };
  const assembleNow = async (progress: (chunks: number) => void = () => undefined) => {
    const result = await assemble(tools, { spec, directory }, { signal: abort.signal, progress });
    return result.ok ? "assembled" : result.error.type;
  };
  return { ...prepared, tools, saveChunk, assembleNow, loseChunk: (index: number) => tables.removeChunk(file, index) };
};

describe("assembling", () => {
  test("has the file read back to its end, and only if it comes to that", async () => {
    const { spec, sha256, readBacks, path, count, tools, loseChunk, saveChunk, assembleNow, verifyNow } =
      await prepareAssembling();
    await rm(path);
    loseChunk(20);
    expect(await assembleNow()).toBe("corrupt_chunks");
    expect(readBacks.of(spec.fileId)).toBeNull();
    saveChunk(20);
    // There is one thread at a time.
    const assembleAlone = async () => {
      await expect.poll(() => count.running).toBe(0);
      return assembleNow();
    };
    expect(await assembleAlone()).toBe("assembled");
    expect((await readBacks.of(spec.fileId)?.result)?.sha256).toEqual(sha256);
    await flipByte(path, 9);
    expect(await verifyNow()).toBe("checksum_mismatch");
    expect(await assembleAlone()).toBe("assembled");
    expect(await verifyNow()).toBe("right");
    expect(await assembleAlone()).toBe("assembled");
    must(await drop(tools, { fileId: spec.fileId, directory, what: "everything" }));
    expect(readBacks.of(spec.fileId)).toBeNull();
    expect(count.started).toBe(4);
  });

  test("that is cancelled ends the thread", async () => {
    const { spec, readBacks, count, abort, assembleNow } = await prepareAssembling();
    expect(await assembleNow(() => abort.abort())).toBe("cancelled");
    expect(readBacks.of(spec.fileId)).toBeNull();
    await expect.poll(() => count.running).toBe(0);
    expect(count.started).toBe(1);
  });
});

describe("a file that is read back while it is assembled", () => {
  test("is hashed as far as it is written, to its end, by a thread that ends by itself", async () => {
    const { readBacks, spec, path, content, sha256, count } = await prepare();
    const follower = readBacks.begin(spec, path);
    const first = WORK_BATCH_BYTES + 100;
    await using file = await open(path, "r+");
    await file.write(new Uint8Array(SIZE - first), 0, SIZE - first, first);
    follower?.written(first);
    // Time to read too much, if it did.
    await setTimeout(300);
    await file.write(content, first, SIZE - first, first);
    follower?.written(SIZE);
    const readBack = readBacks.of(spec.fileId);
    const result = await readBack?.result;
    expect(result?.sha256).toEqual(sha256);
    expect(result?.mac).toEqual(macOf(readBack?.macKey ?? new Uint8Array(), content));
    await expect.poll(() => count.running).toBe(0);
    expect(count.started).toBe(1);
  });

  test("is right when verified, which leaves nothing behind", async () => {
    const { readBacks, spec, path, verifyNow, progress } = await prepare();
    readBacks.begin(spec, path)?.written(SIZE);
    expect(await verifyNow()).toBe("right");
    expect(progress.at(-1)).toBe(SIZE);
    expect(readBacks.of(spec.fileId)).toBeNull();
  });

  test.each([0, SIZE - 1])("is found to be changed at byte %i after it was hashed", async (at) => {
    const { readBacks, spec, path, verifyNow, progress } = await prepare();
    readBacks.begin(spec, path)?.written(SIZE);
    expect(await readBacks.of(spec.fileId)?.result).not.toBeNull();
    await flipByte(path, at);
    expect(await verifyNow()).toBe("checksum_mismatch");
    // It was read twice, which nobody sees.
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
  });

  test("is found to be changed early while the rest of it is written", async () => {
    const { readBacks, spec, path, verifyNow } = await prepare();
    const follower = readBacks.begin(spec, path);
    follower?.written(2 * WORK_BATCH_BYTES);
    await flipByte(path, 7);
    follower?.written(SIZE);
    expect(await verifyNow()).toBe("checksum_mismatch");
  });

  test("is not hashed again when it is the same, and is when anything does not fit", async () => {
    const shared = new Uint8Array(32).fill(1);
    // Only whoever does not hash the file believes this.
    let content: Uint8Array = new Uint8Array();
    const believing = await prepare(claiming((key) => ({ sha256: believing.sha256, mac: macOf(key, content) })));
    await flipByte(believing.path, 5);
    content = await readFile(believing.path);
    believing.readBacks.begin(believing.spec, believing.path);
    expect(await believing.verifyNow()).toBe("right");
    expect(await believing.verifyNow()).toBe("checksum_mismatch");

    const wrongHash = await prepare(claiming((key) => ({ sha256: shared, mac: macOf(key, wrongHash.content) })));
    wrongHash.readBacks.begin(wrongHash.spec, wrongHash.path);
    expect(await wrongHash.verifyNow()).toBe("right");
    const wrongMac = await prepare(claiming(() => ({ sha256: wrongMac.sha256, mac: new Uint8Array(16) })));
    wrongMac.readBacks.begin(wrongMac.spec, wrongMac.path);
    expect(await wrongMac.verifyNow()).toBe("right");
  });

  test("that cannot be read back is hashed when it is verified", async () => {
    const { readBacks, spec, path, content, verifyNow, warnings, count } = await prepare();
    await truncate(path, 100);
    readBacks.begin(spec, path)?.written(SIZE);
    expect(await readBacks.of(spec.fileId)?.result).toBeNull();
    await writeFile(path, content);
    expect(await verifyNow()).toBe("right");
    await rm(path);
    readBacks.begin(spec, path)?.written(SIZE);
    expect(await readBacks.of(spec.fileId)?.result).toBeNull();
    // By the code alone: messages of the system hold paths.
    expect(warnings).toEqual([{ code: "SHORT" }, { code: "ENOENT" }]);
    expect(await verifyNow()).toBe("not_writable");
    expect(count).toEqual({ started: 2, running: 0 });
  });

  test("that is not known any more, as after a start, is hashed when it is verified", async () => {
    const { path, verifyNow, count } = await prepare();
    expect(await verifyNow()).toBe("right");
    await flipByte(path, 3);
    expect(await verifyNow()).toBe("checksum_mismatch");
    expect(count.started).toBe(0);
  });

  test("is left alone when it is forgotten, small, or another one is read back", async () => {
    const { readBacks, spec, path, count, verifyNow } = await prepare();
    expect(readBacks.begin({ ...spec, sizeBytes: SIZE - 1 }, path)).toBeNull();
    readBacks.begin(spec, path)?.written(WORK_BATCH_BYTES);
    expect(readBacks.begin({ ...spec, fileId: freshFileId() }, path)).toBeNull();
    const result = readBacks.of(spec.fileId)?.result;
    readBacks.forget(spec.fileId);
    expect(readBacks.of(spec.fileId)).toBeNull();
    expect(await result).toBeNull();
    expect(count).toEqual({ started: 1, running: 0 });
    expect(await verifyNow()).toBe("right");
  });

  test("is not waited for when verifying is cancelled, or the worker ends", async () => {
    const { readBacks, spec, path, count, abort, progress, verifyNow } = await prepare();
    // Its end is never told, so the thread would wait for ever.
    readBacks.begin(spec, path)?.written(WORK_BATCH_BYTES);
    const verified = verifyNow();
    await expect.poll(() => progress.at(-1)).toBe(SIZE);
    abort.abort();
    expect(await verified).toBe("cancelled");
    await expect.poll(() => count.running).toBe(0);
    readBacks.begin(spec, path)?.written(WORK_BATCH_BYTES);
    expect(count.running).toBe(1);
    await readBacks.dispose();
    expect(count.running).toBe(0);
    expect(readBacks.begin(spec, path)).toBeNull();
  });
});
