import { assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { Generation } from "#shared/base/ids.ts";
import { LOGIN_TIMEOUT_MS, RECONNECT_BASE_MS, SERVER_RECONNECT_MAX_MS } from "#shared/base/limits.ts";
import type { AppError } from "#shared/base/result.ts";

/**
 * The connection to the rendezvous server. Every attempt has one client and one generation; an event of another
 * generation than the current one changes nothing and is counted as stale.
 *
 *   state \ event        enable(url)            disable        challenged  loginAccepted  loginRefused   lost          timerFired
 *   disconnected         dialling (g+1)         -              stale       stale          stale          stale         stale
 *   connecting dialling  other url: closing     closing        loggingIn   stale          stale          waiting       waiting
 *   connecting loggingIn other url: closing     closing        stale       connected      waiting        waiting       waiting
 *   connecting waiting   dialling (g+1)         disconnected   stale       stale          stale          stale         dialling (g+1)
 *   connected            other url: closing     closing        stale       stale          stale          waiting       stale
 *   closing              remembers the url      forgets it     stale       stale          stale          stale         stale
 *
 * `closed` ends `closing`: to `disconnected`, or to `dialling` when there is a next url. Enabling the url that is already
 * being dialled or used changes nothing. The timer of an attempt means "took too long", the one of a wait "try again".
 */
export type State =
  | {
      readonly kind: "disconnected";
      readonly generation: Generation;
      readonly url: string;
      readonly error: AppError | null;
    }
  | Connecting
  | { readonly kind: "connected"; readonly generation: Generation; readonly url: string; readonly failures: number }
  /** `client` is the generation of the client that is being closed; `generation` is newer, so that its events are stale. */
  | {
      readonly kind: "closing";
      readonly generation: Generation;
      readonly client: Generation;
      readonly next: string | null;
      readonly url: string;
      readonly error: AppError | null;
    };

interface Connecting {
  readonly kind: "connecting";
  readonly phase: "dialling" | "loggingIn" | "waiting";
  readonly generation: Generation;
  readonly url: string;
  /** Attempts that failed since a connection last held; sets the backoff. */
  readonly failures: number;
  readonly error: AppError | null;
}

export interface Challenge {
  readonly nonce: Uint8Array;
  readonly serverId: string;
}

export type Event =
  | { readonly type: "enable"; readonly url: string }
  /** `because` says why the url that was asked for cannot be used. */
  | { readonly type: "disable"; readonly because: { readonly url: string; readonly error: AppError } | null }
  | { readonly type: "challenged"; readonly generation: Generation; readonly challenge: Challenge }
  | { readonly type: "loginAccepted"; readonly generation: Generation }
  | {
      readonly type: "loginRefused";
      readonly generation: Generation;
      readonly error: AppError;
      readonly jitter: number;
    }
  /** `byServer`: the server ended it on purpose, so that coming back at once would be rude, or a fight over one profile. */
  | {
      readonly type: "lost";
      readonly generation: Generation;
      readonly error: AppError;
      readonly byServer: boolean;
      readonly jitter: number;
    }
  | { readonly type: "timerFired"; readonly generation: Generation; readonly jitter: number }
  | { readonly type: "closed"; readonly generation: Generation };

export type Effect =
  | { readonly type: "openClient"; readonly generation: Generation; readonly url: string }
  | { readonly type: "logIn"; readonly generation: Generation; readonly challenge: Challenge }
  /** Answered by `closed` when `report` is set. */
  | { readonly type: "closeClient"; readonly generation: Generation; readonly report: boolean }
  /** Replaces the timer that is running. */
  | { readonly type: "setTimer"; readonly generation: Generation; readonly delayMs: TimeMs }
  | { readonly type: "stopTimer" }
  | { readonly type: "announceConnected"; readonly generation: Generation }
  | { readonly type: "announceLost"; readonly generation: Generation }
  | { readonly type: "publish" }
  | { readonly type: "countStale"; readonly event: Event["type"] };

type Next = readonly [State, readonly Effect[]];

export const initialState: State = { kind: "disconnected", generation: 0, url: "", error: null };

const TOOK_TOO_LONG: AppError = {
  type: "server_unreachable",
  message: "The server does not answer. Check its address and your network; Weir keeps trying.",
};

/** Half of it fixed and half of it random, so that the clients of a restarted server do not all come at once. */
export const backoffMs = (failures: number, jitter: number): TimeMs => {
  const ceiling = Math.min(SERVER_RECONNECT_MAX_MS, RECONNECT_BASE_MS * 2 ** Math.min(failures, 30));
  return Math.round(ceiling / 2 + (ceiling / 2) * jitter);
};

export const step = (state: State, event: Event): Next => {
  switch (event.type) {
    case "enable":
      return enable(state, event.url);
    case "disable":
      return disable(state, event.because);
    case "closed":
      return closed(state, event);
    default:
      // Events of clients and timers count only in the generation that they belong to.
      return event.generation === state.generation ? current(state, event) : stale(state, event);
  }
};

const stale = (state: State, event: Event): Next => [state, [{ type: "countStale", event: event.type }]];

const dial = (url: string, generation: Generation, failures: number, error: AppError | null): Next => [
  { kind: "connecting", phase: "dialling", generation, url, failures, error },
  [
    { type: "openClient", generation, url },
    { type: "setTimer", generation, delayMs: LOGIN_TIMEOUT_MS },
    { type: "publish" },
  ],
];

const enable = (state: State, url: string): Next => {
  switch (state.kind) {
    case "disconnected":
      return dial(url, state.generation + 1, 0, null);
    case "connecting":
      if (state.phase === "waiting") return dial(url, state.generation + 1, 0, url === state.url ? state.error : null);
      return url === state.url ? [state, []] : close(state, url, { url, error: null });
    case "connected":
      return url === state.url ? [state, []] : close(state, url, { url, error: null });
    case "closing":
      return [{ ...state, next: url, url, error: null }, [{ type: "publish" }]];
    default:
      return assertNever(state);
  }
};

/** What is shown once everything is closed. */
interface Rest {
  readonly url: string;
  readonly error: AppError | null;
}

const close = (
  state: Extract<State, { kind: "connecting" | "connected" }>,
  next: string | null,
  { url, error }: Rest,
): Next => [
  { kind: "closing", generation: state.generation + 1, client: state.generation, next, url, error },
  [
    { type: "stopTimer" },
    ...(state.kind === "connected" ? [{ type: "announceLost", generation: state.generation } as const] : []),
    { type: "closeClient", generation: state.generation, report: true },
    { type: "publish" },
  ],
];

const disable = (state: State, because: Rest | null): Next => {
  const rest = because ?? { url: state.url, error: null };
  switch (state.kind) {
    case "disconnected":
      return [{ ...state, ...rest }, [{ type: "publish" }]];
    case "connecting":
      if (state.phase !== "waiting") return close(state, null, rest);
      return [
        { kind: "disconnected", generation: state.generation + 1, ...rest },
        [{ type: "stopTimer" }, { type: "publish" }],
      ];
    case "connected":
      return close(state, null, rest);
    case "closing":
      return [{ ...state, next: null, ...rest }, [{ type: "publish" }]];
    default:
      return assertNever(state);
  }
};

const closed = (state: State, event: Extract<Event, { type: "closed" }>): Next => {
  if (state.kind !== "closing" || state.client !== event.generation) return stale(state, event);
  if (state.next !== null) return dial(state.next, state.generation + 1, 0, null);
  return [
    { kind: "disconnected", generation: state.generation, url: state.url, error: state.error },
    [{ type: "publish" }],
  ];
};

type ClientEvent = Exclude<Event, { type: "enable" | "disable" | "closed" }>;

const current = (state: State, event: ClientEvent): Next => {
  switch (state.kind) {
    case "disconnected":
    case "closing":
      return stale(state, event);
    case "connecting":
      return connecting(state, event);
    case "connected": {
      if (event.type !== "lost") return stale(state, event);
      const failures = event.byServer ? state.failures + 1 : 0;
      const [next, effects] = wait(state, failures, event.error, event.jitter);
      return [next, [{ type: "announceLost", generation: state.generation }, ...effects]];
    }
    default:
      return assertNever(state);
  }
};

const connecting = (state: Connecting, event: ClientEvent): Next => {
  const { generation, url, failures } = state;
  switch (event.type) {
    case "challenged":
      if (state.phase !== "dialling") return stale(state, event);
      return [{ ...state, phase: "loggingIn" }, [{ type: "logIn", generation, challenge: event.challenge }]];
    case "loginAccepted":
      if (state.phase !== "loggingIn") return stale(state, event);
      return [
        { kind: "connected", generation, url, failures },
        [{ type: "stopTimer" }, { type: "publish" }, { type: "announceConnected", generation }],
      ];
    case "loginRefused":
      if (state.phase !== "loggingIn") return stale(state, event);
      return wait(state, failures + 1, event.error, event.jitter);
    case "lost":
      if (state.phase === "waiting") return stale(state, event);
      return wait(state, failures + 1, event.error, event.jitter);
    case "timerFired":
      if (state.phase === "waiting") return dial(url, generation + 1, failures, state.error);
      // Nobody answered for as long as an attempt may take, which was pause enough: the network may be back any moment.
      return wait(state, failures + 1, TOOK_TOO_LONG, event.jitter, state.phase === "dialling" ? 0 : failures + 1);
    default:
      return assertNever(event);
  }
};

/** The generation moves on at once, so that nothing of the dead client can reach the wait; `patience` sets how long it is. */
const wait = (
  state: Extract<State, { kind: "connecting" | "connected" }>,
  failures: number,
  error: AppError,
  jitter: number,
  patience = failures,
): Next => {
  const generation = state.generation + 1;
  return [
    { kind: "connecting", phase: "waiting", generation, url: state.url, failures, error },
    [
      { type: "closeClient", generation: state.generation, report: false },
      { type: "setTimer", generation, delayMs: backoffMs(patience, jitter) },
      { type: "publish" },
    ],
  ];
};
