import { TRANSFERS_ACTIVE_MAX } from "#shared/base/limits.ts";
import { type State, storedCountOf } from "./transfer-state.ts";

/** Which downloads run and which wait, and what the running ones will still take. Pure. */

interface Placed {
  readonly state: State;
}

const ACTIVE: readonly State["kind"][] = ["opening", "downloading", "pausing", "draining", "assembling", "verifying"];

export const isActive = ({ kind }: State): boolean => ACTIVE.includes(kind);

/** Whether its temporary file is in use, or has its final name. */
export const isFinishing = ({ kind }: State): boolean =>
  kind === "assembling" || kind === "verifying" || kind === "complete";

/** Whether it uses the links or the disk. One that waits for a seeder who is away, or rests, does not. */
const takesPlace = (state: State): boolean => {
  if (state.kind !== "downloading") return isActive(state);
  const standings = [...state.swarm.peers.values()].map(({ standing }) => standing.kind);
  return state.pieces.storing.size > 0 || standings.includes("ready") || standings.includes("session");
};

/**
 * The downloads, given in the order in which they were started, that have to wait again because seeders of more of them
 * than may run came back together: the last ones.
 */
export const surplusOf = <T extends Placed>(downloads: readonly T[]): T[] => {
  const running = downloads.filter(({ state }) => takesPlace(state) && state.kind !== "pausing");
  const receiving = running.filter(({ state }) => state.kind === "downloading").reverse();
  return receiving.slice(0, Math.max(0, running.length - TRANSFERS_ACTIVE_MAX));
};

/** The next ones to start, in order, while there are free places. One that is pausing has its place still. */
export const startableOf = <T extends Placed>(downloads: readonly T[]): T[] => {
  let free = TRANSFERS_ACTIVE_MAX - downloads.filter(({ state }) => takesPlace(state)).length;
  return downloads.filter(({ state }) => {
    if (state.kind === "pausing") return state.rest === "queued" && free >= 0;
    if (state.kind !== "idle" || state.rest !== "queued" || free <= 0) return false;
    free -= 1;
    return true;
  });
};

/** Bytes of chunks that a download will still store without anybody's doing. */
export const expectedBytesOf = (spec: { sizeBytes: number; chunkBytes: number }, state: State): number =>
  isActive(state) || (state.kind === "idle" && state.rest === "queued") ? unstoredBytesOf(spec, state) : 0;

export const unstoredBytesOf = (
  { sizeBytes, chunkBytes }: { sizeBytes: number; chunkBytes: number },
  state: State,
): number => {
  const hidden = "pieces" in state ? (state.pieces.hidden?.count ?? 0) : 0;
  return Math.max(0, sizeBytes - (storedCountOf(state) + hidden) * chunkBytes);
};
