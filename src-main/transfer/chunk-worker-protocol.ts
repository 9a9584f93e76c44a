import type { Bytes } from "#shared/base/bytes.ts";
import type { LogLevel } from "#shared/base/env.ts";
import type { FileId } from "#shared/base/ids.ts";
import type { AppError, Result } from "#shared/base/result.ts";
import type { Payload } from "#shared/wire/frame.ts";
import type { FolderPart } from "#shared/wire/manifest.ts";
import type { ChunkStorage, DownloadCounters, SaveStatus } from "../store/chunks.ts";
import type { EntryRange, FolderChild } from "./folder-list.ts";

/**
 * Messages between the main thread and the chunk worker, one union per direction. Both ends are the same build, so they
 * are typed and not validated. Every job gets exactly one `done`; chunks to store travel in their own message, many at a
 * time, and are answered after the commit that holds them. Buffers are transferred, never copied.
 */
export type WorkError =
  | (AppError & {
      readonly type:
        | "disk_full"
        | "io_error"
        | "not_writable"
        | "file_missing"
        | "file_unreadable"
        | "file_changed"
        | "not_a_file"
        | "too_large"
        /** A folder with more, deeper or longer paths than can be shared. */
        | "folder_too_large"
        /** The list of a folder that somebody shared breaks its rules. */
        | "bad_folder"
        /** Nobody has sent the list yet. */
        | "list_missing"
        | "checksum_mismatch"
        | "missing_leaves"
        | "too_many_names"
        | "cancelled"
        | "worker_ended"
        /** A page of leaves whose connection ended before the worker had it. */
        | "frame_gone"
        /** SQLite found chunks.db damaged. It is repaired before the next job. */
        | "damaged"
        /** chunks.db cannot be opened; the types and words are those of OpenDatabaseError and NewerDatabaseError. */
        | "not_accessible"
        | "newer_database";
    })
  /**
   * Rows that are missing or were changed on disk; they have been removed and must be fetched again. Or chunks that cannot
   * be read from a received folder any more.
   */
  | (AppError & { readonly type: "corrupt_chunks"; readonly indices: number[] });

export const workError = (type: Exclude<WorkError["type"], "corrupt_chunks">, message: string): WorkError => ({
  type,
  message,
});

/** What the worker must know of a file to read, prove and write its chunks. */
export interface FileSpec {
  readonly fileId: FileId;
  readonly sizeBytes: number;
  readonly chunkBytes: number;
  readonly chunkCount: number;
  readonly root: Bytes;
  readonly key: Bytes;
  /** The plaintext is a folder, with its list at the end. */
  readonly folder?: { readonly listBytes: number; readonly listSha256: Bytes };
}

/** Entries of a folder that are wanted: null for all. `choose`: nothing but the list, until somebody has chosen. */
export type FolderSelection = readonly EntryRange[] | "choose" | null;

/** What a download of a folder is to become. */
export interface FolderChoice {
  readonly selection: FolderSelection;
  /** Of the folder, as its owner says. */
  readonly name: string;
}

/** Where a seeder's chunks come from: a plaintext file or folder, encrypted again, or rows of chunks.db. */
export type ChunkSource =
  | {
      readonly kind: "file";
      readonly path: string;
      /** Of a folder that was received, of which a part may be gone: which chunks that concerns is told by `corrupt_chunks`. */
      readonly mayLack?: boolean;
    }
  | { readonly kind: "chunks" };

/** A bulk frame whose first BULK_HEADER_BYTES are still to be written. */
export interface ReadFrame<P extends Payload = Payload> {
  readonly index: number;
  readonly bytes: P;
}

export interface HashedFile {
  readonly sizeBytes: number;
  readonly root: Bytes;
  readonly sha256: Bytes;
  readonly folder?: FolderPart;
}

/** How much of a folder a download is about. */
export interface FolderCounts {
  /** Files that were chosen, and those of them that were there already. */
  readonly filesWanted: number;
  readonly filesThere: number;
  /** Chunks that are not part of this download. */
  readonly skippedChunks: number;
  readonly skippedBytes: number;
}

export interface OpenedDownload {
  /** Bitmaps as in {@link PieceMap}. */
  readonly stored: Bytes;
  readonly pages: Bytes;
  readonly counters: DownloadCounters;
  /** The file is already complete under this name: the app died right after the rename. */
  readonly finishedPath: string | null;
  readonly folder: FolderCounts | null;
  /** Bitmap of the chunks that count as stored although they are not, because nobody wants them now; null: of a file. */
  readonly hidden: Bytes | null;
  /** Only a folder's list is wanted so far; with it the download is opened again. */
  readonly isPartial: boolean;
  /** The list is there, and nobody has chosen yet. */
  readonly isUndecided: boolean;
}

interface Job<Input, Output, Progress = never> {
  readonly input: Input;
  readonly output: Output;
  readonly progress: Progress;
}

