import { assert, assertNever } from "#shared/base/assert.ts";
import type { Env, Log } from "#shared/base/env.ts";
import { err, messageOf, type Result } from "#shared/base/result.ts";
import type { HeldFrame, Payload } from "#shared/wire/frame.ts";
import type { DownloadCounters } from "../store/chunks.ts";
import type { StartWorker, WorkerChannel } from "./chunk-thread.ts";
import {
  type ChunkToStore,
  type FileSpec,
  type FromWorker,
  type JobName,
  type JobResult,
  type Jobs,
  type KeptFile,
  type RepairReport,
  type StoreOutcome,
  type ToWorker,
  type WorkError,
  type WorkerSettings,
  workError,
} from "./chunk-worker-protocol.ts";

export interface RunningJob<Name extends JobName> {
  readonly result: Promise<JobResult<Name>>;
  /** Asks it to end soon; it then answers `cancelled`, unless it was done already. */
  cancel(): void;
}

/** The chunk worker as the main thread sees it. Every job ends with a Result, also when the worker dies. */
export interface ChunkWorker {
  /**
   * Starts the worker and opens its database; one that is damaged is made anew. An error (`newer_database`, `not_accessible`, `disk_full`) says
   * what to do; jobs answer it too, until one finds the database in order again.
   */
  ready(): Promise<Result<void, WorkError>>;
  run<Name extends JobName>(
    name: Name,
    input: Jobs[Name]["input"],
    onProgress?: (value: Jobs[Name]["progress"]) => void,
  ): RunningJob<Name>;
  /**
   * Takes `bytes` over (its buffer is detached). Chunks of one turn of the event loop travel in one message; `onOutcome`
   * is called after the commit.
   */
  storeChunk(
    spec: FileSpec,
    counters: DownloadCounters,
    chunk: { index: number; bytes: Payload },
    onOutcome: (outcome: StoreOutcome) => void,
  ): void;
  /** Bytes of chunks that were handed over and are not committed yet. */
  readonly uncommittedBytes: number;
  /** Gives the buffer that the frames of a `readChunks` shared back, for the next batch. It is detached. */
  recycle(buffer: ArrayBuffer): void;
  /** Forgets what was read or received and is neither sent nor stored; every held frame comes to one of the three ends. */
  drop(frames: readonly Payload[]): void;
  /** Ends it in order: pending chunks are committed, jobs cancelled, the database closed. */
  dispose(): Promise<void>;
}

const ENDED = workError("worker_ended", "Weir is closing, or its disk worker failed. Try again.");

interface Running {
  readonly channel: WorkerChannel;
  readonly exited: Promise<void>;
  readonly opened: Promise<Result<void, WorkError>>;
}

type Waiting =
  | {
      readonly kind: "job";
      readonly resolve: (result: Result<unknown, WorkError>) => void;
      readonly progress: (value: number) => void;
    }
  | { readonly kind: "store"; readonly resolve: (outcome: StoreOutcome) => void };

/** Starts the worker when it is first needed, and again after it failed. */
export const createChunkWorker = (options: {
  readonly env: Pick<Env, "log">;
  readonly start: StartWorker;
  readonly databasePath: string;
  /** A commit failed for want of space; releasing the ballast lets deletions go through. */
  readonly onDiskFull?: () => void;
  /** Of a chunks.db that is damaged; asked when one is. */
  readonly filesToKeep?: () => readonly KeptFile[];
  readonly onRepaired?: (report: RepairReport) => void;
}): ChunkWorker => new Client(options);

class Client implements ChunkWorker {
  readonly #log: Log;
  readonly #startWorker: StartWorker;
  readonly #settings: WorkerSettings;
  readonly #onDiskFull: () => void;
  readonly #filesToKeep: () => readonly KeptFile[];
  readonly #onRepaired: (report: RepairReport) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #outgoing = new Map<FileSpec, { counters: DownloadCounters; chunks: ChunkToStore[] }>();
  #worker: Running | null = null;
  /** Holds frames also after its worker has ended. */
  #holder: WorkerChannel | null = null;
  #nextJob = 1;
  #uncommittedBytes = 0;
  #flushScheduled = false;
  #disposed = false;

  constructor({
    env,
    start,
    databasePath,
    onDiskFull = () => undefined,
    filesToKeep = () => [],
    onRepaired = () => undefined,
  }: Parameters<typeof createChunkWorker>[0]) {
    this.#filesToKeep = filesToKeep;
    this.#onRepaired = onRepaired;
    this.#log = env.log.child("chunk-worker");
    this.#startWorker = start;
    this.#settings = { databasePath };
    this.#onDiskFull = onDiskFull;
  }

