import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeRandomFile } from "../../scripts/demo.ts";
import { type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { counted, isFullRun } from "../support/counts.ts";
import { createWorld, type World } from "../support/profiles.ts";

/**
 * A profile that ends, again and again, in the middle of whatever it does, with messages that were sent in the very last
 * moment. Every end is orderly, and in the end the other side has every message once, in order.
 */
const RUNS = {
  rest: counted(1, 100),
  sending: counted(2, 125),
  transfer: counted(1, 125),
  connecting: counted(1, 125),
  stopped: counted(1, 125),
};
const QUIT_MS_MAX = 3000;
const MESSAGES = 5;
const FILE_BYTES = 64 * 1024 * 1024;

let world: World;
let bob: HeadlessProfile;
const sent: string[] = [];
const figures: Record<string, { ms: number[]; states: Record<string, number> }> = {};

const linkOf = async (alice: HeadlessProfile) =>
  (await alice.call("links.list", {})).find(({ peerId }) => peerId === bob.userId) ?? null;

const linked = async (): Promise<HeadlessProfile> => {
  const alice = await world.profile("alice");
  await alice.until("a link", async () => ((await linkOf(alice))?.state === "connected" ? true : null));
  return alice;
};

/** Sends so many messages, and asks for the end as soon as the last one is accepted. */
const quit = async (alice: HeadlessProfile, what: string, messages = MESSAGES): Promise<void> => {
  const state = (await linkOf(alice))?.state ?? "none";
  const texts = Array.from({ length: messages }, (_, i) => `message ${sent.length + i}`);
  await Promise.all(texts.map((text) => alice.call("messages.send", { chatId: bob.userId, text })));
  sent.push(...texts);
  const beganMs = performance.now();
  const code = await alice.stop();
  const ms = performance.now() - beganMs;
  const figure = figures[what] ?? { ms: [], states: {} };
  figures[what] = figure;
  figure.ms.push(ms);
  figure.states[state] = (figure.states[state] ?? 0) + 1;
  expect({ what, code, log: code === 0 ? "" : alice.log().slice(-2000) }).toEqual({ what, code: 0, log: "" });
};

/** Everything that Bob sees of a chat, oldest first. */
const allTexts = async (chatId: string): Promise<string[]> => {
  const texts: string[] = [];
  for (let beforeId: string | undefined; ; ) {
    const page = await bob.call("messages.list", {
      chatId,
      limit: 200,
      ...(beforeId === undefined ? {} : { beforeId }),
    });
    texts.push(...page.map(({ text }) => text));
    beforeId = page.at(-1)?.messageId;
    if (beforeId === undefined) return texts.reverse();
  }
};

beforeAll(async () => {
  world = await createWorld();
  const alice = await world.profile("alice");
  bob = await world.profile("bob");
  await pair(alice, bob);
  await alice.stop();
}, 60_000);

afterAll(async () => {
  await world[Symbol.asyncDispose]();
  for (const [what, { ms, states }] of Object.entries(figures)) {
    const sorted = [...ms].sort((a, b) => a - b);
    const at = (share: number): number =>
      Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
    process.stdout.write(
      `quit, ${what}: ${ms.length} of ${ms.length} with code 0, median ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(1)} ms; link ${JSON.stringify(states)}\n`,
    );
  }
});

test("at rest", async () => {
  for (let run = 0; run < RUNS.rest; run += 1) await quit(await linked(), "at rest", 0);
});

test("in the middle of messages", async () => {
  for (let run = 0; run < RUNS.sending; run += 1) await quit(await linked(), "sending");
});

test("in the middle of a transfer", async () => {
  const path = join(world.dir, "large.bin");
  await writeRandomFile(path, FILE_BYTES);
  for (let run = 0; run < RUNS.transfer; run += 1) {
    const alice = await linked();
    const { fileId } = await alice.call("files.share", { chatId: bob.userId, path });
    await bob.until(
      "the offer",
      async () => (await bob.call("files.list", {})).find((file) => file.fileId === fileId) ?? null,
    );
    await bob.call("transfers.start", { fileId });
    await bob.until("the first chunks", async () => {
      const view = (await bob.call("transfers.list", {})).find((transfer) => transfer.fileId === fileId);
      return view !== undefined && view.chunksStored > 0 ? view : null;
    });
    await quit(alice, "in a transfer");
    await bob.call("transfers.cancel", { fileId });
  }
  await rm(path);
});

test("in the middle of connecting", async () => {
  for (let run = 0; run < RUNS.connecting; run += 1) {
    const alice = await linked();
    // Another stage each time: the whole attempt takes a tenth of a second.
    await alice.call("links.reconnect", { peerId: bob.userId });
    await new Promise((resolve) => setTimeout(resolve, ((run * 37) % 100) + 1));
    await quit(alice, "connecting");
  }
});

test("with a peer that has stopped", async () => {
  for (let run = 0; run < RUNS.stopped; run += 1) {
    const alice = await linked();
    bob.process.kill("SIGSTOP");
    try {
      // Every other time nothing but an attempt at a link is there.
      if (run % 2 === 1) await alice.call("links.reconnect", { peerId: bob.userId });
      await quit(alice, "stopped peer");
    } finally {
      bob.process.kill("SIGCONT");
    }
  }
});

test("nothing of it was lost or doubled, and no end took long", async () => {
  const alice = await linked();
  await bob.until("the last message", async () => {
    const [newest] = await bob.call("messages.list", { chatId: alice.userId, limit: 1 });
    return newest?.text === sent.at(-1) ? true : null;
  });
  expect((await allTexts(alice.userId)).filter((text) => text.startsWith("message "))).toEqual(sent);
  expect(sent.length).toBe((RUNS.sending + RUNS.transfer + RUNS.connecting + RUNS.stopped) * MESSAGES);
  await alice.stop();
  // A figure of a busy machine says nothing; of a run that has it to itself it does.
  if (isFullRun) expect(Math.max(...Object.values(figures).flatMap(({ ms }) => ms))).toBeLessThan(QUIT_MS_MAX);
});
