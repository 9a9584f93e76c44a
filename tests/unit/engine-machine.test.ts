import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  ENGINE_ALIVE_MS,
  ENGINE_END_TIMEOUT_MS,
  ENGINE_PING_INTERVAL_MS,
  ENGINE_PINGS_UNANSWERED_MAX,
  ENGINE_RESTS_MS,
  ENGINE_START_TIMEOUT_MS,
} from "#shared/base/limits.ts";
import {
  type EngineEffect,
  type EngineEvent,
  type EngineState,
  stepEngine,
} from "../../src-main/engine/engine-machine.ts";

class Run {
  state: EngineState = { kind: "off" };
  effects: readonly EngineEffect[] = [];
  nowMs = 0;
  timerMs: number | null = null;
  /** Processes that were forked and have not exited. */
  alive = 0;

  do(type: EngineEvent["type"]): this {
    if (type === "exited") this.alive -= 1;
    [this.state, this.effects] = stepEngine(this.state, { type, nowMs: this.nowMs });
    for (const effect of this.effects) {
      if (effect.type === "setTimer") this.timerMs = effect.delayMs;
      if (effect.type === "fork") this.alive += 1;
    }
    return this;
  }
  /** The timer that was set last, when it is due. */
  wait(): this {
    this.nowMs += this.timerMs ?? 0;
    return this.do("timer");
  }
  get did(): string[] {
    return this.effects.map(({ type }) => type).filter((type) => type !== "setTimer");
  }
}
const running = (): Run => new Run().do("start").do("ready");

describe("the engine", () => {
  test("is forked again at once when it dies, then after growing rests, and what ran in it is told before", () => {
    const run = running();
    for (const restMs of [...ENGINE_RESTS_MS, ...ENGINE_RESTS_MS.slice(-1)]) {
      run.do("exited");
      expect(run.did[0]).toBe("lost");
      if (restMs === 0) expect(run.did).toEqual(["lost", "fork"]);
      else {
        expect(run.state.kind).toBe("resting");
        expect(run.timerMs).toBe(restMs);
        expect(run.wait().did).toEqual(["fork"]);
      }
      expect(run.timerMs).toBe(ENGINE_START_TIMEOUT_MS);
      run.do("ready");
    }
    // A long life makes up for the deaths before.
    run.nowMs += ENGINE_ALIVE_MS;
    expect(run.do("exited").did).toEqual(["lost", "fork"]);
  });

  test("is killed when it does not answer, and not for being asked late", () => {
    const run = running();
    for (let i = 0; i < 100; i += 1) {
      // The computer slept.
      run.nowMs += 60_000;
      expect(run.wait().did).toEqual(["ping"]);
      run.do("pong");
    }
    for (let i = 0; i < ENGINE_PINGS_UNANSWERED_MAX; i += 1) {
      expect(run.timerMs).toBe(ENGINE_PING_INTERVAL_MS);
      expect(run.wait().did).toEqual(["ping"]);
    }
    expect(run.wait().did).toEqual(["kill"]);
    expect(run.do("exited").did).toEqual(["lost", "fork"]);
  });

  test("is killed when it does not start", () => {
    const run = new Run().do("start");
    expect(run.wait().did).toEqual(["kill"]);
    expect(run.do("exited").did).toEqual(["lost", "fork"]);
  });

  test("ends when told, is killed when it takes too long, and is not started again", () => {
    const run = running().do("end");
    expect(run.did).toEqual(["tellToEnd"]);
    expect(run.timerMs).toBe(ENGINE_END_TIMEOUT_MS);
    expect(run.wait().did).toEqual(["kill"]);
    expect(run.do("exited").did).toEqual(["lost", "ended"]);
    for (const type of ["start", "ready", "pong", "timer", "end"] as const) expect(run.do(type).did).toEqual([]);
  });

  test("that rests ends at once", () => {
    const run = running().do("exited").do("exited");
    expect(run.state.kind).toBe("resting");
    expect(run.do("end").did).toEqual(["ended"]);
    expect(run.timerMs).toBeNull();
  });

  test("never runs twice, always has a timer or a process to wait for, and always comes to its end", () => {
    const types = ["ready", "pong", "exited", "timer", "end"] as const;
    fc.assert(
      fc.property(fc.array(fc.record({ type: fc.constantFrom(...types), afterMs: fc.nat(90_000) })), (events) => {
        const run = new Run().do("start");
        for (const { type, afterMs } of events) {
          run.nowMs += afterMs;
          if ((type === "exited" && run.alive === 0) || (type === "timer" && run.timerMs === null)) continue;
          run.do(type);
          expect(run.alive).toBeLessThanOrEqual(1);
          if (run.state.kind !== "ended") expect(run.alive === 1 || run.timerMs !== null).toBe(true);
        }
        run.do("end");
        if (run.alive === 1) run.do("exited");
        expect(run.state.kind).toBe("ended");
      }),
      { numRuns: 2000 },
    );
  });
});