  ready(): Promise<Result<void, WorkError>> {
    if (this.#disposed) return Promise.resolve(err(ENDED));
    this.#worker ??= this.#start();
    return this.#worker.opened;
  }

  run<Name extends JobName>(
    name: Name,
    input: Jobs[Name]["input"],
    onProgress: (value: Jobs[Name]["progress"]) => void = () => undefined,
  ): RunningJob<Name> {
    if (this.#disposed) return { result: Promise.resolve(err(ENDED)), cancel: () => undefined };
    // What was handed over before must also arrive before.
    this.#flush();
    const job = this.#nextJob++;
    const result = new Promise<JobResult<Name>>((resolve) => {
      this.#waiting.set(job, {
        kind: "job",
        // The worker answers a job with the result of its own name: the one place where that pairing is trusted.
        resolve: resolve as (result: Result<unknown, WorkError>) => void,
        progress: onProgress as (value: number) => void,
      });
    });
    this.#post({ type: "start", job, name, input } as ToWorker);
    return { result, cancel: () => this.#waiting.has(job) && this.#post({ type: "cancel", job }) };
  }

  storeChunk(
    spec: FileSpec,
    counters: DownloadCounters,
    chunk: { index: number; bytes: Payload },
    onOutcome: (outcome: StoreOutcome) => void,
  ): void {
    if (this.#disposed) {
      onOutcome(ENDED);
      return;
    }
    const job = this.#nextJob++;
    const { byteLength } = chunk.bytes;
    this.#uncommittedBytes += byteLength;
    const resolve = (outcome: StoreOutcome): void => {
      this.#uncommittedBytes -= byteLength;
      onOutcome(outcome);
    };
    this.#waiting.set(job, { kind: "store", resolve });
    const batch = this.#outgoing.get(spec);
    const item = { job, index: chunk.index, bytes: chunk.bytes };
    if (batch === undefined) this.#outgoing.set(spec, { counters, chunks: [item] });
    else {
      batch.counters = counters;
      batch.chunks.push(item);
    }
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(() => this.#flush());
  }

  get uncommittedBytes(): number {
    return this.#uncommittedBytes;
  }

  recycle(buffer: ArrayBuffer): void {
    // A worker that ended meanwhile has no use for it, and is not started for it.
    if (!this.#disposed) this.#worker?.channel.post({ type: "recycle", buffer }, [buffer]);
  }

  drop(frames: readonly Payload[]): void {
    const held = frames.filter((frame): frame is HeldFrame => !(frame instanceof Uint8Array));
    if (held.length > 0) this.#holder?.drop(held);
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#flush();
    this.#disposed = true;
    const worker = this.#worker;
    if (worker === null) return;
    worker.channel.post({ type: "end" });
    await worker.exited;
  }

  #flush(): void {
    this.#flushScheduled = false;
    for (const [spec, { counters, chunks }] of this.#outgoing) {
      const buffers = chunks.flatMap(({ bytes }) => (bytes instanceof Uint8Array ? [bytes.buffer] : []));
      this.#post({ type: "store", spec, counters, chunks }, [...new Set(buffers)]);
    }
    this.#outgoing.clear();
  }

  #post(message: ToWorker, transfer: ArrayBuffer[] = []): void {
    this.#worker ??= this.#start();
    this.#worker.channel.post(message, transfer);
  }

  #start(): Running {
    const opening = Promise.withResolvers<Result<void, WorkError>>();
    const ended = Promise.withResolvers<void>();
    let why = ENDED;
    const channel = this.#startWorker(this.#settings, {
      message: (message) => {
        if (message.type === "repairing") {
          this.#log.error("chunks.db was damaged; what can be proven of it is kept");
          channel.post({ type: "repair", files: this.#filesToKeep() });
          return;
        }
        if (message.type !== "opened") return this.#receive(message);
        if (!message.result.ok) {
          why = message.result.error;
          this.#log.error("chunks.db cannot be opened", { type: why.type });
        }
        opening.resolve(message.result);
      },
      failed: (error) => this.#log.error("the chunk worker failed", { reason: messageOf(error) }),
      exited: () => {
        if (this.#worker?.channel === channel) this.#worker = null;
        // What has not left yet is answered below, and must not reach the next one.
        this.#outgoing.clear();
        this.#failAll(why);
        opening.resolve(err(why));
        ended.resolve();
      },
    });
    this.#holder = channel;
    return { channel, exited: ended.promise, opened: opening.promise };
  }

  #failAll(why: WorkError): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const entry of waiting) {
      if (entry.kind === "job") entry.resolve(err(why));
      else entry.resolve(why);
    }
  }

  #receive(message: Exclude<FromWorker, { type: "opened" | "repairing" }>): void {
    switch (message.type) {
      case "done": {
        const entry = this.#take(message.job);
        assert(entry.kind === "job", "a job is answered by `done`");
        entry.resolve(message.result);
        return;
      }
      case "progress": {
        const entry = this.#waiting.get(message.job);
        if (entry?.kind === "job") entry.progress(message.value);
        return;
      }
      case "stored":
        for (const { job, outcome } of message.results) {
          const entry = this.#take(job);
          assert(entry.kind === "store", "a chunk is answered by `stored`");
          entry.resolve(outcome);
        }
        return;
      case "diskFull":
        this.#onDiskFull();
        return;
      case "repaired":
        this.#onRepaired(message.report);
        return;
      case "log":
        this.#log[message.level](message.message, message.fields);
        return;
      default:
        assertNever(message, "message of the chunk worker");
    }
  }

  #take(job: number): Waiting {
    const entry = this.#waiting.get(job);
    assert(entry !== undefined, "the worker answered something that nobody asked");
    this.#waiting.delete(job);
    return entry;
  }
}
