import { assertNever } from "#shared/base/assert.ts";
import type { Generation } from "#shared/base/ids.ts";
import {
  DIAL_GRACE_MS,
  HANDSHAKE_TIMEOUT_MS,
  LINK_CONNECT_TIMEOUT_MS,
  LINK_OFFLINE_RETRY_MAX_MS,
  RECONNECT_MAX_MS,
  RELAY_AFTER_MS,
} from "#shared/base/limits.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import {
  acceptNext,
  dropNext,
  failNext,
  followPeer,
  giveUpNext,
  isNextDescribed,
  nextAnswered,
  nextEvent,
  nextTimedOut,
  startNext,
  takePlace,
} from "./link-next.ts";
import {
  type Attempt,
  backoffMs,
  type Candidate,
  type ConnectionEvent,
  type Context,
  close,
  connectedBy,
  currentAttempt,
  enter,
  fault,
  hold,
  keepEarly,
  type LinkEffect,
  type LinkEvent,
  type LinkInput,
  type LinkMachineState,
  type LinkPhase,
  type LinkVia,
  type Offering,
  releaseEarly,
  sayClosed,
  searchLater,
  sendSignal,
  stale,
  startBetterTimer,
  startTimer,
  stopBetterTimer,
  stopTimer,
  wantsBetter,
} from "./link-state.ts";
import { isRelayDescription } from "./transport.ts";

/**
 * The life of the link to one peer, without any I/O. Roles are fixed, so two offers never cross: the side with the
 * lower user id is the dialer and makes every offer; the other, the answerer, asks for one with `dial`.
 *
 *   state         means                                              leaves by
 *   disconnected  not wanted                                         connect -> discovering
 *   discovering   offering: the offer is made and on its way         delivered -> connecting; offline -> waiting
 *                 asking: `dial` is on its way or was delivered      offer -> connecting; offline -> waiting
 *                 waiting: the peer is offline or said goodbye       hint, timer, dial, offer -> a new attempt
 *   connecting    descriptions and candidates are exchanged          both channels open -> handshaking
 *   handshaking   both sides prove their account on the channel      proven -> connected
 *   connected     in use                                             peerFin -> discovering (waiting)
 *   failed        broke; tried again after a backoff                 timer, hint, dial, offer -> a new attempt
 *
 * From every state: disconnect -> disconnected, any failure of the current attempt -> failed. A new attempt out of a
 * later state passes through disconnected. No other pair exists: it is a bug here, or a fault of the peer, which is
 * counted and ignored.
 *
 * A second attempt can run beside the first (link-next.ts): over the server's relay when a direct path takes longer than
 * RELAY_AFTER_MS, towards a better path while the link is relayed, and in place of a link whose network has changed.
 * `connected` then stays, only its generation becomes another.
 *
 * Generations. Each attempt has one of ours (`generation`), which native events, timers and results carry back; an event
 * of another one is counted as stale and changes nothing. On the wire signals carry the generation of the offer that
 * they belong to (`offerGeneration`): for the dialer the two are the same. Offers only count up; `dial` names the newest
 * offer seen, so that a dialer that forgot its count (a reinstall) jumps past it.
 *
 * The dialer keeps its candidates (`held`) until the answer is here. Sent at once, they let the answerer's side of ICE
 * finish first, and its DTLS greeting is then lost in a dialer that is not listening yet: a whole second, each time.
 */
type State = LinkMachineState;

export const stepLink = (state: State, input: LinkInput): readonly [State, readonly LinkEffect[]] => {
  const effects: LinkEffect[] = [];
  return [handle(state, { ...input, effects }), effects];
};

const handle = (state: State, ctx: Context): State => {
  const { event } = ctx;
  switch (event.type) {
    case "connect":
      return state.phase.name === "disconnected" ? begin(forgetful(state), ctx) : state;
    case "disconnect":
      return disconnect(state, event.reason, ctx);
    case "reconnect":
      return state.phase.name === "disconnected" ? state : restart(forgetful(state), "reconnect", ctx);
    case "hint":
      if (isIdle(state.phase)) return restart(forgetful(state), state.reason, ctx);
      // An announcement on its way may have missed the peer by a moment: if so, the next one follows soon.
      return state.phase.name === "discovering" ? forgetful(state) : state;
    case "networkChanged":
      return networkChanged(state, ctx);
    case "policyChanged":
      return policyChanged(state, ctx);
    case "staleSeen":
      return stale(state);
    case "timer":
      return timerFired(state, event.token, ctx);
    case "announced":
      return announced(state, event, ctx);
    case "signal":
      return signalled(state, event.signal, ctx);
    default: {
      const attempt = currentAttempt(state.phase);
      if (attempt?.generation === event.generation) return connectionEvent(state, attempt, event, ctx);
      const { next } = state;
      return next?.attempt.generation === event.generation ? nextEvent(state, next, event, ctx) : stale(state);
    }
  }
};

