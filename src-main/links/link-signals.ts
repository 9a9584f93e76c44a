import { assertNever } from "#shared/base/assert.ts";
import type { Generation } from "#shared/base/ids.ts";
import { DIAL_GRACE_MS, LINK_CONNECT_TIMEOUT_MS, LINK_OFFLINE_RETRY_MAX_MS } from "#shared/base/limits.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import { failLink, offer, refresh, restart, toDisconnected, wait } from "./link-first.ts";
import { acceptNext, failNext, isNextDescribed, nextAnswered, startNext } from "./link-next.ts";
import {
  type Attempt,
  type Candidate,
  type Context,
  close,
  currentAttempt,
  enter,
  fault,
  keepEarly,
  type LinkMachineState,
  type LinkPhase,
  type LinkVia,
  type Offering,
  releaseEarly,
  searchLater,
  sendSignal,
  stale,
  startTimer,
} from "./link-state.ts";
import { isHostCandidate } from "./sdp.ts";
import { isRelayDescription } from "./transport.ts";

/** What the peer's signals do to a link: the rules are in link-machine.ts, the signals in docs/protocol.md. */
type State = LinkMachineState;

export const offerArrived = (state: State, activity: Offering, ctx: Context): State => {
  const { attempt, patienceMs } = activity;
  const held = activity.held.filter(({ candidate }) => isHostCandidate(candidate));
  for (const candidate of activity.held)
    if (!held.includes(candidate))
      sendSignal({ type: "candidate", generation: attempt.offerGeneration, ...candidate }, ctx);
  return startTimer(enter(state, { name: "connecting", attempt, answer: "awaited", held }, null, ctx), patienceMs, ctx);
};

export const signalled = (state: State, signal: LinkSignal, ctx: Context): State => {
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
  // Something is new on its side: its policy may be another, and so may be the paths between us. If not, it says so again.
  const told = { ...state, peerWantsRelay: false, upgradeTries: 0 };
  const past = { ...told, generation: Math.max(state.generation, seen) };
  const attempt = currentAttempt(phase);
  if (attempt === null) return restart(past, "peer_dialled", ctx);
  // It has proven this link and knows of no offer: it was killed and started anew, so nothing made before reaches it. Another
  // link replaces this one in order, in case it asked before it saw the offer.
  if (phase.name === "connected" && seen === 0) return refresh(past, attempt, ctx);
  // What it asks for is on its way.
  if (state.next !== null && seen < state.next.attempt.offerGeneration) return told;
  // The peer has seen our newest offer and wants another, because its end broke or its network changed.
  if (seen >= attempt.offerGeneration)
    return phase.name === "connected" ? refresh(past, attempt, ctx) : restart(past, "peer_dialled", ctx);
  // It was sent before our offer arrived, unless that is long ago: then the peer has started anew and forgotten it.
  if (ctx.atMs - attempt.startedAtMs < DIAL_GRACE_MS) return answerSoon(told, ctx);
  if (phase.name !== "connected") return restart(past, "peer_dialled", ctx);
  ctx.effects.push({ type: "probe", generation: attempt.generation });
  return searchLater(told, ctx);
};

/**
 * The peer is there. It answers at once, unless it refused our offer, because it has accepted us as a contact only since:
 * then waiting as long as for a slow network would be in vain.
 */
const answerSoon = (state: State, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "connected") return searchLater(state, ctx);
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
  if (next?.attempt.offerGeneration === signal.generation) {
    const alone = failNext(told, reason, ctx);
    // The network under the link has changed all the same.
    const isRefreshed = next.purpose === "refresh" && next.attempt.via === "rtc" && phase.name === "connected";
    return isRefreshed && told.peerWantsRelay && ctx.allowed.relay ? startNext(alone, "relay", "refresh", ctx) : alone;
  }
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
