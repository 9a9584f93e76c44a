import { assert, assertNever } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { FileId, Generation, UserId } from "#shared/base/ids.ts";
import {
  REQUEST_WINDOW_BYTES,
  REQUEST_WINDOW_CHUNKS,
  REQUEST_WINDOW_START_BYTES,
  REQUEST_WINDOWS_MAX,
  STORE_BACKLOG_BYTES_MAX,
  TRANSFER_WEIGHTS,
} from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import type { TransferPriority } from "#shared/ipc/views.ts";
import type { Payload } from "#shared/wire/frame.ts";
import { chunkLength } from "#shared/wire/manifest.ts";
import { pageCountOf } from "../crypto/hash-tree.ts";
import type { AppMessage } from "../links/links.ts";
import { reached } from "../steps.ts";
import type { FileRecord } from "../store/files.ts";
import type { FolderProgress, TransferRecord, TransferStatus } from "../store/transfers.ts";
import type { ChunkWorker, RunningJob } from "./chunk-worker-client.ts";
import type { FileSpec, FolderChoice, JobName, StoreOutcome, WorkError } from "./chunk-worker-protocol.ts";
import { specOf } from "./files.ts";
import { PieceMap } from "./piece-map.ts";
import type { Fault } from "./seeder-sessions.ts";
import { SpeedMeter } from "./speed-meter.ts";
import type { SteadyLinks } from "./steady-links.ts";
import { step } from "./transfer-machine.ts";
import {
  cancelledState,
  completeState,
  type Effect,
  type Event,
  type FrameId,
  failedState,
  initialState,
  isReceiving,
  type Setup,
  type State,
  storedCountOf,
} from "./transfer-state.ts";

/** What a download needs of those around it. */
export interface DownloadDeps {
  readonly env: Env;
  readonly worker: ChunkWorker;
  readonly links: Pick<SteadyLinks, "send" | "release" | "connect">;
  /** Whom it may ask. */
  readonly seeders: (fileId: FileId) => UserId[];
  readonly drainTimeoutMs: number;
  /** Gives a tag under which this session's frames and messages come back to {@link Download}. */
  readonly openRoute: (download: Download, session: number, peer: UserId, generation: Generation) => number;
  readonly closeRoute: (peer: UserId, generation: Generation, tag: number) => void;
  /** False when it could not be written yet. Never throws. */
  readonly save: (record: TransferRecord) => boolean;
  /** The state changed; `phase` when it is another kind of state. */
  readonly onChanged: (download: Download, change: "progress" | "phase") => void;
  /** A seeder is not asked any more, for something that no honest one does. */
  readonly onFault: (download: Download, peer: UserId, fault: Fault) => void;
}

/** A received frame that the machine has not decided about yet. */
interface HeldFrame {
  readonly peer: UserId;
  readonly releaseTo: Generation;
  readonly payload: Payload;
  /** Size of the whole frame, which is what credit is given back for. */
  readonly frameBytes: number;
}

/** Bytes and speed per seeder, for the view. */
interface SeederTotals {
  readonly speed: SpeedMeter;
  chunks: number;
}

type Untimed<E> = E extends unknown ? Omit<E, "now"> : never;

/** The shell of one download: runs the machine's effects and feeds the results back as events. */
export class Download implements Disposable {
  readonly file: FileRecord;
  readonly spec: FileSpec;
  readonly startedAtMs: number;
  readonly speed = new SpeedMeter();
  readonly totalsByPeer = new Map<UserId, SeederTotals>();
  readonly #deps: DownloadDeps;
  readonly #runner: MachineRunner<State, Event, Effect>;
  readonly #routes = new Map<number, { peer: UserId; generation: Generation; tag: number }>();
  readonly #frames = new Map<FrameId, HeldFrame>();
  #nextFrame: FrameId = 1;
  #work: RunningJob<JobName> | null = null;
  #timer: Disposable | null = null;
  #directory: string;
  #folder: FolderProgress | null;
  /** Another part of the folder was chosen: it rests, and goes on with that. */
  #choosesAgain = false;
  #priority: TransferPriority;
  #savedKind: State["kind"];
  #isSaved = true;
  #cleaned: boolean;
  #dropping: Promise<boolean> = Promise.resolve(true);
  #disposed = false;

