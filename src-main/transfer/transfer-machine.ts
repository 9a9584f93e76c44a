import { assert, assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { SEEDER_RETRY_MS, WORKER_LOSSES_MAX, WORKER_LOSSES_WINDOW_MS } from "#shared/base/limits.ts";
import type { AppError } from "#shared/base/result.ts";
import { PieceMap } from "./piece-map.ts";
import {
  adding,
  banPeer,
  endRests,
  forgive,
  isSettled,
  joinPeer,
  leavePeer,
  outstandingOf,
  type Peer,
  receivedFrame,
  removeSession,
  removing,
  type Session,
  type Swarm,
  withoutAll,
  withSession,
} from "./seeder-sessions.ts";
import { expireSilent, nextWake, requestMore } from "./transfer-requests.ts";
import {
  type Counters,
  common,
  type Downloading,
  type Drain,
  type Draining,
  type Effect,
  type Event,
  isReceiving,
  type Pausing,
  type Pieces,
  type Receiving,
  type Rest,
  type State,
  storedCountOf,
} from "./transfer-state.ts";

/**
 * One download, from the first request to the finished file. Pure: time comes with every event.
 *
 *   state        what it means                          leaves it by
 *   idle         not running: queued, or paused         start -> opening; cancel
 *   opening      chunks.db is scanned                   opened -> downloading | complete; pause -> idle; cancel; fails
 *   downloading  something is still to be received      all arrived -> draining; pause -> pausing; cancel; fails
 *   pausing      seeders were told to stop              all settled or timeout -> idle; start -> downloading; cancel; fails
 *   draining     every chunk has arrived once           all settled -> assembling; a chunk is missing after all -> downloading;
 *                                                       pause -> pausing; cancel; fails
 *   assembling   the file is written in order           assembled -> verifying; chunksLost -> downloading; cancel; fails
 *   verifying    read back and compared, then renamed   verified, finished -> complete; cancel (before saving); fails
 *   complete     saved under its final name             -
 *   failed       stopped by an error; chunks are kept   retry -> opening; cancel
 *   cancelled    everything was dropped                 -
 *
 * Whatever the disk worker does is lost when its process dies. Then every state that waits for it goes back to opening
 * (pausing to idle), and fails only when that happens too often.
 *
 * As phases: idle, opening, downloading and pausing are `downloading`; cancelled is `failed`; the others are themselves.
 *
 * I1  Progress is the number of distinct chunks stored: only `stored` grows it.
 * I2  Draining ends when everything was answered, or the seeders' `stopped` says that no more frames come. Its timeout is a
 *     backstop: it gives up what is outstanding, and a chunk that is then missing is asked for again. Assembly begins only
 *     with every chunk stored.
 * I3  A chunk that comes when none is wanted is counted and dropped.
 * I5  Results carry their run and arrivals their session; those of an older run or a closed session change nothing.
 *
 * Every frame that arrives leads to exactly one of storeChunk, storeLeaves and dropFrame.
 */
export const step = (state: State, event: Event): readonly [State, readonly Effect[]] => {
  const effects: Effect[] = [];
  const handled = advance(handle(state, event, effects), event.now, effects);
  const wakeAtMs = nextWake(handled);
  if (wakeAtMs !== handled.wakeAtMs) effects.push({ type: "wakeAt", atMs: wakeAtMs });
  const next: State = wakeAtMs === handled.wakeAtMs ? handled : { ...handled, wakeAtMs };
  if (next !== state) {
    // First of all: what was reached is written down before anything is thrown away for it.
    if (next.kind !== state.kind) effects.unshift({ type: "checkpoint" });
    effects.push({ type: "publish" });
  }
  return [next, effects];
};

// ---- Events -----------------------------------------------------------------------------------------------------

const handle = (state: State, event: Event, effects: Effect[]): State => {
  switch (event.type) {
    case "start":
      return start(state, effects);
    case "pause":
      return rest(state, "paused", event.now, effects);
    case "queue":
      return rest(state, "queued", event.now, effects);
    case "cancel":
      return cancel(state, effects);
    case "retry":
      return retry(state, effects);
    case "proceed":
      return state;
    case "wake":
      return wake(state, event.now, effects);
    case "configured":
      return { ...state, setup: { ...state.setup, drainTimeoutMs: event.drainTimeoutMs } };
    case "giveUp":
      return mayGiveUp(state) ? failed(state, event.error, effects) : state;
    case "seederJoined":
      return { ...state, swarm: joinPeer(state.swarm, event.peer, event.generation) };
    case "seederLeft":
      return { ...state, swarm: leavePeer(state.swarm, event.peer, event.generation) };
    case "accepted":
      return changeSession(state, event.session, () => ({ quietSinceMs: event.now }));
    case "have":
      return changeSession(state, event.session, ({ stage }) =>
        stage.kind === "stopping"
          ? {}
          : { stage: { kind: "serving", available: event.available }, quietSinceMs: event.now },
      );
    case "refused":
      return refused(state, event.session, event.reason, event.now);
    case "unavailable":
      return unavailable(state, event.session, event.indices);
    case "stopped":
      return stopped(state, event.session, event.framesSent, event.now);
    case "chunkArrived":
      return chunkArrived(state, event, effects);
    case "leavesArrived":
      return leavesArrived(state, event, effects);
    default:
      return event.run === state.run ? workResult(state, event, effects) : stale(state);
  }
};

const stale = (state: State): State => ({ ...state, staleResults: state.staleResults + 1 });

const workResult = (state: State, event: Extract<Event, { run: number }>, effects: Effect[]): State => {
  switch (event.type) {
    case "opened":
      return opened(state, event, effects);
    case "chunkStored":
      return chunkKept(state, event.index, event.session, 0);
    case "chunkDuplicate":
      return chunkKept(state, event.index, event.session, 1);
    case "chunkRejected":
      return chunkRejected(state, event.index, event.session, event.peer, effects);
    case "leavesStored":
      return isReceiving(state)
        ? withPieces(state, {
            pages: state.pieces.pages.with(event.page),
            pagesStoring: removing(state.pieces.pagesStoring, event.page),
          })
        : stale(state);
    case "leavesRejected":
      if (!isReceiving(state)) return stale(state);
      return ban(
        withPieces(state, { pagesStoring: removing(state.pieces.pagesStoring, event.page) }),
        event.peer,
        effects,
      );
    case "assembleProgress":
      return state.kind === "assembling" ? { ...state, assembled: event.chunks } : stale(state);
    case "assembled":
      if (state.kind !== "assembling") return stale(state);
      effects.push({ type: "verify", run: state.run });
      return { ...common(state), kind: "verifying", step: "comparing", pieces: state.pieces };
    case "verified":
      if (state.kind !== "verifying") return stale(state);
      effects.push({ type: "finish", run: state.run });
      return { ...state, step: "saving" };
    case "finished":
      return state.kind === "verifying" ? complete(state, event.savedPath, effects) : stale(state);
    case "chunksLost":
      return state.kind === "assembling" ? chunksLost(state, event.indices) : stale(state);
    case "storeFailed":
    case "workFailed":
      if (!isWorking(state)) return stale(state);
      return event.error.type === "worker_ended"
        ? workerLost(state, event, effects)
        : failed(state, event.error, effects);
    default:
      return assertNever(event, "work result");
  }
};

const start = (state: State, effects: Effect[]): State => {
  if (state.kind === "pausing") {
    effects.push({ type: "wantLinks" });
    return { ...common(state), kind: "downloading", pieces: state.pieces };
  }
  return state.kind === "idle" ? open(state, state.storedCount, effects) : state;
};

const open = (state: State, storedCount: number, effects: Effect[]): State => {
  const run = state.run + 1;
  effects.push({ type: "wantLinks" }, { type: "scan", run });
  return { ...common(state), kind: "opening", run, storedCount };
};

/** What its worker had not committed is gone: it scans what is there and goes on, unless that happens again and again. */
const workerLost = (state: State, { now, error }: { now: TimeMs; error: AppError }, effects: Effect[]): State => {
  const recent = state.workerLosses.filter((atMs) => now - atMs < WORKER_LOSSES_WINDOW_MS);
  const lost = { ...state, workerLosses: [...recent, now], swarm: stopAll(state.swarm, () => true, effects) };
  if (lost.kind === "pausing") return endPausing(lost);
  if (recent.length >= WORKER_LOSSES_MAX) return failed(lost, error, effects);
  effects.push({ type: "stopWork" });
  return open(lost, storedCountOf(lost), effects);
};

/** Stops on the user's wish, or for another download's turn. Assembling and verifying are short and go on. */
const rest = (state: State, why: Rest, now: TimeMs, effects: Effect[]): State => {
  switch (state.kind) {
    case "idle":
    case "pausing":
      return { ...state, rest: why };
    case "opening":
      effects.push({ type: "stopWork" });
      return { ...common(state), kind: "idle", run: state.run + 1, rest: why, storedCount: state.storedCount };
    case "downloading":
    case "draining": {
      const giveUpAtMs = now + state.setup.drainTimeoutMs;
      const swarm = stopAll(state.swarm, () => true, effects);
      return { ...common(state), kind: "pausing", rest: why, pieces: state.pieces, giveUpAtMs, swarm };
    }
    default:
      return state;
  }
};

const cancel = (state: State, effects: Effect[]): State => {
  const tooLate = state.kind === "verifying" && state.step === "saving";
  if (state.kind === "complete" || state.kind === "cancelled" || tooLate) return state;
  const swarm = stopAll(state.swarm, () => true, effects);
  effects.push({ type: "stopWork" }, { type: "dropChunks", what: "everything" });
  return { ...common(state), kind: "cancelled", run: state.run + 1, swarm };
};

const retry = (state: State, effects: Effect[]): State => {
  const forgiven = { ...state, swarm: forgive(state.swarm) };
  return forgiven.kind === "failed" ? open(forgiven, forgiven.storedCount, effects) : forgiven;
};

const opened = (state: State, event: Extract<Event, { type: "opened" }>, effects: Effect[]): State => {
  if (state.kind !== "opening") return stale(state);
  const counters = largest(state.counters, event.counters);
  if (event.finishedPath !== null) return complete({ ...state, counters }, event.finishedPath, effects);
  const pieces: Pieces = { stored: event.stored, storing: new Map(), pages: event.pages, pagesStoring: new Set() };
  return { ...common(state), kind: "downloading", counters, pieces };
};

/** Counters only grow, and two places remember them. */
const largest = (a: Counters, b: Counters): Counters => ({
  requested: Math.max(a.requested, b.requested),
  duplicate: Math.max(a.duplicate, b.duplicate),
  late: Math.max(a.late, b.late),
  rejected: Math.max(a.rejected, b.rejected),
});

const complete = (state: State, savedPath: string, effects: Effect[]): State => {
  effects.push({ type: "dropChunks", what: "chunks" });
  return { ...common(state), kind: "complete", savedPath };
};

const failed = (state: State, error: AppError, effects: Effect[]): State => {
  const swarm = stopAll(state.swarm, () => true, effects);
  effects.push({ type: "stopWork" });
  return { ...common(state), kind: "failed", run: state.run + 1, error, storedCount: storedCountOf(state), swarm };
};

// ---- Seeders ----------------------------------------------------------------------------------------------------

const changeSession = (state: State, id: number, change: (session: Session) => Partial<Session>): State => {
  const session = state.swarm.sessions.get(id);
  return session === undefined ? stale(state) : { ...state, swarm: withSession(state.swarm, id, change(session)) };
};

/** Tells the chosen open sessions to stop. One that never answered its `open` is told too, and not waited for. */
const stopAll = (swarm: Swarm, which: (session: Session) => boolean, effects: Effect[]): Swarm => {
  let next = swarm;
  for (const [id, session] of swarm.sessions) {
    if (session.stage.kind === "stopping" || !which(session)) continue;
    effects.push({ type: "stop", session: id });
    next = withSession(next, id, { stage: { kind: "stopping", framesSent: null } });
  }
  return next;
};

const TEMPORARY: readonly string[] = ["busy", "too_many_requests", "shutting_down"];

/** A refusal ends the session on both sides. */
const refused = (state: State, id: number, reason: string, now: TimeMs): State => {
  if (!state.swarm.sessions.has(id)) return stale(state);
  const standing: Peer["standing"] = TEMPORARY.includes(reason)
    ? { kind: "resting", untilMs: now + SEEDER_RETRY_MS }
    : { kind: "refused", reason };
  return { ...state, swarm: removeSession(state.swarm, id, standing) };
};

/** Why nobody who is there will ever send what is missing; null while somebody may. Liars alone are no reason: another seeder may come. */
const hopelessReason = ({ swarm }: Downloading): string | null => {
  const standings = [...swarm.peers.values()].map(({ standing }) => standing);
  if (!standings.every(({ kind }) => kind === "refused" || kind === "banned")) return null;
  return standings.find((standing) => standing.kind === "refused")?.reason ?? null;
};

const refusalError = (reason: string): AppError => {
  switch (reason) {
    case "no_access":
      return { type: reason, message: "You no longer have access to this file. Ask its owner to share it with you." };
    case "file_changed":
      return { type: reason, message: "The owner's file was changed or moved. Ask them to share it again." };
    case "unknown_file":
      return { type: reason, message: "The owner no longer has this file. Ask them to share it again." };
    default:
      return { type: "refused", message: "The other side refused to send this file. Try again later." };
  }
};

const unavailable = (state: State, id: number, indices: readonly number[]): State =>
  changeSession(state, id, (session) => {
    if (session.stage.kind !== "serving") return { owed: withoutAll(session.owed, indices) };
    const { stored } = isReceiving(state) ? state.pieces : { stored: null };
    let available = session.stage.available ?? (stored === null ? null : PieceMap.full(stored.size));
    for (const index of indices) if (index < state.setup.chunkCount) available = available?.without(index) ?? null;
    return { owed: withoutAll(session.owed, indices), stage: { kind: "serving", available } };
  });

const stopped = (state: State, id: number, framesSent: number, now: TimeMs): State => {
  const session = state.swarm.sessions.get(id);
  if (session === undefined) return stale(state);
  const cut = session.stage.kind === "stopping" && outstandingOf(session) > 0;
  const asked = session.stage.kind === "stopping";
  const told = withSession(state.swarm, id, { stage: { kind: "stopping", framesSent } });
  const next =
    state.kind === "draining" && cut ? { ...state, cutBy: "stopped" as const, swarm: told } : { ...state, swarm: told };
  // A seeder that stops unasked is going away: it gets a moment before it is asked again.
  if (!asked && framesSent <= session.framesReceived)
    return { ...next, swarm: removeSession(told, id, { kind: "resting", untilMs: now + SEEDER_RETRY_MS }) };
  return next;
};

/** Drops a seeder that lied, for this file, and asks others for what it owed. */
const ban = (state: State, peer: UserId, effects: Effect[]): State => {
  for (const [id, session] of state.swarm.sessions)
    if (session.peer === peer && session.stage.kind !== "stopping") effects.push({ type: "stop", session: id });
  return { ...state, swarm: banPeer(state.swarm, peer) };
};

// ---- Frames -----------------------------------------------------------------------------------------------------

const chunkArrived = (state: State, event: Extract<Event, { type: "chunkArrived" }>, effects: Effect[]): State => {
  const { session: id, index, frame, now } = event;
  const session = state.swarm.sessions.get(id);
  const wasAsked = session !== undefined && (session.owed.has(index) || session.overdue.has(index));
  const received = { ...state, swarm: receivedFrame(state.swarm, id, now, { index }) };
  const drop = (counter: keyof Counters): State => {
    effects.push({ type: "dropFrame", frame });
    return count(received, counter);
  };
  if (!isReceiving(received) || session === undefined) return drop("late");
  const { pieces } = received;
  if (index < state.setup.chunkCount && (pieces.stored.has(index) || pieces.storing.has(index)))
    return drop("duplicate");
  // Asked for before, given up for another session's sake, and now here twice over: late. Never asked for: worth nothing.
  if (!wasAsked) return drop("late");
  assert(index < state.setup.chunkCount, "only chunks of the file are asked for");
  effects.push({ type: "storeChunk", run: state.run, session: id, index, frame });
  return withPieces(forgetElsewhere(received, id, index, effects), { storing: new Map(pieces.storing).set(index, id) });
};

/** Other sessions need not send this chunk any more; if they already have, it comes as a duplicate. */
const forgetElsewhere = (state: Receiving, id: number, index: number, effects: Effect[]): Receiving => {
  let swarm = state.swarm;
  for (const [other, session] of swarm.sessions) {
    if (other === id || !session.owed.has(index) || session.stage.kind === "stopping") continue;
    effects.push({ type: "cancelRequests", session: other, indices: [index] });
    swarm = withSession(swarm, other, {
      owed: removing(session.owed, index),
      overdue: adding(session.overdue, [index]),
    });
  }
  return swarm === state.swarm ? state : { ...state, swarm };
};

const leavesArrived = (state: State, event: Extract<Event, { type: "leavesArrived" }>, effects: Effect[]): State => {
  const { session: id, page, frame, now } = event;
  const wasAsked = state.swarm.sessions.get(id)?.owedPages.has(page) ?? false;
  const received = { ...state, swarm: receivedFrame(state.swarm, id, now, { page }) };
  if (
    !isReceiving(received) ||
    !wasAsked ||
    received.pieces.pages.has(page) ||
    received.pieces.pagesStoring.has(page)
  ) {
    effects.push({ type: "dropFrame", frame });
    return received;
  }
  effects.push({ type: "storeLeaves", run: state.run, session: id, page, frame });
  return withPieces(received, { pagesStoring: adding(received.pieces.pagesStoring, [page]) });
};

/** The chunk is on disk: by this answer, or since an earlier one. */
const chunkKept = (state: State, index: number, id: number, duplicate: 0 | 1): State => {
  if (!isReceiving(state)) return stale(state);
  const { stored, storing } = state.pieces;
  const session = state.swarm.sessions.get(id);
  const isNew = !stored.has(index);
  const swarm =
    session !== undefined && isNew
      ? withSession(state.swarm, id, { chunksStored: session.chunksStored + 1 })
      : state.swarm;
  const counted = duplicate === 1 ? count({ ...state, swarm }, "duplicate") : { ...state, swarm };
  return withPieces(counted, { stored: stored.with(index), storing: withoutKey(storing, index) });
};

const chunkRejected = (state: State, index: number, id: number, peer: UserId, effects: Effect[]): State => {
  if (!isReceiving(state)) return stale(state);
  // Given up in the meantime and fetched again: then the entry belongs to the newer one.
  const storing =
    state.pieces.storing.get(index) === id ? withoutKey(state.pieces.storing, index) : state.pieces.storing;
  return ban(count(withPieces(state, { storing }), "rejected"), peer, effects);
};

const chunksLost = (state: State & { pieces: Pieces }, indices: readonly number[]): State => {
  const stored = indices.reduce((map, index) => map.without(index), state.pieces.stored);
  return { ...common(state), kind: "downloading", run: state.run + 1, pieces: { ...state.pieces, stored } };
};

// ---- What follows from the state ----------------------------------------------------------------------------------

const advance = (state: State, now: TimeMs, effects: Effect[]): State => {
  const tidy = forgetSettled(state, effects);
  switch (tidy.kind) {
    case "downloading": {
      const reason = hasAllArrived(tidy) ? null : hopelessReason(tidy);
      if (reason !== null && tidy.pieces.storing.size === 0) return failed(tidy, refusalError(reason), effects);
      return hasAllArrived(tidy) ? beginDraining(tidy, now, effects) : requestMore(tidy, now, effects);
    }
    case "draining":
      if (!hasAllArrived(tidy))
        return advance({ ...common(tidy), kind: "downloading", pieces: tidy.pieces }, now, effects);
      return isQuiet(tidy) ? assemble(tidy, tidy.cutBy, effects) : tidy;
    case "pausing":
      return isQuiet(tidy) ? endPausing(tidy) : tidy;
    default:
      return tidy;
  }
};

/** Sessions that were stopped and from which no more frames come. */
const forgetSettled = <S extends State>(state: S, effects: Effect[]): S => {
  let swarm: Swarm = state.swarm;
  for (const [id, { stage, framesReceived }] of swarm.sessions) {
    if (stage.kind !== "stopping" || stage.framesSent === null || framesReceived < stage.framesSent) continue;
    effects.push({ type: "forget", session: id });
    swarm = removeSession(swarm, id, { kind: "ready" });
  }
  return swarm === state.swarm ? state : { ...state, swarm };
};

const hasAllArrived = ({ pieces, setup }: Receiving): boolean =>
  pieces.stored.count + pieces.storing.size === setup.chunkCount;

/** Nothing is at the disk worker, and nothing can come from a seeder. */
const isQuiet = ({ pieces, swarm }: Draining | Pausing): boolean =>
  pieces.storing.size === 0 && pieces.pagesStoring.size === 0 && [...swarm.sessions.values()].every(isSettled);

const beginDraining = (state: Downloading, now: TimeMs, effects: Effect[]): State => {
  const swarm = stopAll(state.swarm, (session) => outstandingOf(session) > 0, effects);
  const drain = { startedAtMs: now, endedBy: null };
  const giveUpAtMs = now + state.setup.drainTimeoutMs;
  const draining: Draining = {
    ...common(state),
    kind: "draining",
    pieces: state.pieces,
    swarm,
    drain,
    giveUpAtMs,
    cutBy: "answered",
  };
  if (!isQuiet(draining)) return draining;
  // Even with nothing to wait for it is a state of its own, that everybody sees.
  effects.push({ type: "proceed" });
  return { ...draining, cutBy: "idle" };
};

const assemble = (state: Draining, endedBy: NonNullable<Drain["endedBy"]>, effects: Effect[]): State => {
  assert(state.pieces.stored.isFull, "nothing is assembled with a hole");
  const run = state.run + 1;
  // Courtesy: nothing is owed any more, so nobody waits for the answers.
  const swarm = stopAll(state.swarm, () => true, effects);
  effects.push({ type: "assemble", run });
  return {
    ...common(state),
    kind: "assembling",
    run,
    swarm,
    drain: { ...state.drain, endedBy },
    pieces: state.pieces,
    assembled: 0,
  };
};

const endPausing = (state: Pausing): State => {
  const storedCount = state.pieces.stored.count;
  return { ...common(state), kind: "idle", run: state.run + 1, rest: state.rest, storedCount };
};

// ---- Time ---------------------------------------------------------------------------------------------------------

const wake = (state: State, now: TimeMs, effects: Effect[]): State => {
  const rested = { ...state, swarm: endRests(state.swarm, now) };
  if (rested.kind === "draining" || rested.kind === "pausing")
    return now >= rested.giveUpAtMs ? giveUp(rested, effects) : rested;
  return rested.kind === "downloading" ? expireSilent(rested, now, effects) : rested;
};

/** The backstop of draining: what is still outstanding is given up; it is late if it comes, and asked for again if needed. */
const giveUp = (state: Draining | Pausing, effects: Effect[]): State => {
  let swarm = state.swarm;
  for (const [id, session] of swarm.sessions)
    if (!isSettled(session)) swarm = removeSession(swarm, id, { kind: "ready" });
  const pieces: Pieces = { ...state.pieces, storing: new Map(), pagesStoring: new Set() };
  if (state.kind === "pausing") return { ...state, swarm, pieces };
  if (pieces.stored.isFull) return assemble({ ...state, swarm, pieces }, "timeout", effects);
  return { ...common(state), kind: "downloading", swarm, pieces, drain: { ...state.drain, endedBy: "timeout" } };
};

// ---- Small things -------------------------------------------------------------------------------------------------

/** Once everything has arrived, nobody else is needed any more. */
const mayGiveUp = (state: State): boolean => isReceiving(state) || state.kind === "idle" || state.kind === "opening";

/** States in which the disk worker is busy for this download. */
const isWorking = (state: State): boolean =>
  isReceiving(state) || state.kind === "opening" || state.kind === "assembling" || state.kind === "verifying";

const withPieces = <S extends Receiving>(state: S, change: Partial<Pieces>): S => ({
  ...state,
  pieces: { ...state.pieces, ...change },
});

const count = <S extends State>(state: S, counter: keyof Counters): S => ({
  ...state,
  counters: { ...state.counters, [counter]: state.counters[counter] + 1 },
});

const withoutKey = (map: ReadonlyMap<number, number>, key: number): ReadonlyMap<number, number> => {
  const copy = new Map(map);
  copy.delete(key);
  return copy;
};
