import { expect, test } from "vitest";
import type { Generation } from "#shared/base/ids.ts";
import { BULK_HEADER_BYTES, writeBulkHeader } from "#shared/wire/frame.ts";
import { createSteadyLinks, type SteadyLinks } from "../../src-main/transfer/steady-links.ts";
import { userIdOf } from "../support/links-ids.ts";
import { LinksPair } from "../support/links-pair.ts";

const alice = userIdOf(0);
const bob = userIdOf(1);

const frameOf = (sequence: number): Uint8Array<ArrayBuffer> => {
  const frame = new Uint8Array(1000);
  writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence, index: 0 }, frame.length - BULK_HEADER_BYTES);
  return frame;
};

const world = () => {
  const pair = new LinksPair(alice, bob);
  const fail = (error: unknown): void => {
    pair.errors.push(error);
  };
  const a = createSteadyLinks(pair.a, fail);
  const b = createSteadyLinks(pair.b, fail);
  const received: { generation: Generation; sequence: number }[] = [];
  const views: { state: string; generation: Generation }[] = [];
  b.onBulk(({ peer, generation, releaseTo, frame, bytes }) => {
    received.push({ generation, sequence: frame.sequence });
    b.release(peer, releaseTo, bytes);
  });
  b.onChanged(({ state, generation }) => views.push({ state, generation }));
  return { pair, a, b, received, views };
};
const send = (links: SteadyLinks, sequence: number, generation = links.view(bob).generation): string =>
  links.sendBulk(bob, generation, frameOf(sequence));

test("a link that is replaced in order keeps its generation, and loses and doubles nothing", async () => {
  const { pair, a, received, views } = world();
  pair.connect();
  const { generation } = a.view(bob);
  for (let round = 0; round < 5; round += 1) {
    expect(send(a, round * 2, generation)).toBe("sent");
    pair.replace();
    expect(send(a, round * 2 + 1, generation)).toBe("sent");
  }
  pair.endReplaced("complete");
  await expect.poll(() => received.length).toBe(10);
  expect(received.map(({ sequence }) => sequence).sort((x, y) => x - y)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(new Set(received.map((it) => it.generation))).toEqual(new Set([generation]));
  expect(new Set(views.map((view) => view.generation))).toEqual(new Set([generation]));
  expect(pair.heldBytes).toBe(0);
  expect(pair.errors).toEqual([]);
});

test("begins anew when a replaced link breaks before it has delivered everything", () => {
  const { pair, a, views } = world();
  pair.connect();
  const before = a.view(bob).generation;
  pair.replace();
  expect(a.view(bob).generation).toBe(before);
  pair.endReplaced("broken");
  const after = a.view(bob).generation;
  expect(after).toBeGreaterThan(before);
  expect(views.at(-1)).toEqual({ state: "connected", generation: after });
  expect(send(a, 0, before)).toBe("closed");
  expect(send(a, 0, after)).toBe("sent");
});

test("tells over which of the links a message came, as long as they count as one", async () => {
  const { pair, a, b } = world();
  pair.connect();
  const { generation } = b.view(alice);
  const came: { generation: Generation; over: Generation }[] = [];
  b.onMessage(({ generation: told, over }) => came.push({ generation: told, over }));
  const say = async (count: number): Promise<void> => {
    a.send(bob, a.view(bob).generation, { type: "accept", tag: 1 });
    await expect.poll(() => came.length).toBe(count);
  };
  await say(1);
  pair.replace();
  await say(2);
  pair.endReplaced("broken");
  await say(3);
  const next = b.view(alice).generation;
  expect(next).toBeGreaterThan(generation);
  expect(came).toEqual([
    { generation, over: generation },
    { generation, over: next },
    { generation: next, over: next },
  ]);
});

test("begins anew after a loss", () => {
  const { pair, a, views } = world();
  pair.connect();
  const before = a.view(bob).generation;
  pair.replace();
  pair.cut();
  expect(a.view(bob).state).toBe("disconnected");
  expect(send(a, 0, before)).toBe("closed");
  pair.connect();
  expect(a.view(bob).generation).toBeGreaterThan(before);
  expect(views.map(({ state }) => state)).toEqual(["connected", "connected", "disconnected", "connected"]);
});

test("begins anew where frames that are held in the engine could not go on", () => {
  const pair = new LinksPair(alice, bob);
  const inEngine = new Set([1]);
  const links = { ...pair.a, takesHeldFrames: (_peer: string, generation: Generation) => inEngine.has(generation) };
  const steady = createSteadyLinks(links, (error) => pair.errors.push(error));
  pair.connect();
  expect(steady.takesHeldFrames(bob, 1)).toBe(true);
  pair.replace();
  expect(steady.view(bob).generation).toBe(2);
  expect(steady.takesHeldFrames(bob, 2)).toBe(false);
});

test("tells that there is room when a fresh link takes over from a full one", () => {
  const { pair, a } = world();
  pair.connect();
  const { generation } = a.view(bob);
  let drained = 0;
  a.onDrained((event) => {
    expect(event).toEqual({ peer: bob, generation });
    drained += 1;
  });
  pair.replace();
  expect(drained).toBe(1);
});
