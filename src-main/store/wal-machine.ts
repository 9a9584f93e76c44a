import { assertNever } from "#shared/base/assert.ts";
import { WAL_FINISH_PAGES, WAL_KEPT_PAGES, WAL_PASS_PAGES, WAL_RESTART_PAGES } from "#shared/base/limits.ts";
import type { WalPosition } from "./database.ts";

/**
 * Who copies the WAL of chunks.db into the database file, and when. Small files need not be copied at all: they are
 * assembled and deleted before. Of larger ones a second thread copies while the writer goes on committing. SQLite
 * begins the WAL anew only when all of it was copied, and a writer at full speed is always a little
 * ahead of the thread, so the writer copies the last few pages itself once the file is large enough. Pure.
 *
 *   thread    what it means                    leaves it by
 *   none      not running                      pass -> passing
 *   resting   running, has nothing to do       pass -> passing; end -> ending
 *   passing   copies what it found in the WAL  passed -> resting, or ending when it failed
 *   ending    told to end                      exited -> none
 *
 * After a failure, or a death, the writer copies alone until the next rest.
 */
export interface WalState {
  readonly thread: "none" | "resting" | "passing" | "ending";
  readonly isAlone: boolean;
  /** A file that does not fit the WAL is being received. */
  readonly isLarge: boolean;
  /** Nothing is being written: the WAL is to be copied whole and truncated. */
  readonly isAtRest: boolean;
}

export const INITIAL_WAL_STATE: WalState = { thread: "none", isAlone: false, isLarge: false, isAtRest: false };

export type WalEvent =
  | { readonly type: "committed"; readonly wal: WalPosition; readonly isLarge: boolean }
  /** The thread is through with what it found when it began. */
  | { readonly type: "passed"; readonly wal: WalPosition; readonly failed: boolean }
  | { readonly type: "exited" }
  /** Nothing was committed for a while. */
  | { readonly type: "rested"; readonly wal: WalPosition };

export type WalEffect =
  /** To the thread, which is started when there is none. */
  | { readonly type: "pass" | "end" }
  /** By the writer: what is left to copy, so that its next transaction begins the WAL anew. */
  | { readonly type: "finish" }
  /** By the writer: copy what is left and make the file empty. */
  | { readonly type: "truncate" };

type Stepped = readonly [WalState, readonly WalEffect[]];

export const stepWal = (state: WalState, event: WalEvent): Stepped => {
  switch (event.type) {
    case "committed":
      return write({ ...state, isAtRest: false, isLarge: state.isLarge || event.isLarge }, event.wal);
    case "passed":
      if (event.failed) return atRest({ ...state, thread: "ending", isAlone: true }, event.wal, [{ type: "end" }]);
      return state.isAtRest
        ? atRest({ ...state, thread: "resting" }, event.wal)
        : write({ ...state, thread: "resting" }, event.wal);
    case "exited": {
      const isAlone = state.isAlone || state.thread !== "ending";
      return [{ ...state, thread: "none", isAlone }, state.isAtRest && state.thread === "passing" ? TRUNCATE : []];
    }
    case "rested":
      return atRest({ ...state, isAtRest: true }, event.wal);
    default:
      return assertNever(event, "event of the WAL");
  }
};

const TRUNCATE: readonly WalEffect[] = [{ type: "truncate" }];

const write = (state: WalState, wal: WalPosition): Stepped => {
  if (state.thread === "passing") return [state, []];
  const behind = wal.frames - wal.copied;
  if (state.isAlone || state.thread === "ending")
    return [state, behind >= WAL_RESTART_PAGES ? [{ type: "finish" }] : []];
  const [passPages, restartPages] = state.isLarge
    ? [WAL_PASS_PAGES, WAL_RESTART_PAGES]
    : [WAL_KEPT_PAGES, WAL_KEPT_PAGES];
  const isLongEnough = wal.frames >= restartPages;
  if (isLongEnough && behind <= WAL_FINISH_PAGES) return [state, [{ type: "finish" }]];
  // Every pass leaves less behind than the one before: what the writer added meanwhile.
  if (isLongEnough || behind >= passPages) return [{ ...state, thread: "passing" }, [{ type: "pass" }]];
  return [state, []];
};

const atRest = (state: WalState, wal: WalPosition, before: readonly WalEffect[] = []): Stepped => {
  if (!state.isAtRest || state.thread === "passing") return [state, before];
  const canPass = !state.isAlone && state.thread !== "ending";
  if (canPass && wal.frames - wal.copied > WAL_FINISH_PAGES)
    return [{ ...state, thread: "passing" }, [...before, { type: "pass" }]];
  const end: readonly WalEffect[] = state.thread === "resting" ? [{ type: "end" }] : [];
  const thread = state.thread === "resting" ? "ending" : state.thread;
  return [{ ...state, thread, isAlone: false, isLarge: false }, [...before, ...end, ...TRUNCATE]];
};
