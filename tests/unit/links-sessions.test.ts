import { afterEach, expect, test } from "vitest";
import { PING_INTERVAL_MS, RECEIVE_QUEUE_ITEMS, RECEIVE_TURN_ITEMS } from "#shared/base/limits.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import { systemRandom } from "../../src-main/env.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import { type Delivery, MessageLanes } from "../../src-main/links/message-lanes.ts";
import { type FakeConnection, FakeRtc, ManualClock } from "../support/links-fake-rtc.ts";
import { LinksWorld, recordingLog } from "../support/links-world.ts";

/** Many links at once, and links whose owner changes its mind all the time. */

const opened: LinkManager[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
});

const crowd = (people: number) => {
  const clock = new ManualClock();
  const net = new LinksWorld(clock);
  const rtc = new FakeRtc();
  const members = Array.from({ length: people }, (_, index) => net.add(index));
  const managers = members.map((member) => {
    const links = net.links(member, { driver: rtc.driver(), addresses: () => "" });
    opened.push(links);
    links.enable();
    return links;
  });
  return { clock, net, rtc, ids: members.map(({ userId }) => userId), managers };
};

test.each([2, 10])("%i peers at once: each candidate reaches the connection that it was found for", async (peers) => {
  const { clock, net, rtc, ids, managers } = crowd(peers + 1);
  rtc.candidatesOf = (name) => [1, 2, 3].map((n) => `candidate:${n} 1 UDP ${n} ${name}.example 9 typ host`);
  let turn = 0;
  // Candidates overtake descriptions, and those of all peers are mixed.
  net.fate = () => [(turn++ * 37) % 50];
  const [me] = managers;
  for (const id of ids.slice(1)) me?.connect(id);
  await clock.advance(5000);
  for (const id of ids.slice(1)) expect(me?.view(id).state).toBe("connected");
  expect(rtc.live.size).toBe(2 * peers);
  for (const connection of rtc.live) {
    const own = connection.peer?.name;
    expect(connection.remoteCandidates).toHaveLength(3);
    expect(connection.remoteCandidates.every((candidate) => candidate.includes(` ${own}.example `))).toBe(true);
  }
});

test("rapid enable, disable, enable: what the first one left behind changes nothing and is counted", async () => {
  const { clock, net, ids, managers } = crowd(2);
  const [alice, bob] = managers;
  const [aliceId, bobId] = ids;
  if (alice === undefined || bob === undefined || aliceId === undefined || bobId === undefined) throw new Error("two");
  // Signals are slow: those of the first enable arrive in the second.
  net.fate = () => [300];
  bob.connect(aliceId);
  alice.connect(bobId);
  await clock.advance(350);
  const first = alice.view(bobId);
  expect(first.state).not.toBe("connected");
  const shown: LinkView[] = [];
  void alice.disable();
  alice.enable();
  alice.onChanged((view) => shown.push(view));
  await clock.advance(30_000);
  expect(shown.length).toBeGreaterThan(0);
  for (const view of shown) expect(view.generation).toBeGreaterThan(first.generation);
  const states = [alice.view(bobId), bob.view(aliceId)];
  expect(states.map(({ state }) => state)).toEqual(["connected", "connected"]);
  expect(alice.view(bobId).staleEvents).toBeGreaterThan(first.staleEvents);
});

test("a signal that is opened only after its enable ended is dropped and counted, also over a disable", async () => {
  const clock = new ManualClock();
  const net = new LinksWorld(clock);
  const rtc = new FakeRtc();
  const [a, b] = [net.add(0), net.add(1)];
  const deps = net.deps(a);
  const gate = Promise.withResolvers<void>();
  const alice = net.links(a, {
    driver: rtc.driver(),
    addresses: () => "",
    sessions: {
      ...deps.sessions,
      open: async (peer, sealed, commit) => {
        await gate.promise;
        return deps.sessions.open(peer, sealed, commit);
      },
    },
  });
  const bob = net.links(b, { driver: rtc.driver(), addresses: () => "" });
  opened.push(alice, bob);
  alice.enable();
  bob.enable();
  bob.connect(a.userId);
  await clock.advance(10);
  const leaving = alice.disable();
  await clock.advance(10);
  await leaving;
  gate.resolve();
  await clock.advance(0);
  expect(alice.view(b.userId)).toMatchObject({ state: "disconnected", staleEvents: 1 });
  expect(rtc.opened).toBe(0);
  alice.enable();
  await clock.advance(60_000);
  expect(alice.view(b.userId).staleEvents).toBeGreaterThanOrEqual(1);
});

test("offers of one peer are opened one at a time, in their order", async () => {
  const clock = new ManualClock();
  const net = new LinksWorld(clock);
  const rtc = new FakeRtc();
  const [a, b] = [net.add(0), net.add(1)];
  const deps = net.deps(b);
  let atOnce = 0;
  let most = 0;
  const bob = net.links(b, {
    driver: rtc.driver(),
    addresses: () => "",
    sessions: {
      ...deps.sessions,
      open: async (peer, sealed, commit) => {
        atOnce += 1;
        most = Math.max(most, atOnce);
        await new Promise<void>((resolve) => void clock.setTimer(20, resolve));
        atOnce -= 1;
        return deps.sessions.open(peer, sealed, commit);
      },
    },
  });
  const alice = net.links(a, { driver: rtc.driver(), addresses: () => "" });
  opened.push(alice, bob);
  alice.enable();
  bob.enable();
  for (let i = 0; i < 8; i += 1) {
    alice.connect(b.userId);
    alice.reconnect(b.userId);
  }
  await clock.advance(2000);
  expect(most).toBe(1);
  expect([alice.view(b.userId).state, bob.view(a.userId).state]).toEqual(["connected", "connected"]);
});

