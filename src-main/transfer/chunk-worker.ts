import { dirname } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { assert, assertNever } from "#shared/base/assert.ts";
import type { Log, LogLevel } from "#shared/base/env.ts";
import { WAL_CLOSE_PAGES_MAX } from "#shared/base/limits.ts";
import { err, messageOf, ok } from "#shared/base/result.ts";
import { loadNative } from "../../native/index.ts";
import { systemClock } from "../env.ts";
import { ChunkTables } from "../store/chunks.ts";
import { Database } from "../store/database.ts";
import { OpenDatabaseError } from "../store/errors.ts";
import { NewerDatabaseError } from "../store/migrate.ts";
import { chunksMigrations } from "../store/schema/chunks.ts";
import {
  type FromWorker,
  type JobHandlers,
  type JobName,
  type JobResult,
  type KeptFile,
  type StartJob,
  type ToWorker,
  type WorkError,
  type WorkerSettings,
  workError,
} from "./chunk-worker-protocol.ts";
import { carryOver } from "./worker/carry-over.ts";
import { assemble, drop, finish, openDownload, prepare } from "./worker/download.ts";
import { assembleFolder, finishFolder, listFolder, verifyFolder } from "./worker/folder-download.ts";
import { FolderLists, isFolder } from "./worker/folder-lists.ts";
import { FolderPlans } from "./worker/folder-plan.ts";
import { findSaved } from "./worker/folder-source.ts";
import { FrameBuffers } from "./worker/frame-buffers.ts";
import { Progress, WorkFailure } from "./worker/io.ts";
import { KnownFiles } from "./worker/known-files.ts";
import { hasherThread, ReadBacks } from "./worker/read-backs.ts";
import { ChunkReceiver, type Stored, storeLeaves } from "./worker/receive.ts";
import { isMarkedDamaged, markDamaged, salvage, setAsideIfDamaged } from "./worker/repair.ts";
import { readChunks, readLeaves } from "./worker/serve.ts";
import { hashFile } from "./worker/share.ts";
import { hashFolder, measureFolder } from "./worker/share-folder.ts";
import { SourceFiles } from "./worker/source-files.ts";
import { Orphans } from "./worker/sweep.ts";
import { verify } from "./worker/verify.ts";
import { checkpointThread, WalKeeper } from "./worker/wal-keeper.ts";

/**
 * Entry of the chunk worker: owns chunks.db, hashes, encrypts, decrypts and writes files. Jobs run side by side and give
 * way after every batch, so that storing and serving never wait for a long one.
 */
const port = parentPort;
assert(port !== null, "this module is the entry of a worker");
// workerData is typed `any` by Node; the client that starts this file passes exactly this.
const settings: WorkerSettings = workerData;

