import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { chatIdOf } from "#shared/base/ids.ts";
import type { ReceivePoint } from "../../src-main/messages/inbox.ts";
import { type ChatPeer, ChatWorld, pair } from "../support/chat-world.ts";
import { counted } from "../support/counts.ts";

/**
 * Two profiles with real databases and a network that loses, repeats and reorders on the link, repeats on the mailbox and
 * swallows the server's answers, while either side is killed at any moment. Whatever happens: once everything is quiet
 * again, each message is shown exactly once, in its sender's order, and its sender knows.
 */
type Side = 0 | 1;
type Action =
  | { readonly do: "send"; readonly by: Side; readonly count: number }
  | { readonly do: "deliver"; readonly at: number; readonly copies: number }
  | { readonly do: "drop"; readonly at: number }
  | { readonly do: "push"; readonly acknowledge: boolean }
  | { readonly do: "link"; readonly up: boolean }
  | { readonly do: "server"; readonly of: Side; readonly up: boolean }
  | { readonly do: "kill"; readonly side: Side }
  | { readonly do: "killAt"; readonly side: Side; readonly point: ReceivePoint }
  | { readonly do: "loseAnswers"; readonly of: Side; readonly lose: boolean }
  | { readonly do: "read"; readonly by: Side }
  | { readonly do: "advance"; readonly ms: number }
  | { readonly do: "turns"; readonly count: number };

const side = fc.constantFrom<Side>(0, 1);
const point = fc.constantFrom<ReceivePoint>("read", "decrypt", "commit", "process", "render", "ack");
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("send" as const), by: side, count: fc.integer({ min: 1, max: 4 }) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("deliver" as const),
      at: fc.nat(5),
      copies: fc.integer({ min: 1, max: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("drop" as const), at: fc.nat(5) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("push" as const), acknowledge: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("link" as const), up: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("server" as const), of: side, up: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("kill" as const), side }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("killAt" as const), side, point }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("loseAnswers" as const), of: side, lose: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("read" as const), by: side }) },
  // Less than a minute in all: a gap that is given up is another test.
  { weight: 2, arbitrary: fc.record({ do: fc.constant("advance" as const), ms: fc.integer({ min: 1, max: 800 }) }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant("turns" as const), count: fc.integer({ min: 1, max: 12 }) }) },
);

const RUNS = counted(80, 3000);
/** Seeds that failed once stay here. */
const KEPT_SEEDS: readonly number[] = [];

let template = "";

beforeAll(async () => {
  template = mkdtempSync(join(tmpdir(), "weir-chat-sim-"));
  // A seed that no run has: the ids of the pairing must not come again, or new envelopes look like ones that were seen.
  const world = new ChatWorld({ crypto: "counting", folder: join(template, "paired"), seed: 2 ** 31 });
  mkdirSync(world.folder);
  const [alice, bob] = [await world.join("Alice"), await world.join("Bob")];
  await pair(world, alice, bob);
  await alice.stop();
  await bob.stop();
});
afterAll(() => rmSync(template, { recursive: true, force: true }));

class Run {
  readonly world: ChatWorld;
  readonly sides: readonly [ChatPeer, ChatPeer];
  readonly sent: [string[], string[]] = [[], []];

  private constructor(world: ChatWorld, alice: ChatPeer, bob: ChatPeer) {
    this.world = world;
    this.sides = [alice, bob];
  }

  static async start(seed: number): Promise<Run> {
    const world = new ChatWorld({ crypto: "counting", seed });
    for (const name of ["Alice.db", "Bob.db"]) copyFileSync(join(template, "paired", name), join(world.folder, name));
    return new Run(world, await world.join("Alice"), await world.join("Bob"));
  }

