import type { TimeMs } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import type { AppError } from "#shared/base/result.ts";
import type { PieceMap, Run } from "./piece-map.ts";
import { emptySwarm, type Fault, type Swarm } from "./seeder-sessions.ts";

/** States, events and effects of one download; what they mean and the table of transitions are in transfer-machine.ts. */

/** What a download is given and never changes by itself. */
export interface Setup {
  readonly chunkCount: number;
  /** Requests that may be unanswered in one session. */
  readonly windowChunks: number;
  /** The same while nothing is known of the seeder's speed. */
  readonly startChunks: number;
  /** Chunks that may be asked for and not stored, over all sessions. */
  readonly backlogChunks: number;
  /** 32 random bits, from which follows where it goes on while others fetch the file too. */
  readonly seed: number;
  /** The user's setting; a new value holds from the next draining or pausing on. */
  readonly drainTimeoutMs: number;
}

/**
 * Every request ends in one way: its chunk is stored, a duplicate or rejected, or the request is cancelled (given up, or
 * its link is gone). So when nothing is outstanding, requested = stored + duplicate + rejected + cancelled. `late` counts
 * frames besides: those whose request had ended before, and those that nobody asked for.
 */
export interface Counters extends KeptCounters {
  readonly cancelled: number;
}

/** What is written down; `cancelled` follows from it. */
export interface KeptCounters {
  readonly requested: number;
  readonly duplicate: number;
  readonly late: number;
  readonly rejected: number;
}

export interface Drain {
  readonly startedAtMs: TimeMs;
  readonly endedBy: "idle" | "answered" | "stopped" | "timeout" | null;
}

/** What every state has. */
interface Common {
  readonly setup: Setup;
  readonly counters: Counters;
  readonly swarm: Swarm;
  /** Counts up whenever work is started or abandoned; a result of an older run is stale. */
  readonly run: number;
  /** Results that came too late to mean anything. */
  readonly staleResults: number;
  readonly drain: Drain | null;
  /** Chunks that may be asked for before more is granted; null without a limit. */
  readonly allowance: number | null;
  /** When its worker was lost, lately. */
  readonly workerLosses: readonly TimeMs[];
  /** The timer that the shell was last told to set. */
  readonly wakeAtMs: TimeMs | null;
}

/** Chunks on disk, chunks handed to the disk worker (with the session they came from), and the same for pages of leaves. */
export interface Pieces {
  readonly stored: PieceMap;
  readonly storing: ReadonlyMap<number, number>;
  readonly pages: PieceMap;
  readonly pagesStoring: ReadonlySet<number>;
  /** Chunks that count as stored although they are not, because nobody wants them; null: of a file, where all are wanted. */
  readonly hidden: PieceMap | null;
  /** Not all that is wanted is known yet: once what is known has arrived, the download is opened again. */
  readonly isPartial: boolean;
}

export type Rest = "queued" | "paused";

/** What is known of the pieces where the maps are not at hand. */
interface StoredSum {
  readonly storedCount: number;
  /** The last chunk, which is shorter than the others, is among them; also when nobody knows, so that progress never goes back. */
  readonly hasLast: boolean;
}

export type Idle = Common & StoredSum & { readonly kind: "idle"; readonly rest: Rest };
export type Opening = Common & StoredSum & { readonly kind: "opening" };
export type Downloading = Common & { readonly kind: "downloading"; readonly pieces: Pieces };
/** Stopping on the user's wish: nothing is asked for any more, what still comes is kept; then idle. */
export type Pausing = Common & {
  readonly kind: "pausing";
  readonly rest: Rest;
  readonly pieces: Pieces;
  /** Null when that has been done; what the disk worker has is waited for all the same. */
  readonly giveUpAtMs: TimeMs | null;
};
export type Draining = Common & {
  readonly kind: "draining";
  readonly pieces: Pieces;
  readonly drain: Drain;
  readonly giveUpAtMs: TimeMs | null;
  /**
   * What it will have been ended by, as far as is known: a `stopped` that cut short what was owed, the timeout, answers, or
   * nothing at all.
   */
  readonly cutBy: NonNullable<Drain["endedBy"]>;
};
export type Assembling = Common & { readonly kind: "assembling"; readonly pieces: Pieces; readonly assembled: number };
export type Verifying = Common & {
  readonly kind: "verifying";
  readonly pieces: Pieces;
  readonly step: "comparing" | "saving";
};
export type Complete = Common & {
  readonly kind: "complete";
  readonly savedPath: string;
  readonly storedCount: number;
};
export type Failed = Common & StoredSum & { readonly kind: "failed"; readonly error: AppError };
export type Cancelled = Common & { readonly kind: "cancelled" };

/** States in which arriving chunks are wanted. */
export type Receiving = Downloading | Pausing | Draining;
export type State = Idle | Opening | Receiving | Assembling | Verifying | Complete | Failed | Cancelled;

