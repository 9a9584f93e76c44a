import { expect, test } from "vitest";
import { counted } from "../support/counts.ts";
import { type Kill, KillWorld, type Who } from "../support/kill-world.ts";

const OWNER = [
  ...[
    "announcing",
    "announced",
    "registering",
    "registered",
    "opened",
    "requested",
    "chunksRead",
    "chunkSent",
    "stopped",
  ],
];
const RECEIVER = [
  ...["offered", "opening", "downloading", "leavesStored", "asked", "arrived", "committed", "draining", "stopSent"],
  ...["assembling", "assembleStart", "assembleMiddle", "assembleEnd", "verifying", "synced", "nameNoted", "renamed"],
  ...["nameSynced", "finished", "completed", "complete", "chunksDropped"],
];
/** Requests that were carried out and not answered. */
const SERVER = ["files.register", "files.announce", "files.get"];
/** Moments that a transfer of forty chunks has several of, and up to which one it surely has. */
const REPEATED: Record<string, number> = { asked: 2, arrived: 30, committed: 30, requested: 2, chunkSent: 30 };

const kill = (of: Who, victim: Who, steps: readonly string[]): Omit<Kill, "nth" | "what">[] =>
  steps.map((step) => ({ of, step, victim }));

/** Everybody at every moment of their own, and at those of others that they have to do with. */
const AT_EVERY_CHANGE = [
  ...kill("receiver", "receiver", RECEIVER),
  ...kill("owner", "owner", OWNER),
  ...kill("server", "server", SERVER),
  ...kill("receiver", "owner", ["offered", "leavesStored", "arrived", "committed", "draining", "assembleStart"]),
  ...kill("receiver", "server", ["offered", "arrived", "assembleStart", "completed"]),
  ...kill("owner", "receiver", ["announced", "opened", "chunkSent"]),
  ...kill("owner", "server", ["announcing", "registering", "chunkSent"]),
];
const EVERYBODY = (["owner", "receiver", "server"] as const).flatMap((victim) => [
  ...kill("receiver", victim, RECEIVER),
  ...kill("owner", victim, OWNER),
  ...kill("server", victim, SERVER),
]);

const ROUNDS = counted(1, 5);
const WORLDS = 2;
/** What a world keeps of each round is looked at again at its every start. */
const ROUNDS_PER_WORLD = 30;

const plan: Kill[] = [];
for (let round = 0; round < ROUNDS; round += 1)
  for (const { of, step, victim } of counted(0, 1) === 0 ? AT_EVERY_CHANGE : EVERYBODY) {
    const nth = 1 + Math.floor(Math.random() * (REPEATED[step] ?? 1));
    plan.push({ of, step, victim, nth, what: (plan.length + round) % 5 === 4 ? "folder" : "file" });
  }

test(`${plan.length} kills at named moments: every download completes, nothing stored is fetched again, nothing is left over`, {
  timeout: plan.length * 30_000,
}, async () => {
  const left = [...plan];
  const problems: string[] = [];
  let kills = 0;
  const lane = async (): Promise<void> => {
    while (left.length > 0) {
      await using world = await KillWorld.create();
      for (let rounds = 0; rounds < ROUNDS_PER_WORLD && left.length > 0; rounds += 1) {
        const next = left.shift();
        if (next !== undefined) await world.run(next);
      }
      await world.end();
      problems.push(...world.problems);
      kills += world.kills;
      process.stdout.write(`${kills} of ${plan.length} kills, ${problems.length} problems\n`);
    }
  };
  // A lane that fails must not leave the processes of the others behind.
  const ended = await Promise.allSettled(Array.from({ length: WORLDS }, lane));
  for (const lane of ended) if (lane.status === "rejected") problems.push(String(lane.reason));
  expect(problems).toEqual([]);
  expect(kills).toBe(plan.length);
});
