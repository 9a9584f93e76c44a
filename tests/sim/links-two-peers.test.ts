import fc from "fast-check";
import { expect, test } from "vitest";
import { LOCAL_MTU_BYTES } from "#shared/base/limits.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import { stepLink } from "../../src-main/links/link-machine.ts";
import { LinkRecorder, readRecording, replayLink } from "../../src-main/links/link-recorder.ts";
import {
  type AllowedVias,
  currentAttempt,
  initialLink,
  isLegalTransition,
  type LinkEffect,
  type LinkEvent,
  type LinkMachineState,
  type LinkPath,
  type LinkRole,
  type LinkVia,
  shownGeneration,
  type TimerSlot,
} from "../../src-main/links/link-state.ts";
import { RELAY_MARK } from "../../src-main/links/transport.ts";
import { counted } from "../support/counts.ts";

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
  readonly via: LinkVia;
  readonly mtu: number | undefined;
  answered: boolean;
  candidates: number;
  open: boolean;
  proven: boolean;
  /** Says goodbye: nothing of it matters any more, but to the far side. */
  leaving: boolean;
}

class Side {
  state: LinkMachineState;
  readonly ends = new Map<number, End>();
  readonly timers = new Map<TimerSlot, number>();
  newestOffer = 0;
  /** Everything that was ever applied to a connection that is not there. */
  staleApplied = 0;
  mostAtOnce = 0;
  /** What this side's policy for the other allows. */
  allowed: AllowedVias = { rtc: true, relay: true };
  readonly recorder = new LinkRecorder();
  readonly #record: ReturnType<LinkRecorder["add"]>;
  readonly sim: Sim;
  readonly role: LinkRole;

  constructor(sim: Sim, role: LinkRole) {
    this.sim = sim;
    this.role = role;
    this.state = initialLink(role, role === "dialer" ? 1000 : 5000);
    this.#record = this.recorder.add(this.state);
  }

  get other(): Side {
    return this.role === "dialer" ? this.sim.answerer : this.sim.dialer;
  }

  /** The connection that the application uses. */
  get used(): End | null {
    const { phase } = this.state;
    return phase.name === "connected" ? (this.ends.get(phase.attempt.generation) ?? null) : null;
  }

  dispatch(event: LinkEvent): void {
    const input = { atMs: this.sim.nowMs, random: this.sim.chance(), allowed: this.allowed, event };
    const [next, effects] = stepLink(this.state, input);
    if (this.#isStale(event)) {
      expect(effects).toEqual([]);
      expect(next).toEqual({ ...this.state, staleEvents: this.state.staleEvents + 1 });
      this.sim.staleSeen += 1;
    }
    const before = shownGeneration(this.state);
    this.state = next;
    this.#record(input, next);
    expect(shownGeneration(next)).toBeGreaterThanOrEqual(before);
    for (const effect of effects) this.run(effect);
    // No packet of a connection that is forbidden leaves from here on, but the goodbye of one that was left before.
    for (const end of this.ends.values()) expect(end.leaving || this.allowed[end.via]).toBe(true);
  }

  setPolicy(allowed: AllowedVias): void {
    this.allowed = allowed;
    this.dispatch({ type: "policyChanged" });
  }