/** Names a received frame that the shell holds until the machine says what becomes of it. */
export type FrameId = number;

export type Event = { readonly now: TimeMs } & (
  | { readonly type: "start" }
  | { readonly type: "pause" }
  | { readonly type: "queue" }
  | { readonly type: "cancel" }
  | { readonly type: "retry" }
  | { readonly type: "wake" }
  /** The user's setting is another one. */
  | { readonly type: "configured"; readonly drainTimeoutMs: number }
  /** Something outside makes it impossible to go on; what was received is kept for a retry. */
  | { readonly type: "giveUp"; readonly error: AppError }
  /** The right to the file is gone: nothing of what was received stays. */
  | { readonly type: "revoked"; readonly error: AppError }
  /** Answers the effect of that name, once the state was published. */
  | { readonly type: "proceed" }
  /** Whom it may ask, linked or not; before the first of these it knows of those who are linked. */
  | { readonly type: "members"; readonly owner: UserId; readonly others: readonly UserId[] }
  | { readonly type: "seederJoined"; readonly peer: UserId; readonly generation: Generation }
  | { readonly type: "seederLeft"; readonly peer: UserId; readonly generation: Generation }
  /** The link `from` was given up, and `to` has its place already. The `sessions` were opened over that one, and go on. */
  | {
      readonly type: "seederMoved";
      readonly peer: UserId;
      readonly from: Generation;
      readonly to: Generation;
      readonly sessions: readonly number[];
    }
  /** It has begun to fetch the file itself, so it has, or soon will have, some of it. */
  | { readonly type: "seederInterested"; readonly peer: UserId }
  /** A limit begins (with this many chunks) or ends; `granted` adds to it. */
  | { readonly type: "limited"; readonly allowance: number | null }
  | { readonly type: "granted"; readonly chunks: number }
  | { readonly type: "accepted"; readonly session: number }
  | {
      readonly type: "have";
      readonly session: number;
      readonly available: PieceMap | null;
      /** Whether it can prove pages of leaves. */
      readonly leaves: boolean;
    }
  | { readonly type: "haveMore"; readonly session: number; readonly runs: readonly Run[]; readonly leaves: boolean }
  | { readonly type: "refused"; readonly session: number; readonly reason: string }
  | { readonly type: "unavailable"; readonly session: number; readonly indices: readonly number[] }
  | { readonly type: "stopped"; readonly session: number; readonly framesSent: number }
  | { readonly type: "chunkArrived"; readonly session: number; readonly index: number; readonly frame: FrameId }
  | { readonly type: "leavesArrived"; readonly session: number; readonly page: number; readonly frame: FrameId }
  | {
      readonly type: "opened";
      readonly run: number;
      readonly stored: PieceMap;
      readonly pages: PieceMap;
      readonly counters: KeptCounters;
      readonly finishedPath: string | null;
      /** Both only of a folder. */
      readonly hidden?: PieceMap | null;
      readonly isPartial?: boolean;
    }
  | {
      readonly type: "chunkStored" | "chunkDuplicate";
      readonly run: number;
      readonly index: number;
      readonly session: number;
    }
  | {
      readonly type: "chunkRejected";
      readonly run: number;
      readonly index: number;
      readonly session: number;
      readonly peer: UserId;
    }
  | { readonly type: "leavesStored"; readonly run: number; readonly page: number }
  /** The connection that it came over ended before the disk worker had it. */
  | { readonly type: "chunkGone"; readonly run: number; readonly index: number }
  | { readonly type: "leavesGone"; readonly run: number; readonly page: number }
  | {
      readonly type: "leavesRejected";
      readonly run: number;
      readonly page: number;
      readonly session: number;
      readonly peer: UserId;
    }
  | { readonly type: "assembleProgress"; readonly run: number; readonly chunks: number }
  | { readonly type: "assembled" | "verified"; readonly run: number }
  | { readonly type: "finished"; readonly run: number; readonly savedPath: string }
  /** Any work of this run ended without result; `storeFailed` when it was a chunk or a page. `worker_ended`: the worker died over it. */
  | { readonly type: "workFailed" | "storeFailed"; readonly run: number; readonly error: AppError }
  | { readonly type: "chunksLost"; readonly run: number; readonly indices: readonly number[] }
);

