import fc from "fast-check";
import { expect, test } from "vitest";
import { EARLY_CANDIDATES_MAX, EARLY_OFFERS_MAX, LOCAL_MTU_BYTES } from "#shared/base/limits.ts";
import type { LinkSignal } from "#shared/wire/content.ts";
import { stepLink } from "../../src-main/links/link-machine.ts";
import {
  currentAttempt,
  initialLink,
  isLegalTransition,
  type LinkEvent,
  type LinkMachineState,
  type LinkRole,
  shownGeneration,
} from "../../src-main/links/link-state.ts";
import { RELAY_MARK } from "../../src-main/links/transport.ts";
import { counted } from "../support/counts.ts";

/** A hostile peer, a hostile server and a confused library: any event, in any order, of any generation. */
const FIRST = 1000;
/** Mostly near those that exist. */
const generation = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: FIRST - 1, max: FIRST + 12 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 5 }) },
  { weight: 1, arbitrary: fc.constantFrom(0, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER - 1) },
);
const sdp = fc.oneof(fc.constant("v=0\r\n"), fc.constant(`v=0\r\n${RELAY_MARK}\r\n`), fc.string({ maxLength: 40 }));
const reason = fc.oneof(fc.constantFrom("not_wanted", "relay_only", "no_relay", "busy"), fc.string({ maxLength: 20 }));
const mid = fc.constant("0");
const signal: fc.Arbitrary<LinkSignal> = fc.oneof(
  fc.record({ type: fc.constant("dial" as const), generation }),
  fc.record({ type: fc.constant("offer" as const), generation, sdp, local: fc.boolean() }),
  fc.record({ type: fc.constant("answer" as const), generation, sdp }),
  fc.record({ type: fc.constant("answer" as const), generation, sdp }),
  fc.record({ type: fc.constant("candidate" as const), generation, candidate: fc.string({ maxLength: 20 }), mid }),
  fc.record({ type: fc.constant("close" as const), generation, reason }),
);
const path = fc.constantFrom("machine" as const, "lan" as const, "direct" as const, "relay" as const, null);
const open = fc.record({
  type: fc.constantFrom("channelsOpen" as const, "proven" as const, "measured" as const),
  generation,
  path,
});
const ofConnection: fc.Arbitrary<LinkEvent> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ type: fc.constant("localDescription" as const), generation, sdp }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant("localCandidate" as const),
      generation,
      candidate: fc.constant("c"),
      mid,
    }),
  },
  { weight: 8, arbitrary: open },
  { weight: 3, arbitrary: fc.record({ type: fc.constant("confirmed" as const), generation }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("unsteady" as const), generation }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("peerFin" as const), generation }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("lost" as const), generation, reason }) },
);
const announced = fc.record({
  type: fc.constant("announced" as const),
  token: fc.nat(30),
  outcome: fc.constantFrom("delivered" as const, "offline" as const, "failed" as const),
});
const ours: fc.Arbitrary<LinkEvent> = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom<LinkEvent>({ type: "connect" }, { type: "networkChanged" }) },
  {
    weight: 3,
    arbitrary: fc.constantFrom<LinkEvent>(
      { type: "reconnect" },
      { type: "hint" },
      { type: "policyChanged" },
      { type: "staleSeen" },
      { type: "disconnect", reason: "closed" },
    ),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("timer" as const), token: fc.nat(30) }) },
  { weight: 1, arbitrary: announced },
);
const event: fc.Arbitrary<LinkEvent> = fc.oneof(
  { weight: 2, arbitrary: ours },
  { weight: 5, arbitrary: ofConnection },
  { weight: 4, arbitrary: signal.map((it) => ({ type: "signal" as const, signal: it })) },
);
const step = fc.record({
  event,
  random: fc.double({ min: 0, max: 0.999, noNaN: true }),
  allowed: fc.oneof(
    { weight: 9, arbitrary: fc.constant({ rtc: true, relay: true, localMtu: LOCAL_MTU_BYTES }) },
    { weight: 1, arbitrary: fc.record({ rtc: fc.boolean(), relay: fc.boolean() }) },
  ),
  /** Whom the event is for: often one of the attempts that exist. */
  aim: fc.constantFrom("anybody" as const, "first" as const, "first" as const, "second" as const, "second" as const),
  /** The timer of the moment goes off instead. */
  due: fc.constantFrom(
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    null,
    "timer" as const,
    "next" as const,
    "better" as const,
  ),
});

