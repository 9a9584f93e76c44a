import { assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import { WORKER_LOSSES_MAX, WORKER_LOSSES_WINDOW_MS } from "#shared/base/limits.ts";
import type { AppError } from "#shared/base/result.ts";
import { endRests, forgive, joinPeer, leavePeer, movePeer } from "./seeder-sessions.ts";
import { abandonAll, hopelessReason, onAnswer, refusalError, stopAll } from "./transfer-answers.ts";
import {
  chunkArrived,
  chunkGone,
  chunkKept,
  chunkRejected,
  leavesArrived,
  leavesGone,
  leavesRejected,
  leavesStored,
} from "./transfer-arrivals.ts";
import {
  assemble,
  beginDraining,
  endPausing,
  forgetSettled,
  giveUp,
  hasAllArrived,
  isQuiet,
} from "./transfer-drain.ts";
import { expireSilent, nextWake, requestMore } from "./transfer-requests.ts";
import {
  allCounters,
  common,
  count,
  type Effect,
  type Event,
  isOver,
  isReceiving,
  type KeptCounters,
  type Pieces,
  type Rest,
  type State,
  stale,
  storedCountOf,
  storedSumOf,
} from "./transfer-state.ts";

/**
 * One download, from the first request to the finished file. Pure: time comes with every event.
 *
 *   state        what it means                          leaves it by
 *   idle         not running: queued, or paused         start -> opening; cancel
 *   opening      chunks.db is scanned                   opened -> downloading | complete; pause -> idle; cancel; fails
 *   downloading  something is still to be received      all arrived -> draining, or opening if only the list of a folder was
 *                                                       wanted; pause -> pausing; cancel; fails
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
 *     backstop: it gives up what seeders owe, and never what has arrived. Assembly begins only with every chunk stored; one
 *     that turns out to be missing is asked for again.
 * I3  A chunk that comes when none is wanted is counted and dropped.
 * I5  Results carry their run and arrivals their session; those of an older run or a closed session change nothing.
 *
 * Every frame that arrives leads to exactly one of storeChunk, storeLeaves and dropFrame.
 */
export const step = (state: State, event: Event): readonly [State, readonly Effect[]] => {
  const effects: Effect[] = [];
  const handled = settle(advance(handle(state, event, effects), event.now, effects));
  const wakeAtMs = nextWake(handled, event.now);
  if (wakeAtMs !== handled.wakeAtMs) effects.push({ type: "wakeAt", atMs: wakeAtMs });
  const next: State = wakeAtMs === handled.wakeAtMs ? handled : { ...handled, wakeAtMs };
  if (next !== state) {
    // First of all: what was reached is written down before anything is thrown away for it.
    if (next.kind !== state.kind) effects.unshift({ type: "checkpoint" });
    effects.push({ type: "publish" });
  }
  return [next, effects];
};

/** Requests of sessions that were removed, whatever ended them, are cancelled: here, so that no way out is forgotten. */
const settle = (state: State): State => {
  const { unanswered } = state.swarm;
  return unanswered === 0
    ? state
    : count({ ...state, swarm: { ...state.swarm, unanswered: 0 } }, "cancelled", unanswered);
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
    case "revoked":
      return revoked(state, event.error, effects);
    case "members":
      return { ...state, swarm: { ...state.swarm, members: { owner: event.owner, others: event.others } } };
    case "seederJoined":
      return isOver(state) ? state : { ...state, swarm: joinPeer(state.swarm, event.peer, event.generation) };
    case "seederLeft":
      return isOver(state) ? state : { ...state, swarm: leavePeer(state.swarm, event.peer, event.generation) };
    case "seederMoved":
      return isOver(state) ? state : { ...state, swarm: movePeer(state.swarm, event.peer, event) };
    case "limited":
      return { ...state, allowance: event.allowance };
    case "granted":
      return state.allowance === null ? state : { ...state, allowance: state.allowance + event.chunks };
    case "seederInterested":
    case "accepted":
    case "have":
    case "haveMore":
    case "refused":
    case "unavailable":
    case "stopped":
      return onAnswer(state, event, effects);
    case "chunkArrived":
      return chunkArrived(state, event, effects);
    case "leavesArrived":
      return leavesArrived(state, event, effects);
    default:
      return event.run === state.run ? workResult(state, event, effects) : stale(state);
  }
};

