import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { bytesEqual } from "#shared/base/bytes.ts";
import type { Log } from "#shared/base/env.ts";
import type { FileId } from "#shared/base/ids.ts";
import { CHUNKS_PER_FILE_MAX, LEAVES_PER_PAGE } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { type ChunkCipher, createChunkCipher } from "../../crypto/chunk-cipher.ts";
import { HASH_BYTES, leavesInPage, pageCountOf, rootOf } from "../../crypto/hash-tree.ts";
import type { ChunkTables } from "../../store/chunks.ts";
import { type SalvagedRow, SalvagePages } from "../../store/salvage-pages.ts";
import type { FileSpec, KeptFile, RepairReport } from "../chunk-worker-protocol.ts";
import { isFolder, unseal } from "./folder-lists.ts";
import { failWork, Turns, writeErrorOf } from "./io.ts";

/**
 * A chunks.db that SQLite finds damaged is set aside in a folder beside it, and what can still be proven of it is taken over
 * into a new one: chunks by their tag, hashes by the root that the owner signed. The folder is there until that is done, so
 * a kill in the middle only makes it begin again.
 *
 *   chunks.db.damaged/   database, wal     set aside; empty: about to be
 *   chunks.db.salvaged/                    done, about to be deleted
 */
const asideOf = (databasePath: string) => {
  const folder = `${databasePath}.damaged`;
  return { folder, database: join(folder, "database"), wal: join(folder, "wal") };
};
const doneOf = (databasePath: string): string => `${databasePath}.salvaged`;
const PAGES_PER_FILE_MAX = CHUNKS_PER_FILE_MAX / LEAVES_PER_PAGE;

/** It is damaged: the next start of the worker sets it aside. */
export const markDamaged = (databasePath: string): void => {
  mkdirSync(asideOf(databasePath).folder, { recursive: true, mode: 0o700 });
};

/** It was found damaged before, and is not repaired yet. */
export const isMarkedDamaged = (databasePath: string): boolean => existsSync(asideOf(databasePath).folder);

/** Before the database is opened. True when there is something to salvage. */
export const setAsideIfDamaged = (databasePath: string): boolean => {
  const { database, wal } = asideOf(databasePath);
  rmSync(doneOf(databasePath), { recursive: true, force: true });
  if (!isMarkedDamaged(databasePath)) return false;
  if (!existsSync(database)) {
    // The database last: as long as it is here, its WAL may be too.
    if (existsSync(`${databasePath}-wal`)) renameSync(`${databasePath}-wal`, wal);
    rmSync(`${databasePath}-shm`, { force: true });
    if (existsSync(databasePath)) renameSync(databasePath, database);
  }
  return true;
};

/** Takes over what is proven, then deletes what was set aside. @throws WorkFailure `cancelled`; then it goes on with the next start. */
export const salvage = async (
  tables: ChunkTables,
  databasePath: string,
  files: readonly KeptFile[],
  { signal, log }: { signal: AbortSignal; log: Pick<Log, "warn"> },
): Promise<RepairReport> => {
  const { folder, database, wal } = asideOf(databasePath);
  const salvaged = new Salvaged(tables, files);
  let pages: SalvagePages | null = null;
  try {
    if (signal.aborted) failWork("cancelled", "The repair was stopped.");
    pages = new SalvagePages(database, wal);
    // Hashes first: they tell which number a file had.
    for (const pass of ["hashes", "chunks"] as const) {
      const turns = new Turns(signal);
      for (const place of pages.places()) {
        for (const row of pages.rows(place)) salvaged.take(pass, row);
        salvaged.commit();
        await turns.take(0);
      }
      salvaged.endPass(pass);
    }
  } catch (error) {
    const failure = writeErrorOf(error);
    if (failure.type === "cancelled") throw error;
    // What was taken over by now stays; the rest is fetched again.
    log.warn("salvaging ended early", { type: failure.type, reason: messageOf(error) });
  } finally {
    pages?.dispose();
  }
  renameSync(folder, doneOf(databasePath));
  rmSync(doneOf(databasePath), { recursive: true, force: true });
  return salvaged.report();
};