  constructor(deps: DownloadDeps, file: FileRecord, record: TransferRecord) {
    this.#deps = deps;
    this.file = file;
    this.spec = specOf(file.offer);
    this.#directory = record.directory;
    this.#folder = file.offer.folder === undefined ? null : (record.folder ?? { selection: null, counts: null });
    this.#priority = record.priority;
    this.startedAtMs = record.startedAtMs;
    this.#cleaned = record.status.kind === "complete" && record.status.cleaned;
    const initial = stateOf(setupOf(this.spec, deps), record);
    this.#savedKind = initial.kind;
    this.#runner = new MachineRunner(initial, step, (effect, state) => this.#run(effect, state));
  }

  get state(): State {
    return this.#runner.state;
  }

  /** The folder that the file is saved in. */
  get directory(): string {
    return this.#directory;
  }

  /** Resolves when nothing of it is being deleted any more; false when something could not be. */
  get dropped(): Promise<boolean> {
    return this.#dropping;
  }

  get priority(): TransferPriority {
    return this.#priority;
  }

  /** Holds from the next request on. */
  prioritize(priority: TransferPriority): void {
    this.#priority = priority;
    this.checkpoint();
  }

  /** What was received stays where it is; only the file goes elsewhere. */
  moveTo(directory: string): void {
    this.#directory = directory;
    this.checkpoint();
  }

  /** What was chosen of a folder, and what is known of that; null for a file. */
  get folder(): FolderProgress | null {
    return this.#folder;
  }

  /** Another part of a folder is wanted from now on. */
  choose(selection: FolderProgress["selection"]): void {
    this.#folder = { selection, counts: null };
    this.checkpoint();
    if (!isReceiving(this.state) && this.state.kind !== "opening") return;
    this.#choosesAgain = true;
    this.dispatch({ type: "pause" });
  }

