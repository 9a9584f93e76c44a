import { assert } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import { SEEDER_RETRY_MS } from "#shared/base/limits.ts";
import { isSettled, outstandingOf, type Peer, removeSession, type Swarm } from "./seeder-sessions.ts";
import { stopAll } from "./transfer-answers.ts";
import {
  common,
  type Downloading,
  type Draining,
  type Effect,
  type Idle,
  type Pausing,
  type Receiving,
  type State,
  storedSumOf,
} from "./transfer-state.ts";

/** How a download, or a pause, waits for everything in flight to end (I2). Pure; part of the transfer machine. */

/** Sessions that were stopped and from which no more frames come. */
export const forgetSettled = <S extends State>(state: S, effects: Effect[]): S => {
  let swarm: Swarm = state.swarm;
  for (const [id, { stage, framesReceived }] of swarm.sessions) {
    if (stage.kind !== "stopping" || stage.framesSent === null || framesReceived < stage.framesSent) continue;
    effects.push({ type: "forget", session: id });
    swarm = removeSession(swarm, id, { kind: "ready" });
  }
  return swarm === state.swarm ? state : { ...state, swarm };
};

export const hasAllArrived = ({ pieces, setup }: Receiving): boolean =>
  pieces.stored.count + pieces.storing.size === setup.chunkCount;

/** Nothing is at the disk worker, and nothing can come from a seeder. */
export const isQuiet = ({ pieces, swarm }: Draining | Pausing): boolean =>
  pieces.storing.size === 0 && pieces.pagesStoring.size === 0 && [...swarm.sessions.values()].every(isSettled);

export const beginDraining = (state: Downloading, now: TimeMs, effects: Effect[]): State => {
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

export const assemble = (state: Draining, effects: Effect[]): State => {
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
    drain: { ...state.drain, endedBy: state.cutBy },
    pieces: state.pieces,
    assembled: 0,
  };
};

export const endPausing = (state: Pausing): Idle => {
  return { ...common(state), ...storedSumOf(state), kind: "idle", run: state.run + 1, rest: state.rest };
};

/**
 * The backstop of draining: what seeders still owe is given up, and late if it comes. What has arrived is not: the disk
 * worker answers for every chunk, also when it dies, and asking for them again would only give a slow disk more to do.
 */
export const giveUp = <S extends Draining | Pausing>(state: S, now: TimeMs): S => {
  let swarm = state.swarm;
  const isAnyOther = [...swarm.sessions.values()].some(isSettled);
  const standing: Peer["standing"] = isAnyOther
    ? { kind: "resting", untilMs: now + SEEDER_RETRY_MS, silent: true }
    : { kind: "ready" };
  for (const [id, session] of swarm.sessions) if (!isSettled(session)) swarm = removeSession(swarm, id, standing);
  const cut = state.kind === "draining" && swarm !== state.swarm ? { cutBy: "timeout" as const } : {};
  return { ...state, swarm, giveUpAtMs: null, ...cut };
};
