import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { step } from "../../src-main/transfer/transfer-machine.ts";
import { common } from "../../src-main/transfer/transfer-state.ts";
import { counted } from "../support/counts.ts";
import { type SimKind, SimWorld, type WorldOptions } from "../support/sim-transfer.ts";

const user = (letter: string): UserId => v.parse(UserIdSchema, letter.repeat(32));
const KINDS: readonly SimKind[] = [
  ...(["honest", "partial", "wrong", "pages", "repeats"] as const),
  ...(["unasked", "silent", "mute", "claims", "counts"] as const),
];

const scenario = fc.record({
  chunkCount: fc.integer({ min: 0, max: 24 }),
  /** Besides one that is honest and has everything. */
  others: fc.array(fc.constantFrom(...KINDS), { maxLength: 7 }),
  choices: fc.array(fc.nat(), { maxLength: 250, size: "max" }),
  cancelAt: fc.option(fc.nat({ max: 250 }), { freq: 6 }),
  /** One in so many events is a disturbance. */
  peace: fc.constantFrom(3, 10, 40),
});
type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never;

/** Lets the numbers decide what happens, then lets everything happen in order with honest seeders only. */
const play = (
  { chunkCount, others, choices, cancelAt, peace }: Scenario,
  change: Partial<WorldOptions> = {},
): SimWorld => {
  const kinds: readonly SimKind[] = ["honest", ...others];
  const seeders = kinds.map((kind, i) => ({ id: user("abcdefgh".charAt(i)), kind }));
  const world = new SimWorld({ chunkCount, seeders, ...change });
  world.dispatch({ type: "start" });
  choices.forEach((number, at) => {
    if (at === cancelAt) world.cancel();
    const possible = number % peace === 0 ? world.disturbances() : world.choices();
    possible[Math.floor(number / peace) % possible.length]?.act();
  });
  if (cancelAt !== null && cancelAt < choices.length) return world;
  for (const type of ["start", "retry"] as const) world.dispatch({ type });
  for (let turn = 0; turn < 5000 && world.state.kind !== "complete"; turn += 1) {
    if (world.state.kind === "idle" || world.state.kind === "pausing") world.dispatch({ type: "start" });
    // A refusal may still be on its way, or the only one who has the file has refused while liars are there.
    if (world.state.kind === "failed" || turn % 200 === 199) world.dispatch({ type: "retry" });
    const [next] = world.choices();
    if (next === undefined) break;
    next.act();
  }
  return world;
};

/** What the first failing run failed with; null when all held. */
const failureOf = (change: Partial<WorldOptions>): string | null => {
  const property = fc.property(scenario, (s) => {
    play(s, change);
  });
  const { errorInstance } = fc.check(property, { numRuns: 2000, seed: 1, endOnFailure: true });
  return errorInstance instanceof Error ? errorInstance.message : null;
};

const RUNS = Number(process.env["WEIR_SIM_RUNS"] ?? counted(1000, 10_000));

describe("a download among seeders that come, go, lie and repeat themselves", () => {
  test(`${RUNS} interleavings: only legal edges, never a hole, always complete in the end`, {
    timeout: 300_000,
  }, () => {
    const kinds = new Map<string, number>();
    fc.assert(
      fc.property(scenario, (s) => {
        const world = play(s);
        for (const kind of world.visited) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        if (world.visited.includes("cancelled")) expect(world.state.kind).toBe("cancelled");
        else expect(world.state.kind).toBe("complete");
      }),
      { numRuns: RUNS, seed: 20_001 },
    );
    // The runs did reach what they are about.
    for (const kind of ["draining", "pausing", "assembling", "failed", "cancelled", "complete"])
      expect(kinds.get(kind) ?? 0, kind).toBeGreaterThan(RUNS / 100);
  });

  test("the check notices a machine that assembles without draining", () => {
    const impatient: typeof step = (state, event) => {
      const [next, effects] = step(state, event);
      if (next.kind !== "draining") return [next, effects];
      const run = next.run + 1;
      return [
        { ...common(next), run, kind: "assembling", pieces: next.pieces, assembled: 0 },
        [...effects, { type: "assemble", run }],
      ];
    };
    expect(failureOf({ step: impatient })).toMatch(/with a hole|request is outstanding|late chunk reached storage/);
  });

  test("the check notices a machine that stores late chunks", () => {
    const careless: typeof step = (state, event) => {
      const [next, effects] = step(state, event);
      if (event.type !== "chunkArrived" || next.kind !== "assembling") return [next, effects];
      const { session, index, frame } = event;
      const store = { type: "storeChunk", run: next.run, session, index, frame } as const;
      return [next, effects.map((effect) => (effect.type === "dropFrame" ? store : effect))];
    };
    expect(failureOf({ step: careless })).toMatch(/late chunk reached storage/);
  });
});