export interface Jobs {
  /** Encrypts and hashes a file and keeps its leaves, for sharing. Progress: bytes read. */
  hashFile: Job<{ fileId: FileId; key: Bytes; path: string }, HashedFile, number>;
  /** Bytes of all files in a folder. */
  measureFolder: Job<{ path: string }, number>;
  /** The same as `hashFile`, of a folder and all that is in it. Progress: bytes read. */
  hashFolder: Job<{ fileId: FileId; key: Bytes; path: string }, HashedFile, number>;
  /** What lies in a folder within a shared folder; `list_missing` while its list is not here. */
  listFolder: Job<
    { spec: FileSpec; path: string; offset: number },
    { children: readonly FolderChild[]; total: number }
  >;
  /**
   * Makes the temporary file in the target folder and reserves its space. `unstoredBytes`: what chunks.db has still to
   * take, for this and all other downloads that run; without this one where part of a folder was chosen.
   */
  prepare: Job<{ spec: FileSpec; directory: string; unstoredBytes: number; folder?: FolderChoice }, null>;
  /** Scans what is there of a download. */
  open: Job<{ spec: FileSpec; directory: string; folder?: FolderChoice }, OpenedDownload>;
  /**
   * Takes what is stored of one file as chunks of another with the same plaintext: opened with the one key and sealed with
   * the other. Idempotent. Output: how many chunks were taken.
   */
  carryOver: Job<{ from: FileSpec; to: FileSpec }, number>;
  storeLeaves: Job<{ spec: FileSpec; page: number; payload: Payload }, "stored" | "rejected">;
  /**
   * Looks which chunks of a received folder can be read from where it was saved, by the names and sizes of its files.
   * Output: a bitmap as in {@link PieceMap}, and how many pages of leaves there are.
   */
  findSaved: Job<{ spec: FileSpec; path: string }, { held: Bytes; pages: number }>;
  /** `held`: the frame is for a link that takes held frames, so it stays in the engine, if the worker runs in one. */
  readLeaves: Job<{ spec: FileSpec; page: number; held?: boolean }, ReadFrame | null>;
  readChunks: Job<
    { spec: FileSpec; source: ChunkSource; indices: readonly number[]; held?: boolean },
    { frames: ReadFrame[]; unavailable: number[] }
  >;
  /** Progress: chunks written. */
  assemble: Job<{ spec: FileSpec; directory: string; folder?: FolderChoice }, null, number>;
  /** Progress: bytes read back. */
  verify: Job<{ spec: FileSpec; directory: string; sha256: Bytes; folder?: FolderChoice }, null, number>;
  /** Output: the path that the file was saved under. */
  finish: Job<{ spec: FileSpec; directory: string; name: string; folder?: FolderChoice }, string>;
  /**
   * `chunks`: frees the rows of a finished download. `everything`: also its leaves. With a `directory` also the temporary
   * file there, which alone is the `part`.
   */
  drop: Job<{ fileId: FileId; directory: string | null; what: "chunks" | "everything" | "part" }, null>;
  /** What chunks.db holds, in sums that add up. */
  measure: Job<Record<string, never>, ChunkStorage>;
  /** Removes what is kept of files that are not known. Output: how many those were. */
  sweep: Job<{ known: readonly FileId[] }, number>;
}
export type JobName = keyof Jobs;
export type JobResult<Name extends JobName> = Result<Jobs[Name]["output"], WorkError>;
export type JobHandlers = {
  readonly [Name in JobName]: (input: Jobs[Name]["input"], context: JobContext) => Promise<JobResult<Name>>;
};

export interface JobContext {
  readonly signal: AbortSignal;
  progress(value: number): void;
}

export type StartJob<Name extends JobName = JobName> = {
  [N in Name]: { readonly type: "start"; readonly job: number; readonly name: N; readonly input: Jobs[N]["input"] };
}[Name];

export interface ChunkToStore<P extends Payload = Payload> {
  readonly job: number;
  readonly index: number;
  readonly bytes: P;
}

/** A file of which something is kept when chunks.db has to be made anew. */
export interface KeptFile {
  readonly spec: FileSpec;
  /** It is being downloaded; of others the hashes are needed, for serving them. */
  readonly wantsChunks: boolean;
}

/** What could be taken over from a damaged chunks.db. */
export interface RepairReport {
  readonly chunks: number;
  readonly bytes: number;
  /** Files that have to be hashed, or their hashes fetched, again. */
  readonly withoutHashes: readonly FileId[];
}

export type ToWorker =
  | StartJob
  | { readonly type: "cancel"; readonly job: number }
  | {
      readonly type: "store";
      readonly spec: FileSpec;
      readonly counters: DownloadCounters;
      readonly chunks: readonly ChunkToStore[];
    }
  /** A buffer of frames that were sent, to be filled again. */
  | { readonly type: "recycle"; readonly buffer: ArrayBuffer }
  /** Answers `repairing`. */
  | { readonly type: "repair"; readonly files: readonly KeptFile[] }
  /** Finish what is pending, close the database, exit. */
  | { readonly type: "end" };

/** `gone`: its connection ended before the worker had it. */
export type StoreOutcome = SaveStatus | "rejected" | "gone" | WorkError;

export type FromWorker =
  /** The first message: whether chunks.db could be opened. After an error the worker ends. */
  | { readonly type: "opened"; readonly result: Result<void, WorkError> }
  /** chunks.db was damaged and is made anew: asks for what is to be kept. Jobs wait until it is `repaired`. */
  | { readonly type: "repairing" }
  | { readonly type: "repaired"; readonly report: RepairReport }
  /** A commit to chunks.db failed for want of space: time to release the ballast. */
  | { readonly type: "diskFull" }
  | { readonly type: "done"; readonly job: number; readonly result: Result<unknown, WorkError> }
  | { readonly type: "progress"; readonly job: number; readonly value: number }
  | { readonly type: "stored"; readonly results: readonly { readonly job: number; readonly outcome: StoreOutcome }[] }
  | {
      readonly type: "log";
      readonly level: LogLevel;
      readonly message: string;
      readonly fields: Record<string, unknown>;
    };

export interface WorkerSettings {
  readonly databasePath: string;
}
