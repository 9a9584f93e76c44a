import { Worker } from "node:worker_threads";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Clock, Log } from "#shared/base/env.ts";
import { WAL_PAGES_MAX, WAL_REST_MS, WAL_WHOLE_FILE_BYTES } from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Database } from "../../store/database.ts";
import { INITIAL_WAL_STATE, stepWal, type WalEffect, type WalEvent, type WalState } from "../../store/wal-machine.ts";

/** A thread with a connection of its own that copies the WAL when it is told to. */
export interface CheckpointThread {
  pass(): void;
  /** Closes its connection; `exited` follows. */
  end(): void;
}

export interface CheckpointListener {
  /** `error`: why it could not copy. */
  passed(error: string | null): void;
  /** Nothing comes after it. */
  exited(): void;
}

export type StartCheckpointThread = (listener: CheckpointListener) => CheckpointThread;

/** Runs chunk-checkpointer, which is at this address. */
export const checkpointThread =
  (url: URL, databasePath: string, log: Pick<Log, "error">): StartCheckpointThread =>
  (listener) => {
    const thread = new Worker(url, { workerData: { databasePath }, name: "weir-checkpoints" });
    thread.on("message", (error: string | null) => listener.passed(error));
    thread.on("error", (error) => log.error("the checkpoint thread failed", { reason: messageOf(error) }));
    thread.once("exit", () => listener.exited());
    return { pass: () => thread.postMessage("pass"), end: () => thread.postMessage("end") };
  };

interface Running {
  readonly thread: CheckpointThread;
  readonly exited: Promise<void>;
}

/** Keeps the WAL of chunks.db small without stopping its writer, and empty while nothing is written. See wal-machine.ts. */
export class WalKeeper {
  readonly #db: Pick<Database, "checkpoint">;
  readonly #clock: Pick<Clock, "setTimer">;
  readonly #log: Pick<Log, "warn">;
  readonly #startThread: StartCheckpointThread;
  readonly #machine: MachineRunner<WalState, WalEvent, WalEffect>;
  #thread: Running | null = null;
  #restTimer: Disposable | null = null;
  #isLarge = false;
  #isWritten = true;
  #disposed = false;

  constructor(deps: {
    readonly db: Pick<Database, "checkpoint">;
    readonly clock: Pick<Clock, "setTimer">;
    readonly log: Pick<Log, "warn">;
    readonly startThread: StartCheckpointThread;
  }) {
    this.#db = deps.db;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#startThread = deps.startThread;
    this.#machine = new MachineRunner(INITIAL_WAL_STATE, stepWal, (effect) => this.#run(effect));
    // What a killed process left in the WAL is copied too.
    this.#waitForRest();
  }

  /** The writer has committed, and no transaction is open. */
  committed(): void {
    if (this.#disposed) return;
    this.#isWritten = true;
    if (this.#restTimer === null) this.#waitForRest();
    const isLarge = this.#isLarge;
    this.#isLarge = false;
    this.#dispatch((wal) => ({ type: "committed", wal, isLarge }));
  }

  /**
   * Before chunks are stored, of a file of `sizeBytes` or less: a WAL that grew to its limit all the same, because the thread is slower than the writer or a
   * disk error keeps it from copying, is copied now. @throws the disk error, when it is still there.
   */
  beforeChunks(sizeBytes: number): void {
    this.#isLarge ||= sizeBytes > WAL_WHOLE_FILE_BYTES;
    if (this.#db.checkpoint("noop").frames >= WAL_PAGES_MAX) this.#db.checkpoint("restart");
  }

  /**
   * Gives back at once what the WAL takes, most of which may be of rows that were deleted since: the disk has too little
   * room. False when a disk error or another connection keeps it from that.
   */
  shrink(): boolean {
    try {
      return this.#db.checkpoint("truncate").frames === 0;
    } catch (error) {
      this.#log.warn("the WAL could not be emptied", { reason: messageOf(error) });
      return false;
    }
  }

  /** The thread has closed its connection when it resolves; the writer's may be closed then. */
  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#restTimer?.dispose();
    this.#thread?.thread.end();
    await this.#thread?.exited;
  }

  #waitForRest(): void {
    this.#restTimer = this.#clock.setTimer(WAL_REST_MS, () => {
      this.#restTimer = null;
      if (this.#isWritten) {
        this.#isWritten = false;
        this.#waitForRest();
      } else this.#dispatch((wal) => ({ type: "rested", wal }));
    });
  }

  #dispatch(eventOf: (wal: ReturnType<Database["checkpoint"]>) => WalEvent): void {
    if (this.#disposed) return;
    try {
      this.#machine.dispatch(eventOf(this.#db.checkpoint("noop")));
    } catch (error) {
      // What was committed stays committed. An error that lasts comes up again where it can be told: `beforeChunks`.
      this.#log.warn("the WAL could not be copied", { reason: messageOf(error) });
    }
  }

  #run(effect: WalEffect): void {
    switch (effect.type) {
      case "pass":
        this.#thread ??= this.#start();
        this.#thread.thread.pass();
        return;
      case "end":
        this.#thread?.thread.end();
        return;
      case "finish":
        this.#db.checkpoint("passive");
        return;
      case "truncate":
        this.#db.checkpoint("truncate");
        return;
    }
  }

  #start(): Running {
    const ended = Promise.withResolvers<void>();
    const thread = this.#startThread({
      passed: (error) => {
        if (error !== null) this.#log.warn("the checkpoint thread could not copy", { reason: error });
        this.#dispatch((wal) => ({ type: "passed", wal, failed: error !== null }));
      },
      exited: () => {
        this.#thread = null;
        ended.resolve();
        this.#dispatch(() => ({ type: "exited" }));
      },
    });
    return { thread, exited: ended.promise };
  }
}