interface Page {
  readonly root: Uint8Array;
  readonly leaves: Uint8Array;
}

/** Decides what is proven and writes it. */
class Salvaged {
  readonly #tables: ChunkTables;
  readonly #files: readonly KeptFile[];
  readonly #ciphers = new Map<FileId, ChunkCipher>();
  /** Rows of `files`, by the numbers of the damaged database; a number may have been used again. */
  readonly #rows = new Map<number, SalvagedRow[]>();
  /** Pages of hashes by file number and page. */
  readonly #pages = new Map<number, Map<number, Page[]>>();
  readonly #filesOfNumber = new Map<number, KeptFile[]>();
  readonly #proven = new Set<FileId>();
  readonly #wrong = new Map<number, number>();
  #pending: { file: number; index: number; data: Uint8Array }[] = [];
  #chunks = 0;
  #bytes = 0;

  constructor(tables: ChunkTables, files: readonly KeptFile[]) {
    this.#tables = tables;
    this.#files = files;
  }

  take(pass: "hashes" | "chunks", { id, values }: SalvagedRow): void {
    const [first, second] = values;
    if (pass === "chunks") {
      if (id >= CHUNKS_PER_FILE_MAX && values.length === 1 && first instanceof Uint8Array) this.#takeChunk(id, first);
      return;
    }
    if (values.length === 7 && typeof first === "string") push(this.#rows, id, { id, values });
    else if (values.length === 2 && first instanceof Uint8Array && second instanceof Uint8Array)
      this.#takePage(id, first, second);
    else if (values.length === 1 && id < CHUNKS_PER_FILE_MAX && first instanceof Uint8Array) this.#takeList(first);
  }

  endPass(pass: "hashes" | "chunks"): void {
    if (pass === "chunks") return;
    for (const kept of this.#files) this.#proveHashes(kept);
    for (const [number, rows] of this.#rows)
      for (const row of rows) {
        const kept = this.#files.find(({ spec }) => spec.fileId === row.values[0]);
        if (kept === undefined) continue;
        push(this.#filesOfNumber, number, kept);
        this.#takeCounters(kept, row);
      }
    this.#pages.clear();
  }

  report(): RepairReport {
    const lost = this.#files.filter(({ spec }) => spec.chunkCount > 0 && !this.#proven.has(spec.fileId));
    return { chunks: this.#chunks, bytes: this.#bytes, withoutHashes: lost.map(({ spec }) => spec.fileId) };
  }

  commit(): void {
    const pending = this.#pending;
    if (pending.length === 0) return;
    this.#pending = [];
    this.#tables.transaction(() => {
      for (const { file, index, data } of pending) {
        if (this.#tables.saveChunk(file, index, data) !== "stored") continue;
        this.#chunks += 1;
        this.#bytes += data.length;
      }
    });
  }

  #takeChunk(id: number, data: Uint8Array): void {
    const number = Math.floor(id / CHUNKS_PER_FILE_MAX);
    const index = id % CHUNKS_PER_FILE_MAX;
    // The row that tells the file may be lost, so all of them are tried; not for ever, as most of a number belong together.
    const isHopeless = (this.#wrong.get(number) ?? 0) >= WRONG_CHUNKS_MAX;
    const likely = this.#filesOfNumber.get(number) ?? [];
    const kept = [...likely, ...(isHopeless ? [] : this.#files)].find(
      (file) => file.wantsChunks && index < file.spec.chunkCount && this.#isChunk(file.spec, index, data),
    );
    if (kept === undefined) {
      this.#wrong.set(number, (this.#wrong.get(number) ?? 0) + 1);
      return;
    }
    if (!likely.includes(kept)) push(this.#filesOfNumber, number, kept);
    this.#pending.push({ file: this.#tables.ensure(kept.spec.fileId).file, index, data });
  }

  /** Only who has the file's key could have made it, for this place. */
  #isChunk({ fileId, key, chunkCount }: FileSpec, index: number, data: Uint8Array): boolean {
    const cipher = this.#ciphers.get(fileId) ?? createChunkCipher(fileId, key, chunkCount);
    this.#ciphers.set(fileId, cipher);
    return cipher.decrypt(index, data) !== null;
  }

  #takePage(id: number, root: Uint8Array, leaves: Uint8Array): void {
    const isWhole =
      leaves.length > 0 && leaves.length % HASH_BYTES === 0 && leaves.length <= LEAVES_PER_PAGE * HASH_BYTES;
    if (!isWhole || !bytesEqual(rootOf(leaves), root)) return;
    const number = Math.floor(id / PAGES_PER_FILE_MAX);
    const pages = this.#pages.get(number) ?? new Map<number, Page[]>();
    this.#pages.set(number, pages);
    push(pages, id % PAGES_PER_FILE_MAX, { root: Uint8Array.from(root), leaves: Uint8Array.from(leaves) });
  }

  /** All pages of a file together lead to its root, or none of them is kept: they are soon fetched, or made, again. */
  #proveHashes(kept: KeptFile): void {
    const { fileId, chunkCount, root } = kept.spec;
    const count = pageCountOf(chunkCount);
    for (const [number, versions] of this.#pages) {
      for (const pick of [0, -1]) {
        const pages = Array.from({ length: count }, (_, page) => versions.get(page)?.at(pick));
        if (!pages.every((page): page is Page => page !== undefined)) break;
        if (!pages.every(({ leaves }, page) => leaves.length === leavesInPage(chunkCount, page) * HASH_BYTES)) continue;
        const roots = new Uint8Array(count * HASH_BYTES);
        for (const [page, { root: pageRoot }] of pages.entries()) roots.set(pageRoot, page * HASH_BYTES);
        if (!bytesEqual(rootOf(roots), root)) continue;
        const { file } = this.#tables.ensure(fileId);
        for (const [page, { root: pageRoot, leaves }] of pages.entries())
          this.#tables.savePage(file, page, pageRoot, leaves);
        this.#proven.add(fileId);
        push(this.#filesOfNumber, number, kept);
        return;
      }
    }
  }

  /** Counters are only for people; a final name is compared with the file that is there. */
  #takeCounters({ spec }: KeptFile, { values }: SalvagedRow): void {
    const counts = values.slice(1, 5);
    const [requested, duplicate, late, rejected] = counts.map((value) => (typeof value === "number" ? value : 0));
    const { file } = this.#tables.ensure(spec.fileId);
    const [path, inode] = values.slice(5);
    this.#tables.transaction(() =>
      this.#tables.setCounters(file, {
        ...{ requested: requested ?? 0, duplicate: duplicate ?? 0 },
        ...{ late: late ?? 0, rejected: rejected ?? 0 },
      }),
    );
    if (typeof path === "string" && typeof inode === "string") this.#tables.setFinal(file, { path, inode });
  }

  #takeList(sealed: Uint8Array): void {
    const kept = this.#files.find(({ spec }) => isFolder(spec) && unseal(spec, sealed) !== null);
    if (kept === undefined) return;
    this.#tables.saveFolderList(this.#tables.ensure(kept.spec.fileId).file, Uint8Array.from(sealed));
  }
}

/** Chunks of one file number that fit no file, until only the likely ones are tried: those of files that nobody wants any more. */
const WRONG_CHUNKS_MAX = 32;

const push = <K, V>(map: Map<K, V[]>, key: K, value: V): void => {
  const known = map.get(key);
  if (known === undefined) map.set(key, [value]);
  else known.push(value);
};
