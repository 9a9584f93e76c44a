import { assert } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import {
  REQUEST_INDICES_MAX,
  SEEDER_EMPTY_RETRY_MS,
  SEEDER_RETRY_MS,
  SEEDER_SILENT_REST_MS,
  SEEDER_TIMEOUTS_MAX,
  SEEDERS_PER_DOWNLOAD_MAX,
} from "#shared/base/limits.ts";
import { pick, silentFrom } from "./scheduler.ts";
import { askedIdle } from "./seeder-flow.ts";
import {
  adding,
  addSession,
  deadlineOf,
  expireRequests,
  outstandingOf,
  removeSession,
  type Session,
  type Swarm,
  withoutAll,
  withSession,
} from "./seeder-sessions.ts";
import type { Downloading, Effect, State } from "./transfer-state.ts";

/** Asks seeders for what the scheduler picks, and ends the patience with those that are silent. Pure; part of the transfer machine. */

/** Opens sessions with seeders that are ready, and fills every window that has room for a worthwhile batch. */
export const requestMore = (state: Downloading, now: TimeMs, effects: Effect[]): Downloading => {
  let next = { ...state, swarm: openSessions(state.swarm, now, effects) };
  next = { ...next, swarm: endUseless(next.swarm, next, now, effects) };
  for (const id of next.swarm.sessions.keys()) next = fill(next, id, now, effects);
  return next.swarm === state.swarm && next.counters === state.counters ? state : next;
};

const openSessions = (swarm: Swarm, now: TimeMs, effects: Effect[]): Swarm => {
  let next = swarm;
  for (const [peer, { standing, generation }] of swarm.peers) {
    if (standing.kind !== "ready" || next.sessions.size >= SEEDERS_PER_DOWNLOAD_MAX) continue;
    const added = addSession(next, peer, now);
    next = added.swarm;
    effects.push({ type: "open", session: added.session, peer, generation });
  }
  return next;
};

/** Sessions with seeders that lack what they had claimed, and have nothing else of what is missing: asked again later. */
const endUseless = (swarm: Swarm, { pieces }: Downloading, now: TimeMs, effects: Effect[]): Swarm => {
  let next = swarm;
  for (const [id, session] of swarm.sessions) {
    const { stage } = session;
    if (stage.kind !== "serving" || !stage.shrunk || outstandingOf(session) > 0) continue;
    if (pieces.stored.nextMissing(0, stage.available) !== null) continue;
    effects.push({ type: "stop", session: id }, { type: "forget", session: id });
    next = removeSession(next, id, { kind: "resting", untilMs: now + SEEDER_EMPTY_RETRY_MS, silent: false });
  }
  return next;
};

const fill = (state: Downloading, id: number, now: TimeMs, effects: Effect[]): Downloading => {
  const session = state.swarm.sessions.get(id);
  assert(session !== undefined, "windows of open sessions are filled");
  const most = Math.min(REQUEST_INDICES_MAX, state.allowance ?? REQUEST_INDICES_MAX);
  const { indices, pages, searchFrom } = pick(state.swarm, id, state.pieces, state.setup, { now, most });
  for (const page of pages) effects.push({ type: "requestLeaves", session: id, page });
  if (indices.length > 0) effects.push({ type: "request", session: id, indices });
  if (indices.length + pages.length === 0) {
    const isMoved = session.stage.kind === "serving" && session.searchFrom !== searchFrom;
    return isMoved ? { ...state, swarm: withSession(state.swarm, id, { searchFrom }) } : state;
  }
  const wasIdle = session.owed.size + session.owedPages.size === 0;
  const repeats = indices.filter((index) => session.overdue.has(index)).length;
  const swarm = withSession(state.swarm, id, {
    owed: adding(session.owed, indices),
    overdue: withoutAll(session.overdue, indices),
    owedPages: adding(session.owedPages, pages),
    framesAsked: session.framesAsked + indices.length + pages.length,
    repeats: session.repeats + repeats,
    searchFrom,
    ...(wasIdle ? { quietSinceMs: now } : {}),
    ...(indices.length > 0 && session.owed.size === 0 ? { flow: askedIdle(session.flow, now) } : {}),
  });
  const { counters } = state;
  return {
    ...state,
    swarm,
    // The older one of two requests for the same chunk has become void.
    counters: {
      ...counters,
      requested: counters.requested + indices.length,
      cancelled: counters.cancelled + repeats,
    },
    allowance: state.allowance === null ? null : state.allowance - indices.length,
  };
};

/** Gives up on sessions that were silent for too long; what they owe is asked for again, from others first. */
export const expireSilent = (state: Downloading, now: TimeMs, effects: Effect[]): Downloading => {
  let swarm = state.swarm;
  for (const [id, session] of swarm.sessions) {
    const deadline = deadlineOf(session);
    if (deadline === null || now < deadline) continue;
    const isHopeless = session.timeouts + 1 >= SEEDER_TIMEOUTS_MAX && hasAnother(swarm, id);
    if (session.stage.kind !== "serving" || isHopeless) {
      // It never answered `open` or `stop`, or sends nothing though others do: tried again from the start.
      if (session.stage.kind !== "stopping") effects.push({ type: "stop", session: id });
      const untilMs = now + (isHopeless ? SEEDER_SILENT_REST_MS : SEEDER_RETRY_MS);
      swarm = removeSession(swarm, id, { kind: "resting", untilMs, silent: isHopeless });
      continue;
    }
    cancelOwed(id, session, effects);
    swarm = withSession(swarm, id, expireRequests(session, now));
  }
  return { ...state, swarm };
};

const hasAnother = ({ sessions }: Swarm, id: number): boolean =>
  [...sessions].some(([other, { stage, timeouts }]) => other !== id && stage.kind === "serving" && timeouts === 0);

const cancelOwed = (id: number, { owed }: Session, effects: Effect[]): void => {
  const indices = [...owed];
  for (let at = 0; at < indices.length; at += REQUEST_INDICES_MAX)
    effects.push({ type: "cancelRequests", session: id, indices: indices.slice(at, at + REQUEST_INDICES_MAX) });
};

/** When something has to be looked at again though nothing arrived. */
export const nextWake = (state: State, now: TimeMs): TimeMs | null => {
  const times: TimeMs[] = [];
  if ((state.kind === "draining" || state.kind === "pausing") && state.giveUpAtMs !== null)
    times.push(state.giveUpAtMs);
  if (state.kind === "downloading") {
    const sessions = [...state.swarm.sessions.values()];
    const isAnyIdle = sessions.some(({ stage, owed }) => stage.kind === "serving" && owed.size === 0);
    for (const session of sessions) {
      const deadline = deadlineOf(session);
      if (deadline !== null) times.push(deadline);
      // Idle seeders take over what a silent one owes.
      const silent = isAnyIdle ? silentFrom(session) : null;
      if (silent !== null && silent > now) times.push(silent);
    }
    for (const { standing } of state.swarm.peers.values())
      if (standing.kind === "resting") times.push(standing.untilMs);
  }
  return times.length === 0 ? null : Math.min(...times);
};