  #choice(): { folder?: FolderChoice } {
    const { name } = this.file.offer;
    return this.#folder === null ? {} : { folder: { selection: this.#folder.selection, name } };
  }

  dispatch(event: Untimed<Event>): void {
    if (this.#disposed) return;
    // Only the time is added, so it is a member of the union again.
    this.#runner.dispatch({ ...event, now: this.#deps.env.clock.monotonicMs() } as Event);
  }

  /** A seeder's link was given up, and another has its place already, over which these sessions were opened. */
  moveSeeder(peer: UserId, from: Generation, to: Generation, sessions: readonly number[]): void {
    for (const session of sessions) {
      const route = this.#routes.get(session);
      if (route !== undefined) this.#routes.set(session, { ...route, generation: to });
    }
    this.dispatch({ type: "seederMoved", peer, from, to, sessions });
  }

  onFrame(session: number, kind: "chunk" | "leaves", index: number, held: HeldFrame): void {
    const frame = this.#nextFrame++;
    this.#frames.set(frame, held);
    if (kind === "chunk") reached("arrived", this.spec.fileId, index);
    if (this.#disposed) {
      this.#release(frame);
      return;
    }
    if (kind === "chunk") this.dispatch({ type: "chunkArrived", session, index, frame });
    else this.dispatch({ type: "leavesArrived", session, page: index, frame });
  }

  /** Deletes what a download that had ended left behind, because the app died before it was done. */
  clean(): void {
    if (this.state.kind === "complete" && !this.#cleaned) this.#drop("chunks");
    const revoked = this.state.kind === "failed" && this.state.error.type === "access_revoked";
    if (this.state.kind === "cancelled" || revoked) this.#drop("everything");
  }

  dispose(): void {
    this.#disposed = true;
    this.#timer?.dispose();
    this.#work?.cancel();
    for (const frame of this.#frames.keys()) this.#release(frame);
  }

  #run(effect: Effect, state: State): void {
    const { links } = this.#deps;
    switch (effect.type) {
      case "wantLinks":
        for (const peer of this.#deps.seeders(this.spec.fileId)) links.connect(peer);
        return;
      case "open": {
        const { session, peer, generation } = effect;
        const tag = this.#deps.openRoute(this, session, peer, generation);
        this.#routes.set(session, { peer, generation, tag });
        this.#send(session, (t) => ({ type: "open", fileId: this.spec.fileId, tag: t }));
        return;
      }
      case "request":
        this.#send(effect.session, (tag) => ({
          ...{ type: "request", tag, indices: [...effect.indices] },
          weight: TRANSFER_WEIGHTS[this.#priority],
        }));
        reached("asked", this.spec.fileId, effect.indices);
        return;
      case "cancelRequests":
        this.#send(effect.session, (tag) => ({ type: "cancel", tag, indices: [...effect.indices] }));
        return;
      case "requestLeaves":
        this.#send(effect.session, (tag) => ({ type: "leaves", tag, page: effect.page }));
        return;
      case "stop":
        this.#send(effect.session, (tag) => ({ type: "stop", tag }));
        reached("stopSent", this.spec.fileId);
        return;
      case "forget":
        this.#forget(effect.session);
        return;
      case "storeChunk":
        this.#storeChunk(effect, state);
        return;
      case "storeLeaves":
        this.#storeLeaves(effect);
        return;
      case "dropFrame":
        this.#release(effect.frame);
        return;
      case "scan":
        this.#scan(effect.run);
        return;
      case "assemble":
        this.#assemble(effect.run);
        return;
      case "verify":
        this.#verify(effect.run);
        return;
      case "finish":
        this.#finish(effect.run);
        return;
      case "stopWork":
        this.#work?.cancel();
        return;
      case "dropChunks":
        this.#drop(effect.what);
        return;
      case "checkpoint":
        this.checkpoint();
        return;
      case "publish":
        this.#deps.onChanged(this, state.kind === this.#savedKind ? "progress" : "phase");
        if (state.kind !== this.#savedKind) reached(state.kind, this.spec.fileId);
        this.#savedKind = state.kind;
        if (!this.#choosesAgain || state.kind !== "idle") return;
        this.#choosesAgain = false;
        this.dispatch({ type: "queue" });
        return;
      case "proceed":
        this.dispatch({ type: "proceed" });
        return;
      case "report":
        this.#deps.onFault(this, effect.peer, effect.fault);
        return;
      case "wakeAt":
        this.#wakeAt(effect.atMs);
        return;
      default:
        assertNever(effect, "effect of a download");
    }
  }

  /** Writes down where it stands. What was downloaded is in chunks.db, committed chunk by chunk. */
  checkpoint(): void {
    const { state } = this;
    this.#isSaved = this.#deps.save({
      fileId: this.spec.fileId,
      directory: this.directory,
      priority: this.#priority,
      startedAtMs: this.startedAtMs,
      status: this.#statusOf(state),
      stored: storedCountOf(state),
      counters: state.counters,
      folder: this.#folder,
    });
    if (state.kind === "complete") reached("completed", this.spec.fileId);
  }

  #statusOf(state: State): TransferStatus {
    switch (state.kind) {
      case "complete":
        return { kind: "complete", savedPath: state.savedPath, cleaned: this.#cleaned };
      case "failed":
        return { kind: "failed", error: state.error };
      case "cancelled":
        return { kind: "cancelled" };
      case "idle":
      case "pausing":
        return { kind: state.rest === "paused" ? "paused" : "active" };
      default:
        return { kind: "active" };
    }
  }

  // ---- Links ------------------------------------------------------------------------------------------------------

  #send(session: number, message: (tag: number) => AppMessage): void {
    const route = this.#routes.get(session);
    // A link that is gone reports so by itself; there is nothing to do here.
    if (route !== undefined) this.#deps.links.send(route.peer, route.generation, message(route.tag));
  }

  #forget(session: number): void {
    const route = this.#routes.get(session);
    this.#routes.delete(session);
    if (route !== undefined) this.#deps.closeRoute(route.peer, route.generation, route.tag);
  }

  #take(frame: FrameId): HeldFrame {
    const held = this.#frames.get(frame);
    assert(held !== undefined, "every frame is decided about once");
    this.#frames.delete(frame);
    return held;
  }

  #release(frame: FrameId): void {
    const { peer, releaseTo, payload, frameBytes } = this.#take(frame);
    this.#deps.worker.drop([payload]);
    this.#deps.links.release(peer, releaseTo, frameBytes);
  }

  // ---- Work -------------------------------------------------------------------------------------------------------

  #storeChunk({ run, session, index, frame }: Extract<Effect, { type: "storeChunk" }>, state: State): void {
    const { peer, releaseTo, payload, frameBytes } = this.#take(frame);
    const { worker, links } = this.#deps;
    // Credit comes back with the hand-over, or a commit that waits for the disk would stop the link; unless the worker
    // has too much already, over all downloads.
    const hasRoom = worker.uncommittedBytes < STORE_BACKLOG_BYTES_MAX;
    if (hasRoom) links.release(peer, releaseTo, frameBytes);
    worker.storeChunk(this.spec, state.counters, { index, bytes: payload }, (outcome) => {
      if (!hasRoom) links.release(peer, releaseTo, frameBytes);
      if (outcome === "stored" || outcome === "replaced") this.#countBytes(peer, index);
      this.dispatch(storeEvent(outcome, { run, session, index, peer }));
    });
  }

  #countBytes(peer: UserId, index: number): void {
    const now = this.#deps.env.clock.monotonicMs();
    const bytes = chunkLength(this.spec, index);
    this.speed.add(bytes, now);
    const totals = this.totalsByPeer.get(peer) ?? { speed: new SpeedMeter(), chunks: 0 };
    totals.speed.add(bytes, now);
    totals.chunks += 1;
    this.totalsByPeer.set(peer, totals);
  }

  #storeLeaves({ run, session, page, frame }: Extract<Effect, { type: "storeLeaves" }>): void {
    const { peer, releaseTo, payload, frameBytes } = this.#take(frame);
    const job = this.#deps.worker.run("storeLeaves", { spec: this.spec, page, payload });
    void job.result.then((result) => {
      this.#deps.links.release(peer, releaseTo, frameBytes);
      if (!result.ok && result.error.type === "frame_gone") this.dispatch({ type: "leavesGone", run, page });
      else if (!result.ok) this.dispatch({ type: "storeFailed", run, error: plainError(result.error) });
      else if (result.value === "stored") this.dispatch({ type: "leavesStored", run, page });
      else this.dispatch({ type: "leavesRejected", run, page, session, peer });
    });
  }

  #begin<Name extends JobName>(job: RunningJob<Name>): RunningJob<Name>["result"] {
    // Only ever used to cancel it.
    this.#work = { result: Promise.resolve({ ok: true, value: null }), cancel: () => job.cancel() };
    return job.result;
  }

  #scan(run: number): void {
    const { spec, directory } = this;
    const choice = this.#choice();
    void this.#begin(this.#deps.worker.run("open", { spec, directory, ...choice })).then((result) => {
      if (!result.ok) return this.#workFailed(run, result.error);
      const { stored, pages, counters, finishedPath, folder, hidden, isPartial, isUndecided } = result.value;
      const { selection } = this.#folder ?? {};
      if (this.#folder !== null && folder !== null && choice.folder?.selection === selection)
        this.#folder = { ...this.#folder, counts: folder };
      // The list is there; the rest waits until somebody has chosen.
      if (isUndecided) return this.dispatch({ type: "pause" });
      this.dispatch({
        type: "opened",
        run,
        stored: PieceMap.fromBytes(spec.chunkCount, stored),
        pages: PieceMap.fromBytes(pageCountOf(spec.chunkCount), pages),
        counters,
        finishedPath,
        isPartial,
        hidden: hidden === null ? null : PieceMap.fromBytes(spec.chunkCount, hidden),
      });
    });
  }

  #assemble(run: number): void {
    const { spec, directory } = this;
    const onProgress = (chunks: number): void => this.dispatch({ type: "assembleProgress", run, chunks });
    void this.#begin(this.#deps.worker.run("assemble", { spec, directory, ...this.#choice() }, onProgress)).then(
      (result) => {
        if (result.ok) this.dispatch({ type: "assembled", run });
        else this.#workFailed(run, result.error);
      },
    );
  }

  #verify(run: number): void {
    const { spec, directory } = this;
    const { sha256 } = this.file.offer;
    const input = { spec, directory, sha256, ...this.#choice() };
    void this.#begin(this.#deps.worker.run("verify", input)).then((result) => {
      if (result.ok) this.dispatch({ type: "verified", run });
      else this.#workFailed(run, result.error);
    });
  }

  #finish(run: number): void {
    const { spec, directory } = this;
    const { name } = this.file.offer;
    const input = { spec, directory, name, ...this.#choice() };
    void this.#begin(this.#deps.worker.run("finish", input)).then((result) => {
      if (result.ok) reached("finished", spec.fileId);
      if (result.ok) this.dispatch({ type: "finished", run, savedPath: result.value });
      else this.#workFailed(run, result.error);
    });
  }

  #workFailed(run: number, error: WorkError): void {
    if (error.type === "corrupt_chunks") {
      this.dispatch({ type: "chunksLost", run, indices: error.indices });
      this.#recount();
    } else this.dispatch({ type: "workFailed", run, error: plainError(error) });
  }

  /** Files that were there are not any more, so more of the folder is part of this download. */
  #recount(): void {
    const { state } = this;
    const counts = this.#folder?.counts ?? null;
    if (this.#folder === null || counts === null || !("pieces" in state)) return;
    const skippedChunks = state.pieces.hidden?.count ?? 0;
    const skippedBytes = Math.max(
      0,
      counts.skippedBytes - (counts.skippedChunks - skippedChunks) * this.spec.chunkBytes,
    );
    this.#folder = { ...this.#folder, counts: { ...counts, skippedChunks, skippedBytes } };
  }

  #drop(what: "chunks" | "everything"): void {
    // The chunks of a finished file that nobody knows to be finished are dropped at the next start.
    if (what === "chunks" && !this.#isSaved) return;
    this.#dropping = this.#dropNow(what);
  }

  async #dropNow(what: "chunks" | "everything"): Promise<boolean> {
    const { worker, env } = this.#deps;
    const input = { fileId: this.spec.fileId, directory: what === "everything" ? this.directory : null, what };
    let result = await worker.run("drop", input).result;
    // The ballast was given up when the disk was found to be full: now there is room for a deletion.
    if (!result.ok && result.error.type === "disk_full") result = await worker.run("drop", input).result;
    if (!result.ok) {
      env.log.warn("what a download left is deleted at the next start", { type: result.error.type });
      return false;
    }
    if (this.#disposed) return true;
    this.#cleaned = true;
    if (what === "chunks") this.checkpoint();
    return true;
  }

  // ---- Time -------------------------------------------------------------------------------------------------------

  #wakeAt(atMs: number | null): void {
    this.#timer?.dispose();
    this.#timer = null;
    if (atMs === null) return;
    const { clock } = this.#deps.env;
    this.#timer = clock.setTimer(Math.max(0, Math.ceil(atMs - clock.monotonicMs())), () => {
      // Timers may fire a moment early, and the machine, which asked for this time, would not ask again.
      if (clock.monotonicMs() < atMs) this.#wakeAt(atMs);
      else this.dispatch({ type: "wake" });
    });
  }
}