const aimed = (state: LinkMachineState, given: LinkEvent, aim: "anybody" | "first" | "second"): LinkEvent => {
  const attempt = aim === "first" ? currentAttempt(state.phase) : aim === "second" ? state.next?.attempt : null;
  if (attempt === null || attempt === undefined) return given;
  if ("generation" in given) return { ...given, generation: attempt.generation };
  if (given.type !== "signal" || given.signal.type === "offer" || given.signal.type === "dial") return given;
  return { ...given, signal: { ...given.signal, generation: attempt.offerGeneration } };
};

const dueToken = (state: LinkMachineState, due: "timer" | "next" | "better"): number | null => {
  if (due === "timer") return state.timer;
  return due === "next" ? (state.next?.timer ?? null) : state.betterTimer;
};

/** The honest road to a link with a proven second attempt, from which a run leaves at some point. */
const signalOf = (it: LinkSignal): LinkEvent => ({ type: "signal", signal: it });
const openAndProve = (of: number): LinkEvent[] => [
  { type: "channelsOpen", generation: of, path: "lan" },
  { type: "proven", generation: of, path: "lan" },
];
const roads: Readonly<Record<LinkRole, readonly LinkEvent[]>> = {
  dialer: [
    { type: "connect" },
    signalOf({ type: "answer", generation: FIRST + 1, sdp: "v=0" }),
    ...openAndProve(FIRST + 1),
    { type: "networkChanged" },
    signalOf({ type: "answer", generation: FIRST + 2, sdp: "v=0" }),
    ...openAndProve(FIRST + 2),
    { type: "confirmed", generation: FIRST + 2 },
  ],
  answerer: [
    { type: "connect" },
    signalOf({ type: "offer", generation: FIRST + 1, sdp: "v=0" }),
    ...openAndProve(FIRST + 1),
    signalOf({ type: "offer", generation: FIRST + 2, sdp: "v=0" }),
    ...openAndProve(FIRST + 2),
    { type: "confirmed", generation: FIRST + 2 },
  ],
};
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
const honest = (it: LinkEvent): Step => ({
  event: it,
  random: 0,
  allowed: { rtc: true, relay: true },
  aim: "anybody",
  due: null,
});

test.each<LinkRole>(["dialer", "answerer"])(
  "no sequence of events breaks a rule of the %s",
  (role) => {
    const reached = { connected: 0, second: 0, takenOver: 0 };
    fc.assert(
      fc.property(fc.nat(9), fc.array(step, { maxLength: 40 }), (honestSteps, wild) => {
        const steps = [...roads[role].slice(0, honestSteps).map(honest), ...wild];
        let state = initialLink(role, FIRST);
        let atMs = 0;
        const open = new Set<number>();
        for (const { event: given, random, allowed, aim, due } of steps) {
          atMs += 100;
          const token = due === null ? null : dueToken(state, due);
          const next: LinkEvent = token === null ? aimed(state, given, aim) : { type: "timer", token };
          const before = shownGeneration(state);
          const [after, effects] = stepLink(state, { atMs, random, allowed, event: next });
          for (const effect of effects) {
            if (effect.type === "openDialing" || effect.type === "openAnswering") {
              // Whatever is forbidden at this moment is not begun.
              expect(allowed[effect.via]).toBe(true);
              expect(open.has(effect.generation)).toBe(false);
              open.add(effect.generation);
            }
            if (effect.type === "abandon" || effect.type === "finish")
              expect(open.delete(effect.generation)).toBe(true);
            if (effect.type === "changed" && effect.from !== effect.to)
              expect(isLegalTransition(effect.from, effect.to)).toBe(true);
            if (effect.type === "sendSignal") expect(Number.isSafeInteger(effect.signal.generation)).toBe(true);
          }
          if (after.phase.name === "connected") reached.connected += 1;
          if (after.phase.name === "connected" && after.next !== null) reached.second += 1;
          if (state.next !== null && after.phase.name === "connected" && shownGeneration(after) > before)
            reached.takenOver += 1;
          state = after;
          // The library closes by itself what the peer ended.
          if (next.type === "peerFin") open.delete(next.generation);
          const held = [currentAttempt(state.phase)?.generation, state.next?.attempt.generation].filter(
            (it) => it !== undefined,
          );
          expect([...open].sort()).toEqual(held.sort());
          expect(shownGeneration(state)).toBeGreaterThanOrEqual(before);
          expect(state.early.length).toBeLessThanOrEqual(EARLY_OFFERS_MAX);
          for (const { candidates } of state.early) expect(candidates.length).toBeLessThanOrEqual(EARLY_CANDIDATES_MAX);
          expect(effects.length).toBeLessThan(200);
        }
      }),
      { numRuns: counted(1000, 100_000) },
    );
    // Otherwise it never got anywhere.
    expect(Object.values(reached).every((times) => times > 20) ? "" : JSON.stringify(reached)).toBe("");
  },
  counted(60_000, 1_800_000),
);