  /** Judged from outside: what the connections and timers of this moment are, not what the machine thinks. */
  #isStale(event: LinkEvent): boolean {
    if (event.type === "timer") return ![...this.timers.values()].includes(event.token);
    if (!("generation" in event)) return false;
    const end = this.ends.get(event.generation);
    return end === undefined || end.leaving;
  }

  run(effect: LinkEffect): void {
    if ("generation" in effect && effect.type !== "openDialing" && effect.type !== "openAnswering")
      if (effect.type !== "changed" && !this.ends.has(effect.generation)) this.staleApplied += 1;
    switch (effect.type) {
      case "openDialing":
        this.#open(effect.generation, effect.generation, effect.via, effect.mtu);
        this.sim.later(3, () =>
          this.dispatch({ type: "localDescription", generation: effect.generation, sdp: sdpOf(effect.via) }),
        );
        return;
      case "openAnswering":
        expect(effect.offerGeneration).toBeGreaterThan(this.newestOffer);
        expect(effect.via).toBe(effect.sdp === sdpOf("relay") ? "relay" : "rtc");
        this.newestOffer = effect.offerGeneration;
        this.#open(effect.generation, effect.offerGeneration, effect.via, effect.mtu);
        this.sim.later(3, () => {
          const end = this.ends.get(effect.generation);
          if (end !== undefined) end.answered = true;
          this.dispatch({ type: "localDescription", generation: effect.generation, sdp: "a" });
        });
        return;
      case "acceptAnswer": {
        const end = this.ends.get(effect.generation);
        if (end !== undefined) end.answered = true;
        this.sim.tryOpen();
        return;
      }
      case "addCandidate": {
        const end = this.ends.get(effect.generation);
        if (end !== undefined) end.candidates += 1;
        this.sim.tryOpen();
        return;
      }
      case "startHandshake":
        this.sim.later(5, () => {
          const end = this.ends.get(effect.generation);
          // A packet that is too large for the path is lost silently, whichever side sends it.
          if (end === undefined || end.leaving || !this.sim.carries(end.offerGeneration)) return;
          end.proven = true;
          this.dispatch({ type: "proven", generation: effect.generation, path: this.sim.pathOf(end) });
          this.sim.confirm(end.offerGeneration);
        });
        return;
      case "abandon":
        this.#close(effect.generation, "at once");
        return;
      case "finish":
        this.#close(effect.generation, "in order");
        return;
      case "sendSignal":
        this.sim.send(this, effect.signal, effect.token);
        return;
      case "setTimer":
        this.timers.set(effect.slot, effect.token);
        this.sim.later(effect.delayMs, () => this.dispatch({ type: "timer", token: effect.token }));
        return;
      case "clearTimer":
        this.timers.delete(effect.slot);
        return;
      case "changed":
        if (effect.from !== effect.to) expect(isLegalTransition(effect.from, effect.to)).toBe(true);
        return;
      case "probe":
      case "fault":
      case "attemptWorks":
      case "attemptEnded":
        return;
    }
  }

  #open(generation: number, offerGeneration: number, via: LinkVia, mtu: number | undefined): void {
    // Nobody sends large packets anywhere but on its own machine.
    if (mtu !== undefined) expect([this.sim.isOneMachine, via]).toEqual([true, "rtc"]);
    const fresh = { answered: false, candidates: 0, open: false, proven: false, leaving: false };
    this.ends.set(generation, { generation, offerGeneration, via, mtu, ...fresh });
    this.mostAtOnce = Math.max(this.mostAtOnce, [...this.ends.values()].filter((end) => !end.leaving).length);
    for (const name of ["a", "b"])
      this.sim.later(4, () => this.dispatch({ type: "localCandidate", generation, candidate: name, mid: "0" }));
  }

  #close(generation: number, how: "at once" | "in order"): void {
    const gone = this.ends.get(generation);
    if (gone === undefined) return;
    const far = [...this.other.ends.values()].find((end) => end.offerGeneration === gone.offerGeneration);
    if (how === "in order") {
      gone.leaving = true;
      this.sim.later(2000, () => this.ends.delete(generation));
    } else this.ends.delete(generation);
    if (!gone.open || far === undefined || far.leaving) return;
    // The far end notices, sooner or later.
    this.other.sim.later(20, () => {
      if (how === "in order") {
        if (!this.other.ends.has(far.generation) || far.leaving) return;
        far.leaving = true;
        this.other.dispatchOfLeaving({ type: "peerFin", generation: far.generation });
      } else this.other.dispatch({ type: "lost", generation: far.generation, reason: "x" });
    });
  }

  /** FIN comes from a connection that is leaving from then on, and counts all the same. */
  dispatchOfLeaving(event: Extract<LinkEvent, { type: "peerFin" }>): void {
    const end = this.ends.get(event.generation);
    if (end !== undefined) end.leaving = false;
    this.dispatch(event);
    this.ends.delete(event.generation);
  }
}

const sdpOf = (via: LinkVia): string => (via === "relay" ? `v=0\r\n${RELAY_MARK}\r\n` : "v=0\r\n");

class Sim {
  nowMs = 0;
  readonly dialer = new Side(this, "dialer");
  readonly answerer = new Side(this, "answerer");
  /** While true the network misbehaves. */
  rough = true;
  staleSeen = 0;
  /** No datagram passes between the two: only the relay is left. */
  isBlocked = false;
  /** Both run on one machine, and what its path carries. */
  isOneMachine = false;
  carriesLarge = false;
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

