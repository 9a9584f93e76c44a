import { assertNever } from "#shared/base/assert.ts";

/**
 * The end of the program. Electron may exit only after `app.stop()`, because worker threads and native connections
 * that are still alive at exit have crashed it.
 *
 * | state    | quitRequested          | stopped        | stopFailed     | timedOut       |
 * |----------|------------------------|----------------|----------------|----------------|
 * | running  | stopping: stop, timer  | -              | -              | -              |
 * | stopping | (waits)                | ended: exit 0  | ended: exit 1  | ended: exit 1  |
 * | ended    | (nothing)              | (nothing)      | (nothing)      | (nothing)      |
 */
export type QuitState = { kind: "running" } | { kind: "stopping" } | { kind: "ended" };
export type QuitEvent = { type: "quitRequested" } | { type: "stopped" } | { type: "stopFailed" } | { type: "timedOut" };
export type QuitEffect = { type: "stopApp" } | { type: "startTimer" } | { type: "exit"; code: 0 | 1 };

export const stepQuit = (state: QuitState, event: QuitEvent): readonly [QuitState, readonly QuitEffect[]] => {
  switch (state.kind) {
    case "running":
      return event.type === "quitRequested"
        ? [{ kind: "stopping" }, [{ type: "startTimer" }, { type: "stopApp" }]]
        : [state, []];
    case "stopping":
      if (event.type === "quitRequested") return [state, []];
      return [{ kind: "ended" }, [{ type: "exit", code: event.type === "stopped" ? 0 : 1 }]];
    case "ended":
      return [state, []];
    default:
      return assertNever(state, "quit state");
  }
};
