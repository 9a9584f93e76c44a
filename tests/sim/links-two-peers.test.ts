import fc from "fast-check";
import { expect, test } from "vitest";
import type { LinkSignal } from "#shared/wire/content.ts";
import {
  currentAttempt,
  initialLink,
  isLegalTransition,
  type LinkEffect,
  type LinkEvent,
  type LinkMachineState,
  type LinkRole,
  stepLink,
} from "../../src-main/links/link-machine.ts";

/**
 * Two link machines, a signal network that loses, repeats, delays and reorders, and connections that open when (and only
 * when) both sides hold the two ends of one offer. One random choice list drives a run, so each failure can be replayed.
 */
interface Pending {
  readonly dueMs: number;
  readonly run: () => void;
}

/** One native connection of one side. */
interface End {
  readonly generation: number;
  readonly offerGeneration: number;
  described: boolean;
  answered: boolean;
  candidates: number;
  open: boolean;
}

class Side {
  state: LinkMachineState;
  end: End | null = null;
  timer = 0;
  newestOffer = 0;
  /** Everything that was ever applied to a connection, with the newest generation at that time. */
  staleApplied = 0;
  liveAtOnce = 0;
  readonly sim: Sim;
  readonly role: LinkRole;

  constructor(sim: Sim, role: LinkRole) {
    this.sim = sim;
    this.role = role;
    this.state = initialLink(role, role === "dialer" ? 1000 : 5000);
  }

  get other(): Side {
    return this.role === "dialer" ? this.sim.answerer : this.sim.dialer;
  }

  dispatch(event: LinkEvent): void {
    const [next, effects] = stepLink(this.state, { atMs: this.sim.nowMs, random: this.sim.chance(), event });
    if (this.#isStale(event)) {
      expect(effects).toEqual([]);
      expect(next).toEqual({ ...this.state, staleEvents: this.state.staleEvents + 1 });
      this.sim.staleSeen += 1;
    }
    this.state = next;
    for (const effect of effects) this.run(effect);
  }

  /** Judged from outside: what the connection and the timer of this moment are, not what the machine thinks. */
  #isStale(event: LinkEvent): boolean {
    if (event.type === "timer") return event.token !== this.timer;
    return "generation" in event && event.generation !== this.end?.generation;
  }

  run(effect: LinkEffect): void {
    if ("generation" in effect && this.end !== null && effect.type !== "openDialing" && effect.type !== "openAnswering")
      if (this.end.generation !== effect.generation) this.staleApplied += 1;
    switch (effect.type) {
      case "openDialing":
        this.#open(effect.generation, effect.generation, false);
        this.sim.later(3, () => this.dispatch({ type: "localDescription", generation: effect.generation, sdp: "o" }));
        return;
      case "openAnswering":
        expect(effect.offerGeneration).toBeGreaterThan(this.newestOffer);
        this.newestOffer = effect.offerGeneration;
        this.#open(effect.generation, effect.offerGeneration, true);
        this.sim.later(3, () => {
          if (this.end?.generation === effect.generation) this.end.answered = true;
          this.dispatch({ type: "localDescription", generation: effect.generation, sdp: "a" });
        });
        return;
      case "acceptAnswer":
        if (this.end !== null) this.end.answered = true;
        this.sim.tryOpen();
        return;
      case "addCandidate":
        if (this.end !== null) this.end.candidates += 1;
        this.sim.tryOpen();
        return;
      case "startHandshake":
        this.sim.later(5, () => this.dispatch({ type: "proven", generation: effect.generation }));
        return;
      case "abandon":
      case "finish":
        this.#close();
        return;
      case "sendSignal":
        this.sim.send(this, effect.signal, effect.token);
        return;
      case "setTimer": {
        this.timer = effect.token;
        this.sim.later(effect.delayMs, () => this.dispatch({ type: "timer", token: effect.token }));
        return;
      }
      case "clearTimer":
        this.timer = -1;
        return;
      case "changed":
        if (effect.from !== effect.to) expect(isLegalTransition(effect.from, effect.to)).toBe(true);
        return;
      case "probe":
      case "fault":
        return;
    }
  }

  #open(generation: number, offerGeneration: number, described: boolean): void {
    if (this.end !== null) this.liveAtOnce += 1;
    this.end = { generation, offerGeneration, described, answered: false, candidates: 0, open: false };
    for (const name of ["a", "b"])
      this.sim.later(4, () => this.dispatch({ type: "localCandidate", generation, candidate: name, mid: "0" }));
  }

  #close(): void {
    const gone = this.end;
    this.end = null;
    const far = this.other.end;
    // The far end notices, sooner or later.
    if (gone?.open === true && far?.open === true && far.offerGeneration === gone.offerGeneration)
      this.other.sim.later(20, () => this.other.dispatch({ type: "lost", generation: far.generation, reason: "x" }));
  }
}

class Sim {
  nowMs = 0;
  readonly dialer = new Side(this, "dialer");
  readonly answerer = new Side(this, "answerer");
  /** While true the network misbehaves. */
  rough = true;
  staleSeen = 0;
  readonly #choices: readonly number[];
  #next = 0;
  #pending: Pending[] = [];

  constructor(choices: readonly number[]) {
    this.#choices = choices;
  }

