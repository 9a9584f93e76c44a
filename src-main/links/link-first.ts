import { assertNever } from "#shared/base/assert.ts";
import {
  LINK_CONNECT_TIMEOUT_MS,
  LINK_OFFLINE_RETRY_MAX_MS,
  RECONNECT_MAX_MS,
  RELAY_AFTER_MS,
} from "#shared/base/limits.ts";
import { dropNext, giveUpNext, startNext, takePlace } from "./link-next.ts";
import {
  type Attempt,
  backoffMs,
  type Context,
  close,
  currentAttempt,
  enter,
  isRelayed,
  type LinkMachineState,
  type LinkPhase,
  type LinkVia,
  type Offering,
  sayClosed,
  searchLater,
  sendSignal,
  startBetterTimer,
  startTimer,
  stopBetterTimer,
  stopTimer,
} from "./link-state.ts";

/** The first attempt of a link: how it begins, and what becomes of the link when it ends. See link-machine.ts. */
type State = LinkMachineState;

/** Something changed for the better, or somebody asks: what failed before is no reason any more. */
export const forgetful = (state: State): State => ({
  ...state,
  tries: 0,
  upgradeTries: 0,
  largeTries: 0,
  peerWantsRelay: false,
});

/** The peer or the server is back. */
export const hinted = (state: State, ctx: Context): State => {
  const { phase } = state;
  switch (phase.name) {
    case "disconnected":
    case "connecting":
    case "handshaking":
      return { ...state, largeTries: 0 };
    case "connected":
      // Its network, or ours, may be another one: the dial that says so is lost when the server cannot be reached from
      // there. A search that is due as soon as can be is not put off.
      return state.upgradeTries > 0 || state.largeTries > 0 || state.peerWantsRelay
        ? searchLater(forgetful(state), ctx)
        : state;
    case "discovering":
      // An announcement on its way may have missed the peer by a moment: if so, the next one follows soon.
      return isIdle(phase) ? restart(forgetful(state), state.reason, ctx) : forgetful(state);
    case "failed":
      return restart(forgetful(state), state.reason, ctx);
    default:
      return assertNever(phase, "phase");
  }
};

/** Wanted, and nothing under way but a timer. */
const isIdle = (phase: LinkPhase): boolean =>
  phase.name === "failed" || (phase.name === "discovering" && phase.activity.kind === "waiting");

/** From disconnected, or from a discovering that was waiting. */
export const begin = (state: State, ctx: Context): State => {
  if (state.role === "answerer") {
    const { newestOffer: seen } = state;
    const asking = enter(state, { name: "discovering", activity: { kind: "asking", seen } }, state.reason, ctx);
    const timed = startTimer(asking, LINK_CONNECT_TIMEOUT_MS, ctx);
    sendSignal({ type: "dial", generation: seen }, ctx, timed.timer);
    return timed;
  }
  const via = firstVia(state, ctx);
  return via === null ? wait(state, "no_path_allowed", LINK_OFFLINE_RETRY_MAX_MS, ctx) : offer(state, via, ctx);
};

const firstVia = ({ peerWantsRelay }: State, { allowed }: Context): LinkVia | null => {
  if (allowed.rtc && !(peerWantsRelay && allowed.relay)) return "rtc";
  return allowed.relay ? "relay" : null;
};

export const offer = (state: State, via: LinkVia, ctx: Context): State => {
  const generation = state.generation + 1;
  const attempt: Attempt = { generation, offerGeneration: generation, startedAtMs: ctx.atMs, via };
  const activity: Offering = { kind: "offering", attempt, held: [], patienceMs: LINK_CONNECT_TIMEOUT_MS };
  const offering: LinkPhase = { name: "discovering", activity };
  const entered = enter({ ...state, generation }, offering, state.reason, ctx);
  ctx.effects.push({ type: "openDialing", generation, via });
  const timed = startTimer(entered, LINK_CONNECT_TIMEOUT_MS, ctx);
  if (via === "rtc" && ctx.allowed.relay) return startBetterTimer(timed, RELAY_AFTER_MS, ctx);
  return stopBetterTimer(timed, ctx);
};

export const toDisconnected = (state: State, reason: string | null, ctx: Context): State => {
  const attempt = currentAttempt(state.phase);
  if (attempt !== null) close(attempt, state.phase.name === "connected" ? "closed" : "given_up", reason, ctx);
  const alone = stopBetterTimer(dropNext(state, "closed", ctx), ctx);
  return stopTimer(enter(alone, { name: "disconnected" }, reason, ctx), ctx);
};

export const restart = (state: State, reason: string | null, ctx: Context): State =>
  begin(toDisconnected(state, reason, ctx), ctx);

