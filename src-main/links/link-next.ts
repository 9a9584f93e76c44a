import { assert, assertNever } from "#shared/base/assert.ts";
import { HANDSHAKE_TIMEOUT_MS, LINK_CONNECT_TIMEOUT_MS, LOCAL_HANDSHAKE_TIMEOUT_MS } from "#shared/base/limits.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import {
  type Attempt,
  type ConnectionEvent,
  type Context,
  close,
  connectedBy,
  enter,
  hold,
  isBetter,
  type LinkMachineState,
  type LinkPath,
  type LinkPhase,
  type LinkVia,
  mtuBeside,
  type NextAttempt,
  type NextPurpose,
  type NextStage,
  REPLACED,
  releaseEarly,
  sayClosed,
  searchLater,
  sendOffer,
  sendSignal,
  stale,
  startTimer,
} from "./link-state.ts";
import { isHostCandidate } from "./sdp.ts";

/**
 * The second attempt of a link, beside the first one, so that a path is never given up before a better one is proven.
 *
 *   stage        event                                   what becomes of it
 *   connecting   answer, candidates, channelsOpen        -> handshaking; one in vain (see NextPurpose) is given up
 *   handshaking  proven                                  -> proven; the dialer of a link that has no path yet goes by it at once
 *   proven       confirmed, or FIN on the first          takes over: the first one ends with FIN, nothing on it is lost
 *   any          lost, timer, peer's close, peer's FIN   gone; the first goes on
 *
 * When the first breaks, the second takes its place, however far it is. The dialer starts every second attempt, and it
 * alone decides against one: the answerer goes by it once the peer's first word after both proofs is here.
 */
type State = LinkMachineState;

const withTimer = (state: State, next: NextAttempt, delayMs: number, ctx: Context): State => {
  const token = state.tokens + 1;
  ctx.effects.push({ type: "setTimer", slot: "next", token, delayMs });
  return { ...state, tokens: token, next: { ...next, timer: token } };
};

const withStage = (state: State, next: NextAttempt, stage: NextStage): State => ({
  ...state,
  next: { ...next, stage },
});

const noNext = (state: State, ctx: Context): State => {
  ctx.effects.push({ type: "clearTimer", slot: "next" });
  return { ...state, next: null };
};

/** Without a word to the peer. */
export const dropNext = (state: State, reason: string, ctx: Context): State => {
  if (state.next === null) return state;
  close(state.next.attempt, "given_up", reason, ctx);
  return noNext(state, ctx);
};

/** With a word to the peer, which may be about to go by it. */
export const giveUpNext = (state: State, reason: string, ctx: Context): State => {
  if (state.next === null) return state;
  sayClosed(state.next.attempt, reason, ctx);
  return dropNext(state, reason, ctx);
};

/** Replaces a second attempt that is under way. */
export const startNext = (
  state: State,
  via: LinkVia,
  purpose: NextPurpose,
  ctx: Context,
  mtu?: number | undefined,
): State => {
  assert(state.role === "dialer", "only the dialer makes offers");
  const free = dropNext(state, "replaced", ctx);
  const generation = free.generation + 1;
  const attempt: Attempt = { generation, offerGeneration: generation, startedAtMs: ctx.atMs, via, mtu };
  ctx.effects.push({ type: "openDialing", generation, via, mtu });
  const stage: NextStage = { name: "connecting", answer: "awaited", held: [] };
  return withTimer({ ...free, generation }, { attempt, purpose, stage, timer: 0 }, LINK_CONNECT_TIMEOUT_MS, ctx);
};

export const acceptNext = (
  state: State,
  offer: Extract<LinkSignal, { type: "offer" }>,
  via: LinkVia,
  ctx: Context,
): State => {
  const free = dropNext(state, "replaced", ctx);
  const generation = free.generation + 1;
  const offerGeneration = offer.generation;
  const mtu = mtuBeside(state, offer.local === true, ctx);
  const attempt: Attempt = { generation, offerGeneration, startedAtMs: ctx.atMs, via, mtu };
  ctx.effects.push({ type: "openAnswering", generation, offerGeneration, via, mtu, sdp: offer.sdp });
  const opened = releaseEarly({ ...free, generation, newestOffer: offerGeneration }, attempt, ctx);
  const stage: NextStage = { name: "connecting", answer: "known", held: [] };
  return withTimer(opened, { attempt, purpose: "peer", stage, timer: 0 }, LINK_CONNECT_TIMEOUT_MS, ctx);
};

export const nextAnswered = (state: State, next: NextAttempt, sdp: string, ctx: Context): State => {
  const { attempt, stage } = next;
  if (stage.name !== "connecting" || stage.answer === "known") return stale(state);
  ctx.effects.push({ type: "acceptAnswer", generation: attempt.generation, sdp });
  for (const candidate of stage.held)
    sendSignal({ type: "candidate", generation: attempt.offerGeneration, ...candidate }, ctx);
  const known = withStage(state, next, { name: "connecting", answer: "known", held: [] });
  return releaseEarly(known, attempt, ctx);
};

/** Whether the peer's candidates can be used already. */
export const isNextDescribed = ({ stage }: NextAttempt): boolean =>
  stage.name !== "connecting" || stage.answer === "known";

/** It is over; the link goes on with the first, and looks for something better later. */
export const failNext = (state: State, reason: string, ctx: Context): State => {
  if (state.next === null) return state;
  close(state.next.attempt, "failed", reason, ctx);
  return searchAgain(noNext(state, ctx), ctx);
};

const searchAgain = (state: State, ctx: Context): State =>
  state.phase.name === "connected" ? searchLater(state, ctx) : state;

