import * as v from "valibot";
import { afterEach, expect, test } from "vitest";
import { EnvelopeIdSchema } from "#shared/base/ids.ts";
import {
  CONTROL_QUEUED_BYTES_MAX,
  ENVELOPE_BYTES_MAX,
  FIN_TIMEOUT_MS,
  LINK_CONNECT_TIMEOUT_MS,
  LINK_ENVELOPES_IN_FLIGHT_MAX,
  LINK_HISTORY_MAX,
  LINKS_MAX,
  PING_INTERVAL_MS,
  PING_TIMEOUT_MS,
  QUIT_FIN_TIMEOUT_MS,
} from "#shared/base/limits.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import { BULK_HEADER_BYTES, writeBulkHeader } from "#shared/wire/frame.ts";
import type { LinksDeps } from "../../src-main/links/connection-manager.ts";
import type { LinkManager, Links } from "../../src-main/links/links.ts";
import { FakeRtc, ManualClock } from "../support/links-fake-rtc.ts";
import { LinksWorld } from "../support/links-world.ts";

const opened: Links[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
});

const world = ({ hasRelay = false, overrides = {} as Partial<LinksDeps> } = {}) => {
  const clock = new ManualClock();
  const net = new LinksWorld(clock);
  const rtc = new FakeRtc();
  const [a, b] = [net.add(0), net.add(1)];
  const addresses = { now: "192.168.0.1" };
  const make = (member: typeof a): LinkManager => {
    const links = net.links(member, {
      driver: rtc.driver(),
      ...(hasRelay ? { relay: rtc.relay() } : {}),
      addresses: () => addresses.now,
      ...overrides,
    });
    opened.push(links);
    links.enable();
    return links;
  };
  return { clock, net, rtc, a, b, addresses, make, alice: make(a), bob: make(b), aliceId: a.userId, bobId: b.userId };
};
const connected = async (options: Parameters<typeof world>[0] = {}) => {
  const it = world(options);
  it.alice.connect(it.bobId);
  it.bob.connect(it.aliceId);
  await it.clock.advance(1000);
  expect([it.alice.view(it.bobId).state, it.bob.view(it.aliceId).state]).toEqual(["connected", "connected"]);
  return it;
};

test("both sides connect over exactly one connection each", async () => {
  const { rtc } = await connected();
  expect(rtc.live.size).toBe(2);
});

test("a contact's first step is enough: the other side follows", async () => {
  for (const first of ["alice", "bob"] as const) {
    const it = world();
    if (first === "alice") it.alice.connect(it.bobId);
    else it.bob.connect(it.aliceId);
    await it.clock.advance(1000);
    expect([it.alice.view(it.bobId).state, it.bob.view(it.aliceId).state]).toEqual(["connected", "connected"]);
  }
});

test("whoever was let go stays away until we connect again", async () => {
  const { alice, bob, aliceId, bobId, clock } = await connected();
  await Promise.all([alice.disconnect(bobId), clock.advance(100)]);
  await clock.advance(60_000);
  expect(alice.view(bobId).state).toBe("disconnected");
  expect(bob.view(aliceId).state).not.toBe("connected");
  alice.connect(bobId);
  await clock.advance(1000);
  expect(alice.view(bobId).state).toBe("connected");
});

test("links rest while the peer stays in touch, and fall when it falls silent", async () => {
  const { alice, aliceId, bob, bobId, clock, rtc } = await connected();
  const generation = alice.view(bobId).generation;
  await clock.advance(60_000);
  expect(alice.view(bobId)).toMatchObject({ state: "connected", generation });
  rtc.silent = true;
  const shown: (string | null)[] = [];
  alice.onChanged((view) => shown.push(view.reason));
  await clock.advance(PING_TIMEOUT_MS - PING_INTERVAL_MS - 100);
  expect(alice.view(bobId).state).toBe("connected");
  // The last sign of life can be as old as one interval already, so at the latest now the timeout is over.
  await clock.advance(PING_INTERVAL_MS + 100);
  expect(shown[0]).toBe("peer_silent");
  rtc.silent = false;
  await clock.advance(30_000);
  expect([alice.view(bobId).state, bob.view(aliceId).state]).toEqual(["connected", "connected"]);
  expect(alice.view(bobId).generation).toBeGreaterThan(generation);
});

