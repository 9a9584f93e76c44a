import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Effect, type Event, initialState, type State, step } from "../../src-main/signaling/signaling-machine.ts";
import { counted } from "../support/counts.ts";

const RUNS = counted(1000, 10_000);

/** Seeds that failed once. */
const REGRESSION_SEEDS: number[] = [];
const ERROR = { type: "server_unreachable", message: "Gone." };

type Move =
  | { kind: "enable"; url: string }
  | { kind: "disable" }
  /** What comes next when nothing goes wrong. */
  | { kind: "go on" }
  /** Something that a client, its server or a timer did long ago arrives now; `pick` says which. */
  | { kind: "deliver"; pick: number; jitter: number };

const moves: fc.Arbitrary<Move[]> = fc.array(
  fc.oneof(
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant("enable" as const), url: fc.constantFrom("ws://a", "ws://b") }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("disable" as const) }) },
    { weight: 5, arbitrary: fc.record({ kind: fc.constant("go on" as const) }) },
    {
      weight: 7,
      arbitrary: fc.record({
        kind: fc.constant("deliver" as const),
        pick: fc.nat(),
        jitter: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      }),
    },
  ),
  { minLength: 10, maxLength: 60 },
);

/**
 * A world that is as nasty as callbacks can be: everything that a client or timer ever could report may arrive at any later
 * moment, also after it was closed or cancelled, and more than once.
 */
class World {
  state: State = initialState;
  readonly pool: ((jitter: number) => Event)[] = [];
  readonly open = new Set<number>();
  /** Generations of clients that the machine closed. */
  readonly ended = new Set<number>();
  connected: number | null = null;
  accepted = 0;
  stale = 0;

  play(move: Move): void {
    if (move.kind === "enable") this.dispatch({ type: "enable", url: move.url });
    else if (move.kind === "go on") this.goOn();
    else if (move.kind === "disable") this.dispatch({ type: "disable", because: null });
    else {
      const event = this.pool[move.pick % Math.max(1, this.pool.length)];
      if (event !== undefined) this.dispatch(event(move.jitter));
    }
  }

  dispatch(event: Event): void {
    const before = this.state;
    const [after, effects] = step(before, event);
    this.state = after;
    expect(after.generation).toBeGreaterThanOrEqual(before.generation);
    if ("generation" in event && event.type !== "closed" && event.generation !== before.generation) {
      expect(after).toBe(before);
      expect(effects).toEqual([{ type: "countStale", event: event.type }]);
    }
    for (const effect of effects) this.#run(effect, before);
    if (effects.some((effect) => effect.type === "countStale")) this.stale++;
    this.#check();
  }

  #run(effect: Effect, before: State): void {
    switch (effect.type) {
      case "openClient": {
        const { generation } = effect;
        expect(this.open.size).toBe(0);
        expect(generation).toBe(this.state.generation);
        expect(this.ended.has(generation)).toBe(false);
        this.open.add(generation);
        this.pool.push(
          () => ({ type: "challenged", generation, challenge: { nonce: new Uint8Array(32), serverId: "s" } }),
          (jitter) => ({ type: "lost", generation, error: ERROR, byServer: jitter > 0.5, jitter }),
        );
        break;
      }
      case "logIn": {
        const { generation } = effect;
        expect(this.open.has(generation)).toBe(true);
        expect(generation).toBe(this.state.generation);
        this.pool.push(
          () => ({ type: "loginAccepted", generation }),
          (jitter) => ({ type: "loginRefused", generation, error: ERROR, jitter }),
        );
        break;
      }
      case "closeClient": {
        const { generation } = effect;
        expect(generation).toBe(before.generation);
        expect(this.open.delete(generation)).toBe(true);
        this.ended.add(generation);
        if (effect.report) this.pool.push(() => ({ type: "closed", generation }));
        break;
      }
      case "setTimer": {
        const { generation } = effect;
        expect(generation).toBe(this.state.generation);
        expect(effect.delayMs).toBeGreaterThan(0);
        this.pool.push((jitter) => ({ type: "timerFired", generation, jitter }));
        break;
      }
      case "announceConnected":
        expect(this.open.has(effect.generation)).toBe(true);
        expect(effect.generation).toBe(this.state.generation);
        expect(this.connected).toBeNull();
        this.connected = effect.generation;
        this.accepted++;
        break;
      case "announceLost":
        expect(this.connected).toBe(effect.generation);
        this.connected = null;
        break;
      case "stopTimer":
      case "publish":
      case "countStale":
        break;
    }
  }

  #check(): void {
    const { state } = this;
    expect(this.connected).toBe(state.kind === "connected" ? state.generation : null);
    const wants =
      state.kind === "connected" || (state.kind === "connecting" && state.phase !== "waiting")
        ? [state.generation]
        : [];
    expect([...this.open]).toEqual(wants);
  }

  goOn(): void {
    const { state } = this;
    const { generation } = state;
    if (state.kind === "closing") this.dispatch({ type: "closed", generation: state.client });
    else if (state.kind === "connecting" && state.phase === "waiting") {
      this.dispatch({ type: "timerFired", generation, jitter: 0 });
    } else if (state.kind === "connecting" && state.phase === "dialling") {
      this.dispatch({ type: "challenged", generation, challenge: { nonce: new Uint8Array(32), serverId: "s" } });
    } else if (state.kind === "connecting") this.dispatch({ type: "loginAccepted", generation });
  }

  settle(): void {
    for (let i = 0; i < 4; i++) this.goOn();
  }
}

const run = (seed?: number): void => {
  let connections = 0;
  let stale = 0;
  fc.assert(
    fc.property(moves, (list) => {
      const world = new World();
      for (const move of list) world.play(move);
      // Whatever happened: enabled it connects to the newest address, disabled it ends with nothing open.
      world.dispatch({ type: "enable", url: "ws://final" });
      world.settle();
      expect(world.state).toMatchObject({ kind: "connected", url: "ws://final" });
      world.dispatch({ type: "disable", because: null });
      world.settle();
      expect(world.state).toMatchObject({ kind: "disconnected" });
      expect(world.open.size).toBe(0);
      connections += world.accepted;
      stale += world.stale;
    }),
    { numRuns: RUNS, ...(seed === undefined ? {} : { seed }) },
  );
  // The interleavings do reach the states that the checks are about.
  expect(connections).toBeGreaterThan(1500);
  expect(stale).toBeGreaterThan(RUNS);
};

describe("signaling machine", () => {
  it(
    `drops every event of another generation and never has two clients, in ${RUNS} interleavings`,
    () => run(),
    counted(60_000, 600_000),
  );
  it.each(REGRESSION_SEEDS)("holds for seed %i", (seed) => run(seed));
});
