import { assertNever } from "#shared/base/assert.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { FileId, Generation, UserId } from "#shared/base/ids.ts";
import {
  HAVE_BITMAP_BYTES_MAX,
  HAVE_INTERVAL_MS,
  HAVE_RUNS_MAX,
  SEEDER_QUEUE_CHUNKS_MAX,
  SEEDER_READ_AHEAD,
  SEEDER_SESSIONS_PER_PEER_MAX,
  WORK_BATCH_BYTES,
} from "#shared/base/limits.ts";
import type { ControlOf, RefuseReason } from "#shared/wire/control.ts";
import { type BulkKind, withBulkHeader } from "#shared/wire/frame.ts";
import { chunkLength } from "#shared/wire/manifest.ts";
import { pageCountOf } from "../crypto/hash-tree.ts";
import type { AppMessage } from "../links/links.ts";
import { reached } from "../steps.ts";
import type { TokenBucket } from "./bandwidth.ts";
import type { ChunkWorker } from "./chunk-worker-client.ts";
import { type FileSpec, type ReadFrame, type WorkError, workError } from "./chunk-worker-protocol.ts";
import { FrameBatches } from "./frame-batches.ts";
import type { Offer } from "./offers.ts";
import { PieceMap } from "./piece-map.ts";
import type { SteadyLinks } from "./steady-links.ts";

/** What a downloader says to a seeder. */
export type SeederMessage = ControlOf<"open" | "leaves" | "request" | "cancel" | "stop">;

export interface SeederDeps {
  readonly env: Pick<Env, "log" | "clock">;
  readonly links: Pick<SteadyLinks, "send" | "sendBulk" | "takesHeldFrames">;
  readonly worker: Pick<ChunkWorker, "run" | "recycle" | "drop">;
  readonly offerOf: (fileId: FileId) => Offer | null;
  /** What there is to offer is being found out. */
  readonly isLooking: (fileId: FileId) => boolean;
  /** `later`: it has to be found out first; `refuse` also for files that nobody knows here. */
  readonly mayFetch: (peer: UserId, fileId: FileId) => "serve" | "later" | "refuse";
  /** The limit on what is sent, over everybody. */
  readonly upload: Pick<TokenBucket, "waitMs" | "take">;
  /** Somebody who may have the file fetches it, so they have, or soon will have, some of it. */
  readonly onInterest: (peer: UserId, fileId: FileId) => void;
  /** The file is not what was shared any more, or is gone. */
  readonly onChanged: (fileId: FileId) => void;
  /** These chunks of a received folder cannot be read any more. */
  readonly onLost: (fileId: FileId, indices: readonly number[]) => void;
  /** A chunk was handed to the link; `bytes` of the file. */
  readonly onServed: (served: { peer: UserId; fileId: FileId; bytes: number }) => void;
}

/** One file that a peer has open over one link. It ends with `stopped` or `refuse`, or with the link. */
interface Session {
  readonly tag: number;
  /** The link that it was opened over; the peer's `generation` may be that of one which it replaced. */
  readonly over: Generation;
  readonly spec: FileSpec;
  /** What the peer was told that we hold; null means everything. */
  told: PieceMap | null;
  toldLeaves: boolean;
  /** Chunks that wait to be read, in the order of the requests. */
  readonly queue: Set<number>;
  readonly pages: Set<number>;
  /** Batches in a row that it gets before the peer's other files have their turn; what the peer wants. */
  weight: number;
  turns: number;
  framesSent: number;
}

interface ReadyFrame extends ReadFrame {
  readonly session: Session;
  readonly kind: BulkKind;
}

/** All that one peer asks for over one link. Peers have their own queues, so none waits for another's link. */
interface Peer {
  readonly userId: UserId;
  generation: Generation;
  /** By tag, in the order in which they get their next turn. */
  readonly sessions: Map<number, Session>;
  /** Read and encrypted, waiting for the link. */
  ready: ReadyFrame[];
  batchesReading: number;
  /** The link said "full"; it tells when it has drained. */
  blocked: boolean;
}

/**
 * Serves chunks of the files that we share or receive. What it holds for one peer is bounded:
 * SEEDER_QUEUE_CHUNKS_MAX requests, and SEEDER_READ_AHEAD batches of encrypted chunks. The right to a chunk is checked when it is asked for and again right
 * before it is sent.
 */