export const nextTimedOut = (state: State, next: NextAttempt, ctx: Context): State => {
  const reason = next.stage.name === "connecting" ? "connect_timeout" : "handshake_timeout";
  sayClosed(next.attempt, reason, ctx);
  return failNext(state, reason, ctx);
};

export const nextEvent = (state: State, next: NextAttempt, event: ConnectionEvent, ctx: Context): State => {
  const { attempt, stage } = next;
  const generation = attempt.offerGeneration;
  switch (event.type) {
    case "localDescription":
      if (stage.name !== "connecting") return stale(state);
      if (state.role === "dialer") sendOffer(attempt, event.sdp, ctx);
      else sendSignal({ type: "answer", generation, sdp: event.sdp }, ctx);
      return state;
    case "localCandidate": {
      const candidate = { candidate: event.candidate, mid: event.mid };
      if (stage.name === "connecting" && stage.answer === "awaited" && isHostCandidate(event.candidate))
        return withStage(state, next, { ...stage, held: hold(stage.held, candidate) });
      sendSignal({ type: "candidate", generation, ...candidate }, ctx);
      return state;
    }
    case "channelsOpen":
      return nextOpen(state, next, event.path, ctx);
    case "proven":
      return nextProven(state, next, event.path, ctx);
    case "confirmed":
      return stage.name === "proven" ? goByNext(state, next, stage.path, ctx) : stale(state);
    case "peerFin":
      return failNext(state, "peer_closed", ctx);
    case "lost":
      sayClosed(attempt, event.reason, ctx);
      return failNext(state, event.reason, ctx);
    case "measured":
      return stage.name === "proven" ? withStage(state, next, { ...stage, path: event.path }) : state;
    case "unsteady":
      return state;
    default:
      return assertNever(event, "event of a second attempt");
  }
};

const nextOpen = (state: State, next: NextAttempt, path: LinkPath | null, ctx: Context): State => {
  const { phase } = state;
  if (next.stage.name !== "connecting") return stale(state);
  const found = [next.attempt.via, path] as const;
  const isInVain =
    next.purpose === "enlarge"
      ? path !== "machine"
      : next.purpose === "upgrade" && phase.name === "connected" && !isBetter(found, [phase.attempt.via, phase.path]);
  if (isInVain) return searchAgain(giveUpNext(state, "no_better_path", ctx), ctx);
  ctx.effects.push({ type: "startHandshake", generation: next.attempt.generation });
  const timeoutMs = next.purpose === "enlarge" ? LOCAL_HANDSHAKE_TIMEOUT_MS : HANDSHAKE_TIMEOUT_MS;
  return withTimer(state, { ...next, stage: { name: "handshaking" } }, timeoutMs, ctx);
};

const nextProven = (state: State, next: NextAttempt, path: LinkPath | null, ctx: Context): State => {
  if (next.stage.name !== "handshaking") return stale(state);
  const proven: NextAttempt = { ...next, stage: { name: "proven", path } };
  ctx.effects.push({ type: "attemptWorks", attempt: next.attempt, path });
  if (state.role === "dialer" && state.phase.name !== "connected") return goByNext(state, proven, path, ctx);
  return withTimer(state, proven, HANDSHAKE_TIMEOUT_MS, ctx);
};

/** The peer stands on the second attempt too: from here on everything goes over it. */
const goByNext = (state: State, next: NextAttempt, path: LinkPath | null, ctx: Context): State => {
  const { phase } = state;
  if (phase.name === "connected") {
    ctx.effects.push({ type: "finish", generation: phase.attempt.generation, reason: REPLACED });
    return takeOver(state, phase.attempt, next, path, ctx);
  }
  const first = firstOf(phase);
  if (first !== null) {
    close(first, "given_up", "relay_was_faster", ctx);
    sayClosed(first, "relay_was_faster", ctx);
  }
  return takePlace({ ...state, next: { ...next, stage: { name: "proven", path } } }, state.reason, ctx);
};

const firstOf = (phase: LinkPhase): Attempt | null => {
  if (phase.name === "discovering") return phase.activity.kind === "offering" ? phase.activity.attempt : null;
  return "attempt" in phase ? phase.attempt : null;
};

/** The peer has left the first attempt for the second, and said so with FIN. */
export const followPeer = (state: State, first: Attempt, next: NextAttempt, ctx: Context): State | null =>
  next.stage.name === "proven" ? takeOver(state, first, next, next.stage.path, ctx) : null;

const takeOver = (
  state: State,
  first: Attempt,
  { attempt }: NextAttempt,
  path: LinkPath | null,
  ctx: Context,
): State => {
  ctx.effects.push({ type: "attemptEnded", attempt: first, end: "replaced", reason: null });
  return connectedBy(noNext(state, ctx), attempt, path, ctx);
};

/** The first attempt is gone (its end is the caller's business); the second one is the first now. */
export const takePlace = (state: State, reason: string | null, ctx: Context): State => {
  const { next } = state;
  assert(next !== null, "a second attempt takes the place");
  const { attempt, stage } = next;
  const down = enter(noNext(state, ctx), { name: "disconnected" }, reason, ctx);
  const found = enter(down, { name: "discovering", activity: { kind: "waiting" } }, reason, ctx);
  const connecting: LinkPhase = { name: "connecting", attempt, answer: "known", held: [] };
  if (stage.name === "connecting")
    return startTimer(enter(found, { ...connecting, ...stage }, reason, ctx), LINK_CONNECT_TIMEOUT_MS, ctx);
  const handshaking = enter(enter(found, connecting, reason, ctx), { name: "handshaking", attempt }, reason, ctx);
  if (stage.name === "handshaking") return startTimer(handshaking, HANDSHAKE_TIMEOUT_MS, ctx);
  return connectedBy(handshaking, attempt, stage.path, ctx);
};