const post = (message: FromWorker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

const logAt =
  (level: LogLevel) =>
  (message: string, fields: Record<string, unknown> = {}): void =>
    post({ type: "log", level, message, fields });
const log: Omit<Log, "child"> = {
  debug: logAt("debug"),
  info: logAt("info"),
  warn: logAt("warn"),
  error: logAt("error"),
};

/** An error that says what to do is data for whoever waits for it; the jobs that came meanwhile end with the worker. */
const openDatabase = (): { db: Database; isNew: boolean } => {
  const { databasePath } = settings;
  try {
    let isNew = setAsideIfDamaged(databasePath);
    if (!isNew && Database.hasLostCommits(databasePath)) {
      markDamaged(databasePath);
      isNew = setAsideIfDamaged(databasePath);
    }
    const db = Database.openChunks(databasePath, chunksMigrations);
    post({ type: "opened", result: ok(undefined) });
    return { db, isNew };
  } catch (error) {
    if (error instanceof OpenDatabaseError && error.type === "damaged" && !isMarkedDamaged(databasePath)) {
      markDamaged(databasePath);
      return openDatabase();
    }
    const described = databaseErrorOf(error);
    if (described === null) throw error;
    post({ type: "opened", result: err(described) });
    // Messages that were posted are delivered all the same.
    process.exit(1);
  }
};

const databaseErrorOf = (error: unknown): WorkError | null => {
  if (error instanceof NewerDatabaseError) return { type: error.type, message: error.message };
  // A chunk store without a key: `wrong_key` cannot come of it.
  if (!(error instanceof OpenDatabaseError) || error.type === "wrong_key") return null;
  return { type: error.type, message: error.message };
};

const { db, isNew } = openDatabase();
db.onDiskFull(() => post({ type: "diskFull" }));
/** The entry of another thread, which lies beside this one. */
const besides = (name: string): URL => new URL(import.meta.url.replace(/chunk-worker(\.[jt]s)$/, `${name}$1`));
const wal = new WalKeeper({
  ...{ db, clock: systemClock, log },
  startThread: checkpointThread(besides("chunk-checkpointer"), settings.databasePath, log),
});
const tables = new ChunkTables(db, () => wal.committed());
const files = new KnownFiles(tables);
const lists = new FolderLists(tables, files);
const readBacks = new ReadBacks({ start: hasherThread(besides("chunk-hasher"), log), log });
const tools = {
  ...{ tables, files, lists, plans: new FolderPlans(lists), readBacks },
  ...{ native: loadNative(log), dataDirectory: dirname(settings.databasePath), shrinkWal: () => wal.shrink() },
};
const orphans = new Orphans(tools);
const serveTools = { tables, files, lists, sources: new SourceFiles(systemClock), buffers: new FrameBuffers() };
const answer = (results: Stored[]): void => {
  for (const { outcome } of results) if (typeof outcome === "object") endIfDamaged(outcome);
  post({ type: "stored", results });
};
const receiver = new ChunkReceiver(systemClock, tables, files, answer, (bytes) => wal.beforeChunks(bytes));

const handlers: JobHandlers = {
  hashFile: (input, context) => hashFile(tables, input, context),
  measureFolder,
  hashFolder: (input, context) => hashFolder(tables, input, context),
  listFolder: (input) => listFolder(lists, input),
  prepare: (input) => prepare(tools, input),
  open: (input, context) => {
    receiver.flush();
    orphans.spare(input.spec.fileId);
    return openDownload(tools, input, context);
  },
  storeLeaves: (input) => storeLeaves(tables, files, input),
  findSaved: (input, context) => findSaved(serveTools, input, context),
  readLeaves: (input) => readLeaves(files, input),
  readChunks: (input) => readChunks(serveTools, input),
  assemble: (input, context) => {
    receiver.flush();
    return isFolder(input.spec) ? assembleFolder(tools, input, context) : assemble(tools, input, context);
  },
  verify: (input, context) =>
    isFolder(input.spec) ? verifyFolder(tools, input, context) : verify(tools, input, context),
  finish: (input, context) => (isFolder(input.spec) ? finishFolder(tools, input, context) : finish(tools, input)),
  carryOver: (input, context) => {
    receiver.flush();
    return carryOver(tools, input, context);
  },
  drop: (input) => {
    receiver.flush();
    return drop(tools, input);
  },
  measure: async () => {
    receiver.flush();
    return ok(tables.measure());
  },
  sweep: (input, context) => orphans.sweep(input, context),
};

/** Whoever waits is told that the worker has ended; the next one sets the database aside before it opens a new one. */
const endIfDamaged = ({ type }: WorkError): void => {
  if (type !== "damaged") return;
  log.error("chunks.db is damaged");
  markDamaged(settings.databasePath);
  process.exit(1);
};

const repairs = { abort: new AbortController(), asked: Promise.withResolvers<readonly KeptFile[]>() };
const repair = async (): Promise<void> => {
  post({ type: "repairing" });
  const files = await repairs.asked.promise;
  const report = await salvage(tables, settings.databasePath, files, { signal: repairs.abort.signal, log });
  post({ type: "repaired", report });
};
/** Null when there is nothing to repair, or no more. */
let repairing: Promise<void> | null = isNew
  ? repair()
      .catch((error: unknown) => log.warn("the repair goes on with the next start", { reason: messageOf(error) }))
      .finally(() => {
        repairing = null;
      })
  : null;

const running = new Map<number, { abort: AbortController; ended: Promise<void> }>();

const runJob = async <Name extends JobName>(message: StartJob<Name>, signal: AbortSignal): Promise<void> => {
  const { job, name, input } = message;
  const progress = new Progress((value) => post({ type: "progress", job, value }));
  let result: JobResult<Name>;
  try {
    if (repairing !== null) await repairing;
    result = await handlers[name](input, { signal, progress: (value) => progress.report(value) });
  } catch (error) {
    // Handlers turn what they expect into data; anything else is a bug, told without paths.
    if (!(error instanceof WorkFailure))
      log.error("a job of the chunk worker failed", { job: name, reason: messageOf(error) });
    result = err(
      error instanceof WorkFailure ? error.error : workError("io_error", "Something went wrong. Try again."),
    );
  }
  if (!result.ok) endIfDamaged(result.error);
  progress.flush();
  post({ type: "done", job, result }, buffersOf(name, result));
};

/** Frames are handed over without a copy; those of one batch share a buffer. */
const buffersOf = (name: JobName, result: { ok: boolean; value?: unknown }): ArrayBuffer[] => {
  if (!result.ok || (name !== "readChunks" && name !== "readLeaves")) return [];
  const buffers = new Set<ArrayBuffer>();
  const collect = (value: unknown): void => {
    if (value instanceof Uint8Array && value.buffer instanceof ArrayBuffer) buffers.add(value.buffer);
    else if (Array.isArray(value)) value.forEach(collect);
    else if (typeof value === "object" && value !== null) Object.values(value).forEach(collect);
  };
  collect(result.value);
  return [...buffers];
};

const start = (message: StartJob): void => {
  const abort = new AbortController();
  const ended = runJob(message, abort.signal).finally(() => running.delete(message.job));
  running.set(message.job, { abort, ended });
};

const end = async (): Promise<void> => {
  repairs.abort.abort();
  repairs.asked.resolve([]);
  await repairing;
  receiver.flush();
  const jobs = [...running.values()];
  for (const { abort } of jobs) abort.abort();
  await Promise.allSettled(jobs.map(({ ended }) => ended));
  receiver.flush();
  await Promise.all([serveTools.sources.dispose(), wal.dispose(), readBacks.dispose()]);
  const { frames, copied } = db.checkpoint("noop");
  if (frames - copied > WAL_CLOSE_PAGES_MAX) db.disposeWithoutCheckpoint();
  else db.dispose();
  port.close();
};

port.on("message", (message: ToWorker) => {
  switch (message.type) {
    case "start":
      start(message);
      break;
    case "cancel":
      running.get(message.job)?.abort.abort();
      break;
    case "store":
      receiver.add(message.spec, message.counters, message.chunks);
      break;
    case "repair":
      repairs.asked.resolve(message.files);
      break;
    case "recycle":
      serveTools.buffers.give(message.buffer);
      break;
    case "end":
      void end();
      break;
    default:
      assertNever(message, "message to the chunk worker");
  }
});
