import { assert, assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { Generation } from "#shared/base/ids.ts";
import {
  DIAL_GRACE_MS,
  EARLY_CANDIDATES_MAX,
  HANDSHAKE_TIMEOUT_MS,
  LINK_CONNECT_TIMEOUT_MS,
  LINK_OFFLINE_RETRY_MAX_MS,
  RECONNECT_BASE_MS,
  RECONNECT_MAX_MS,
} from "#shared/base/limits.ts";
import type { LinkState } from "#shared/ipc/views.ts";
import type { LinkSignal } from "#shared/wire/content.ts";

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
 * Generations. Each attempt has one of ours (`generation`), which native events, timers and results carry back; an event
 * of another one is counted as stale and changes nothing. On the wire signals carry the generation of the offer that
 * they belong to (`offerGeneration`): for the dialer the two are the same. Offers only count up; `dial` names the newest
 * offer seen, so that a dialer that forgot its count (a reinstall) jumps past it.
 *
 * The dialer keeps its candidates (`held`) until the answer is here. Sent at once, they let the answerer's side of ICE
 * finish first, and its DTLS greeting is then lost in a dialer that is not listening yet: a whole second, each time.
 */
export type LinkRole = "dialer" | "answerer";

interface Attempt {
  readonly generation: Generation;
  readonly offerGeneration: Generation;
  readonly startedAtMs: TimeMs;
}
export interface Candidate {
  readonly candidate: string;
  readonly mid: string;
}
type Activity =
  | {
      readonly kind: "offering";
      readonly attempt: Attempt;
      readonly held: readonly Candidate[];
      /** How long the answer may take once the offer was delivered. */
      readonly patienceMs: number;
    }
  | { readonly kind: "asking" }
  | { readonly kind: "waiting" };

export type LinkPhase =
  | { readonly name: "disconnected" }
  | { readonly name: "discovering"; readonly activity: Activity }
  | {
      readonly name: "connecting";
      readonly attempt: Attempt;
      readonly answer: "awaited" | "known";
      readonly held: readonly Candidate[];
    }
  | { readonly name: "handshaking"; readonly attempt: Attempt }
  | { readonly name: "connected"; readonly attempt: Attempt; readonly sinceMs: TimeMs }
  | { readonly name: "failed" };

export interface LinkMachineState {
  readonly role: LinkRole;
  readonly phase: LinkPhase;
  /** Why it is not connected, or what ended the last attempt. */
  readonly reason: string | null;
  /** Newest of our attempts. */
  readonly generation: Generation;
  /** Newest offer of the peer (answerer only). */
  readonly newestOffer: Generation;
  /** Candidates for a description that is not here yet, all of one offer. */
  readonly early: { readonly offerGeneration: Generation; readonly candidates: readonly Candidate[] };
  /** Attempts since the link last stood for a while; sets the backoff. */
  readonly tries: number;
  /** The one timer that counts; a timer of another token is stale. */
  readonly timer: number;
  readonly staleEvents: number;
}

export type LinkEvent =
  | { readonly type: "connect" }
  | { readonly type: "disconnect"; readonly reason: string }
  | { readonly type: "reconnect" }
  /** The peer or the server came (back) online. */
  | { readonly type: "hint" }
  | { readonly type: "timer"; readonly token: number }
  /** What became of the offer or dial that was sent under this token. */
  | { readonly type: "announced"; readonly token: number; readonly outcome: "delivered" | "offline" | "failed" }
  | { readonly type: "signal"; readonly signal: LinkSignal }
  | { readonly type: "localDescription"; readonly generation: Generation; readonly sdp: string }
  | ({ readonly type: "localCandidate"; readonly generation: Generation } & Candidate)
  | { readonly type: "channelsOpen"; readonly generation: Generation }
  | { readonly type: "proven"; readonly generation: Generation }
  | { readonly type: "peerFin"; readonly generation: Generation }
  | { readonly type: "lost"; readonly generation: Generation; readonly reason: string };

/** Time and chance are inputs: `random` is uniform in [0, 1). */
export interface LinkInput {
  readonly atMs: TimeMs;
  readonly random: number;
  readonly event: LinkEvent;
}

export type LinkEffect =
  | { readonly type: "openDialing"; readonly generation: Generation }
  | {
      readonly type: "openAnswering";
      readonly generation: Generation;
      readonly offerGeneration: Generation;
      readonly sdp: string;
    }
  | { readonly type: "acceptAnswer"; readonly generation: Generation; readonly sdp: string }
  | ({ readonly type: "addCandidate"; readonly generation: Generation } & Candidate)
  | { readonly type: "startHandshake"; readonly generation: Generation }
  /** Close at once; nothing of it may come any more. */
  | { readonly type: "abandon"; readonly generation: Generation }
  /** Close in order (FIN), without losing what was sent. */
  | { readonly type: "finish"; readonly generation: Generation; readonly reason: string }
  /** Ask for a sign of life sooner than usual. */
  | { readonly type: "probe"; readonly generation: Generation }
  /** With a token, the outcome is wanted as `announced`. */
  | { readonly type: "sendSignal"; readonly signal: LinkSignal; readonly token: number | null }
  | { readonly type: "setTimer"; readonly token: number; readonly delayMs: number }
  | { readonly type: "clearTimer" }
  | { readonly type: "fault"; readonly what: string }
  | { readonly type: "changed"; readonly from: LinkState; readonly to: LinkState };

export const initialLink = (role: LinkRole, generation: Generation): LinkMachineState => ({
  role,
  phase: { name: "disconnected" },
  reason: null,
  generation,
  newestOffer: 0,
  early: { offerGeneration: 0, candidates: [] },
  tries: 0,
  timer: 0,
  staleEvents: 0,
});

const forward: Readonly<Record<LinkState, LinkState | null>> = {
  disconnected: "discovering",
  discovering: "connecting",
  connecting: "handshaking",
  handshaking: "connected",
  connected: null,
  failed: null,
};
export const isLegalTransition = (from: LinkState, to: LinkState): boolean =>
  to === "failed" || to === "disconnected" || forward[from] === to;

/** The attempt that holds a native connection, if there is one. */
export const currentAttempt = (phase: LinkPhase): Attempt | null => {
  switch (phase.name) {
    case "discovering":
      return phase.activity.kind === "offering" ? phase.activity.attempt : null;
    case "connecting":
    case "handshaking":
    case "connected":
      return phase.attempt;
    case "disconnected":
    case "failed":
      return null;
    default:
      return assertNever(phase, "phase");
  }
};

/** Half of the delay is fixed, half is chance, so that many peers do not come back in step. */
export const backoffMs = (tries: number, maxMs: number, random: number): number => {
  const full = Math.min(maxMs, RECONNECT_BASE_MS * 2 ** Math.min(tries, 20));
  return Math.round(full / 2 + (full / 2) * random);
};

interface Context extends LinkInput {
  readonly effects: LinkEffect[];
}
type State = LinkMachineState;

export const stepLink = (state: State, input: LinkInput): readonly [State, readonly LinkEffect[]] => {
  const effects: LinkEffect[] = [];
  return [handle(state, { ...input, effects }), effects];
};

const handle = (state: State, ctx: Context): State => {
  const { event } = ctx;
  switch (event.type) {
    case "connect":
      return state.phase.name === "disconnected" ? begin({ ...state, tries: 0 }, ctx) : state;
    case "disconnect":
      return disconnect(state, event.reason, ctx);
    case "reconnect":
      return state.phase.name === "disconnected" ? state : restart({ ...state, tries: 0 }, "reconnect", ctx);
    case "hint":
      if (isIdle(state.phase)) return restart({ ...state, tries: 0 }, state.reason, ctx);
      // An announcement on its way may have missed the peer by a moment: if so, the next one follows soon.
      return state.phase.name === "discovering" ? { ...state, tries: 0 } : state;
    case "timer":
      return event.token === state.timer ? timeOut(state, ctx) : stale(state);
    case "announced":
      return announced(state, event, ctx);
    case "signal":
      return signalled(state, event.signal, ctx);
    case "localDescription":
    case "localCandidate":
    case "channelsOpen":
    case "proven":
    case "peerFin":
    case "lost": {
      const attempt = currentAttempt(state.phase);
      return attempt?.generation === event.generation ? connectionEvent(state, attempt, event, ctx) : stale(state);
    }
    default:
      return assertNever(event, "link event");
  }
};

/** Wanted, and nothing under way but a timer. */
const isIdle = (phase: LinkPhase): boolean =>
  phase.name === "failed" || (phase.name === "discovering" && phase.activity.kind === "waiting");

const stale = (state: State): State => ({ ...state, staleEvents: state.staleEvents + 1 });

const fault = (state: State, what: string, ctx: Context): State => {
  ctx.effects.push({ type: "fault", what });
  return state;
};

const enter = (state: State, phase: LinkPhase, reason: string | null, ctx: Context): State => {
  const from = state.phase.name;
  assert(from === phase.name || isLegalTransition(from, phase.name), `link transition ${from} -> ${phase.name}`);
  ctx.effects.push({ type: "changed", from, to: phase.name });
  return { ...state, phase, reason };
};

const startTimer = (state: State, delayMs: number, ctx: Context): State => {
  const token = state.timer + 1;
  ctx.effects.push({ type: "setTimer", token, delayMs });
  return { ...state, timer: token };
};

const stopTimer = (state: State, ctx: Context): State => {
  ctx.effects.push({ type: "clearTimer" });
  return { ...state, timer: state.timer + 1 };
};

const dropAttempt = (state: State, ctx: Context): void => {
  const attempt = currentAttempt(state.phase);
  if (attempt !== null) ctx.effects.push({ type: "abandon", generation: attempt.generation });
};

/** Tells the other side that this attempt is over, if it can know of it. */
const sayClosed = (state: State, reason: string, ctx: Context): void => {
  const { phase } = state;
  if (phase.name === "connecting" || phase.name === "handshaking")
    sendSignal({ type: "close", generation: phase.attempt.offerGeneration, reason }, ctx);
};

const sendSignal = (signal: LinkSignal, ctx: Context, token: number | null = null): void => {
  ctx.effects.push({ type: "sendSignal", signal, token });
};

/** From disconnected, or from a discovering that was waiting. */
const begin = (state: State, ctx: Context): State => {
  if (state.role === "answerer") {
    const asking = enter(state, { name: "discovering", activity: { kind: "asking" } }, state.reason, ctx);
    const timed = startTimer(asking, LINK_CONNECT_TIMEOUT_MS, ctx);
    sendSignal({ type: "dial", generation: timed.newestOffer }, ctx, timed.timer);
    return timed;
  }
  const generation = state.generation + 1;
  const attempt = { generation, offerGeneration: generation, startedAtMs: ctx.atMs };
  const activity = { kind: "offering", attempt, held: [], patienceMs: LINK_CONNECT_TIMEOUT_MS } as const;
  const offering: LinkPhase = { name: "discovering", activity };
  const entered = enter({ ...state, generation }, offering, state.reason, ctx);
  ctx.effects.push({ type: "openDialing", generation });
  return startTimer(entered, LINK_CONNECT_TIMEOUT_MS, ctx);
};

const toDisconnected = (state: State, reason: string | null, ctx: Context): State => {
  dropAttempt(state, ctx);
  return stopTimer(enter(state, { name: "disconnected" }, reason, ctx), ctx);
};

const restart = (state: State, reason: string | null, ctx: Context): State =>
  begin(toDisconnected(state, reason, ctx), ctx);

const disconnect = (state: State, reason: string, ctx: Context): State => {
  if (state.phase.name === "disconnected") return state;
  if (state.phase.name !== "connected") {
    sayClosed(state, reason, ctx);
    return toDisconnected(state, reason, ctx);
  }
  ctx.effects.push({ type: "finish", generation: state.phase.attempt.generation, reason });
  return stopTimer(enter(state, { name: "disconnected" }, reason, ctx), ctx);
};

const failLink = (state: State, reason: string, ctx: Context): State => {
  const { phase } = state;
  const stood = phase.name === "connected" && ctx.atMs - phase.sinceMs > RECONNECT_MAX_MS;
  const tries = stood ? 0 : state.tries;
  dropAttempt(state, ctx);
  const failed = enter({ ...state, tries: tries + 1 }, { name: "failed" }, reason, ctx);
  return startTimer(failed, backoffMs(tries, RECONNECT_MAX_MS, ctx.random), ctx);
};

/** Nobody is there: rest in discovering. From connected the way there leads through disconnected. */
const wait = (state: State, reason: string, maxMs: number, ctx: Context): State => {
  const from = state.phase.name === "discovering" ? state : enter(state, { name: "disconnected" }, reason, ctx);
  if (state.phase.name === "discovering") dropAttempt(state, ctx);
  const tries = state.phase.name === "connected" ? 0 : state.tries;
  const waiting: LinkPhase = { name: "discovering", activity: { kind: "waiting" } };
  const entered = enter({ ...from, tries: tries + 1 }, waiting, reason, ctx);
  return startTimer(entered, backoffMs(tries, maxMs, ctx.random), ctx);
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
      sayClosed(state, "connect_timeout", ctx);
      return failLink(state, "connect_timeout", ctx);
    case "handshaking":
      sayClosed(state, "handshake_timeout", ctx);
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

const offerArrived = (state: State, activity: Extract<Activity, { kind: "offering" }>, ctx: Context): State => {
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
  // Nothing under way, or the peer has seen our newest offer and wants another.
  if (attempt === null || seen >= attempt.offerGeneration) return restart(past, "peer_dialled", ctx);
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
  const idle = toDisconnected(state, state.reason, ctx);
  const generation = state.generation + 1;
  const attempt = { generation, offerGeneration: offer.generation, startedAtMs: ctx.atMs };
  const found = enter(
    { ...idle, generation, newestOffer: offer.generation },
    { name: "discovering", activity: { kind: "waiting" } },
    state.reason,
    ctx,
  );
  const connecting = enter(found, { name: "connecting", attempt, answer: "known", held: [] }, null, ctx);
  ctx.effects.push({ type: "openAnswering", generation, offerGeneration: offer.generation, sdp: offer.sdp });
  return startTimer(releaseEarly(connecting, attempt, ctx), LINK_CONNECT_TIMEOUT_MS, ctx);
};

const answered = (state: State, answer: Extract<LinkSignal, { type: "answer" }>, ctx: Context): State => {
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

const releaseEarly = (state: State, attempt: Attempt, ctx: Context): State => {
  const { early } = state;
  if (early.offerGeneration === attempt.offerGeneration)
    for (const candidate of early.candidates)
      ctx.effects.push({ type: "addCandidate", generation: attempt.generation, ...candidate });
  return { ...state, early: { offerGeneration: attempt.offerGeneration, candidates: [] } };
};

const candidateArrived = (state: State, signal: Extract<LinkSignal, { type: "candidate" }>, ctx: Context): State => {
  const candidate: Candidate = { candidate: signal.candidate, mid: signal.mid };
  const attempt = currentAttempt(state.phase);
  const isCurrent = attempt?.offerGeneration === signal.generation;
  if (isCurrent && isDescribed(state.phase)) {
    ctx.effects.push({ type: "addCandidate", generation: attempt.generation, ...candidate });
    return state;
  }
  const isComing = state.role === "answerer" && signal.generation > state.newestOffer;
  if (!isCurrent && !isComing) return stale(state);
  if (state.phase.name === "disconnected" || signal.generation < state.early.offerGeneration) return stale(state);
  const known = signal.generation === state.early.offerGeneration ? state.early.candidates : [];
  if (known.length >= EARLY_CANDIDATES_MAX) return fault(state, "too many candidates", ctx);
  return { ...state, early: { offerGeneration: signal.generation, candidates: [...known, candidate] } };
};

const isDescribed = (phase: LinkPhase): boolean =>
  phase.name === "connecting" ? phase.answer === "known" : phase.name === "handshaking" || phase.name === "connected";

/** Words that a peer may give as the reason; anything else it writes stays out of our views and logs. */
const peerReasons = new Set(["not_wanted", "busy", "disabled", "connect_timeout", "handshake_timeout", "no_answer"]);

const closedByPeer = (state: State, signal: Extract<LinkSignal, { type: "close" }>, ctx: Context): State => {
  const reason = `peer_${peerReasons.has(signal.reason) ? signal.reason : "closed"}`;
  const { phase } = state;
  const attempt = currentAttempt(phase);
  const answersDial =
    phase.name === "discovering" && phase.activity.kind === "asking" && signal.generation === state.newestOffer;
  if (answersDial) return wait(state, reason, LINK_OFFLINE_RETRY_MAX_MS, ctx);
  // A proven link ends by FIN on its own channel, never by a signal.
  if (attempt?.offerGeneration !== signal.generation || phase.name === "connected") return stale(state);
  return failLink(state, reason, ctx);
};

type ConnectionEvent = Extract<LinkEvent, { readonly generation: Generation }>;

const connectionEvent = (state: State, attempt: Attempt, event: ConnectionEvent, ctx: Context): State => {
  switch (event.type) {
    case "localDescription":
      return described(state, attempt, event.sdp, ctx);
    case "localCandidate":
      return localCandidate(state, attempt, { candidate: event.candidate, mid: event.mid }, ctx);
    case "channelsOpen":
      return channelsOpen(state, attempt, ctx);
    case "proven": {
      if (state.phase.name !== "handshaking") return stale(state);
      return stopTimer(enter(state, { name: "connected", attempt, sinceMs: ctx.atMs }, null, ctx), ctx);
    }
    case "peerFin":
      if (state.phase.name !== "connected") return failLink(state, "peer_closed", ctx);
      return wait(state, "peer_closed", RECONNECT_MAX_MS, ctx);
    case "lost":
      sayClosed(state, event.reason, ctx);
      return failLink(state, event.reason, ctx);
    default:
      return assertNever(event, "connection event");
  }
};

const described = (state: State, attempt: Attempt, sdp: string, ctx: Context): State => {
  const { phase } = state;
  const generation = attempt.offerGeneration;
  if (state.role === "answerer") sendSignal({ type: "answer", generation, sdp }, ctx);
  else if (phase.name === "discovering") sendSignal({ type: "offer", generation, sdp }, ctx, state.timer);
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

const hold = (held: readonly Candidate[], candidate: Candidate): readonly Candidate[] =>
  held.length < EARLY_CANDIDATES_MAX ? [...held, candidate] : held;

const channelsOpen = (state: State, attempt: Attempt, ctx: Context): State => {
  if (state.phase.name !== "connecting") return stale(state);
  ctx.effects.push({ type: "startHandshake", generation: attempt.generation });
  return startTimer(enter(state, { name: "handshaking", attempt }, null, ctx), HANDSHAKE_TIMEOUT_MS, ctx);
};