  /** Every pair of ends of one offer that has all it needs opens. */
  tryOpen(): void {
    for (const a of this.dialer.ends.values()) {
      const b = [...this.answerer.ends.values()].find((end) => end.offerGeneration === a.offerGeneration);
      if (b === undefined || a.open || b.open || a.leaving || b.leaving) continue;
      if (!a.answered || a.candidates + b.candidates === 0) continue;
      if (a.via === "rtc" && this.isBlocked) continue;
      a.open = true;
      b.open = true;
      for (const [side, end] of [[this.dialer, a] as const, [this.answerer, b] as const])
        this.later(this.rough ? this.chance() * 500 : 5, () =>
          side.dispatch({ type: "channelsOpen", generation: end.generation, path: this.pathOf(end) }),
        );
    }
  }

  pathOf(end: End): LinkPath {
    if (end.via === "relay") return "relay";
    return this.isOneMachine ? "machine" : "direct";
  }

  /** Whether the handshake of both ends of this offer gets through. */
  carries(offerGeneration: number): boolean {
    const ends = [this.dialer, this.answerer].flatMap((side) => [...side.ends.values()]);
    return this.carriesLarge || !ends.some((end) => end.offerGeneration === offerGeneration && end.mtu !== undefined);
  }

  /** Both sides stand on it: each gets the other's first word. */
  confirm(offerGeneration: number): void {
    const of = (side: Side): End | undefined =>
      [...side.ends.values()].find((end) => end.offerGeneration === offerGeneration);
    const [a, b] = [of(this.dialer), of(this.answerer)];
    if (a?.proven !== true || b?.proven !== true) return;
    for (const [side, end] of [[this.dialer, a] as const, [this.answerer, b] as const])
      this.later(this.rough ? this.chance() * 100 : 2, () =>
        side.dispatch({ type: "confirmed", generation: end.generation }),
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

type Action = {
  readonly at: number;
  readonly side: 0 | 1;
  readonly event: LinkEvent | { readonly type: "policy"; readonly rtc: boolean };
};
const action: fc.Arbitrary<Action> = fc.record({
  at: fc.nat(60_000),
  side: fc.constantFrom(0 as const, 1 as const),
  event: fc.constantFrom<Action["event"]>(
    { type: "connect" },
    { type: "connect" },
    { type: "disconnect", reason: "closed" },
    { type: "reconnect" },
    { type: "hint" },
    { type: "networkChanged" },
    { type: "policy", rtc: false },
    { type: "policy", rtc: true },
  ),
});

interface Network {
  readonly hasRelay: boolean;
  /** Blocked while it is rough, and afterwards. */
  readonly blocked: readonly [boolean, boolean];
  /** Two programs on one machine, whose loopback carries large packets, or does not. */
  readonly machine: "two" | "small" | "large";
}
const network: fc.Arbitrary<Network> = fc
  .record({
    hasRelay: fc.boolean(),
    blocked: fc.tuple(fc.boolean(), fc.boolean()),
    machine: fc.constantFrom("two" as const, "small" as const, "large" as const),
  })
  // Without a relay nobody would ever meet, and no network blocks a machine's own loopback.
  .map(({ blocked: [before, after], ...made }) => {
    const isNetwork = made.machine === "two";
    return { ...made, blocked: [before && isNetwork, after && isNetwork && made.hasRelay] as const };
  });

const play = (
  choices: readonly number[],
  actions: readonly Action[],
  wanted: boolean,
  { hasRelay, blocked, machine }: Network = { hasRelay: false, blocked: [false, false], machine: "two" },
): Sim => {
  const sim = new Sim(choices);
  sim.isBlocked = blocked[0];
  sim.isOneMachine = machine !== "two";
  sim.carriesLarge = machine === "large";
  const sides = [sim.dialer, sim.answerer] as const;
  const localMtu = LOCAL_MTU_BYTES;
  for (const side of sides) side.allowed = { rtc: true, relay: hasRelay, localMtu };
  for (const { at, side, event } of actions)
    sim.later(at, () => {
      if (event.type === "policy") sides[side].setPolicy({ rtc: event.rtc, relay: hasRelay, localMtu });
      else sides[side].dispatch(event);
    });
  sim.runUntil(60_000);
  sim.rough = false;
  sim.isBlocked = blocked[1];
  for (const side of sides) if (!side.allowed.rtc) side.setPolicy({ rtc: true, relay: hasRelay, localMtu });
  for (const side of sides) side.dispatch(wanted ? { type: "connect" } : { type: "disconnect", reason: "closed" });
  // Longer than every timeout and backoff that can still be under way, a hint in between as presence would give it.
  sim.runUntil(140_000);
  for (const side of sides) side.dispatch({ type: "hint" });
  sim.runUntil(400_000);
  // An upgrade that is under way, or the goodbye to what it replaced, ends.
  sim.isBlocked = false;
  sim.runUntil(2_000_000);
  return sim;
};

const choices = fc.array(fc.nat(10_006), { minLength: 20, maxLength: 60 });
const check = (sim: Sim): void => {
  for (const side of [sim.dialer, sim.answerer]) {
    expect(side.staleApplied).toBe(0);
    expect(side.mostAtOnce).toBeLessThanOrEqual(2);
    expect(side.state.next).toBeNull();
    const held = currentAttempt(side.state.phase)?.generation;
    expect([...side.ends.keys()]).toEqual(held === undefined ? [] : [held]);
    const recorded = readRecording(JSON.parse(JSON.stringify(side.recorder.recording())));
    expect(recorded.ok && recorded.value.links.map(replayLink)).toEqual([null]);
  }
};
const runs = counted(500, 10_000);

test("after quiet two peers who want a link have one, the best there is, whatever happened before", () => {
  let staleSeen = 0;
  let largeBothWays = 0;
  fc.assert(
    fc.property(choices, fc.array(action, { maxLength: 25 }), network, (random, actions, net) => {
      const sim = play(random, actions, true, net);
      check(sim);
      expect([sim.dialer.state.phase.name, sim.answerer.state.phase.name]).toEqual(["connected", "connected"]);
      expect(sim.dialer.used?.offerGeneration).toBe(sim.answerer.used?.offerGeneration);
      expect(sim.dialer.used?.via).toBe("rtc");
      const large = net.machine === "large" ? LOCAL_MTU_BYTES : undefined;
      expect(sim.dialer.used?.mtu).toBe(large);
      // Where the network was rough when it was made, the answerer did not know yet that this is its own machine.
      expect([large, undefined]).toContain(sim.answerer.used?.mtu);
      if (sim.answerer.used?.mtu !== undefined) largeBothWays += 1;
      staleSeen += sim.staleSeen;
    }),
    { numRuns: runs },
  );
  // Otherwise the runs were too tame to say anything.
  expect(staleSeen).toBeGreaterThan(10 * runs);
  expect(largeBothWays).toBeGreaterThan(runs / 6);
}, 3_600_000);

test("after quiet two peers who want none have none", () => {
  fc.assert(
    fc.property(choices, fc.array(action, { maxLength: 25 }), network, (random, actions, net) => {
      const sim = play(random, actions, false, net);
      check(sim);
      expect([sim.dialer.state.phase.name, sim.answerer.state.phase.name]).toEqual(["disconnected", "disconnected"]);
    }),
    { numRuns: runs / 2 },
  );
}, 3_600_000);

test("who allows a direct path again gets one at once, whichever side it is and whatever the link is doing", () => {
  fc.assert(
    fc.property(choices, fc.constantFrom(0 as const, 1 as const), fc.nat(400), (random, whose, afterMs) => {
      const sim = new Sim(random);
      sim.rough = false;
      const sides = [sim.dialer, sim.answerer] as const;
      sides[whose].setPolicy({ rtc: false, relay: true });
      for (const side of sides) side.dispatch({ type: "connect" });
      sim.runUntil(afterMs);
      sides[whose].setPolicy({ rtc: true, relay: true });
      sim.runUntil(afterMs + 1000);
      expect(sides.map(({ used }) => used?.via)).toEqual(["rtc", "rtc"]);
      sim.runUntil(afterMs + 10_000);
      check(sim);
    }),
    { numRuns: counted(250, 4000) },
  );
});

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
