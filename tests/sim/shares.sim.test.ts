import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { counted } from "../support/counts.ts";
import { seededNumbers } from "../support/seeded.ts";
import { type ServerKind, ShareWorld, type SimOptions } from "../support/sim-shares.ts";

/**
 * Grants, revocations and leaving by anybody in any order, over a network that loses and reorders, with people who lose
 * the server and are killed, a stale seeder among them, and servers that lie. After every step everybody asks everybody
 * for a chunk: what is served must be allowed by the newest list that the seeder has seen.
 */
const scenario = fc.record({
  people: fc.integer({ min: 3, max: 6 }),
  choices: fc.array(fc.nat(), { minLength: 5, maxLength: 90, size: "max" }),
  /** One in so many events is a disturbance. */
  peace: fc.constantFrom(2, 5, 20),
});
type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never;

const play = ({ people, choices, peace }: Scenario, options: Omit<SimOptions, "people">): ShareWorld => {
  const world = new ShareWorld({ people, ...options });
  for (const number of choices) {
    const rest = Math.floor(number / 20);
    if (number % 4 === 0) {
      // Once in a few worlds the owner takes it back from everybody, and somebody tries to who may not.
      const kind = rest % 151 === 0 ? "withdraw" : ((["add", "add", "revoke", "leave"] as const)[rest % 4] ?? "add");
      // The owner changes most, as the others are refused much of it.
      world.wish(rest % 3 === 0 ? 0 : Math.floor(rest / 12), Math.floor(rest / 100) + 1, kind);
    } else {
      const possible = number % peace === 0 ? world.disturbances() : world.deliveries();
      possible[rest % Math.max(1, possible.length)]?.act();
    }
    world.requestChunks();
  }
  world.heal();
  world.requestChunks();
  return world;
};

const check = (options: Omit<SimOptions, "people">, runs: number, after: (world: ShareWorld) => void) => {
  let served = 0;
  const property = fc.property(scenario, (s) => {
    const world = play(s, options);
    served += world.served;
    after(world);
  });
  const result = fc.check(property, { numRuns: runs, seed: 1, endOnFailure: true });
  return { served, failure: result.failed ? String(result.errorInstance) : null, seed: result.counterexamplePath };
};

const SEEDS = Number(process.env["WEIR_SIM_RUNS"] ?? counted(500, 10_000));
const LYING_SEEDS = Math.ceil(SEEDS / 4);

describe("share lists", { timeout: counted(600_000, 3_600_000) }, () => {
  test(`${SEEDS} seeded worlds: all honest people end with the same list, and nobody is served who is not in it`, () => {
    const { served, failure } = check({ server: "honest" }, SEEDS, (world) => world.checkConverged());
    expect(failure).toBeNull();
    expect(served).toBeGreaterThan(SEEDS * 10);
  });

  test.each<ServerKind>(["forks", "forges", "forgets", "withholds"])(
    `a server that %s: ${LYING_SEEDS} worlds, nobody is served whom no signature names`,
    (server) => {
      let divided = 0;
      const reports = new Set<string>();
      const { failure } = check({ server }, LYING_SEEDS, (world) => {
        if (world.hasTwoHistories()) divided += 1;
        for (const person of world.people) for (const report of person.reports) reports.add(report);
      });
      expect(failure).toBeNull();
      const expected = { forks: "share_forked", forges: "share_forged", forgets: "share_rolled_back" } as const;
      expect(reports).toContain(server in expected ? expected[server as keyof typeof expected] : "share_withheld");
      if (server === "forks") expect(divided).toBeGreaterThan(0);
    },
  );

  test.each<NonNullable<SimOptions["mutant"]>>(["merges", "trusts_old"])("finds a program that %s", (mutant) => {
    expect(check({ server: "honest", mutant }, 1000, (world) => world.checkConverged()).failure).not.toBeNull();
  });

  // Row 26 of the reliability plan: 500 histories of 1,000 wishes.
  const HISTORIES = counted(2, 500);
  const WISHES = 1000;
  test(`${HISTORIES} long histories of 10 people and ${WISHES} wishes: no add is lost, and no revocation undone`, () => {
    for (let seed = 1; seed <= HISTORIES; seed += 1) {
      const random = seededNumbers(seed);
      const below = (end: number): number => Math.floor(random() * end);
      const world = new ShareWorld({ people: 10, server: "honest" });
      for (let wishes = 0; wishes < WISHES; ) {
        if (below(4) === 0) {
          const kind = (["add", "add", "revoke", "leave"] as const)[below(4)] ?? "add";
          // The owner changes most, as the others are refused much of it.
          world.wish(below(3) === 0 ? 0 : below(10), 1 + below(9), kind);
          wishes += 1;
        } else {
          const possible = below(10) === 0 ? world.disturbances() : world.deliveries();
          possible[below(Math.max(1, possible.length))]?.act();
        }
        if (below(200) === 0) world.requestChunks();
      }
      world.heal();
      world.requestChunks();
      world.checkConverged();
    }
  });
});