/** Something changed for the better, or somebody asks: what failed before is no reason any more. */
const forgetful = (state: State): State => ({ ...state, tries: 0, upgradeTries: 0, peerWantsRelay: false });

/** Wanted, and nothing under way but a timer. */
const isIdle = (phase: LinkPhase): boolean =>
  phase.name === "failed" || (phase.name === "discovering" && phase.activity.kind === "waiting");

/** From disconnected, or from a discovering that was waiting. */
const begin = (state: State, ctx: Context): State => {
  if (state.role === "answerer") {
    const asking = enter(state, { name: "discovering", activity: { kind: "asking" } }, state.reason, ctx);
    const timed = startTimer(asking, LINK_CONNECT_TIMEOUT_MS, ctx);
    sendSignal({ type: "dial", generation: timed.newestOffer }, ctx, timed.timer);
    return timed;
  }
  const via = firstVia(state, ctx);
  return via === null ? wait(state, "no_path_allowed", LINK_OFFLINE_RETRY_MAX_MS, ctx) : offer(state, via, ctx);
};

const firstVia = ({ peerWantsRelay }: State, { allowed }: Context): LinkVia | null => {
  if (allowed.rtc && !(peerWantsRelay && allowed.relay)) return "rtc";
  return allowed.relay ? "relay" : null;
};

