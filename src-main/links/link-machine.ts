import { assertNever } from "#shared/base/assert.ts";
import { HANDSHAKE_TIMEOUT_MS, LINK_OFFLINE_RETRY_MAX_MS, RECONNECT_MAX_MS } from "#shared/base/limits.ts";
import {
  begin,
  disconnect,
  failLink,
  forgetful,
  hinted,
  lostAttempt,
  networkChanged,
  policyChanged,
  refresh,
  restart,
  wait,
} from "./link-first.ts";
import { followPeer, giveUpNext, nextEvent, nextTimedOut, startNext } from "./link-next.ts";
import { offerArrived, signalled } from "./link-signals.ts";
import {
  type Attempt,
  type Candidate,
  type ConnectionEvent,
  type Context,
  connectedBy,
  currentAttempt,
  enter,
  hold,
  type LinkEffect,
  type LinkEvent,
  type LinkInput,
  type LinkMachineState,
  sayClosed,
  searchLater,
  sendOffer,
  sendSignal,
  stale,
  startTimer,
  wantsBetter,
  wantsLarger,
} from "./link-state.ts";
import { isHostCandidate } from "./sdp.ts";

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
 * RELAY_AFTER_MS, towards a better path while the link is relayed, with larger packets while it leads to this very
 * machine, and in place of a link whose network has changed.
 * `connected` then stays, only its generation becomes another.
 *
 * Generations. Each attempt has one of ours (`generation`), which native events, timers and results carry back; an event
 * of another one is counted as stale and changes nothing. On the wire signals carry the generation of the offer that
 * they belong to (`offerGeneration`): for the dialer the two are the same. Offers only count up; `dial` names the newest
 * offer seen, so that a dialer that forgot its count (a reinstall) jumps past it.
 *
 * Candidates and DTLS. The answerer is the DTLS client and greets when its ICE is through. If the dialer's is not by then,
 * nobody there takes the greeting up before it is repeated: a whole second, each time. So the dialer keeps the addresses of its
 * interfaces (`held`) until the answer is here, and the answerer, once it has them, waits a moment more before it uses
 * them (negotiation.ts). Behind address translators it is the other way round: whose checks begin later gets through
 * first, because the other's have opened the way. So the dialer's other candidates go at once.
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
      return hinted(state, ctx);
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
    if (wantsLarger(state, ctx)) {
      const tried = { ...state, largeTries: state.largeTries + 1 };
      return startNext(tried, "rtc", "enlarge", ctx, ctx.allowed.localMtu);
    }
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
  else if (phase.name === "discovering") sendOffer(attempt, sdp, ctx, state.timer);
  // It was the second attempt until a moment ago.
  else if (phase.name === "connecting" && phase.answer === "awaited") sendOffer(attempt, sdp, ctx);
  else return stale(state);
  return state;
};

const localCandidate = (state: State, attempt: Attempt, candidate: Candidate, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "discovering" && phase.activity.kind === "offering") {
    const held = hold(phase.activity.held, candidate);
    return { ...state, phase: { ...phase, activity: { ...phase.activity, held } } };
  }
  if (phase.name === "connecting" && phase.answer === "awaited" && isHostCandidate(candidate.candidate))
    return { ...state, phase: { ...phase, held: hold(phase.held, candidate) } };
  sendSignal({ type: "candidate", generation: attempt.offerGeneration, ...candidate }, ctx);
  return state;
};

const channelsOpen = (state: State, attempt: Attempt, ctx: Context): State => {
  if (state.phase.name !== "connecting") return stale(state);
  ctx.effects.push({ type: "startHandshake", generation: attempt.generation });
  return startTimer(enter(state, { name: "handshaking", attempt }, null, ctx), HANDSHAKE_TIMEOUT_MS, ctx);
};