export type Effect =
  /** Links to the file's seeders are wanted. A download never closes one: others use it too, and it has its own owner. */
  | { readonly type: "wantLinks" }
  | { readonly type: "open"; readonly session: number; readonly peer: UserId; readonly generation: Generation }
  | { readonly type: "request" | "cancelRequests"; readonly session: number; readonly indices: readonly number[] }
  | { readonly type: "requestLeaves"; readonly session: number; readonly page: number }
  | { readonly type: "stop"; readonly session: number }
  /** Nothing more can come for this session: its tag may be forgotten. */
  | { readonly type: "forget"; readonly session: number }
  /** Exactly one of these three follows every frame that arrived. */
  | {
      readonly type: "storeChunk";
      readonly run: number;
      readonly session: number;
      readonly index: number;
      readonly frame: FrameId;
    }
  | {
      readonly type: "storeLeaves";
      readonly run: number;
      readonly session: number;
      readonly page: number;
      readonly frame: FrameId;
    }
  | { readonly type: "dropFrame"; readonly frame: FrameId }
  | { readonly type: "scan" | "assemble" | "verify" | "finish"; readonly run: number }
  | { readonly type: "stopWork" | "proceed" }
  /** A seeder is not asked any more, for something that no honest one does. */
  | { readonly type: "report"; readonly peer: UserId; readonly fault: Fault }
  | { readonly type: "dropChunks"; readonly what: "chunks" | "everything" }
  /** Write the phase down; what was downloaded is in chunks.db anyway. */
  | { readonly type: "checkpoint" }
  | { readonly type: "publish" }
  | { readonly type: "wakeAt"; readonly atMs: TimeMs | null };

// ---- First states, and questions to any state ----

/** With nothing outstanding, whatever was asked for and led to nothing was cancelled. */
export const allCounters = (kept: KeptCounters, stored: number): Counters => {
  const { requested, duplicate, late, rejected } = kept;
  const answered = stored + duplicate + rejected;
  return {
    requested: Math.max(requested, answered),
    duplicate,
    late,
    rejected,
    cancelled: Math.max(0, requested - answered),
  };
};

export const initialState = (
  setup: Setup,
  from: { rest: Rest; storedCount: number; counters: KeptCounters },
): Extract<State, { kind: "idle" }> => ({
  kind: "idle",
  rest: from.rest,
  storedCount: from.storedCount,
  hasLast: from.storedCount > 0,
  setup,
  counters: allCounters(from.counters, from.storedCount),
  swarm: emptySwarm,
  run: 0,
  staleResults: 0,
  drain: null,
  allowance: null,
  workerLosses: [],
  wakeAtMs: null,
});

export const failedState = (
  setup: Setup,
  from: { error: AppError; storedCount: number; counters: KeptCounters },
): State => ({
  ...common(initialState(setup, { rest: "paused", ...from })),
  kind: "failed",
  error: from.error,
  storedCount: from.storedCount,
  hasLast: from.storedCount > 0,
});

export const completeState = (
  setup: Setup,
  from: { savedPath: string; storedCount: number; counters: KeptCounters },
): State => ({
  ...common(initialState(setup, { rest: "paused", storedCount: from.storedCount, counters: from.counters })),
  kind: "complete",
  savedPath: from.savedPath,
  storedCount: from.storedCount,
});

export const cancelledState = (setup: Setup, counters: KeptCounters): State => ({
  ...common(initialState(setup, { rest: "paused", storedCount: 0, counters })),
  kind: "cancelled",
});

/** What every state has, without what is its own. */
export const common = ({
  setup,
  counters,
  swarm,
  run,
  staleResults,
  drain,
  allowance,
  workerLosses,
  wakeAtMs,
}: State) => ({
  setup,
  counters,
  swarm,
  run,
  staleResults,
  drain,
  allowance,
  workerLosses,
  wakeAtMs,
});

export const count = <S extends State>(state: S, counter: keyof Counters, by = 1): S => ({
  ...state,
  counters: { ...state.counters, [counter]: state.counters[counter] + by },
});

export const stale = (state: State): State => ({ ...state, staleResults: state.staleResults + 1 });

export const withPieces = <S extends Receiving>(state: S, change: Partial<Pieces>): S => ({
  ...state,
  pieces: { ...state.pieces, ...change },
});

/** Nothing changes it any more, whoever comes or goes. A failed one can be tried again. */
export const isOver = ({ kind }: State): boolean => kind === "complete" || kind === "cancelled";

export const isReceiving = (state: State): state is Receiving =>
  state.kind === "downloading" || state.kind === "pausing" || state.kind === "draining";

/** The chunks on disk, for a state that has no maps of them. */
export const storedSumOf = (state: State): StoredSum => ({
  storedCount: storedCountOf(state),
  hasLast: hasLastOf(state),
});

/** Whether the last chunk is on disk, and wanted. */
export const hasLastOf = (state: State): boolean => {
  switch (state.kind) {
    case "idle":
    case "opening":
    case "failed":
      return state.hasLast;
    case "complete":
      return state.storedCount > 0;
    case "cancelled":
      return false;
    default: {
      const { stored, hidden } = state.pieces;
      const last = stored.size - 1;
      return last >= 0 && stored.has(last) && hidden?.has(last) !== true;
    }
  }
};

/** Distinct chunks on disk. */
export const storedCountOf = (state: State): number => {
  switch (state.kind) {
    case "idle":
    case "opening":
    case "failed":
    case "complete":
      return state.storedCount;
    case "cancelled":
      return 0;
    default:
      return state.pieces.stored.count - (state.pieces.hidden?.count ?? 0);
  }
};
