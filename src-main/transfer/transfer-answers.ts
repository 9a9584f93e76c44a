import type { TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { SEEDER_RETRY_MS } from "#shared/base/limits.ts";
import type { AppError } from "#shared/base/result.ts";
import { PieceMap } from "./piece-map.ts";
import {
  absentOf,
  availableOf,
  banPeer,
  type Fault,
  faultOf,
  outstandingOf,
  outstandingRequestsOf,
  type Peer,
  removeSession,
  type Session,
  type Swarm,
  withoutAll,
  withPeer,
  withSession,
} from "./seeder-sessions.ts";
import { count, type Downloading, type Effect, type Event, isReceiving, type State, stale } from "./transfer-state.ts";

/** What seeders say about their sessions, and what becomes of those that lie. Pure; part of the transfer machine. */

type Answer = Extract<
  Event,
  { type: "accepted" | "have" | "haveMore" | "refused" | "unavailable" | "stopped" | "seederInterested" }
>;

export const onAnswer = (state: State, event: Answer, effects: Effect[]): State => {
  switch (event.type) {
    case "seederInterested":
      return interested(state, event.peer);
    case "accepted":
      return changeSession(state, event.session, () => ({ quietSinceMs: event.now }));
    case "have":
      return changeSession(state, event.session, ({ stage }) => {
        const { available, leaves, now } = event;
        return stage.kind === "stopping"
          ? {}
          : { stage: { kind: "serving", available, leaves, shrunk: false }, quietSinceMs: now };
      });
    case "haveMore":
      return changeSession(state, event.session, ({ stage }) => {
        if (stage.kind !== "serving") return {};
        const available = stage.available?.withRuns(event.runs) ?? null;
        return { stage: { ...stage, available, leaves: stage.leaves || event.leaves } };
      });
    case "refused":
      return refused(state, event.session, event.reason, event.now);
    case "unavailable":
      return unavailable(state, event.session, event.indices, effects);
    case "stopped":
      return stopped(state, event, effects);
  }
};

const changeSession = (state: State, id: number, change: (session: Session) => Partial<Session>): State => {
  const session = state.swarm.sessions.get(id);
  return session === undefined ? stale(state) : { ...state, swarm: withSession(state.swarm, id, change(session)) };
};

/** A seeder that had nothing for us is asked again as soon as it fetches the file itself. */
const interested = (state: State, peer: UserId): State => {
  const entry = state.swarm.peers.get(peer);
  const isWaiting =
    entry?.standing.kind === "refused" || (entry?.standing.kind === "resting" && !entry.standing.silent);
  if (entry === undefined || !isWaiting) return state;
  return { ...state, swarm: withPeer(state.swarm, peer, { ...entry, standing: { kind: "ready" } }) };
};

/** Tells the chosen open sessions to stop. One that never answered its `open` is told too, and not waited for. */
export const stopAll = (swarm: Swarm, which: (session: Session) => boolean, effects: Effect[]): Swarm => {
  let next = swarm;
  for (const [id, session] of swarm.sessions) {
    if (session.stage.kind === "stopping" || !which(session)) continue;
    effects.push({ type: "stop", session: id });
    next = withSession(next, id, { stage: { kind: "stopping", framesSent: null, available: availableOf(session) } });
  }
  return next;
};

/** Nothing of what is under way is wanted any more, and nobody waits for it: every request ends here. */
export const abandonAll = <S extends State>(state: S, effects: Effect[]): S => {
  let swarm = stopAll(state.swarm, () => true, effects);
  let abandoned = isReceiving(state) ? state.pieces.storing.size : 0;
  for (const [id, session] of swarm.sessions) {
    abandoned += outstandingRequestsOf(session);
    swarm = withSession(swarm, id, { owed: new Set(), overdue: new Set(), owedPages: new Set() });
  }
  return count({ ...state, swarm }, "cancelled", abandoned);
};

const TEMPORARY: readonly string[] = ["busy", "too_many_requests", "shutting_down"];
/** It has nothing of the file now, which says nothing about the right to it. */
const NOT_HELD = "not_held";
const NO_ACCESS = "no_access";

/** A refusal ends the session on both sides. */
const refused = (state: State, id: number, reason: string, now: TimeMs): State => {
  if (!state.swarm.sessions.has(id)) return stale(state);
  const standing: Peer["standing"] = TEMPORARY.includes(reason)
    ? { kind: "resting", untilMs: now + SEEDER_RETRY_MS, silent: false }
    : { kind: "refused", reason };
  return { ...state, swarm: removeSession(state.swarm, id, standing) };
};

/** Why nobody who is there sends what is missing; null while somebody may. Liars alone are no reason: another seeder may come. */
export const refusalOf = ({ swarm }: Pick<State, "swarm">): string | null => {
  const standings = [...swarm.peers.values()].map(({ standing }) => standing);
  if (!standings.every(({ kind }) => kind === "refused" || kind === "banned")) return null;
  const reasons = standings.flatMap((standing) => (standing.kind === "refused" ? [standing.reason] : []));
  return reasons.find((reason) => reason !== NOT_HELD) ?? null;
};

/**
 * Why nobody will ever send what is missing. Somebody who is away may have it, whatever those who are there say of their own
 * copies; only about the right to the file the owner speaks for all.
 */
export const hopelessReason = ({ swarm }: Downloading): string | null => {
  const { owner } = swarm.members;
  const standing = owner === null ? undefined : swarm.peers.get(owner)?.standing;
  const isShutOut = standing?.kind === "refused" && standing.reason === NO_ACCESS;
  const reason = refusalOf({ swarm });
  return isShutOut || absentOf(swarm).length === 0 ? reason : null;
};

export const refusalError = (reason: string): AppError => {
  switch (reason) {
    case NO_ACCESS:
      return { type: reason, message: "You no longer have access to this file. Ask its owner to share it with you." };
    case "file_changed":
      return { type: reason, message: "The owner's file was changed or moved. Ask them to share it again." };
    case "unknown_file":
      return { type: reason, message: "The owner no longer has this file. Ask them to share it again." };
    default:
      return { type: "refused", message: "The other side refused to send this file. Try again later." };
  }
};

const unavailable = (state: State, id: number, indices: readonly number[], effects: Effect[]): State => {
  const session = state.swarm.sessions.get(id);
  if (session === undefined) return stale(state);
  const { stage } = session;
  const { chunkCount } = state.setup;
  const lacked = indices.filter((index) => session.owed.has(index) || session.overdue.has(index));
  let available = stage.kind === "serving" ? (stage.available ?? PieceMap.full(chunkCount)) : null;
  for (const index of indices) if (index < chunkCount) available = available?.without(index) ?? null;
  const swarm = withSession(state.swarm, id, {
    owed: withoutAll(session.owed, indices),
    overdue: withoutAll(session.overdue, indices),
    falseClaims: session.falseClaims + lacked.length,
    ...(stage.kind === "serving" ? { stage: { ...stage, available, shrunk: true } } : {}),
  });
  const counters = { ...state.counters, cancelled: state.counters.cancelled + lacked.length };
  return banIfFaulty({ ...state, counters, swarm }, id, effects);
};

const stopped = (
  state: State,
  { session: id, framesSent, now }: Extract<Event, { type: "stopped" }>,
  effects: Effect[],
): State => {
  const session = state.swarm.sessions.get(id);
  if (session === undefined) return stale(state);
  // Waiting for frames that cannot be would hold up the end for nothing.
  if (framesSent > session.framesAsked) return ban(state, session.peer, "false_claims", effects);
  const cut = session.stage.kind === "stopping" && outstandingOf(session) > 0;
  const asked = session.stage.kind === "stopping";
  const stage = { kind: "stopping", framesSent, available: availableOf(session) } as const;
  const told = withSession(state.swarm, id, { stage });
  const next =
    state.kind === "draining" && cut ? { ...state, cutBy: "stopped" as const, swarm: told } : { ...state, swarm: told };
  // A seeder that stops unasked is going away: it gets a moment before it is asked again.
  if (!asked && framesSent <= session.framesReceived) {
    const standing = { kind: "resting", untilMs: now + SEEDER_RETRY_MS, silent: false } as const;
    return { ...next, swarm: removeSession(told, id, standing) };
  }
  return next;
};

/** Drops a seeder that lied, for this file, and asks others for what it owed. */
export const ban = (state: State, peer: UserId, fault: Fault, effects: Effect[]): State => {
  for (const [id, session] of state.swarm.sessions) {
    if (session.peer === peer && session.stage.kind !== "stopping") effects.push({ type: "stop", session: id });
  }
  if (!state.swarm.banned.has(peer)) effects.push({ type: "report", peer, fault });
  return { ...state, swarm: banPeer(state.swarm, peer, fault) };
};

export const banIfFaulty = <S extends State>(state: S, id: number, effects: Effect[]): State => {
  const session = state.swarm.sessions.get(id);
  const fault = session === undefined ? null : faultOf(session);
  return session === undefined || fault === null ? state : ban(state, session.peer, fault, effects);
};
