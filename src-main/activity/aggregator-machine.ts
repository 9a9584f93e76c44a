import { assertNever } from "#shared/base/assert.ts";

/**
 * One run of the aggregator at a time. The lock itself is a row of app.db with a token that only grows; a batch is written
 * only by whoever holds the newest token, so a run that was given up can never write again, whatever it still does.
 *
 *   idle      trigger → locking
 *   locking   lockTaken → running · lockHeld → idle (already_processing) · failed → idle
 *   running   batchDone (more) → running · batchDone (no more) → idle (success) · failed → idle · fenced → idle
 *             deadline → idle (timeout): the lock goes first, then the answer
 *   any       trigger → refused with already_processing, unless idle · stop → idle
 *
 * Results carry the number of their run; one of an older run changes nothing (`stale`).
 */
export type RunResult =
  | { readonly success: true; readonly processedEvents: number }
  | {
      readonly success: false;
      readonly reason: "already_processing" | "timeout" | "fenced" | "failed" | "stopped";
      readonly processedEvents: number;
    };

interface Common {
  /** The number of the newest run. */
  readonly run: number;
  readonly stale: number;
}
export type State =
  | (Common & { readonly kind: "idle" })
  | (Common & { readonly kind: "locking"; readonly call: number })
  | (Common & { readonly kind: "running"; readonly call: number; readonly token: number; readonly processed: number });

export type Event =
  | { readonly type: "trigger"; readonly call: number }
  | { readonly type: "lockTaken"; readonly run: number; readonly token: number }
  | { readonly type: "lockHeld"; readonly run: number }
  | { readonly type: "batchDone"; readonly run: number; readonly processed: number; readonly more: boolean }
  | { readonly type: "fenced"; readonly run: number }
  | { readonly type: "failed"; readonly run: number }
  | { readonly type: "deadline"; readonly run: number }
  | { readonly type: "stop" };

export type Effect =
  | { readonly type: "takeLock"; readonly run: number }
  | { readonly type: "setDeadline"; readonly run: number }
  | { readonly type: "clearDeadline" }
  | { readonly type: "runBatch"; readonly run: number; readonly token: number }
  /** `seize` raises the token as well: somebody may still be at work with the old one. */
  | { readonly type: "releaseLock"; readonly token: number; readonly seize: boolean }
  | { readonly type: "answer"; readonly call: number; readonly result: RunResult };

export const initialState: State = { kind: "idle", run: 0, stale: 0 };

export const step = (state: State, event: Event): readonly [State, readonly Effect[]] => {
  switch (event.type) {
    case "trigger": {
      const { call } = event;
      if (state.kind !== "idle") return [state, [refusal(call)]];
      const run = state.run + 1;
      return [
        { kind: "locking", run, stale: state.stale, call },
        [
          { type: "setDeadline", run },
          { type: "takeLock", run },
        ],
      ];
    }
    case "stop":
      return state.kind === "idle" ? [state, []] : end(state, "stopped");
    default:
      if (state.kind === "idle" || event.run !== state.run) return [{ ...state, stale: state.stale + 1 }, []];
      return ofRun(state, event);
  }
};

type Busy = Exclude<State, { kind: "idle" }>;

const ofRun = (
  state: Busy,
  event: Exclude<Event, { type: "trigger" | "stop" }>,
): readonly [State, readonly Effect[]] => {
  switch (event.type) {
    case "lockTaken": {
      if (state.kind !== "locking") return [{ ...state, stale: state.stale + 1 }, []];
      const { token } = event;
      const { run, stale, call } = state;
      return [{ kind: "running", run, stale, call, token, processed: 0 }, [{ type: "runBatch", run, token }]];
    }
    case "lockHeld":
      return [idle(state), [{ type: "clearDeadline" }, refusal(state.call)]];
    case "batchDone": {
      if (state.kind !== "running") return [{ ...state, stale: state.stale + 1 }, []];
      const processed = state.processed + event.processed;
      if (event.more) {
        const { run, token } = state;
        return [{ ...state, processed }, [{ type: "runBatch", run, token }]];
      }
      return [
        idle(state),
        [
          { type: "clearDeadline" },
          { type: "releaseLock", token: state.token, seize: false },
          { type: "answer", call: state.call, result: { success: true, processedEvents: processed } },
        ],
      ];
    }
    case "fenced":
      return end(state, "fenced");
    case "failed":
      return end(state, "failed");
    case "deadline":
      return end(state, "timeout");
    default:
      return assertNever(event, "event of the aggregator");
  }
};

const idle = ({ run, stale }: State): State => ({ kind: "idle", run, stale });

const refusal = (call: number): Effect => ({
  type: "answer",
  call,
  result: { success: false, reason: "already_processing", processedEvents: 0 },
});

const end = (
  state: Busy,
  reason: Exclude<Extract<RunResult, { success: false }>["reason"], "already_processing">,
): readonly [State, readonly Effect[]] => {
  const processedEvents = state.kind === "running" ? state.processed : 0;
  const release: Effect[] =
    state.kind === "running" && reason !== "fenced"
      ? [{ type: "releaseLock", token: state.token, seize: reason === "timeout" }]
      : [];
  return [
    idle(state),
    [
      { type: "clearDeadline" },
      ...release,
      { type: "answer", call: state.call, result: { success: false, reason, processedEvents } },
    ],
  ];
};
