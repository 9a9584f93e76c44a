import { assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import {
  ENGINE_ALIVE_MS,
  ENGINE_END_TIMEOUT_MS,
  ENGINE_PING_INTERVAL_MS,
  ENGINE_PINGS_UNANSWERED_MAX,
  ENGINE_RESTS_MS,
  ENGINE_START_TIMEOUT_MS,
} from "#shared/base/limits.ts";

/**
 * The life of the engine process. Pure: time comes with every event.
 *
 *   state     what it means                          leaves it by
 *   off       nothing was started                    start -> starting; end -> ended
 *   starting  forked, not heard of yet               ready -> running; exited; timer: kill -> dying
 *   running   answers pings                          exited; timer: ping, or kill -> dying when too many are unanswered
 *   dying     was killed because it was silent       exited
 *   resting   died again and again                   timer -> starting; end -> ended
 *   ending    told to end                            exited -> ended; timer: kill
 *   ended     for good                               -
 *
 * exited: starting again at once, or resting when it died soon after the last time. `end` leads to ending from everywhere
 * else. Pings are counted, not timed: after a sleep of the computer one that was answered late must not kill.
 */
export type EngineState =
  | { readonly kind: "off" }
  /** `deaths`: how often in a row it died young. */
  | { readonly kind: "starting"; readonly deaths: number; readonly sinceMs: TimeMs }
  | { readonly kind: "running"; readonly deaths: number; readonly sinceMs: TimeMs; readonly unanswered: number }
  | { readonly kind: "dying"; readonly deaths: number; readonly sinceMs: TimeMs }
  | { readonly kind: "resting"; readonly deaths: number }
  | { readonly kind: "ending" }
  | { readonly kind: "ended" };

export type EngineEvent = {
  readonly nowMs: TimeMs;
  readonly type: "start" | "ready" | "pong" | "exited" | "timer" | "end";
};

export type EngineEffect =
  | { readonly type: "fork" | "ping" | "kill" | "tellToEnd" }
  /** All that ran in it is gone. Comes before the `fork` of the next one. */
  | { readonly type: "lost" }
  | { readonly type: "ended" }
  /** Replaces the timer before; null: none. */
  | { readonly type: "setTimer"; readonly delayMs: number | null };

type Stepped = readonly [EngineState, readonly EngineEffect[]];

export const stepEngine = (state: EngineState, event: EngineEvent): Stepped => {
  switch (event.type) {
    case "start":
      return state.kind === "off" ? fork(0, event.nowMs) : [state, []];
    case "ready":
      return state.kind === "starting"
        ? [{ ...state, kind: "running", unanswered: 0 }, [timer(ENGINE_PING_INTERVAL_MS)]]
        : [state, []];
    case "pong":
      return state.kind === "running" ? [{ ...state, unanswered: 0 }, []] : [state, []];
    case "exited":
      return exited(state, event.nowMs);
    case "timer":
      return onTimer(state, event.nowMs);
    case "end":
      return end(state);
    default:
      return assertNever(event.type, "event of the engine");
  }
};

const timer = (delayMs: number | null): EngineEffect => ({ type: "setTimer", delayMs });

const fork = (deaths: number, nowMs: TimeMs): Stepped => [
  { kind: "starting", deaths, sinceMs: nowMs },
  [{ type: "fork" }, timer(ENGINE_START_TIMEOUT_MS)],
];

const exited = (state: EngineState, nowMs: TimeMs): Stepped => {
  switch (state.kind) {
    case "starting":
    case "running":
    case "dying": {
      const deaths = nowMs - state.sinceMs >= ENGINE_ALIVE_MS ? 1 : state.deaths + 1;
      const restMs = ENGINE_RESTS_MS[Math.min(deaths, ENGINE_RESTS_MS.length) - 1] ?? 0;
      const [next, effects] = restMs === 0 ? fork(deaths, nowMs) : rest(deaths, restMs);
      return [next, [{ type: "lost" }, ...effects]];
    }
    case "ending":
      return [{ kind: "ended" }, [{ type: "lost" }, timer(null), { type: "ended" }]];
    case "off":
    case "resting":
    case "ended":
      return [state, []];
    default:
      return assertNever(state, "state of the engine");
  }
};

const rest = (deaths: number, restMs: number): Stepped => [{ kind: "resting", deaths }, [timer(restMs)]];

const onTimer = (state: EngineState, nowMs: TimeMs): Stepped => {
  switch (state.kind) {
    case "starting":
      return kill(state);
    case "running":
      if (state.unanswered >= ENGINE_PINGS_UNANSWERED_MAX) return kill(state);
      return [{ ...state, unanswered: state.unanswered + 1 }, [{ type: "ping" }, timer(ENGINE_PING_INTERVAL_MS)]];
    case "resting":
      return fork(state.deaths, nowMs);
    case "ending":
      return [state, [{ type: "kill" }]];
    case "off":
    case "dying":
    case "ended":
      return [state, []];
    default:
      return assertNever(state, "state of the engine");
  }
};

const kill = ({ deaths, sinceMs }: Extract<EngineState, { sinceMs: TimeMs }>): Stepped => [
  { kind: "dying", deaths, sinceMs },
  [{ type: "kill" }, timer(null)],
];

const end = (state: EngineState): Stepped => {
  switch (state.kind) {
    case "off":
    case "resting":
      return [{ kind: "ended" }, [timer(null), { type: "ended" }]];
    case "starting":
    case "running":
    case "dying":
      return [{ kind: "ending" }, [{ type: "tellToEnd" }, timer(ENGINE_END_TIMEOUT_MS)]];
    case "ending":
    case "ended":
      return [state, []];
    default:
      return assertNever(state, "state of the engine");
  }
};