  /** Uniform in [0, 1), from the run's list, round and round. */
  chance(): number {
    const value = this.#choices[this.#next % this.#choices.length] ?? 0;
    this.#next += 1;
    return ((value + this.#next * 7919) % 10_007) / 10_007;
  }

  later(delayMs: number, run: () => void): void {
    this.#pending.push({ dueMs: this.nowMs + delayMs, run });
  }

  send(from: Side, signal: LinkSignal, token: number | null): void {
    const lost = this.rough && this.chance() < 0.2;
    const copies = lost ? 0 : this.rough && this.chance() < 0.2 ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1)
      this.later(this.rough ? this.chance() * 3000 : 5, () => from.other.dispatch({ type: "signal", signal }));
    if (token === null) return;
    // The server's word can be wrong in both directions while it is rough.
    const outcome = this.rough && this.chance() < 0.15 ? (this.chance() < 0.5 ? "offline" : "failed") : "delivered";
    this.later(this.rough ? this.chance() * 2000 : 6, () => from.dispatch({ type: "announced", token, outcome }));
  }

  tryOpen(): void {
    const [a, b] = [this.dialer.end, this.answerer.end];
    if (a === null || b === null || a.open || b.open || a.offerGeneration !== b.offerGeneration) return;
    if (!a.answered || a.candidates + b.candidates === 0) return;
    a.open = true;
    b.open = true;
    for (const [side, end] of [[this.dialer, a] as const, [this.answerer, b] as const])
      this.later(this.rough ? this.chance() * 500 : 5, () =>
        side.dispatch({ type: "channelsOpen", generation: end.generation }),
      );
  }

  runUntil(untilMs: number): void {
    for (;;) {
      const due = this.#pending.reduce<Pending | null>(
        (best, item) => (best === null || item.dueMs < best.dueMs ? item : best),
        null,
      );
      if (due === null || due.dueMs > untilMs) break;
      this.#pending.splice(this.#pending.indexOf(due), 1);
      this.nowMs = Math.max(this.nowMs, due.dueMs);
      due.run();
    }
    this.nowMs = untilMs;
  }
}

type Action = { readonly at: number; readonly side: 0 | 1; readonly event: LinkEvent };
const action: fc.Arbitrary<Action> = fc.record({
  at: fc.nat(60_000),
  side: fc.constantFrom(0 as const, 1 as const),
  event: fc.constantFrom<LinkEvent>(
    { type: "connect" },
    { type: "connect" },
    { type: "disconnect", reason: "closed" },
    { type: "reconnect" },
    { type: "hint" },
  ),
});

const play = (choices: readonly number[], actions: readonly Action[], wanted: boolean): Sim => {
  const sim = new Sim(choices);
  const sides = [sim.dialer, sim.answerer] as const;
  for (const { at, side, event } of actions)
    sim.later(at, () => {
      const target = sides[side];
      // Breaking an open connection from outside: the far side of the same offer learns of it as well.
      target.dispatch(event);
    });
  sim.runUntil(60_000);
  sim.rough = false;
  for (const side of sides) side.dispatch(wanted ? { type: "connect" } : { type: "disconnect", reason: "closed" });
  // Longer than every timeout and backoff that can still be under way, a hint in between as presence would give it.
  sim.runUntil(140_000);
  for (const side of sides) side.dispatch({ type: "hint" });
  sim.runUntil(400_000);
  return sim;
};

const choices = fc.array(fc.nat(10_006), { minLength: 20, maxLength: 60 });
const check = (sim: Sim): void => {
  for (const side of [sim.dialer, sim.answerer]) {
    expect(side.staleApplied).toBe(0);
    expect(side.liveAtOnce).toBe(0);
    expect(side.end?.generation ?? null).toBe(currentAttempt(side.state.phase)?.generation ?? null);
  }
};

test("after quiet two peers who want a link have one, whatever happened before", () => {
  let staleSeen = 0;
  fc.assert(
    fc.property(choices, fc.array(action, { maxLength: 25 }), (random, actions) => {
      const sim = play(random, actions, true);
      check(sim);
      expect([sim.dialer.state.phase.name, sim.answerer.state.phase.name]).toEqual(["connected", "connected"]);
      expect(sim.dialer.end?.offerGeneration).toBe(sim.answerer.end?.offerGeneration);
      staleSeen += sim.staleSeen;
    }),
    { numRuns: 1000 },
  );
  // Otherwise the runs were too tame to say anything.
  expect(staleSeen).toBeGreaterThan(10_000);
}, 120_000);

test("after quiet two peers who want none have none", () => {
  fc.assert(
    fc.property(choices, fc.array(action, { maxLength: 25 }), (random, actions) => {
      const sim = play(random, actions, false);
      check(sim);
      expect([sim.dialer.state.phase.name, sim.answerer.state.phase.name]).toEqual(["disconnected", "disconnected"]);
      expect([sim.dialer.end, sim.answerer.end]).toEqual([null, null]);
    }),
    { numRuns: 500 },
  );
}, 120_000);

test("both call in the same moment, 100 times: one connection", () => {
  fc.assert(
    fc.property(choices, (random) => {
      const both: Action[] = [
        { at: 0, side: 0, event: { type: "connect" } },
        { at: 0, side: 1, event: { type: "connect" } },
      ];
      const sim = play(random, both, true);
      check(sim);
      expect([sim.dialer.state.phase.name, sim.answerer.state.phase.name]).toEqual(["connected", "connected"]);
    }),
    { numRuns: 100 },
  );
});