const linked = async () => {
  const it = crowd(2);
  const [alice, bob] = it.managers;
  const [aliceId, bobId] = it.ids;
  if (alice === undefined || bob === undefined || aliceId === undefined || bobId === undefined) throw new Error("two");
  alice.connect(bobId);
  bob.connect(aliceId);
  await it.clock.advance(1000);
  const { generation } = alice.view(bobId);
  const atAlice = [...it.rtc.live].find((connection) => connection.peer !== null) as FakeConnection;
  return { ...it, alice, bob, aliceId, bobId, generation, atAlice };
};

test("a burst of typing keeps the newest 16, a burst of messages keeps everything, in order", async () => {
  const { clock, alice, bob, bobId, aliceId, generation } = await linked();
  const typing: boolean[] = [];
  const tags: number[] = [];
  bob.onMessage(({ message }) => {
    if (message.type === "typing") typing.push(message.typing);
    if (message.type === "stop") tags.push(message.tag);
  });
  for (let i = 0; i < 300; i += 1) {
    alice.send(bobId, generation, { type: "typing", typing: i % 2 === 0 });
    alice.send(bobId, generation, { type: "stop", tag: i });
  }
  await clock.advance(100);
  expect(tags).toEqual(Array.from({ length: 300 }, (_, tag) => tag));
  expect(typing.length + bob.report(aliceId).droppedMessages).toBe(300);
  expect(typing.at(-1)).toBe(false);
});

test("what comes faster than it is handled: lossy lanes keep the newest 16, reliable ones take turns and lose nothing", async () => {
  const clock = new ManualClock();
  const got: Delivery[] = [];
  const lanes = new MessageLanes({ clock, random: systemRandom, log: recordingLog() }, (delivery) =>
    got.push(delivery),
  );
  for (let i = 0; i < 20; i += 1) lanes.message({ type: "typing", typing: i >= 4 });
  for (let tag = 0; tag < 200; tag += 1) expect(lanes.message({ type: "stop", tag })).toBe(true);
  expect(got).toEqual([]);
  // The first turn of each lane, before anything else can run.
  await Promise.resolve();
  await Promise.resolve();
  const isTyping = ({ type, ...rest }: Delivery): boolean =>
    type === "message" && "message" in rest && rest.message.type === "typing";
  expect(got.filter(isTyping)).toEqual(Array(16).fill({ type: "message", message: { type: "typing", typing: true } }));
  expect(got.length).toBe(RECEIVE_QUEUE_ITEMS + RECEIVE_TURN_ITEMS);
  expect(lanes.dropped).toBe(4);
  await clock.advance(0);
  const tags = got.flatMap((it) => (it.type === "message" && it.message.type === "stop" ? [it.message.tag] : []));
  expect(tags).toEqual(Array.from({ length: 200 }, (_, tag) => tag));
  lanes.message({ type: "stop", tag: 1000 });
  lanes.flush();
  expect(got.at(-1)).toEqual({ type: "message", message: { type: "stop", tag: 1000 } });
  lanes.dispose();
});

test("a link that is closed while messages wait for their turn delivers them first when it ends in order", async () => {
  const { clock, alice, bob, bobId, generation } = await linked();
  const tags: number[] = [];
  bob.onMessage(({ message }) => {
    if (message.type === "stop") tags.push(message.tag);
  });
  for (let tag = 0; tag < 500; tag += 1) alice.send(bobId, generation, { type: "stop", tag });
  const left = alice.disconnect(bobId);
  await clock.advance(50);
  await left;
  expect(tags).toEqual(Array.from({ length: 500 }, (_, tag) => tag));
});

test("a listener that disposes of everything in the middle of a burst is told nothing more", async () => {
  const { clock, alice, bob, bobId, generation } = await linked();
  let heard = 0;
  bob.onMessage(() => {
    heard += 1;
    if (heard === 10) bob.dispose();
  });
  for (let tag = 0; tag < 200; tag += 1) alice.send(bobId, generation, { type: "stop", tag });
  await clock.advance(100);
  expect(heard).toBe(10);
});

test("an idle link costs its pings and nothing else", async () => {
  const { clock, rtc, alice, bobId, generation } = await linked();
  const before = [...rtc.live].map((connection) => connection.received);
  await clock.advance(3_600_000);
  const spent = [...rtc.live].map((connection, index) => connection.received - (before[index] ?? 0));
  const pings = 3_600_000 / PING_INTERVAL_MS;
  // A ping and a pong each way, about 30 bytes each.
  for (const bytes of spent) expect(bytes).toBeLessThan(pings * 2 * 64);
  expect(alice.view(bobId)).toMatchObject({ state: "connected", generation });
});