export class Seeder implements Disposable {
  readonly #deps: SeederDeps;
  readonly #peers = new Map<UserId, Peer>();
  readonly #batches = new FrameBatches();
  readonly #owned = new DisposableStore();
  /** Until the limit lets something be sent again. */
  #waiting: Disposable | null = null;
  /** Files of which more has come since it was told. */
  readonly #untold = new Map<FileId, Disposable>();

  constructor(deps: SeederDeps) {
    this.#deps = deps;
  }

  /** `over`: the link that it came over, which may have replaced that of `generation`. */
  onMessage(userId: UserId, generation: Generation, message: SeederMessage, over = generation): void {
    if (this.#owned.disposed) return;
    // A link that was replaced still delivers what was on its way; the downloader asks again over the newer one.
    if ((this.#peers.get(userId)?.generation ?? generation) > generation) return;
    const peer = this.#peerOf(userId, generation);
    if (message.type === "open") {
      this.#open(peer, message.fileId, message.tag, over);
      return;
    }
    const session = peer.sessions.get(message.tag);
    if (session === undefined) {
      // Ended on this side meanwhile, or lost with a link that the peer still counts on.
      if (message.type === "stop") this.#send(peer, { type: "stopped", tag: message.tag, framesSent: 0 });
      else if (message.type !== "cancel") this.#refuse(peer, message.tag, "busy");
      return;
    }
    switch (message.type) {
      case "leaves":
        if (message.page < pageCountOf(session.spec.chunkCount)) session.pages.add(message.page);
        break;
      case "request":
        session.weight = message.weight ?? 1;
        this.#request(peer, session, message.indices);
        break;
      case "cancel":
        for (const index of message.indices) session.queue.delete(index);
        this.#dropReady(
          peer,
          (frame) => frame.session === session && frame.kind === "chunk" && message.indices.includes(frame.index),
        );
        break;
      case "stop":
        this.#end(peer, session);
        this.#send(peer, { type: "stopped", tag: session.tag, framesSent: session.framesSent });
        reached("stopped", session.spec.fileId);
        break;
      default:
        assertNever(message, "message to a seeder");
    }
    this.#pump(peer);
  }

  onDrained(userId: UserId, generation: Generation): void {
    const peer = this.#peers.get(userId);
    if (peer?.generation !== generation) return;
    peer.blocked = false;
    this.#pump(peer);
  }

  /**
   * The link is gone, and with it all that was open over it. `next` has taken its place: what was opened over that one goes on,
   * or its downloader, who lost nothing, would hear of it only by a refusal.
   */
  onLinkLost(userId: UserId, next: Generation | null = null): void {
    const peer = this.#peers.get(userId);
    if (peer === undefined) return;
    for (const session of [...peer.sessions.values()]) if (session.over !== next) this.#end(peer, session);
    if (next !== null && peer.sessions.size > 0) {
      peer.generation = next;
      return;
    }
    this.#dropReady(peer, () => true);
    this.#peers.delete(userId);
  }

  /** Chunks that wait here for this peer, for tests and diagnostics. */
  queuedFor(userId: UserId): number {
    return [...(this.#peers.get(userId)?.sessions.values() ?? [])].reduce((sum, { queue }) => sum + queue.size, 0);
  }

  /** More of a file has come, or its rows have become a file: told in batches, at most once in HAVE_INTERVAL_MS. */
  progressed(fileId: FileId): void {
    if (this.#owned.disposed || this.#untold.has(fileId) || !this.#isOpen(fileId)) return;
    const timer = this.#deps.env.clock.setTimer(HAVE_INTERVAL_MS, () => {
      this.#untold.delete(fileId);
      this.#tellAll(fileId);
    });
    this.#untold.set(fileId, timer);
  }

  /** What can be served, or to whom, may be another now: sessions that have no reason any more end. */
  recheck(fileId: FileId): void {
    for (const peer of [...this.#peers.values()])
      for (const session of [...peer.sessions.values()]) {
        if (session.spec.fileId !== fileId) continue;
        const refusal = this.#refusalOf(peer, fileId) ?? (this.#hasLess(session) ? "busy" : null);
        if (refusal !== null) this.#cut(peer, session, refusal);
      }
    this.progressed(fileId);
  }

  /** It was told of chunks that are gone: to claim them any longer would be a lie. It asks again. */
  #hasLess({ spec, told }: Session): boolean {
    const held = this.#deps.offerOf(spec.fileId)?.held ?? null;
    if (held === null) return false;
    return told === null || held.runsAddedBy(told, 1).length > 0;
  }

  #isOpen(fileId: FileId): boolean {
    for (const { sessions } of this.#peers.values())
      for (const { spec } of sessions.values()) if (spec.fileId === fileId) return true;
    return false;
  }

  #tellAll(fileId: FileId): void {
    const offer = this.#deps.offerOf(fileId);
    if (offer === null) return;
    let isMore = false;
    for (const peer of this.#peers.values())
      for (const session of peer.sessions.values())
        if (session.spec.fileId === fileId) isMore = this.#tell(peer, session, offer) || isMore;
    if (isMore) this.progressed(fileId);
  }

  /** True when not all of it fitted one message. */
  #tell(peer: Peer, session: Session, { held, leaves }: Offer): boolean {
    if (session.told === null) return false;
    const { tag } = session;
    if (held === null) {
      session.told = null;
      this.#send(peer, { type: "have", tag, chunks: "all", leaves });
      return false;
    }
    const runs = session.told.runsAddedBy(held, HAVE_RUNS_MAX);
    if (runs.length === 0 && leaves === session.toldLeaves) return false;
    session.told = session.told.withRuns(runs);
    session.toldLeaves = leaves;
    this.#send(peer, { type: "have", tag, chunks: runs.map(([first, count]) => [first, count]), leaves });
    return runs.length === HAVE_RUNS_MAX;
  }

  dispose(): void {
    this.#owned.dispose();
    this.#waiting?.dispose();
    for (const timer of this.#untold.values()) timer.dispose();
    this.#untold.clear();
    for (const peer of this.#peers.values()) {
      for (const session of peer.sessions.values()) this.#refuse(peer, session.tag, "shutting_down");
      this.#dropReady(peer, () => true);
    }
    this.#peers.clear();
  }

  #peerOf(userId: UserId, generation: Generation): Peer {
    const known = this.#peers.get(userId);
    if (known?.generation === generation) return known;
    this.onLinkLost(userId);
    const peer: Peer = { userId, generation, sessions: new Map(), ready: [], batchesReading: 0, blocked: false };
    this.#peers.set(userId, peer);
    return peer;
  }

  #open(peer: Peer, fileId: FileId, tag: number, over: Generation): void {
    const refusal = this.#refusalOf(peer, fileId);
    const offer = this.#deps.offerOf(fileId);
    if (refusal !== "no_access") this.#deps.onInterest(peer.userId, fileId);
    if (refusal !== null || offer === null) {
      this.#refuse(peer, tag, refusal ?? "not_held");
      return;
    }
    if (peer.sessions.size >= SEEDER_SESSIONS_PER_PEER_MAX || peer.sessions.has(tag)) {
      this.#refuse(peer, tag, "busy");
      return;
    }
    // The peer has begun anew, after a loss that was not seen here.
    for (const session of [...peer.sessions.values()]) if (session.spec.fileId === fileId) this.#end(peer, session);
    const { spec, held, leaves } = offer;
    const session: Session = {
      ...{ tag, over, spec, queue: new Set(), pages: new Set(), framesSent: 0, weight: 1, turns: 0 },
      told: held === null ? null : PieceMap.empty(spec.chunkCount),
      toldLeaves: leaves,
    };
    peer.sessions.set(tag, session);
    this.#send(peer, { type: "accept", tag });
    reached("opened", fileId);
    if (held === null) this.#send(peer, { type: "have", tag, chunks: "all", leaves });
    else if (spec.chunkCount <= HAVE_BITMAP_BYTES_MAX * 8) {
      session.told = held;
      this.#send(peer, { type: "have", tag, chunks: held.toBytes(), leaves });
    } else {
      // Larger than any message: as runs, step by step.
      this.#send(peer, { type: "have", tag, chunks: new Uint8Array(1), leaves });
      this.progressed(fileId);
    }
  }

  /** The same answer for a file that does not exist and for one that is none of the peer's business. */
  #refusalOf(peer: Peer, fileId: FileId): RefuseReason | null {
    const lacksRight = this.#lacksRight(peer, fileId);
    if (lacksRight !== null || this.#deps.offerOf(fileId) !== null) return lacksRight;
    return this.#deps.isLooking(fileId) ? "busy" : "not_held";
  }

  #lacksRight(peer: Peer, fileId: FileId): RefuseReason | null {
    const may = this.#deps.mayFetch(peer.userId, fileId);
    if (may === "refuse") return "no_access";
    return may === "later" ? "busy" : null;
  }

  #request(peer: Peer, session: Session, indices: readonly number[]): void {
    const { fileId, chunkCount } = session.spec;
    const refusal = this.#refusalOf(peer, fileId);
    if (refusal !== null) {
      this.#cut(peer, session, refusal);
      return;
    }
    const held = this.#deps.offerOf(fileId)?.held ?? null;
    const isHere = (index: number): boolean => index < chunkCount && (held === null || held.has(index));
    const lacking = indices.filter((index) => !isHere(index));
    if (lacking.length > 0) this.#send(peer, { type: "unavailable", tag: session.tag, indices: lacking });
    for (const index of indices) if (isHere(index)) session.queue.add(index);
    reached("requested", fileId, indices);
    if (this.queuedFor(peer.userId) > SEEDER_QUEUE_CHUNKS_MAX) this.#cut(peer, session, "too_many_requests");
  }