test("a peer that does not read its control channel costs a bounded queue, and then its link", async () => {
  const { alice, bobId, rtc, clock } = await connected();
  const { generation } = alice.view(bobId);
  rtc.unread = true;
  const shown: (string | null)[] = [];
  alice.onChanged((view) => shown.push(view.reason));
  const body = new Uint8Array(ENVELOPE_BYTES_MAX);
  const envelope = { type: "envelope", id: v.parse(EnvelopeIdSchema, "A".repeat(22)), kind: "message", body } as const;
  let taken = 0;
  while (taken < 10_000 && alice.send(bobId, generation, envelope)) taken += 1;
  // Base64 makes a third more of it.
  expect(taken * ENVELOPE_BYTES_MAX * (4 / 3)).toBeLessThanOrEqual(CONTROL_QUEUED_BYTES_MAX);
  expect(taken).toBeGreaterThanOrEqual(LINK_ENVELOPES_IN_FLIGHT_MAX);
  expect(shown[0]).toBe("peer_stalled");
  rtc.unread = false;
  await clock.advance(60_000);
  expect(alice.view(bobId).state).toBe("connected");
});

test("a machine that slept does not blame its peer, and takes a fresh connection without letting the old one go", async () => {
  const { alice, bobId, clock, rtc } = await connected();
  const { generation } = alice.view(bobId);
  const shown: LinkView[] = [];
  alice.onChanged((view) => shown.push(view));
  await clock.sleep(3 * PING_TIMEOUT_MS);
  await clock.advance(PING_TIMEOUT_MS);
  expect(alice.view(bobId).generation).toBeGreaterThan(generation);
  expect(new Set(shown.map((view) => view.state))).toEqual(new Set(["connected"]));
  expect(rtc.live.size).toBe(2);
});

test("nothing is sent for an older generation", async () => {
  const { alice, bobId, clock } = await connected();
  const { generation } = alice.view(bobId);
  alice.reconnect(bobId);
  await clock.advance(1000);
  expect(alice.view(bobId).generation).toBeGreaterThan(generation);
  expect(alice.send(bobId, generation, { type: "typing", typing: true })).toBe(false);
  expect(alice.sendBulk(bobId, generation, new Uint8Array(30))).toBe("closed");
  expect(alice.send(bobId, alice.view(bobId).generation, { type: "typing", typing: true })).toBe(true);
});

test("off and on again, many times and at once, ends with one link and never shows an older generation", async () => {
  const { alice, bob, aliceId, bobId, clock, rtc } = await connected();
  const shown: LinkView[] = [];
  alice.onChanged((view) => shown.push(view));
  for (let round = 0; round < 50; round += 1) {
    void alice.disable();
    alice.enable();
    await clock.advance(round % 7 === 0 ? 40 : 0);
  }
  await clock.advance(120_000);
  expect([alice.view(bobId).state, bob.view(aliceId).state]).toEqual(["connected", "connected"]);
  expect(rtc.live.size).toBe(2);
  const generations = shown.map((view) => view.generation);
  expect(generations).toEqual([...generations].sort((x, y) => x - y));
});

test("disable waits for the goodbye, and not longer than its bound", async () => {
  const { alice, aliceId, bob, bobId, clock, rtc } = await connected();
  let left = false;
  rtc.silent = true;
  void alice.disable().then(() => {
    left = true;
  });
  await clock.advance(FIN_TIMEOUT_MS - 1);
  expect(left).toBe(false);
  await clock.advance(1);
  expect(left).toBe(true);
  expect(alice.view(bobId).state).toBe("disconnected");
  expect(bob.view(aliceId).state).toBe("connected");
});

test("the end of the program waits for less than other goodbyes, whose peers are gone", async () => {
  const { alice, clock, rtc } = await connected();
  let left = false;
  rtc.silent = true;
  void alice.disable(QUIT_FIN_TIMEOUT_MS).then(() => {
    left = true;
  });
  await clock.advance(QUIT_FIN_TIMEOUT_MS - 1);
  expect(left).toBe(false);
  await clock.advance(1);
  expect(left).toBe(true);
});

