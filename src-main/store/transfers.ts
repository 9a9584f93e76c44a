import * as v from "valibot";
import { utf8 } from "#shared/base/bytes.ts";
import { type FileId, FileIdSchema } from "#shared/base/ids.ts";
import type { AppError } from "#shared/base/result.ts";
import type { TransferPriority } from "#shared/ipc/views.ts";
import { decodeJson } from "#shared/wire/json.ts";
import type { DownloadCounters } from "./chunks.ts";
import type { Database } from "./database.ts";

export type TransferStatus =
  | { readonly kind: "active" | "paused" | "cancelled" }
  | { readonly kind: "failed"; readonly error: AppError }
  /** `cleaned`: the chunk rows were deleted. */
  | { readonly kind: "complete"; readonly savedPath: string; readonly cleaned: boolean };

export interface TransferRecord {
  readonly fileId: FileId;
  readonly directory: string;
  readonly priority: TransferPriority;
  readonly startedAtMs: number;
  readonly status: TransferStatus;
  readonly stored: number;
  readonly counters: DownloadCounters;
  /** What was chosen of a folder, and what is known of it; null for a file. */
  readonly folder: FolderProgress | null;
}

export type FolderProgress = v.InferOutput<typeof FolderSchema>;

interface Row extends DownloadCounters {
  file_id: string;
  directory: string;
  priority: TransferPriority;
  started_at_ms: number;
  status: TransferStatus["kind"];
  error: string | null;
  saved_path: string | null;
  stored: number;
  cleaned: number;
  folder: string | null;
}

const number = v.pipe(v.number(), v.integer(), v.minValue(0));
const FolderSchema = v.object({
  selection: v.nullable(v.union([v.literal("choose"), v.array(v.tuple([number, number]))])),
  counts: v.nullable(
    v.object({
      filesWanted: number,
      filesThere: number,
      skippedChunks: number,
      skippedBytes: number,
    }),
  ),
});

const ErrorSchema = v.object({ type: v.string(), message: v.string() });

/** SQL of the table `transfers` in app.db. */
export class TransfersTable {
  readonly #statements;

  constructor(db: Database) {
    this.#statements = {
      save: db.sql.prepare<[Row]>(
        "INSERT INTO transfers VALUES (@file_id, @directory, @started_at_ms, @status, @error, @saved_path, @stored, " +
          "@requested, @duplicate, @late, @rejected, @cleaned, @folder, @priority) ON CONFLICT (file_id) DO UPDATE SET " +
          "directory = excluded.directory, started_at_ms = excluded.started_at_ms, status = excluded.status, " +
          "error = excluded.error, saved_path = excluded.saved_path, stored = excluded.stored, " +
          "requested = excluded.requested, duplicate = excluded.duplicate, late = excluded.late, " +
          "rejected = excluded.rejected, cleaned = excluded.cleaned, folder = excluded.folder, " +
          "priority = excluded.priority",
      ),
      all: db.sql.prepare<[], Row>("SELECT * FROM transfers ORDER BY started_at_ms, file_id"),
      remove: db.sql.prepare<[string]>("DELETE FROM transfers WHERE file_id = ?"),
    };
  }

  save({ fileId, directory, priority, startedAtMs, status, stored, counters, folder }: TransferRecord): void {
    this.#statements.save.run({
      file_id: fileId,
      directory,
      priority,
      started_at_ms: startedAtMs,
      status: status.kind,
      error: status.kind === "failed" ? JSON.stringify(status.error) : null,
      saved_path: status.kind === "complete" ? status.savedPath : null,
      stored,
      ...counters,
      cleaned: status.kind === "complete" && status.cleaned ? 1 : 0,
      folder: folder === null ? null : JSON.stringify(folder),
    });
  }

  /** In the order in which they were started. */
  all(): TransferRecord[] {
    return this.#statements.all.all().map((row) => ({
      fileId: v.parse(FileIdSchema, row.file_id),
      directory: row.directory,
      priority: row.priority,
      startedAtMs: row.started_at_ms,
      status: statusOf(row),
      stored: row.stored,
      counters: { requested: row.requested, duplicate: row.duplicate, late: row.late, rejected: row.rejected },
      folder: folderOf(row),
    }));
  }

  remove(fileId: FileId): void {
    this.#statements.remove.run(fileId);
  }
}

/** One that cannot be read any more is taken whole. */
const folderOf = ({ folder }: Row): FolderProgress | null => {
  if (folder === null) return null;
  const decoded = decodeJson(FolderSchema, utf8(folder));
  return decoded.ok ? decoded.value : { selection: null, counts: null };
};

const statusOf = (row: Row): TransferStatus => {
  switch (row.status) {
    case "failed": {
      const error = decodeJson(ErrorSchema, utf8(row.error ?? ""));
      return { kind: "failed", error: error.ok ? error.value : { type: "io_error", message: "The download stopped." } };
    }
    case "complete":
      return { kind: "complete", savedPath: row.saved_path ?? "", cleaned: row.cleaned === 1 };
    default:
      return { kind: row.status };
  }
};
