import { assert } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import { REQUEST_INDICES_MAX, SEEDER_EMPTY_RETRY_MS, SEEDER_RETRY_MS } from "#shared/base/limits.ts";
import {
  adding,
  addSession,
  deadlineOf,
  expireRequests,
  outstandingOf,
  pickRequests,
  removeSession,
  type Swarm,
  withoutAll,
  withSession,
} from "./seeder-sessions.ts";
import type { Downloading, Effect, State } from "./transfer-state.ts";

/** What a running download asks its seeders for, and how long it waits. Pure; part of the transfer machine. */

/** Opens sessions with seeders that are ready, and fills every window that has room for a worthwhile batch. */
export const requestMore = (state: Downloading, now: TimeMs, effects: Effect[]): Downloading => {
  let { swarm, counters } = state;
  for (const [peer, { standing }] of swarm.peers) {
    if (standing.kind !== "ready") continue;
    const added = addSession(swarm, peer, now);
    swarm = added.swarm;
    const generation = swarm.peers.get(peer)?.generation ?? 0;
    effects.push({ type: "open", session: added.session, peer, generation });
  }
  swarm = endUseless(swarm, state, now, effects);
  for (const id of swarm.sessions.keys()) {
    const filled = fill(swarm, id, state, now, effects);
    swarm = filled.swarm;
    counters = { ...counters, requested: counters.requested + filled.requested };
  }
  return swarm === state.swarm ? state : { ...state, swarm, counters };
};

/** Sessions with seeders that have nothing of what is missing: they rest, and are asked again what they have then. */
const endUseless = (swarm: Swarm, { pieces }: Downloading, now: TimeMs, effects: Effect[]): Swarm => {
  let next = swarm;
  for (const [id, session] of swarm.sessions) {
    const { stage } = session;
    if (stage.kind !== "serving" || stage.available === null || outstandingOf(session) > 0) continue;
    if (pieces.stored.nextMissing(0, stage.available) !== null) continue;
    effects.push({ type: "stop", session: id }, { type: "forget", session: id });
    next = removeSession(next, id, { kind: "resting", untilMs: now + SEEDER_EMPTY_RETRY_MS });
  }
  return next;
};

const fill = (
  swarm: Swarm,
  id: number,
  { pieces, setup }: Downloading,
  now: TimeMs,
  effects: Effect[],
): { swarm: Swarm; requested: number } => {
  const session = swarm.sessions.get(id);
  assert(session !== undefined, "windows of open sessions are filled");
  const owedByAll = [...swarm.sessions.values()].reduce((sum, { owed }) => sum + owed.size, 0);
  const room = Math.min(
    setup.windowChunks - session.owed.size,
    setup.backlogChunks - pieces.storing.size - owedByAll,
    REQUEST_INDICES_MAX,
  );
  // A quarter of the window at a time: few messages, and the seeder never runs dry.
  const worthwhile = room >= Math.ceil(setup.windowChunks / 4) || (session.owed.size === 0 && room > 0);
  if (!worthwhile) return { swarm, requested: 0 };
  const { indices, pages } = pickRequests(swarm, id, pieces, room);
  if (indices.length === 0 && pages.length === 0) return { swarm, requested: 0 };
  for (const page of pages) effects.push({ type: "requestLeaves", session: id, page });
  if (indices.length > 0) effects.push({ type: "request", session: id, indices });
  const wasIdle = session.owed.size + session.owedPages.size === 0;
  const changed = withSession(swarm, id, {
    owed: adding(session.owed, indices),
    overdue: withoutAll(session.overdue, indices),
    owedPages: adding(session.owedPages, pages),
    ...(wasIdle ? { quietSinceMs: now } : {}),
  });
  return { swarm: changed, requested: indices.length };
};

/** Gives up on sessions that were silent for too long; what they owe is asked for again. */
export const expireSilent = (state: Downloading, now: TimeMs, effects: Effect[]): State => {
  let swarm = state.swarm;
  for (const [id, session] of swarm.sessions) {
    const deadline = deadlineOf(session);
    if (deadline === null || now < deadline) continue;
    if (session.stage.kind !== "serving") {
      // It never answered `open`, or never `stop`: tried again from the start.
      if (session.stage.kind === "opening") effects.push({ type: "stop", session: id });
      swarm = removeSession(swarm, id, { kind: "resting", untilMs: now + SEEDER_RETRY_MS });
      continue;
    }
    for (let at = 0; at < session.owed.size; at += REQUEST_INDICES_MAX)
      effects.push({
        type: "cancelRequests",
        session: id,
        indices: [...session.owed].slice(at, at + REQUEST_INDICES_MAX),
      });
    swarm = withSession(swarm, id, expireRequests(session, now));
  }
  return { ...state, swarm };
};

/** When something has to be looked at again though nothing arrived. */
export const nextWake = (state: State): TimeMs | null => {
  const times: TimeMs[] = [];
  if (state.kind === "draining" || state.kind === "pausing") times.push(state.giveUpAtMs);
  if (state.kind === "downloading") {
    for (const session of state.swarm.sessions.values()) {
      const deadline = deadlineOf(session);
      if (deadline !== null) times.push(deadline);
    }
    for (const { standing } of state.swarm.peers.values())
      if (standing.kind === "resting") times.push(standing.untilMs);
  }
  return times.length === 0 ? null : Math.min(...times);
};