test("a replaced connection delivers what has left its queue, however slowly, while the peer sees it come", async () => {
  const { alice, bob, bobId, clock, rtc } = await connected();
  const got: number[] = [];
  bob.onBulk(({ peer, generation, frame, bytes }) => {
    got.push(frame.sequence);
    bob.release(peer, generation, bytes);
  });
  rtc.bulkPace = { clock, ms: 800 };
  const { generation } = alice.view(bobId);
  for (let sequence = 0; sequence < 10; sequence += 1) {
    const frame = new Uint8Array(BULK_HEADER_BYTES + 100);
    writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence, index: sequence }, 100);
    expect(alice.sendBulk(bobId, generation, frame)).toBe("sent");
  }
  alice.networkChanged();
  await clock.advance(1000);
  expect(alice.view(bobId).generation).toBeGreaterThan(generation);
  await clock.advance(10_000);
  expect(got).toEqual(Array.from({ length: 10 }, (_, i) => i));
  expect(rtc.live.size).toBe(2);
});

test("messages that were sent before a goodbye are delivered, later ones refused", async () => {
  const { alice, bob, bobId, clock } = await connected();
  const got: number[] = [];
  bob.onMessage(({ message }) => {
    if (message.type === "stop") got.push(message.tag);
  });
  const { generation } = alice.view(bobId);
  alice.send(bobId, generation, { type: "stop", tag: 1 });
  const done = alice.disconnect(bobId);
  expect(alice.send(bobId, generation, { type: "stop", tag: 2 })).toBe(false);
  await Promise.all([done, clock.advance(10)]);
  expect(got).toEqual([1]);
});

test("a listener that disables in the very moment of connecting still says goodbye", async () => {
  const { alice, aliceId, bob, bobId, clock, rtc } = world();
  let state: "linked" | "leaving" | "left" = "linked";
  alice.onChanged((view) => {
    if (view.state !== "connected" || state !== "linked") return;
    state = "leaving";
    // The peer cannot answer, so the goodbye takes its whole time: proof that it was waited for.
    rtc.silent = true;
    void alice.disable().then(() => {
      state = "left";
    });
  });
  alice.connect(bobId);
  bob.connect(aliceId);
  await clock.advance(100);
  expect(state).toBe("leaving");
  await clock.advance(FIN_TIMEOUT_MS);
  expect(state).toBe("left");
});

test("no more than LINKS_MAX connections are open at once", async () => {
  const clock = new ManualClock();
  const net = new LinksWorld(clock);
  const rtc = new FakeRtc();
  const me = net.add(0);
  const links = net.links(me, { driver: rtc.driver() });
  opened.push(links);
  links.enable();
  const peers = Array.from({ length: LINKS_MAX + 5 }, (_, index) => net.addNamed(`b${index}`));
  net.fate = () => [];
  for (const { userId } of peers) links.connect(userId);
  await clock.advance(10);
  expect(rtc.live.size).toBe(LINKS_MAX);
  expect(links.list().filter((view) => view.reason === "too_many_links").length).toBe(5);
});

test("disposing leaves no timer and no connection", async () => {
  const { alice, bob, clock, rtc } = await connected();
  alice.dispose();
  bob.dispose();
  await clock.advance(0);
  expect(rtc.live.size).toBe(0);
  expect(clock.timers).toBe(0);
});

test.each([
  ["alice", "connect_timeout"],
  ["bob", "no_answer"],
] as const)(
  "when nothing that a peer or a server promised ever comes, each attempt of %s ends with a reason, one at a time and ever more rarely",
  async (whose, why) => {
    const it = world();
    // Accepted, and swallowed.
    it.net.fate = () => [];
    const [links, peer] = whose === "alice" ? [it.alice, it.bobId] : [it.bob, it.aliceId];
    const reasons: (string | null)[] = [];
    let most = 0;
    links.onChanged(({ state, reason }) => {
      if (state === "failed") reasons.push(reason);
      most = Math.max(most, it.rtc.live.size);
    });
    links.connect(peer);
    await it.clock.advance(3_600_000);
    expect(new Set(reasons)).toEqual(new Set([why]));
    expect(reasons.length).toBeGreaterThan(50);
    expect(reasons.length).toBeLessThan(3_600_000 / LINK_CONNECT_TIMEOUT_MS);
    expect(most).toBeLessThanOrEqual(1);
    expect(it.clock.timers).toBeLessThan(10);
    expect(links.report(peer).attempts.length).toBeLessThanOrEqual(LINK_HISTORY_MAX);
  },
);
