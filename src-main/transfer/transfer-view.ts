import type { Clock } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import type { ErrorView, PathKind, TransferPhase, TransferView } from "#shared/ipc/views.ts";
import { chunkLength } from "#shared/wire/manifest.ts";
import type { FolderProgress } from "../store/transfers.ts";
import type { Download } from "./download.ts";
import { absentOf, availableOf, isSettled, outstandingOf } from "./seeder-sessions.ts";
import { refusalError, refusalOf } from "./transfer-answers.ts";
import { hasLastOf, type State, storedCountOf } from "./transfer-state.ts";

interface Surroundings {
  readonly pathOf: (peer: UserId) => PathKind;
  /** What keeps the file's owner from sending anything. */
  readonly hindrance: ErrorView | null;
  /** How much of the finished file lies where it was saved; null until anybody has looked. */
  readonly savedChunks: number | null;
}

/** The snapshot of a download that everybody outside sees. */
export const viewOfDownload = (
  download: Download,
  clock: Pick<Clock, "now" | "monotonicMs">,
  { pathOf, hindrance, savedChunks }: Surroundings,
): TransferView => {
  const nowMs = clock.monotonicMs();
  const { state, spec, file, speed, folder } = download;
  // What is not wanted of a folder counts as stored in the machine, and not at all for people.
  const { skippedChunks = 0, skippedBytes = 0 } = folder?.counts ?? {};
  const stored = storedCountOf(state);
  const sizeBytes = spec.sizeBytes - skippedBytes;
  const bytesStored = state.kind === "complete" ? sizeBytes : Math.min(sizeBytes, bytesOf(download, stored));
  const bytesPerSecond = isMoving(state) ? speed.bytesPerSecond(nowMs) : 0;
  const left = sizeBytes - bytesStored;
  return {
    fileId: spec.fileId,
    name: file.offer.name,
    phase: phaseOf(state),
    priority: download.priority,
    paused: (state.kind === "idle" || state.kind === "pausing") && state.rest === "paused",
    waitingForSeeders: isWaiting(state),
    waitingFor: isWaiting(state) ? absentOf(state.swarm) : [],
    chunksStored: stored,
    chunkCount: spec.chunkCount - skippedChunks,
    bytesStored,
    sizeBytes,
    assembledChunks: Math.min(assembledOf(state), spec.chunkCount - skippedChunks),
    bytesPerSecond,
    etaMs: bytesPerSecond > 0 && left > 0 ? Math.round((left * 1000) / bytesPerSecond) : null,
    inFlight: inFlightOf(state),
    seeders: seedersOf(download, nowMs, pathOf),
    dropped: droppedOf(state),
    // The machine counts in monotonic time; people and other programs read the calendar's.
    drain: drainOf(state, clock.now() - nowMs),
    requestedChunks: state.counters.requested,
    duplicateChunks: state.counters.duplicate,
    lateChunks: state.counters.late,
    rejectedChunks: state.counters.rejected,
    cancelledChunks: state.counters.cancelled,
    error: errorOf(state, hindrance),
    seeding: seedingOf(state, savedChunks),
    savedPath: state.kind === "complete" ? state.savedPath : null,
    ...(folder === null ? {} : { folder: folderViewOf(folder) }),
  };
};

const folderViewOf = ({ selection, counts }: FolderProgress): NonNullable<TransferView["folder"]> => ({
  filesWanted: selection === "choose" ? null : (counts?.filesWanted ?? null),
  filesThere: counts?.filesThere ?? 0,
  choosing: selection === "choose",
  selection: selection === "choose" ? [] : selection,
});

const seedingOf = (state: State, savedChunks: number | null): TransferView["seeding"] => {
  if (state.kind === "complete") {
    if (savedChunks === null) return "none";
    if (savedChunks === state.setup.chunkCount) return "whole";
    return savedChunks > 0 ? "part" : "changed";
  }
  if (!("pieces" in state) || state.kind === "pausing" || (state.pieces.hidden?.count ?? 0) > 0) return "none";
  return storedCountOf(state) > 0 ? "part" : "none";
};