  async apply(step: Action): Promise<void> {
    const { world, sides } = this;
    switch (step.do) {
      case "send":
        return this.#send(step.by, step.count);
      case "deliver":
        return world.deliver(Math.min(step.at, world.wire.length - 1), step.copies);
      case "drop":
        world.wire.splice(step.at, 1);
        return;
      case "push":
        await world.pushMail(() => step.acknowledge);
        return;
      case "link":
        if (step.up && sides[0].alive && sides[1].alive) world.linkUp(sides[0], sides[1]);
        else world.linkDown(sides[0], sides[1]);
        return;
      case "server":
        return sides[step.of].setServer(step.up ? "connected" : "disconnected");
      case "kill":
        return sides[step.side].kill();
      case "killAt":
        return this.#killAt(sides[step.side], step.point);
      case "loseAnswers":
        sides[step.of].loseAnswer = () => step.lose;
        return;
      case "read": {
        const reader = sides[step.by];
        if (reader.alive) reader.messages.markRead(chatIdOf(sides[step.by === 0 ? 1 : 0].userId));
        return;
      }
      case "advance":
        // Only the time: what becomes due runs amid everything else.
        world.nowMs += step.ms;
        return;
      case "turns":
        for (let i = 0; i < step.count; i++) await new Promise((resolve) => setImmediate(resolve));
        return;
    }
  }

  async #send(by: Side, count: number): Promise<void> {
    const peer = this.sides[by];
    if (!peer.alive) await peer.start();
    for (let i = 0; i < count; i++) {
      const text = `${peer.name} ${this.sent[by].length}`;
      peer.send(this.sides[by === 0 ? 1 : 0], text);
      this.sent[by].push(text);
    }
  }

  #killAt(peer: ChatPeer, at: ReceivePoint): void {
    peer.checkpoint = (reached) => {
      if (reached !== at) return;
      peer.checkpoint = () => undefined;
      peer.kill();
      if (reached !== "ack") throw new Error("killed");
    };
  }

  async calmDown(): Promise<void> {
    for (const peer of this.sides) {
      peer.checkpoint = () => undefined;
      peer.loseAnswer = () => false;
      if (!peer.alive) await peer.start();
      peer.setServer("connected");
    }
    for (let i = 0; i < 6; i++) await this.world.runFor(20_000);
  }

  check(): void {
    const [alice, bob] = this.sides;
    expect(bob.texts(alice, alice)).toEqual(this.sent[0]);
    expect(alice.texts(bob, bob)).toEqual(this.sent[1]);
    for (const [peer, other] of [
      [alice, bob],
      [bob, alice],
    ] as const) {
      expect(peer.texts(other, peer)).toEqual(this.sent[peer === alice ? 0 : 1]);
      const own = peer.shown(other).filter((message) => message.senderId === peer.userId);
      for (const message of own) expect(["delivered", "read"]).toContain(message.state);
      expect(peer.notices).toEqual([]);
      expect(this.world.mailboxes.get(peer.userId) ?? []).toEqual([]);
    }
  }
}

const simulate = async (seed: number, actions: readonly Action[]): Promise<void> => {
  const run = await Run.start(seed);
  try {
    for (const step of actions) await run.apply(step);
    await run.calmDown();
    run.check();
  } finally {
    await run.world.dispose();
  }
};

const property = fc.asyncProperty(fc.nat(), fc.array(action, { minLength: 5, maxLength: 60, size: "max" }), simulate);

test("each message exactly once, in order, over crashes and a bad network", {
  timeout: counted(240_000, 3_600_000),
}, async () => {
  await fc.assert(property, { numRuns: RUNS, seed: 20_260_101, endOnFailure: false });
});

test("a run with every small seed delivers", { timeout: 60_000 }, async () => {
  const actions: Action[] = [
    { do: "send", by: 0, count: 1 },
    { do: "send", by: 1, count: 3 },
    { do: "push", acknowledge: false },
    { do: "kill", side: 0 },
    { do: "turns", count: 1 },
    { do: "push", acknowledge: false },
  ];
  for (let seed = 0; seed < 12; seed++) await simulate(seed, actions);
});

test("fresh interleavings, and those that failed once", { timeout: 240_000 }, async () => {
  for (const seed of KEPT_SEEDS) await fc.assert(property, { numRuns: 20, seed });
  await fc.assert(property, { numRuns: counted(20, 50) });
});