export const disconnect = (state: State, reason: string, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "disconnected") return state;
  const alone = giveUpNext(state, reason, ctx);
  if (phase.name !== "connected") {
    if (phase.name === "connecting" || phase.name === "handshaking") sayClosed(phase.attempt, reason, ctx);
    return toDisconnected(alone, reason, ctx);
  }
  ctx.effects.push({ type: "finish", generation: phase.attempt.generation, reason });
  ctx.effects.push({ type: "attemptEnded", attempt: phase.attempt, end: "closed", reason });
  return stopTimer(enter(stopBetterTimer(alone, ctx), { name: "disconnected" }, reason, ctx), ctx);
};

/** The first attempt is over; the second one takes its place, if there is one. */
export const failLink = (state: State, reason: string, ctx: Context): State => {
  const { phase } = state;
  const attempt = currentAttempt(phase);
  if (attempt !== null) close(attempt, phase.name === "connected" ? "lost" : "failed", reason, ctx);
  if (state.next !== null) return takePlace(state, reason, ctx);
  const stood = phase.name === "connected" && ctx.atMs - phase.sinceMs > RECONNECT_MAX_MS;
  const tries = stood ? 0 : state.tries;
  const failed = enter(stopBetterTimer({ ...state, tries: tries + 1 }, ctx), { name: "failed" }, reason, ctx);
  return startTimer(failed, backoffMs(tries, RECONNECT_MAX_MS, ctx.random), ctx);
};

/** What WebRTC could not do at all the relay may: at once, because waiting would not help. */
export const lostAttempt = (state: State, attempt: Attempt, reason: string, ctx: Context): State => {
  if (state.phase.name !== "discovering") sayClosed(attempt, reason, ctx);
  const isFirst = attempt.via === "rtc" && state.phase.name !== "connected" && state.next === null;
  if (state.role === "answerer" || !isFirst || !ctx.allowed.relay) return failLink(state, reason, ctx);
  close(attempt, "failed", reason, ctx);
  return offer(enter(state, { name: "disconnected" }, reason, ctx), "relay", ctx);
};

/** Nobody is there: rest in discovering. From connected the way there leads through disconnected. */
export const wait = (state: State, reason: string, maxMs: number, ctx: Context): State => {
  const { phase } = state;
  const attempt = currentAttempt(phase);
  if (phase.name === "discovering" && attempt !== null) close(attempt, "given_up", reason, ctx);
  const alone = stopBetterTimer(dropNext(state, reason, ctx), ctx);
  const from = phase.name === "discovering" ? alone : enter(alone, { name: "disconnected" }, reason, ctx);
  const tries = phase.name === "connected" ? 0 : state.tries;
  const waiting: LinkPhase = { name: "discovering", activity: { kind: "waiting" } };
  const entered = enter({ ...from, tries: tries + 1 }, waiting, reason, ctx);
  return startTimer(entered, backoffMs(tries, maxMs, ctx.random), ctx);
};

/** What the link stands on may be gone: ask whether it is, and have another way ready. */
export const networkChanged = (state: State, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "disconnected") return state;
  if (phase.name !== "connected") return restart(forgetful(state), "network_changed", ctx);
  return refresh(forgetful(state), phase.attempt, ctx);
};

export const refresh = (state: State, attempt: Attempt, ctx: Context): State => {
  ctx.effects.push({ type: "probe", generation: attempt.generation });
  if (state.role === "answerer") {
    sendSignal({ type: "dial", generation: state.newestOffer }, ctx);
    return state;
  }
  const via = firstVia(state, ctx);
  return via === null ? state : startNext(state, via, "refresh", ctx);
};

/** What is forbidden now ends at once, and what is allowed now is tried. */
export const policyChanged = (state: State, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "disconnected") return state;
  const attempt = currentAttempt(phase);
  const isForbidden = (one: Attempt | undefined | null): boolean => {
    if (one == null) return false;
    const may = ctx.allowed[one.via];
    // What it may use was fixed when it was opened. Only a path that stands is known to lie within the local network.
    return may === "lan" ? one !== attempt || !isWithinLan(phase) : !may;
  };
  const fresh = forgetful(state);
  if (isForbidden(attempt) || isIdle(phase)) return restart(fresh, "policy_changed", ctx);
  const alone = isForbidden(state.next?.attempt) ? giveUpNext(fresh, "policy_changed", ctx) : fresh;
  if (state.role === "answerer" && mayBeDirect(alone, ctx))
    sendSignal({ type: "dial", generation: alone.newestOffer }, ctx);
  return phase.name === "connected" ? searchLater(alone, ctx) : alone;
};

const isWithinLan = (phase: LinkPhase): boolean =>
  phase.name === "connected" && (phase.path === "lan" || phase.path === "machine");

/** The link is, or soon will be, relayed, perhaps only because of what this side has refused until now. */
const mayBeDirect = ({ phase, newestOffer }: State, { allowed }: Context): boolean => {
  const hasRefused =
    phase.name === "discovering" && phase.activity.kind === "asking" && newestOffer > phase.activity.seen;
  return allowed.rtc !== false && (hasRefused || isRelayed(phase));
};
