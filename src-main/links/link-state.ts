import { assert, assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { Generation } from "#shared/base/ids.ts";
import {
  EARLY_CANDIDATES_MAX,
  EARLY_OFFERS_MAX,
  LARGE_PACKET_TRIES_MAX,
  LINK_UPGRADE_BASE_MS,
  LINK_UPGRADE_FIRST_MS,
  LINK_UPGRADE_MAX_MS,
  RECONNECT_BASE_MS,
} from "#shared/base/limits.ts";
import type { LinkState, LinkView } from "#shared/ipc/views.ts";
import type { LinkSignal } from "#shared/wire/content.ts";

/** States, events and effects of the link machine (link-machine.ts), and the steps that both of its halves take. */
export type LinkRole = "dialer" | "answerer";

/** Why a connection says goodbye when another one of the same link goes on in its place. */
export const REPLACED = "replaced";

/** What carries an attempt: WebRTC, which finds a direct path or a TURN server by itself, or the rendezvous server's relay. */
export type LinkVia = "rtc" | "relay";

/** "machine": to another program on this very machine, which is shown as "lan". */
export type LinkPath = NonNullable<LinkView["path"]> | "machine";

export const shownPath = (path: LinkPath | null): LinkView["path"] => (path === "machine" ? "lan" : path);

/** What the contact's network policy and this machine allow at the moment; asked anew with every event. */
export interface AllowedVias {
  /** "lan": only within the local network. */
  readonly rtc: boolean | "lan";
  readonly relay: boolean;
  /** Bytes of a packet that a path within this machine should carry; undefined: not more than any other path. */
  readonly localMtu?: number | undefined;
}

export interface Attempt {
  readonly generation: Generation;
  readonly offerGeneration: Generation;
  readonly startedAtMs: TimeMs;
  readonly via: LinkVia;
  /** Larger packets than pass everywhere: proven by a handshake that needs one. */
  readonly mtu?: number | undefined;
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
  /** `seen` is the newest offer when it asked: one that is newer was refused. */
  | { readonly kind: "asking"; readonly seen: Generation }
  | { readonly kind: "waiting" };
export type Offering = Extract<Activity, { kind: "offering" }>;

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
  | {
      readonly name: "connected";
      readonly attempt: Attempt;
      readonly sinceMs: TimeMs;
      readonly path: LinkPath | null;
    }
  | { readonly name: "failed" };

/**
 * Why there is a second attempt beside the first:
 *
 *   fallback  the first takes long: over the relay meanwhile
 *   upgrade   the link works, but a better path may exist; given up if what is found is no better
 *   enlarge   the link leads to this very machine, where larger packets pass; given up if this one does not
 *   refresh   the network under the link changed, or the link is unsteady: replaces it in any case
 *   peer      the dialer's second attempt, as the answerer sees it: the dialer knows why
 */
export type NextPurpose = "fallback" | "upgrade" | "enlarge" | "refresh" | "peer";

export interface NextAttempt {
  readonly attempt: Attempt;
  readonly purpose: NextPurpose;
  readonly stage:
    | { readonly name: "connecting"; readonly answer: "awaited" | "known"; readonly held: readonly Candidate[] }
    | { readonly name: "handshaking" }
    /** Proven here; the peer's first word after its own proof is still to come. */
    | { readonly name: "proven"; readonly path: LinkPath | null };
  /** Token of its one timer. */
  readonly timer: number;
}
export type NextStage = NextAttempt["stage"];

interface EarlyCandidates {
  readonly offerGeneration: Generation;
  readonly candidates: readonly Candidate[];
}

export interface LinkMachineState {
  readonly role: LinkRole;
  readonly phase: LinkPhase;
  readonly next: NextAttempt | null;
  /** Why it is not connected, or what ended the last attempt. */
  readonly reason: string | null;
  /** Newest of our attempts. */
  readonly generation: Generation;
  /** Newest offer of the peer (answerer only). */
  readonly newestOffer: Generation;
  /** Candidates for descriptions that are not here yet, by offer, oldest first. */
  readonly early: readonly EarlyCandidates[];
  /** Attempts since the link last stood for a while; sets the backoff. */
  readonly tries: number;
  /** Attempts at a better path since the link or the network last changed; sets how long until the next. */
  readonly upgradeTries: number;
  /** Attempts with larger packets, also good ones, since something last changed: what broke must not be tried for ever. */
  readonly largeTries: number;
  /** The peer refused WebRTC (dialer only); forgotten when it asks for an offer or comes online, and by what is done here. */
  readonly peerWantsRelay: boolean;
  /** Newest token given to any timer or announcement. */
  readonly tokens: number;
  /** The one timer of the phase that counts; a timer of another token is stale. */
  readonly timer: number;
  /** The one timer that may start a second attempt; null while none runs. */
  readonly betterTimer: number | null;
  readonly staleEvents: number;
}

/** Which of a link's timers: setting one replaces only its own kind. */
export type TimerSlot = "phase" | "next" | "better";

export type LinkEvent =
  | { readonly type: "connect" }
  | { readonly type: "disconnect"; readonly reason: string }
  | { readonly type: "reconnect" }
  /** The peer or the server came (back) online. */
  | { readonly type: "hint" }
  /** Another set of interfaces, or this machine woke up: what paths led over may be gone. */
  | { readonly type: "networkChanged" }
  /** What may carry the link is another set than before. */
  | { readonly type: "policyChanged" }
  /** Something of an older enable came; it is only counted. */
  | { readonly type: "staleSeen" }
  | { readonly type: "timer"; readonly token: number }
  /** What became of the offer or dial that was sent under this token. */
  | { readonly type: "announced"; readonly token: number; readonly outcome: "delivered" | "offline" | "failed" }
  | { readonly type: "signal"; readonly signal: LinkSignal }
  | { readonly type: "localDescription"; readonly generation: Generation; readonly sdp: string }
  | ({ readonly type: "localCandidate"; readonly generation: Generation } & Candidate)
  | { readonly type: "channelsOpen"; readonly generation: Generation; readonly path: LinkPath | null }
  | { readonly type: "proven"; readonly generation: Generation; readonly path: LinkPath | null }
  /** The peer's first message after the proof: it has seen ours, so it stands on this connection too. */
  | { readonly type: "confirmed"; readonly generation: Generation }
  | { readonly type: "measured"; readonly generation: Generation; readonly path: LinkPath | null }
  /** It may be about to break (ICE has lost its path and looks for another). */
  | { readonly type: "unsteady"; readonly generation: Generation }
  | { readonly type: "peerFin"; readonly generation: Generation }
  | { readonly type: "lost"; readonly generation: Generation; readonly reason: string };

export type ConnectionEvent = Extract<LinkEvent, { readonly generation: Generation }>;

/** Time and chance are inputs: `random` is uniform in [0, 1). */
export interface LinkInput {
  readonly atMs: TimeMs;
  readonly random: number;
  readonly allowed: AllowedVias;
  readonly event: LinkEvent;
}

/** `lost` and `closed` are ends of a link that worked, `failed` and `given_up` of one that never did. */
export type AttemptEnd = "failed" | "given_up" | "replaced" | "lost" | "closed";

export type LinkEffect =
  | {
      readonly type: "openDialing";
      readonly generation: Generation;
      readonly via: LinkVia;
      readonly mtu?: number | undefined;
    }
  | {
      readonly type: "openAnswering";
      readonly generation: Generation;
      readonly offerGeneration: Generation;
      readonly via: LinkVia;
      readonly mtu?: number | undefined;
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
  | { readonly type: "setTimer"; readonly slot: TimerSlot; readonly token: number; readonly delayMs: number }
  | { readonly type: "clearTimer"; readonly slot: TimerSlot }
  | { readonly type: "fault"; readonly what: string }
  /** Both for the history of this link. */
  | { readonly type: "attemptWorks"; readonly attempt: Attempt; readonly path: LinkPath | null }
  | {
      readonly type: "attemptEnded";
      readonly attempt: Attempt;
      readonly end: AttemptEnd;
      readonly reason: string | null;
    }
  | {
      readonly type: "changed";
      readonly from: LinkState;
      readonly to: LinkState;
      readonly generation: Generation;
      readonly reason: string | null;
    };

export interface Context extends LinkInput {
  readonly effects: LinkEffect[];
}

export const initialLink = (role: LinkRole, generation: Generation): LinkMachineState => ({
  role,
  phase: { name: "disconnected" },
  next: null,
  reason: null,
  generation,
  newestOffer: 0,
  early: [],
  tries: 0,
  upgradeTries: 0,
  largeTries: 0,
  peerWantsRelay: false,
  tokens: 0,
  timer: 0,
  betterTimer: null,
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

/** The first attempt that holds a native connection, if there is one. */
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

/** What others see: of a link that is under way its newest attempt, of one that works the attempt that it works by. */
export const shownGeneration = (state: LinkMachineState): Generation =>
  currentAttempt(state.phase)?.generation ?? state.generation;

/** The server's relay is the last resort, below a TURN server: it carries other people's chats too. */
const rankOf = (via: LinkVia, path: LinkPath | null): number => {
  if (via === "relay" || path === null) return 0;
  return { relay: 1, direct: 2, lan: 3, machine: 4 }[path];
};
/** Whether `a` is worth leaving `b` for. */
export const isBetter = (a: readonly [LinkVia, LinkPath | null], b: readonly [LinkVia, LinkPath | null]): boolean =>
  rankOf(...a) > rankOf(...b);

/** Half of the delay is fixed, half is chance, so that many peers do not come back in step. */
export const backoffMs = (tries: number, maxMs: number, random: number): number => {
  const full = Math.min(maxMs, RECONNECT_BASE_MS * 2 ** Math.min(tries, 20));
  return Math.round(full / 2 + (full / 2) * random);
};

// ---- Steps that both halves of the machine take ---------------------------------------------------------------------

type State = LinkMachineState;

export const stale = (state: State): State => ({ ...state, staleEvents: state.staleEvents + 1 });

export const fault = (state: State, what: string, ctx: Context): State => {
  ctx.effects.push({ type: "fault", what });
  return state;
};

export const enter = (state: State, phase: LinkPhase, reason: string | null, ctx: Context): State => {
  const from = state.phase.name;
  assert(from === phase.name || isLegalTransition(from, phase.name), `link transition ${from} -> ${phase.name}`);
  const entered = { ...state, phase, reason };
  ctx.effects.push({ type: "changed", from, to: phase.name, generation: shownGeneration(entered), reason });
  return entered;
};

export const startTimer = (state: State, delayMs: number, ctx: Context): State => {
  const token = state.tokens + 1;
  ctx.effects.push({ type: "setTimer", slot: "phase", token, delayMs });
  return { ...state, tokens: token, timer: token };
};

export const stopTimer = (state: State, ctx: Context): State => {
  ctx.effects.push({ type: "clearTimer", slot: "phase" });
  return { ...state, tokens: state.tokens + 1, timer: state.tokens + 1 };
};

export const startBetterTimer = (state: State, delayMs: number, ctx: Context): State => {
  const token = state.tokens + 1;
  ctx.effects.push({ type: "setTimer", slot: "better", token, delayMs });
  return { ...state, tokens: token, betterTimer: token };
};

export const stopBetterTimer = (state: State, ctx: Context): State => {
  if (state.betterTimer === null) return state;
  ctx.effects.push({ type: "clearTimer", slot: "better" });
  return { ...state, betterTimer: null };
};

export const sendSignal = (signal: LinkSignal, ctx: Context, token: number | null = null): void => {
  ctx.effects.push({ type: "sendSignal", signal, token });
};

export const hold = (held: readonly Candidate[], candidate: Candidate): readonly Candidate[] =>
  held.length < EARLY_CANDIDATES_MAX ? [...held, candidate] : held;

/** Of the peer's candidates for this offer, those that came before its description. */
export const releaseEarly = (state: State, attempt: Attempt, ctx: Context): State => {
  const mine = state.early.find(({ offerGeneration }) => offerGeneration === attempt.offerGeneration);
  for (const candidate of mine?.candidates ?? [])
    ctx.effects.push({ type: "addCandidate", generation: attempt.generation, ...candidate });
  return mine === undefined ? state : { ...state, early: state.early.filter((entry) => entry !== mine) };
};

export const keepEarly = (state: State, offerGeneration: Generation, candidate: Candidate, ctx: Context): State => {
  const known = state.early.find((entry) => entry.offerGeneration === offerGeneration)?.candidates ?? [];
  if (known.length >= EARLY_CANDIDATES_MAX) return fault(state, "too many candidates", ctx);
  const others = state.early.filter((entry) => entry.offerGeneration !== offerGeneration);
  const early = [...others, { offerGeneration, candidates: [...known, candidate] }];
  early.sort((a, b) => a.offerGeneration - b.offerGeneration);
  return { ...state, early: early.slice(-EARLY_OFFERS_MAX) };
};

export const close = (attempt: Attempt, end: AttemptEnd, reason: string | null, ctx: Context): void => {
  ctx.effects.push({ type: "abandon", generation: attempt.generation });
  ctx.effects.push({ type: "attemptEnded", attempt, end, reason });
};

export const sendOffer = ({ offerGeneration, mtu }: Attempt, sdp: string, ctx: Context, token?: number): void =>
  sendSignal(
    { type: "offer", generation: offerGeneration, sdp, ...(mtu === undefined ? {} : { local: true }) },
    ctx,
    token,
  );

/** Tells the other side that an attempt is over. */
export const sayClosed = (attempt: Attempt, reason: string, ctx: Context): void =>
  sendSignal({ type: "close", generation: attempt.offerGeneration, reason }, ctx);

// ---- The search for a better path -----------------------------------------------------------------------------------

/** Only the dialer searches: it makes the offers. What the relay carries may find a direct path any time. */
export const wantsBetter = ({ role, phase, peerWantsRelay }: State, { allowed }: Context): boolean =>
  role === "dialer" && phase.name === "connected" && allowed.rtc !== false && !peerWantsRelay && isRelayed(phase);

/**
 * On this very machine larger packets pass. Only the dialer looks: it makes the offers. What has larger packets already has
 * all there is, and what broke with them is left alone until something changes.
 */
export const wantsLarger = ({ role, phase, largeTries }: State, { allowed }: Context): boolean =>
  role === "dialer" &&
  phase.name === "connected" &&
  phase.path === "machine" &&
  phase.attempt.mtu === undefined &&
  allowed.rtc !== false &&
  allowed.localMtu !== undefined &&
  largeTries < LARGE_PACKET_TRIES_MAX;

/** What this side sends in an attempt that the peer made for larger packets: it must know itself where the link leads. */
export const mtuBeside = ({ phase }: State, isForLocal: boolean, { allowed }: Context): number | undefined =>
  isForLocal && phase.name === "connected" && phase.path === "machine" ? allowed.localMtu : undefined;

/** It is, or is about to be, carried by the server or by a TURN server. */
export const isRelayed = (phase: LinkPhase): boolean =>
  currentAttempt(phase)?.via === "relay" || (phase.name === "connected" && phase.path === "relay");

/** After a while, and ever more rarely, something better is tried. */
export const searchLater = (state: State, ctx: Context): State => {
  if (wantsLarger(state, ctx))
    return startBetterTimer(state, state.largeTries === 0 ? LINK_UPGRADE_FIRST_MS : LINK_UPGRADE_BASE_MS, ctx);
  if (!wantsBetter(state, ctx)) return stopBetterTimer(state, ctx);
  const { upgradeTries } = state;
  if (upgradeTries === 0) return startBetterTimer(state, LINK_UPGRADE_FIRST_MS, ctx);
  const full = Math.min(LINK_UPGRADE_MAX_MS, LINK_UPGRADE_BASE_MS * 2 ** Math.min(upgradeTries - 1, 20));
  return startBetterTimer(state, Math.round(full / 2 + (full / 2) * ctx.random), ctx);
};

/** The link works by this attempt from now on. */
export const connectedBy = (state: State, attempt: Attempt, path: LinkPath | null, ctx: Context): State => {
  const phase: LinkPhase = { name: "connected", attempt, sinceMs: ctx.atMs, path };
  // WebRTC that ended at a TURN server has tried every direct path a moment ago.
  const upgradeTries = attempt.via === "rtc" ? Math.max(1, state.upgradeTries) : state.upgradeTries;
  return searchLater(stopTimer(enter({ ...state, upgradeTries }, phase, null, ctx), ctx), ctx);
};