const workResult = (state: State, event: Extract<Event, { run: number }>, effects: Effect[]): State => {
  switch (event.type) {
    case "opened":
      return opened(state, event, effects);
    case "chunkStored":
    case "chunkDuplicate":
      return chunkKept(state, event.index, event.session);
    case "chunkRejected":
      return chunkRejected(state, event, effects);
    case "leavesStored":
      return leavesStored(state, event.page);
    case "chunkGone":
      return chunkGone(state, event.index);
    case "leavesGone":
      return leavesGone(state, event.page);
    case "leavesRejected":
      return leavesRejected(state, event.page, event.peer, effects);
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
      if (state.kind !== "verifying") return stale(state);
      return complete(state, { savedPath: event.savedPath, storedCount: storedCountOf(state) }, effects);
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
  return state.kind === "idle" ? open(state, effects) : state;
};

const open = (state: State, effects: Effect[]): State => {
  const run = state.run + 1;
  effects.push({ type: "wantLinks" }, { type: "scan", run });
  return { ...common(state), ...storedSumOf(state), kind: "opening", run };
};

/** What its worker had not committed is gone: it scans what is there and goes on, unless that happens again and again. */
const workerLost = (state: State, { now, error }: { now: TimeMs; error: AppError }, effects: Effect[]): State => {
  const recent = state.workerLosses.filter((atMs) => now - atMs < WORKER_LOSSES_WINDOW_MS);
  const lost = abandonAll({ ...state, workerLosses: [...recent, now] }, effects);
  if (lost.kind === "pausing") return endPausing(lost);
  if (recent.length >= WORKER_LOSSES_MAX) return failed(lost, error, effects);
  effects.push({ type: "stopWork" });
  return open(lost, effects);
};

/** Stops on the user's wish, or for another download's turn. Assembling and verifying are short and go on. */
const rest = (state: State, why: Rest, now: TimeMs, effects: Effect[]): State => {
  switch (state.kind) {
    case "idle":
    case "pausing":
      return { ...state, rest: why };
    case "opening":
      effects.push({ type: "stopWork" });
      return { ...common(state), ...storedSumOf(state), kind: "idle", run: state.run + 1, rest: why };
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

/** What is under its final name, or on its way there, stays. */
const isSaved = (state: State): boolean =>
  state.kind === "complete" || (state.kind === "verifying" && state.step === "saving");

const revoked = (state: State, error: AppError, effects: Effect[]): State => {
  if (isSaved(state) || state.kind === "cancelled") return state;
  const ended = failed(state, error, effects);
  effects.push({ type: "dropChunks", what: "everything" });
  return ended.kind === "failed" ? { ...ended, storedCount: 0, hasLast: false } : ended;
};

const cancel = (state: State, effects: Effect[]): State => {
  if (isSaved(state) || state.kind === "cancelled") return state;
  const abandoned = abandonAll(state, effects);
  effects.push({ type: "stopWork" }, { type: "dropChunks", what: "everything" });
  return { ...common(abandoned), kind: "cancelled", run: state.run + 1 };
};

const retry = (state: State, effects: Effect[]): State => {
  const forgiven = { ...state, swarm: forgive(state.swarm) };
  return forgiven.kind === "failed" ? open(forgiven, effects) : forgiven;
};

const opened = (state: State, event: Extract<Event, { type: "opened" }>, effects: Effect[]): State => {
  if (state.kind !== "opening") return stale(state);
  const kept = largest(state.counters, event.counters);
  const { stored, pages, hidden = null, isPartial = false } = event;
  if (event.finishedPath !== null) {
    // Of a folder only what was chosen was ever stored.
    const storedCount = hidden === null ? state.setup.chunkCount : stored.count - hidden.count;
    const counters = allCounters(kept, storedCount);
    return complete({ ...state, counters }, { savedPath: event.finishedPath, storedCount }, effects);
  }
  const pieces: Pieces = { stored, hidden, storing: new Map(), pages, pagesStoring: new Set(), isPartial };
  const counters = allCounters(kept, stored.count - (hidden?.count ?? 0));
  return { ...common(state), kind: "downloading", counters, pieces };
};

/** Counters only grow, and two places remember them. */
const largest = (a: KeptCounters, b: KeptCounters): KeptCounters => ({
  requested: Math.max(a.requested, b.requested),
  duplicate: Math.max(a.duplicate, b.duplicate),
  late: Math.max(a.late, b.late),
  rejected: Math.max(a.rejected, b.rejected),
});

const complete = (
  state: State,
  { savedPath, storedCount }: { savedPath: string; storedCount: number },
  effects: Effect[],
): State => {
  effects.push({ type: "dropChunks", what: "chunks" });
  return { ...common(state), kind: "complete", savedPath, storedCount };
};

const failed = (state: State, error: AppError, effects: Effect[]): State => {
  const abandoned = abandonAll(state, effects);
  effects.push({ type: "stopWork" });
  return { ...common(abandoned), ...storedSumOf(state), kind: "failed", run: state.run + 1, error };
};

/** Rows that the disk damaged are fetched again; the requests that once brought them led to nothing. */
const chunksLost = (state: State & { pieces: Pieces }, indices: readonly number[]): State => {
  const stored = indices.reduce((map, index) => map.without(index), state.pieces.stored);
  // What was there already, and is not any more, was never asked for.
  const hidden = indices.reduce((map, index) => map?.without(index) ?? null, state.pieces.hidden);
  const neverAsked = (state.pieces.hidden?.count ?? 0) - (hidden?.count ?? 0);
  const counted = count(state, "cancelled", state.pieces.stored.count - stored.count - neverAsked);
  return { ...common(counted), kind: "downloading", run: state.run + 1, pieces: { ...state.pieces, stored, hidden } };
};

// ---- What follows from the state ----------------------------------------------------------------------------------

const advance = (state: State, now: TimeMs, effects: Effect[]): State => {
  const tidy = forgetSettled(state, effects);
  switch (tidy.kind) {
    case "downloading": {
      const reason = hasAllArrived(tidy) ? null : hopelessReason(tidy);
      if (reason !== null && tidy.pieces.storing.size === 0) return failed(tidy, refusalError(reason), effects);
      if (tidy.pieces.isPartial && hasAllArrived(tidy)) return tidy.pieces.stored.isFull ? open(tidy, effects) : tidy;
      return hasAllArrived(tidy) ? beginDraining(tidy, now, effects) : requestMore(tidy, now, effects);
    }
    case "draining":
      if (!hasAllArrived(tidy))
        return advance({ ...common(tidy), kind: "downloading", pieces: tidy.pieces }, now, effects);
      return isQuiet(tidy) ? assemble(tidy, effects) : tidy;
    case "pausing":
      return isQuiet(tidy) ? endPausing(tidy) : tidy;
    default:
      return tidy;
  }
};

// ---- Time ---------------------------------------------------------------------------------------------------------

const wake = (state: State, now: TimeMs, effects: Effect[]): State => {
  const rested = { ...state, swarm: endRests(state.swarm, now) };
  if (rested.kind === "draining" || rested.kind === "pausing")
    return rested.giveUpAtMs !== null && now >= rested.giveUpAtMs ? giveUp(rested, now) : rested;
  return rested.kind === "downloading" ? expireSilent(rested, now, effects) : rested;
};

// ---- Small things -------------------------------------------------------------------------------------------------

/** Once everything has arrived, nobody else is needed any more. */
const mayGiveUp = (state: State): boolean => isReceiving(state) || state.kind === "idle" || state.kind === "opening";

/** States in which the disk worker is busy for this download. */
const isWorking = (state: State): boolean =>
  isReceiving(state) || state.kind === "opening" || state.kind === "assembling" || state.kind === "verifying";