  /** Sends what is ready, then reads ahead. Never waits: called again by every answer and every `drained`. */
  #pump(peer: Peer): void {
    this.#sendReady(peer);
    while (
      this.#peers.get(peer.userId) === peer &&
      peer.batchesReading + this.#batchesReady(peer) < SEEDER_READ_AHEAD
    ) {
      const session = this.#nextSession(peer);
      if (session === null) return;
      void this.#readBatch(peer, session);
    }
  }

  #batchesReady(peer: Peer): number {
    const bytes = peer.ready.reduce((sum, frame) => sum + frame.bytes.byteLength, 0);
    return Math.ceil(bytes / (WORK_BATCH_BYTES * 1.1));
  }

  /** Round robin over the files that the peer has open, by the weights that it gives them. */
  #nextSession(peer: Peer): Session | null {
    for (const [tag, session] of peer.sessions) {
      if (session.queue.size + session.pages.size === 0) continue;
      session.turns += 1;
      if (session.turns < session.weight) return session;
      session.turns = 0;
      peer.sessions.delete(tag);
      peer.sessions.set(tag, session);
      return session;
    }
    return null;
  }

  async #readBatch(peer: Peer, session: Session): Promise<void> {
    peer.batchesReading += 1;
    const page = session.pages.values().next();
    const frames =
      page.done === true ? await this.#readChunks(peer, session) : await this.#readLeaves(peer, session, page.value);
    peer.batchesReading -= 1;
    const isLinked = !this.#owned.disposed && this.#peers.get(peer.userId) === peer;
    const isOpen = isLinked && peer.sessions.get(session.tag) === session;
    if ("type" in frames) {
      if (isOpen) this.#failed(peer, session, frames);
    } else if (isOpen) peer.ready.push(...frames);
    // Stopped or cut while the disk was busy: nothing of it is sent.
    else this.#drop(frames);
    if (isLinked) this.#pump(peer);
  }

  async #readLeaves(peer: Peer, session: Session, page: number): Promise<ReadyFrame[] | WorkError> {
    session.pages.delete(page);
    const held = this.#deps.links.takesHeldFrames(peer.userId, peer.generation);
    const read = await this.#deps.worker.run("readLeaves", { spec: session.spec, page, held }).result;
    if (!read.ok) return read.error;
    return read.value === null ? [] : [{ ...read.value, session, kind: "leaves" }];
  }

  async #readChunks(peer: Peer, session: Session): Promise<ReadyFrame[] | WorkError> {
    const { spec, queue } = session;
    const indices = [...queue].slice(0, WORK_BATCH_BYTES / spec.chunkBytes);
    for (const index of indices) queue.delete(index);
    // Looked up for every batch: rows become a file when the download is finished.
    const source = this.#deps.offerOf(spec.fileId)?.source;
    if (source === undefined) return workError("file_missing", "The file is not offered any more.");
    const held = this.#deps.links.takesHeldFrames(peer.userId, peer.generation);
    const read = await this.#deps.worker.run("readChunks", { spec, source, indices, held }).result;
    if (!read.ok) return read.error;
    const { frames, unavailable } = read.value;
    if (unavailable.length > 0) this.#send(peer, { type: "unavailable", tag: session.tag, indices: unavailable });
    this.#batches.add(frames);
    return frames.map((frame) => ({ ...frame, session, kind: "chunk" }));
  }

  #sendReady(peer: Peer): void {
    let sent = 0;
    // Asked once for all frames of one pass: nothing else happens meanwhile, and the answer costs a query.
    const allowed = new Map<FileId, RefuseReason | null>();
    for (const frame of peer.ready) {
      if (peer.blocked || this.#isOverLimit()) break;
      sent += 1;
      const { session } = frame;
      if (peer.sessions.get(session.tag) !== session) {
        this.#drop([frame]);
        continue;
      }
      const { fileId } = session.spec;
      if (!allowed.has(fileId)) allowed.set(fileId, this.#lacksRight(peer, fileId));
      const refusal = allowed.get(fileId) ?? null;
      if (refusal !== null) {
        this.#end(peer, session, { keepReady: true });
        this.#refuse(peer, session.tag, refusal);
        this.#drop([frame]);
        continue;
      }
      const header = { kind: frame.kind, tag: session.tag, sequence: session.framesSent, index: frame.index };
      const outcome = this.#deps.links.sendBulk(peer.userId, peer.generation, withBulkHeader(frame.bytes, header));
      if (outcome === "sent") {
        session.framesSent += 1;
        this.#deps.upload.take(frame.bytes.byteLength);
        if (frame.kind === "chunk")
          this.#deps.onServed({ peer: peer.userId, fileId, bytes: chunkLength(session.spec, frame.index) });
        // The link has its own copy.
        const buffer = this.#batches.sent(frame.bytes);
        if (buffer !== null) this.#deps.worker.recycle(buffer);
        reached("chunkSent", fileId, frame.index, peer.userId);
      }
      if (outcome === "full") {
        peer.blocked = true;
        sent -= 1;
      }
      if (outcome === "closed") {
        peer.ready = peer.ready.slice(sent - 1);
        this.onLinkLost(peer.userId);
        return;
      }
    }
    peer.ready = peer.ready.slice(sent);
  }

  /** With a limit all peers take turns: whoever has just sent is the last one next time. */
  #isOverLimit(): boolean {
    if (this.#waiting !== null) return true;
    const { clock } = this.#deps.env;
    const waitMs = this.#deps.upload.waitMs(clock.monotonicMs());
    if (waitMs === 0) return false;
    this.#waiting = clock.setTimer(waitMs, () => {
      this.#waiting = null;
      for (const peer of [...this.#peers.values()]) {
        if (this.#waiting !== null) return;
        const before = peer.ready.length;
        this.#pump(peer);
        if (peer.ready.length === before || this.#peers.get(peer.userId) !== peer) continue;
        this.#peers.delete(peer.userId);
        this.#peers.set(peer.userId, peer);
      }
    });
    return true;
  }

  #dropReady(peer: Peer, isDropped: (frame: ReadyFrame) => boolean): void {
    this.#drop(peer.ready.filter(isDropped));
    peer.ready = peer.ready.filter((frame) => !isDropped(frame));
  }

  #drop(frames: readonly ReadyFrame[]): void {
    this.#deps.worker.drop(frames.map(({ bytes }) => bytes));
  }

  #failed(peer: Peer, session: Session, error: WorkError): void {
    const isChange = ["file_changed", "file_missing", "file_unreadable", "not_a_file", "missing_leaves"].includes(
      error.type,
    );
    this.#deps.env.log.warn("a file cannot be served", { type: error.type });
    // Only the owner can say that the file is gone for good.
    const gone = this.#deps.offerOf(session.spec.fileId)?.own === true ? "file_changed" : "not_held";
    // It asks again, and then hears what is left.
    if (error.type === "corrupt_chunks") this.#deps.onLost(session.spec.fileId, error.indices);
    this.#cut(peer, session, isChange ? gone : "busy");
    if (isChange) this.#deps.onChanged(session.spec.fileId);
  }

  #cut(peer: Peer, session: Session, reason: RefuseReason): void {
    this.#end(peer, session);
    this.#refuse(peer, session.tag, reason);
  }

  #end(peer: Peer, session: Session, { keepReady = false } = {}): void {
    peer.sessions.delete(session.tag);
    session.queue.clear();
    session.pages.clear();
    if (!keepReady) this.#dropReady(peer, (frame) => frame.session === session);
  }

  #refuse(peer: Peer, tag: number, reason: RefuseReason): void {
    this.#send(peer, { type: "refuse", tag, reason });
  }

  #send(peer: Peer, message: AppMessage): void {
    this.#deps.links.send(peer.userId, peer.generation, message);
  }
}