const phaseOf = (state: State): TransferPhase => {
  switch (state.kind) {
    case "draining":
    case "assembling":
    case "verifying":
    case "complete":
    case "failed":
      return state.kind;
    case "cancelled":
      return "failed";
    default:
      return "downloading";
  }
};

const errorOf = (state: State, hindrance: ErrorView | null): ErrorView | null => {
  if (state.kind === "failed") return { type: state.error.type, message: state.error.message };
  if (state.kind === "cancelled") return { type: "cancelled", message: "The download was cancelled." };
  if (!isWaiting(state)) return null;
  if (hindrance !== null) return hindrance;
  const refusal = refusalOf(state);
  if (refusal !== null) {
    const { type, message } = refusalError(refusal);
    return { type, message: `${message} It goes on when somebody else who has the file comes online.` };
  }
  return state.swarm.banned.size > 0
    ? {
        type: "bad_seeder",
        message: "The other side sent damaged data. Try again, or wait for somebody else who has the file.",
      }
    : null;
};

/** The last chunk is shorter; which ones are stored matters only for it. */
const bytesOf = ({ spec, state }: Download, stored: number): number => {
  if (stored === 0) return 0;
  return hasLastOf(state)
    ? (stored - 1) * spec.chunkBytes + chunkLength(spec, spec.chunkCount - 1)
    : stored * spec.chunkBytes;
};

const isMoving = (state: State): boolean => state.kind === "downloading" || state.kind === "draining";

/** Nobody who is there has anything of what is missing. */
const isWaiting = (state: State): boolean => {
  if (state.kind !== "downloading") return false;
  const { stored } = state.pieces;
  return ![...state.swarm.sessions.values()].some(
    ({ stage }) => stage.kind === "serving" && stored.nextMissing(0, stage.available) !== null,
  );
};

const assembledOf = (state: State): number => {
  if (state.kind === "assembling") return state.assembled;
  return state.kind === "verifying" || state.kind === "complete" ? state.setup.chunkCount : 0;
};

const inFlightOf = (state: State): number => {
  if (!("pieces" in state) || state.kind === "assembling" || state.kind === "verifying") return 0;
  const sessions = [...state.swarm.sessions.values()].filter((session) => !isSettled(session));
  return state.pieces.storing.size + sessions.reduce((sum, { owed }) => sum + owed.size, 0);
};

const drainOf = (state: State, calendarOffsetMs: number): TransferView["drain"] => {
  if (state.drain === null) return null;
  const sessions = state.kind === "draining" ? [...state.swarm.sessions.values()] : [];
  const owed = sessions.filter((session) => !isSettled(session)).reduce((sum, s) => sum + outstandingOf(s), 0);
  const storing = state.kind === "draining" ? state.pieces.storing.size : 0;
  const startedAtMs = Math.round(state.drain.startedAtMs + calendarOffsetMs);
  return { startedAtMs, endedBy: state.drain.endedBy, remaining: owed + storing };
};

const droppedOf = ({ swarm }: State): TransferView["dropped"] => [
  ...[...swarm.banned].map(([userId, reason]) => ({ userId, reason })),
  ...[...swarm.peers].flatMap(([userId, { standing }]) =>
    standing.kind === "resting" && standing.silent ? [{ userId, reason: "silent" as const }] : [],
  ),
];

const seedersOf = (
  { state, totalsByPeer }: Download,
  nowMs: number,
  pathOf: (peer: UserId) => PathKind,
): TransferView["seeders"] => {
  const held = new Map<UserId, number>();
  for (const session of state.swarm.sessions.values())
    if (session.stage.kind !== "opening") held.set(session.peer, availableOf(session)?.count ?? state.setup.chunkCount);
  return [...held].map(([peer, chunksHeld]) => {
    const totals = totalsByPeer.get(peer);
    return {
      userId: peer,
      path: pathOf(peer),
      bytesPerSecond: totals?.speed.bytesPerSecond(nowMs) ?? 0,
      chunks: totals?.chunks ?? 0,
      held: chunksHeld,
    };
  });
};
