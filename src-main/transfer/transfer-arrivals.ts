import { assert } from "#shared/base/assert.ts";
import type { UserId } from "#shared/base/ids.ts";
import { adding, receivedFrame, removing, withSession } from "./seeder-sessions.ts";
import { ban, banIfFaulty } from "./transfer-answers.ts";
import {
  type Counters,
  count,
  type Effect,
  type Event,
  isReceiving,
  type Receiving,
  type State,
  stale,
  withPieces,
} from "./transfer-state.ts";

/** Frames that come, and what the disk worker says of them. Pure; part of the transfer machine. */

export const chunkArrived = (
  state: State,
  event: Extract<Event, { type: "chunkArrived" }>,
  effects: Effect[],
): State => {
  const { session: id, index, frame, now } = event;
  const session = state.swarm.sessions.get(id);
  const wasAsked = session !== undefined && (session.owed.has(index) || session.overdue.has(index));
  const received = { ...state, swarm: receivedFrame(state.swarm, id, now, { index }) };
  const drop = (counter: keyof Counters): State => {
    effects.push({ type: "dropFrame", frame });
    return banIfFaulty(count(received, counter), id, effects);
  };
  // Its request has ended, or there was none: it answers nothing, and is counted besides.
  if (!isReceiving(received) || !wasAsked) return drop("late");
  const { pieces } = received;
  if (pieces.stored.has(index) || pieces.storing.has(index)) return drop("duplicate");
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

export const leavesArrived = (
  state: State,
  event: Extract<Event, { type: "leavesArrived" }>,
  effects: Effect[],
): State => {
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
export const chunkKept = (state: State, index: number, id: number): State => {
  if (!isReceiving(state)) return stale(state);
  const { stored, storing } = state.pieces;
  const isNew = !stored.has(index);
  const session = state.swarm.sessions.get(id);
  const swarm =
    session !== undefined && isNew
      ? withSession(state.swarm, id, { chunksStored: session.chunksStored + 1 })
      : state.swarm;
  const counted = isNew ? { ...state, swarm } : count({ ...state, swarm }, "duplicate");
  return withPieces(counted, { stored: stored.with(index), storing: withoutKey(storing, index) });
};

export const chunkRejected = (
  state: State,
  { index, peer }: { index: number; peer: UserId },
  effects: Effect[],
): State => {
  if (!isReceiving(state)) return stale(state);
  const storing = withoutKey(state.pieces.storing, index);
  return ban(count(withPieces(state, { storing }), "rejected"), peer, "bad_data", effects);
};

/** Only it was lost, with its connection: it is asked for again, and nothing else changes. */
export const chunkGone = (state: State, index: number): State =>
  isReceiving(state)
    ? count(withPieces(state, { storing: withoutKey(state.pieces.storing, index) }), "cancelled")
    : stale(state);

export const leavesGone = (state: State, page: number): State =>
  isReceiving(state) ? withPieces(state, { pagesStoring: removing(state.pieces.pagesStoring, page) }) : stale(state);

export const leavesStored = (state: State, page: number): State =>
  isReceiving(state)
    ? withPieces(state, {
        pages: state.pieces.pages.with(page),
        pagesStoring: removing(state.pieces.pagesStoring, page),
      })
    : stale(state);

export const leavesRejected = (state: State, page: number, peer: UserId, effects: Effect[]): State =>
  isReceiving(state)
    ? ban(withPieces(state, { pagesStoring: removing(state.pieces.pagesStoring, page) }), peer, "bad_data", effects)
    : stale(state);

const withoutKey = (map: ReadonlyMap<number, number>, key: number): ReadonlyMap<number, number> => {
  const copy = new Map(map);
  copy.delete(key);
  return copy;
};