const storeEvent = (
  outcome: StoreOutcome,
  { run, session, index, peer }: { run: number; session: number; index: number; peer: UserId },
): Untimed<Event> => {
  switch (outcome) {
    case "stored":
    case "replaced":
      return { type: "chunkStored", run, session, index };
    case "duplicate":
      return { type: "chunkDuplicate", run, session, index };
    case "rejected":
      return { type: "chunkRejected", run, session, index, peer };
    case "gone":
      return { type: "chunkGone", run, index };
    default:
      return { type: "storeFailed", run, error: plainError(outcome) };
  }
};

const plainError = ({ type, message }: WorkError): { type: string; message: string } => ({ type, message });

const setupOf = ({ chunkCount, chunkBytes }: FileSpec, { drainTimeoutMs, env }: DownloadDeps): Setup => {
  const windowChunks = Math.min(REQUEST_WINDOW_CHUNKS, Math.floor(REQUEST_WINDOW_BYTES / chunkBytes));
  const startChunks = Math.floor(REQUEST_WINDOW_START_BYTES / chunkBytes);
  const seed = new DataView(env.random.bytes(4).buffer).getUint32(0);
  const backlogChunks = REQUEST_WINDOWS_MAX * windowChunks;
  return { chunkCount, windowChunks, startChunks, backlogChunks, drainTimeoutMs, seed };
};

/** A download as it was written down; one that was active begins queued. */
const stateOf = (setup: Setup, { status, stored, counters }: TransferRecord): State => {
  switch (status.kind) {
    case "active":
      return initialState(setup, { rest: "queued", storedCount: stored, counters });
    case "paused":
      return initialState(setup, { rest: "paused", storedCount: stored, counters });
    case "failed":
      return failedState(setup, { error: status.error, storedCount: stored, counters });
    case "complete":
      return completeState(setup, { savedPath: status.savedPath, storedCount: stored, counters });
    case "cancelled":
      return cancelledState(setup, counters);
    default:
      return assertNever(status, "status of a transfer");
  }
};
