import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { CHUNKS_PER_FILE_MAX, LEAVES_PER_PAGE } from "#shared/base/limits.ts";
import { ChunkTables } from "../../src-main/store/chunks.ts";
import { Database } from "../../src-main/store/database.ts";
import { FilesTable } from "../../src-main/store/files.ts";
import { chunksMigrations } from "../../src-main/store/schema/chunks.ts";
import { TransfersTable } from "../../src-main/store/transfers.ts";
import { fileIdOfPart } from "../../src-main/transfer/file-name.ts";
import { openProfileDatabase } from "./profile-database.ts";

/** What a profile keeps in its data folder. */
const KNOWN = /^(?:(?:app|chunks|lock)\.db(?:-wal|-shm|-journal)?|lock\.pid|ballast|key\.json|uploads|server)$/;

/**
 * Whatever lies in the folders of a profile that does not run and belongs to nothing that it knows, in words; empty when
 * every byte has an owner. Reads the databases themselves, not what Weir says about them.
 */
export const orphansOf = async (dataDir: string, downloads: string): Promise<string[]> => {
  const found: string[] = [];
  for (const name of await readdir(dataDir)) if (!KNOWN.test(name)) found.push(`data folder: ${name}`);

  const app = await openProfileDatabase(dataDir);
  const transfers = new TransfersTable(app).all();
  const files = new Map(new FilesTable(app).all().map((record) => [record.offer.signed.manifest.fileId, record]));
  app.dispose();
  const unfinished = transfers.filter(({ status }) => status.kind !== "complete" && status.kind !== "cancelled");
  const parts = new Set<string | null>(unfinished.map(({ fileId }) => fileId));
  const saved = new Set(transfers.map(({ status }) => (status.kind === "complete" ? status.savedPath : "")));
  for (const name of await readdir(downloads)) {
    const isPart = parts.has(fileIdOfPart(name));
    if (!isPart && !saved.has(join(downloads, name))) found.push(`download folder: ${name}`);
  }

  if (!existsSync(join(dataDir, "chunks.db"))) return found;
  const db = Database.openChunks(join(dataDir, "chunks.db"), chunksMigrations);
  const { files: kept, pageBytes, freeBytes, overheadBytes } = new ChunkTables(db).measure();
  const known = new Set<string>([
    ...[...files].flatMap(([fileId, { sourcePath }]) => (sourcePath === null ? [] : [fileId])),
    ...transfers.map(({ fileId }) => fileId),
  ]);
  for (const { fileId, chunks } of kept) {
    if (!known.has(fileId)) found.push(`chunks.db: a file that nobody knows, ${fileId}`);
    else if (chunks > 0 && !parts.has(fileId))
      found.push(`chunks.db: ${chunks} chunks of ${fileId}, which is finished`);
  }
  // Rows that belong to no file at all are in none of the sums.
  const rows = (table: string): number =>
    db.sql.prepare<[], number>(`SELECT count(*) FROM ${table}`).pluck().get() ?? 0;
  const counted = kept.reduce((sum, { chunks }) => sum + chunks, 0);
  if (rows("chunks") !== counted) found.push(`chunks.db: ${rows("chunks") - counted} chunks of no file`);
  const pagesOfNoFile = db.sql
    .prepare<[], number>(
      `SELECT count(*) FROM leaf_pages WHERE NOT EXISTS (SELECT 1 FROM files WHERE files.file = leaf_pages.id / ${CHUNKS_PER_FILE_MAX / LEAVES_PER_PAGE})`,
    )
    .pluck()
    .get();
  if (pagesOfNoFile !== 0) found.push(`chunks.db: ${pagesOfNoFile} pages of hashes of no file`);
  const bytes = kept.reduce((sum, file) => sum + file.bytes, 0);
  if (bytes + freeBytes + overheadBytes !== pageBytes) found.push("chunks.db: its sums do not add up");
  const check = db.sql.pragma("integrity_check", { simple: true });
  if (check !== "ok") found.push(`chunks.db: ${String(check)}`);
  db.dispose();
  return found;
};