const offer = (state: State, via: LinkVia, ctx: Context): State => {
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

const toDisconnected = (state: State, reason: string | null, ctx: Context): State => {
  const attempt = currentAttempt(state.phase);
  if (attempt !== null) close(attempt, state.phase.name === "connected" ? "closed" : "given_up", reason, ctx);
  const alone = stopBetterTimer(dropNext(state, "closed", ctx), ctx);
  return stopTimer(enter(alone, { name: "disconnected" }, reason, ctx), ctx);
};

const restart = (state: State, reason: string | null, ctx: Context): State =>
  begin(toDisconnected(state, reason, ctx), ctx);

const disconnect = (state: State, reason: string, ctx: Context): State => {
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
const failLink = (state: State, reason: string, ctx: Context): State => {
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
const lostAttempt = (state: State, attempt: Attempt, reason: string, ctx: Context): State => {
  if (state.phase.name !== "discovering") sayClosed(attempt, reason, ctx);
  const isFirst = attempt.via === "rtc" && state.phase.name !== "connected" && state.next === null;
  if (state.role === "answerer" || !isFirst || !ctx.allowed.relay) return failLink(state, reason, ctx);
  close(attempt, "failed", reason, ctx);
  return offer(enter(state, { name: "disconnected" }, reason, ctx), "relay", ctx);
};

/** Nobody is there: rest in discovering. From connected the way there leads through disconnected. */
const wait = (state: State, reason: string, maxMs: number, ctx: Context): State => {
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
const networkChanged = (state: State, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "disconnected") return state;
  if (phase.name !== "connected") return restart(forgetful(state), "network_changed", ctx);
  return refresh(forgetful(state), phase.attempt, ctx);
};

const refresh = (state: State, attempt: Attempt, ctx: Context): State => {
  ctx.effects.push({ type: "probe", generation: attempt.generation });
  if (state.role === "answerer") {
    sendSignal({ type: "dial", generation: state.newestOffer }, ctx);
    return state;
  }
  const via = firstVia(state, ctx);
  return via === null ? state : startNext(state, via, "refresh", ctx);
};

/** What is forbidden now ends at once, and what is allowed now is tried. */
const policyChanged = (state: State, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "disconnected") return state;
  const attempt = currentAttempt(phase);
  const isForbidden = (one: Attempt | undefined | null): boolean => one != null && !ctx.allowed[one.via];
  const fresh = forgetful(state);
  if (isForbidden(attempt) || isIdle(phase)) return restart(fresh, "policy_changed", ctx);
  const alone = isForbidden(state.next?.attempt) ? giveUpNext(fresh, "policy_changed", ctx) : fresh;
  return phase.name === "connected" ? searchLater(alone, ctx) : alone;
};

const timerFired = (state: State, token: number, ctx: Context): State => {
  if (token === state.timer) return timeOut(state, ctx);
  const { next } = state;
  if (next !== null && token === next.timer) return nextTimedOut(state, next, ctx);
  return token === state.betterTimer ? lookFurther({ ...state, betterTimer: null }, ctx) : stale(state);
};

const lookFurther = (state: State, ctx: Context): State => {
  if (state.next !== null) return state;
  const attempt = currentAttempt(state.phase);
  if (state.phase.name === "connected") {
    if (!wantsBetter(state, ctx)) return state;
    return startNext({ ...state, upgradeTries: state.upgradeTries + 1 }, "rtc", "upgrade", ctx);
  }
  const isSlow = state.role === "dialer" && attempt?.via === "rtc";
  return isSlow && ctx.allowed.relay ? startNext(state, "relay", "fallback", ctx) : state;
};

const timeOut = (state: State, ctx: Context): State => {
  const { phase } = state;
  switch (phase.name) {
    case "disconnected":
    case "connected":
      return stale(state);
    case "failed":
      return restart(state, state.reason, ctx);
    case "discovering":
      if (phase.activity.kind === "waiting") return begin(state, ctx);
      return failLink(state, "no_answer", ctx);
    case "connecting":
      sayClosed(phase.attempt, "connect_timeout", ctx);
      return failLink(state, "connect_timeout", ctx);
    case "handshaking":
      sayClosed(phase.attempt, "handshake_timeout", ctx);
      return failLink(state, "handshake_timeout", ctx);
    default:
      return assertNever(phase, "phase");
  }
};

const announced = (state: State, event: Extract<LinkEvent, { type: "announced" }>, ctx: Context): State => {
  const { phase } = state;
  if (event.token !== state.timer || phase.name !== "discovering") return stale(state);
  if (event.outcome === "offline") return wait(state, "peer_offline", LINK_OFFLINE_RETRY_MAX_MS, ctx);
  if (event.outcome === "failed") return failLink(state, "signaling_failed", ctx);
  return phase.activity.kind === "offering" ? offerArrived(state, phase.activity, ctx) : state;
};

const offerArrived = (state: State, activity: Offering, ctx: Context): State => {
  const { attempt, held, patienceMs } = activity;
  return startTimer(enter(state, { name: "connecting", attempt, answer: "awaited", held }, null, ctx), patienceMs, ctx);
};

const signalled = (state: State, signal: LinkSignal, ctx: Context): State => {
  switch (signal.type) {
    case "dial":
      return state.role === "dialer" ? dialled(state, signal.generation, ctx) : fault(state, "dial to answerer", ctx);
    case "offer":
      return state.role === "answerer" ? offered(state, signal, ctx) : fault(state, "offer to dialer", ctx);
    case "answer":
      return state.role === "dialer" ? answered(state, signal, ctx) : fault(state, "answer to answerer", ctx);
    case "candidate":
      return candidateArrived(state, signal, ctx);
    case "close":
      return closedByPeer(state, signal, ctx);
    default:
      return assertNever(signal, "signal");
  }
};

const dialled = (state: State, seen: Generation, ctx: Context): State => {
  // Counting past this would leave the safe integers; no honest count ever comes near.
  if (seen > Number.MAX_SAFE_INTEGER - 2 ** 20) return fault(state, "generation out of range", ctx);
  const { phase } = state;
  if (phase.name === "disconnected") {
    sendSignal({ type: "close", generation: seen, reason: "not_wanted" }, ctx);
    return state;
  }
  const past = { ...state, generation: Math.max(state.generation, seen) };
  const attempt = currentAttempt(phase);
  if (attempt === null) return restart(past, "peer_dialled", ctx);
  // What it asks for is on its way.
  if (state.next !== null && seen < state.next.attempt.offerGeneration) return state;
  // The peer has seen our newest offer and wants another, because its end broke or its network changed.
  if (seen >= attempt.offerGeneration)
    return phase.name === "connected" ? refresh(past, attempt, ctx) : restart(past, "peer_dialled", ctx);
  // It was sent before our offer arrived, unless that is long ago: then the peer has started anew and forgotten it.
  if (ctx.atMs - attempt.startedAtMs < DIAL_GRACE_MS) return answerSoon(state, ctx);
  if (phase.name !== "connected") return restart(past, "peer_dialled", ctx);
  ctx.effects.push({ type: "probe", generation: attempt.generation });
  return state;
};

/**
 * The peer is there. It answers at once, unless it refused our offer, because it has accepted us as a contact only since:
 * then waiting as long as for a slow network would be in vain.
 */
const answerSoon = (state: State, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "connecting" && phase.answer === "awaited") return startTimer(state, DIAL_GRACE_MS, ctx);
  if (phase.name !== "discovering" || phase.activity.kind !== "offering") return state;
  return { ...state, phase: { ...phase, activity: { ...phase.activity, patienceMs: DIAL_GRACE_MS } } };
};

const offered = (state: State, offer: Extract<LinkSignal, { type: "offer" }>, ctx: Context): State => {
  if (state.phase.name === "disconnected") {
    sendSignal({ type: "close", generation: offer.generation, reason: "not_wanted" }, ctx);
    return state;
  }
  if (offer.generation <= state.newestOffer) {
    // A dialer that lost its count: tell it where to go on. A late copy of an old offer while a newer one runs is just stale.
    if (currentAttempt(state.phase) === null) sendSignal({ type: "dial", generation: state.newestOffer }, ctx);
    return stale(state);
  }
  const via: LinkVia = isRelayDescription(offer.sdp) ? "relay" : "rtc";
  if (!ctx.allowed[via]) {
    // Nothing of ours may travel that way; the dialer can choose another.
    const reason = via === "rtc" ? "relay_only" : "no_relay";
    sendSignal({ type: "close", generation: offer.generation, reason }, ctx);
    return { ...state, newestOffer: offer.generation };
  }
  const first = currentAttempt(state.phase);
  if (first !== null && (state.phase.name === "connected" || first.via !== via))
    return acceptNext(state, offer, via, ctx);
  const idle = toDisconnected(state, state.reason, ctx);
  const generation = state.generation + 1;
  const attempt: Attempt = { generation, offerGeneration: offer.generation, startedAtMs: ctx.atMs, via };
  const found = enter(
    { ...idle, generation, newestOffer: offer.generation },
    { name: "discovering", activity: { kind: "waiting" } },
    state.reason,
    ctx,
  );
  const connecting = enter(found, { name: "connecting", attempt, answer: "known", held: [] }, null, ctx);
  ctx.effects.push({ type: "openAnswering", generation, offerGeneration: offer.generation, via, sdp: offer.sdp });
  return startTimer(releaseEarly(connecting, attempt, ctx), LINK_CONNECT_TIMEOUT_MS, ctx);
};

const answered = (state: State, answer: Extract<LinkSignal, { type: "answer" }>, ctx: Context): State => {
  const { next } = state;
  if (next?.attempt.offerGeneration === answer.generation) return nextAnswered(state, next, answer.sdp, ctx);
  const attempt = currentAttempt(state.phase);
  if (attempt?.offerGeneration !== answer.generation) return stale(state);
  // The answer can be faster than the server's word that the offer was delivered.
  const { phase } = state;
  const from =
    phase.name === "discovering" && phase.activity.kind === "offering"
      ? offerArrived(state, phase.activity, ctx)
      : state;
  if (from.phase.name !== "connecting" || from.phase.answer === "known") return stale(from);
  ctx.effects.push({ type: "acceptAnswer", generation: attempt.generation, sdp: answer.sdp });
  for (const candidate of from.phase.held)
    sendSignal({ type: "candidate", generation: attempt.offerGeneration, ...candidate }, ctx);
  const known = releaseEarly({ ...from, phase: { ...from.phase, answer: "known", held: [] } }, attempt, ctx);
  return startTimer(known, LINK_CONNECT_TIMEOUT_MS, ctx);
};

const candidateArrived = (state: State, signal: Extract<LinkSignal, { type: "candidate" }>, ctx: Context): State => {
  const candidate: Candidate = { candidate: signal.candidate, mid: signal.mid };
  const { next } = state;
  const first = currentAttempt(state.phase);
  const isFirst = first?.offerGeneration === signal.generation;
  const isNext = next?.attempt.offerGeneration === signal.generation;
  const attempt = isFirst ? first : isNext ? next.attempt : null;
  if (attempt !== null && (isFirst ? isDescribed(state.phase) : next !== null && isNextDescribed(next))) {
    ctx.effects.push({ type: "addCandidate", generation: attempt.generation, ...candidate });
    return state;
  }
  const isComing = state.role === "answerer" && signal.generation > state.newestOffer;
  if (attempt === null && (!isComing || state.phase.name === "disconnected")) return stale(state);
  return keepEarly(state, signal.generation, candidate, ctx);
};

const isDescribed = (phase: LinkPhase): boolean =>
  phase.name === "connecting" ? phase.answer === "known" : phase.name === "handshaking" || phase.name === "connected";

/** Words that a peer may give as the reason; anything else it writes stays out of our views and logs. */
const peerReasons = new Set([
  ...["not_wanted", "busy", "disabled", "connect_timeout", "handshake_timeout", "no_answer"],
  ...["relay_only", "no_relay", "no_better_path", "relay_was_faster", "unreachable"],
]);

const closedByPeer = (state: State, signal: Extract<LinkSignal, { type: "close" }>, ctx: Context): State => {
  const reason = `peer_${peerReasons.has(signal.reason) ? signal.reason : "closed"}`;
  const { phase, next } = state;
  const told = state.role === "dialer" && signal.reason === "relay_only" ? { ...state, peerWantsRelay: true } : state;
  if (next?.attempt.offerGeneration === signal.generation) return failNext(told, reason, ctx);
  const attempt = currentAttempt(phase);
  const answersDial =
    phase.name === "discovering" && phase.activity.kind === "asking" && signal.generation === state.newestOffer;
  if (answersDial) return wait(state, reason, LINK_OFFLINE_RETRY_MAX_MS, ctx);
  // A proven link ends by FIN on its own channel, never by a signal.
  if (attempt?.offerGeneration !== signal.generation || phase.name === "connected") return stale(state);
  if (!told.peerWantsRelay || attempt.via === "relay" || next !== null || !ctx.allowed.relay)
    return failLink(told, reason, ctx);
  close(attempt, "given_up", reason, ctx);
  return offer(enter(told, { name: "disconnected" }, reason, ctx), "relay", ctx);
};

const connectionEvent = (state: State, attempt: Attempt, event: ConnectionEvent, ctx: Context): State => {
  const { phase } = state;
  switch (event.type) {
    case "localDescription":
      return described(state, attempt, event.sdp, ctx);
    case "localCandidate":
      return localCandidate(state, attempt, { candidate: event.candidate, mid: event.mid }, ctx);
    case "channelsOpen":
      return channelsOpen(state, attempt, ctx);
    case "proven": {
      if (phase.name !== "handshaking") return stale(state);
      ctx.effects.push({ type: "attemptWorks", attempt, path: event.path });
      // The dialer alone decides that the other attempt is not needed; the answerer may be told otherwise.
      const chosen = state.role === "dialer" ? giveUpNext(state, "not_needed", ctx) : state;
      return connectedBy(chosen, attempt, event.path, ctx);
    }
    case "confirmed":
      return state;
    case "measured":
      if (phase.name !== "connected" || phase.path === event.path) return state;
      return searchLater({ ...state, phase: { ...phase, path: event.path } }, ctx);
    case "unsteady":
      return phase.name === "connected" && state.next === null ? refresh(state, attempt, ctx) : state;
    case "peerFin":
      return peerFinished(state, attempt, ctx);
    case "lost":
      return lostAttempt(state, attempt, event.reason, ctx);
    default:
      return assertNever(event, "connection event");
  }
};

const peerFinished = (state: State, attempt: Attempt, ctx: Context): State => {
  const { next } = state;
  if (state.phase.name !== "connected") return failLink(state, "peer_closed", ctx);
  const followed = next === null ? null : followPeer(state, attempt, next, ctx);
  if (followed !== null) return followed;
  ctx.effects.push({ type: "attemptEnded", attempt, end: "closed", reason: "peer_closed" });
  return wait(giveUpNext(state, "closed", ctx), "peer_closed", RECONNECT_MAX_MS, ctx);
};

const described = (state: State, attempt: Attempt, sdp: string, ctx: Context): State => {
  const { phase } = state;
  const generation = attempt.offerGeneration;
  if (state.role === "answerer") sendSignal({ type: "answer", generation, sdp }, ctx);
  else if (phase.name === "discovering") sendSignal({ type: "offer", generation, sdp }, ctx, state.timer);
  // It was the second attempt until a moment ago.
  else if (phase.name === "connecting" && phase.answer === "awaited")
    sendSignal({ type: "offer", generation, sdp }, ctx);
  else return stale(state);
  return state;
};

const localCandidate = (state: State, attempt: Attempt, candidate: Candidate, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "discovering" && phase.activity.kind === "offering") {
    const held = hold(phase.activity.held, candidate);
    return { ...state, phase: { ...phase, activity: { ...phase.activity, held } } };
  }
  if (phase.name === "connecting" && phase.answer === "awaited")
    return { ...state, phase: { ...phase, held: hold(phase.held, candidate) } };
  sendSignal({ type: "candidate", generation: attempt.offerGeneration, ...candidate }, ctx);
  return state;
};

const channelsOpen = (state: State, attempt: Attempt, ctx: Context): State => {
  if (state.phase.name !== "connecting") return stale(state);
  ctx.effects.push({ type: "startHandshake", generation: attempt.generation });
  return startTimer(enter(state, { name: "handshaking", attempt }, null, ctx), HANDSHAKE_TIMEOUT_MS, ctx);
};
