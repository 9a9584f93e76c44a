import { afterEach, expect, test } from "vitest";
import {
  HANDSHAKE_TIMEOUT_MS,
  LINK_CONNECT_TIMEOUT_MS,
  LINK_HISTORY_MAX,
  LINK_UPGRADE_BASE_MS,
  LINK_UPGRADE_FIRST_MS,
  NETWORK_POLL_MS,
  PING_INTERVAL_MS,
  PING_TIMEOUT_MS,
  RELAY_AFTER_MS,
} from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { LinkView, NetworkPolicy } from "#shared/ipc/views.ts";
import { decodeContent, type LinkSignal } from "#shared/wire/content.ts";
import type { LinksDeps } from "../../src-main/links/connection-manager.ts";
import { isLegalTransition } from "../../src-main/links/link-state.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import { isLanCandidate, parseCandidate } from "../../src-main/links/sdp.ts";
import { isRelayDescription } from "../../src-main/links/transport.ts";
import { FakeRtc, ManualClock } from "../support/links-fake-rtc.ts";
import { LinksWorld } from "../support/links-world.ts";

/** Which way a link takes, when it changes it, and what of ours leaves on the way. */

const opened: LinkManager[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
});

interface Setting {
  policy: NetworkPolicy;
  acceptedByMe: boolean;
}

const world = (each: Partial<LinksDeps> = {}) => {
  const clock = new ManualClock();
  const net = new LinksWorld(clock);
  const rtc = new FakeRtc();
  const signals: { from: string; signal: LinkSignal }[] = [];
  const people = [0, 1].map((order) => {
    const member = net.add(order);
    const setting: Setting = { policy: "direct", acceptedByMe: true };
    const addresses = { now: "192.168.0.1" };
    const deps = net.deps(member);
    const links = net.links(member, {
      driver: rtc.driver(),
      relay: rtc.relay(),
      addresses: () => addresses.now,
      policyOf: () => setting,
      sessions: {
        ...deps.sessions,
        seal: (peer, plaintext, commit) => {
          const content = decodeContent(new Uint8Array(plaintext));
          if (content.ok && content.value.kind === "link")
            signals.push({ from: member.userId, signal: content.value.signal });
          return deps.sessions.seal(peer, plaintext, commit);
        },
      },
      ...each,
    });
    opened.push(links);
    links.enable();
    return { id: member.userId, member, links, setting, addresses };
  });
  const [alice, bob] = people;
  if (alice === undefined || bob === undefined) throw new Error("two people");
  const connect = async (forMs = 1000): Promise<void> => {
    alice.links.connect(bob.id);
    bob.links.connect(alice.id);
    await clock.advance(forMs);
  };
  const views = (): [LinkView, LinkView] => [alice.links.view(bob.id), bob.links.view(alice.id)];
  const states = (): string[] => views().map(({ state, path }) => `${state} ${path}`);
  return { clock, net, rtc, signals, alice, bob, connect, views, states };
};

test("where WebRTC finds no path the server's relay carries the link within seconds", async () => {
  const it = world();
  it.rtc.blocked = true;
  await it.connect(RELAY_AFTER_MS + 200);
  expect(it.states()).toEqual(["connected relay", "connected relay"]);
  expect(it.views().map(({ relay }) => relay)).toEqual(["server", "server"]);
  expect(it.alice.links.report(it.bob.id).selected).toEqual({ local: "relay", remote: "relay" });
});

test("where WebRTC finds a path in time the relay is not even asked", async () => {
  const it = world();
  await it.connect(10_000);
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
  expect(it.signals.filter(({ signal }) => signal.type === "offer" && isRelayDescription(signal.sdp))).toEqual([]);
});

test.each([
  ["host", "192.168.0.2", "host", "10.0.0.9", "lan"],
  ["srflx", "203.0.113.7", "host", "203.0.113.9", "direct"],
  ["host", "192.168.0.2", "relay", "203.0.113.9", "relay"],
] as const)(
  "a pair of %s %s and %s %s is shown for what it is",
  async (type, address, remoteType, remoteAddress, path) => {
    const it = world();
    it.rtc.pair = { local: { address, type }, remote: { address: remoteAddress, type: remoteType } };
    await it.connect();
    expect(it.states()).toEqual([`connected ${path}`, `connected ${path}`]);
  },
);

test("a direct path that appears later takes over: nothing that was sent is lost, and nobody sees the link go", async () => {
  const it = world();
  it.rtc.blocked = true;
  await it.connect(RELAY_AFTER_MS + 200);
  const got: number[] = [];
  it.bob.links.onMessage(({ message }) => {
    if (message.type === "stop") got.push(message.tag);
  });
  const shown: LinkView[] = [];
  it.alice.links.onChanged((view) => shown.push(view));
  it.rtc.blocked = false;
  let sent = 0;
  for (let i = 0; i < 400 && it.views().some(({ path }) => path !== "lan"); i += 1) {
    const { generation } = it.alice.links.view(it.bob.id);
    for (let n = 0; n < 10; n += 1)
      if (it.alice.links.send(it.bob.id, generation, { type: "stop", tag: sent })) sent += 1;
    await it.clock.advance(97);
  }
  await it.clock.advance(3000);
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
  expect(got).toEqual(Array.from({ length: sent }, (_, tag) => tag));
  expect(new Set(shown.map(({ state }) => state))).toEqual(new Set(["connected"]));
  // The relay is let go by both.
  expect([...it.rtc.live].map(({ kind }) => kind)).toEqual(["rtc", "rtc"]);
  const results = it.alice.links.report(it.bob.id).attempts.map(({ via, result }) => `${via} ${result}`);
  expect(results.at(-1)).toBe("rtc connected");
  expect(results).toContain("relay replaced");
});

test("an upgrade that finds nothing better is given up before it replaces anything, and tried ever more rarely", async () => {
  const it = world();
  it.rtc.pair = { local: { address: "203.0.113.1", type: "relay" }, remote: { address: "203.0.113.2", type: "srflx" } };
  await it.connect();
  const [{ generation }] = it.views();
  const offers = (): number => it.signals.filter(({ signal }) => signal.type === "offer").length;
  await it.clock.advance(20 * LINK_UPGRADE_BASE_MS);
  expect(it.views()[0]).toMatchObject({ state: "connected", generation, path: "relay", relay: "turn" });
  expect(offers()).toBeGreaterThanOrEqual(3);
  expect(offers()).toBeLessThanOrEqual(8);
  const last = it.alice.links.report(it.bob.id).attempts.at(-1);
  expect(last).toMatchObject({ result: "given_up", reason: "no_better_path" });
});

test("a TURN server is better than the rendezvous server's relay", async () => {
  const it = world();
  it.rtc.blocked = true;
  await it.connect(RELAY_AFTER_MS + 200);
  it.rtc.blocked = false;
  it.rtc.pair = { local: { address: "203.0.113.1", type: "relay" }, remote: { address: "203.0.113.2", type: "srflx" } };
  await it.clock.advance(3 * LINK_UPGRADE_BASE_MS);
  expect(it.states()).toEqual(["connected relay", "connected relay"]);
  expect([...it.rtc.live].map(({ kind }) => kind)).toEqual(["rtc", "rtc"]);
});

test("a new interface on either side: a fresh connection takes over, and the old one ends only then", async () => {
  for (const whose of ["alice", "bob"] as const) {
    const it = world();
    await it.connect();
    const before = it.views().map(({ generation }) => generation);
    const shown: string[] = [];
    it.alice.links.onChanged(({ state }) => shown.push(state));
    it[whose].addresses.now = "10.0.0.7";
    await it.clock.advance(NETWORK_POLL_MS + 500);
    expect(it.states()).toEqual(["connected lan", "connected lan"]);
    it.views().forEach(({ generation }, index) => {
      expect(generation).toBeGreaterThan(before[index] ?? 0);
    });
    expect(new Set(shown)).toEqual(new Set(["connected"]));
    expect(it.rtc.live.size).toBe(2);
  }
});

type World = ReturnType<typeof world>;
const occasions: readonly (readonly [string, (it: World) => unknown])[] = [
  ["the network of the dialer changes", (it) => it.alice.links.networkChanged()],
  ["the network of the answerer changes", (it) => it.bob.links.networkChanged()],
  ["the dialer reconnects", (it) => it.alice.links.reconnect(it.bob.id)],
  ["the answerer reconnects", (it) => it.bob.links.reconnect(it.alice.id)],
  ["the answerer's presence is told", (it) => it.alice.links.presenceHint(it.bob.id, true)],
  ["the dialer has the server back", (it) => it.alice.member.connected.emit({ generation: 2 })],
  ["both machines wake up", (it) => it.clock.sleep(3_600_000)],
];
/** Relayed for so long that the next search for a direct path is minutes away. */
const longRelayed = async (): Promise<World> => {
  const it = world();
  it.rtc.blocked = true;
  await it.connect(3_600_000);
  // An attempt that began while the direct path was blocked fails in its own time; the pauses between them are random.
  while ([...it.rtc.live].some(({ kind }) => kind === "rtc")) await it.clock.advance(1000);
  expect(it.states()).toEqual(["connected relay", "connected relay"]);
  return it;
};

test.each(occasions)("a direct path is looked for at once when %s", async (_what, happen) => {
  const it = await longRelayed();
  it.rtc.blocked = false;
  await happen(it);
  await it.clock.advance(LINK_UPGRADE_FIRST_MS + 500);
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
});

test.each(occasions)("when %s and there is no direct path yet, it is looked for often again", async (_what, happen) => {
  const it = await longRelayed();
  await happen(it);
  await it.clock.advance(1000);
  it.rtc.blocked = false;
  // One attempt that is under way, and a pause.
  await it.clock.advance(LINK_CONNECT_TIMEOUT_MS + LINK_UPGRADE_BASE_MS);
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
});

test("a connection that becomes unsteady gets a successor at once; if it recovers instead, it simply is replaced", async () => {
  const it = world();
  await it.connect();
  const [{ generation }] = it.views();
  for (const connection of it.rtc.live) connection.tell({ type: "unsteady" });
  await it.clock.advance(500);
  expect(it.views()[0].generation).toBeGreaterThan(generation);
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
});

test("a link is the same one after a change of network, and another one after its peer was killed and started anew", async () => {
  const it = world();
  await it.connect();
  const replaced: number[] = [];
  it.alice.links.onReplaced(({ from }) => replaced.push(from));
  const before = it.views()[0].generation;
  it.alice.links.networkChanged();
  await it.clock.advance(1000);
  expect(replaced).toEqual([before]);

  const [{ generation }] = it.views();
  it.rtc.silent = true;
  it.bob.links.dispose();
  it.rtc.silent = false;
  const anew = it.net.links(it.bob.member, { driver: it.rtc.driver(), relay: it.rtc.relay() });
  opened.push(anew);
  anew.enable();
  anew.connect(it.alice.id);
  await it.clock.advance(1000);
  const [now] = it.views();
  expect([now.state, now.generation > generation]).toEqual(["connected", true]);
  expect(anew.view(it.alice.id).state).toBe("connected");
  expect(replaced).toEqual([before]);
});

test("when the interface is gone for good the link stands again within seconds of the next one", async () => {
  const it = world();
  await it.connect();
  it.rtc.silent = true;
  for (const person of [it.alice, it.bob]) person.addresses.now = "";
  await it.clock.advance(PING_TIMEOUT_MS + PING_INTERVAL_MS);
  expect(it.states()).not.toContain("connected lan");
  it.rtc.silent = false;
  for (const person of [it.alice, it.bob]) person.addresses.now = "10.0.0.7";
  await it.clock.advance(NETWORK_POLL_MS + 1500);
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
});

test("states are passed only as the table allows, over relays, upgrades and changes of network", async () => {
  const it = world();
  const trace: LinkView["state"][] = ["disconnected"];
  it.alice.links.onChanged(({ state }) => trace.push(state));
  it.rtc.blocked = true;
  await it.connect(RELAY_AFTER_MS + 200);
  it.rtc.blocked = false;
  await it.clock.advance(3 * LINK_UPGRADE_BASE_MS);
  it.rtc.silent = true;
  await it.clock.advance(LINK_CONNECT_TIMEOUT_MS);
  it.rtc.silent = false;
  it.bob.addresses.now = "10.0.0.7";
  await it.clock.advance(120_000);
  await Promise.all([it.alice.links.disconnect(it.bob.id), it.clock.advance(5000)]);
  expect(trace.length).toBeGreaterThan(10);
  trace.slice(1).forEach((to, index) => {
    const from = trace[index] ?? "disconnected";
    if (from !== to) expect(`${from} ${to} ${isLegalTransition(from, to)}`).toBe(`${from} ${to} true`);
  });
});

// ---- Policy ---------------------------------------------------------------------------------------------------------

const LAN = "candidate:1 1 UDP 2122317823 192.168.0.7 40000 typ host";
const PUBLIC = "candidate:2 1 UDP 2122317823 203.0.113.4 40001 typ host";
const MAPPED = "candidate:3 1 UDP 1686052607 203.0.113.5 40002 typ srflx raddr 192.168.0.7 rport 40000";
const TURN = "candidate:4 1 UDP 41885439 203.0.113.6 40003 typ relay raddr 203.0.113.5 rport 40002";

const withPolicies = (mine: NetworkPolicy, theirs: NetworkPolicy = "direct", acceptedByMe = true) => {
  let asked = 0;
  const it = world({
    iceServers: async () => {
      asked += 1;
      return ok(["stun:203.0.113.1:3478"]);
    },
  });
  it.rtc.candidatesOf = () => [LAN, PUBLIC, MAPPED, TURN];
  Object.assign(it.bob.setting, { policy: mine, acceptedByMe });
  Object.assign(it.alice.setting, { policy: theirs });
  const left = (): string[] =>
    it.signals.flatMap(({ from, signal }) => {
      if (from !== it.bob.id) return [];
      if (signal.type === "candidate") return [signal.candidate];
      return "sdp" in signal ? signal.sdp.split("\r\n").filter((line) => parseCandidate(line) !== null) : [];
    });
  return { ...it, left, serversAsked: () => asked };
};

test.each<[NetworkPolicy, boolean]>([
  ["relay", true],
  ["afterAccept", false],
])("under the policy %s (accepted by me: %s) no candidate ever leaves, on either role", async (policy, accepted) => {
  for (const role of ["answerer", "dialer"] as const) {
    const it = withPolicies(role === "answerer" ? policy : "direct", role === "dialer" ? policy : "direct", accepted);
    Object.assign(it.alice.setting, { acceptedByMe: accepted });
    const guarded = role === "answerer" ? it.bob.id : it.alice.id;
    it.bob.addresses.now = "10.0.0.3";
    await it.connect(30_000);
    expect(it.states()).toEqual(["connected relay", "connected relay"]);
    const mine = it.signals.filter(({ from }) => from === guarded).map(({ signal }) => signal);
    expect(mine.filter(({ type }) => type === "candidate")).toEqual([]);
    for (const signal of mine) if ("sdp" in signal) expect(isRelayDescription(signal.sdp)).toBe(true);
    // No connection of WebRTC was opened on that side at all, so no packet can leave either.
    const report = (role === "answerer" ? it.bob : it.alice).links.report(
      role === "answerer" ? it.alice.id : it.bob.id,
    );
    expect(report.attempts.map(({ via }) => via)).not.toContain("rtc");
    expect(report).toMatchObject({ directAllowed: false, relayAllowed: true, policy });
  }
});

test("a contact that allows direct paths goes on to one as soon as it was accepted, and back when that is taken back", async () => {
  const it = withPolicies("afterAccept", "direct", false);
  await it.connect(10_000);
  expect(it.states()).toEqual(["connected relay", "connected relay"]);
  expect(it.left()).toEqual([]);
  it.bob.setting.acceptedByMe = true;
  it.bob.links.policyChanged(it.alice.id);
  await it.clock.advance(1000);
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
  it.bob.setting.policy = "relay";
  it.bob.links.policyChanged(it.alice.id);
  // At once: not one more packet goes the forbidden way.
  expect([...it.rtc.live].filter(({ kind }) => kind === "rtc").length).toBeLessThanOrEqual(1);
  await it.clock.advance(10_000);
  expect(it.states()).toEqual(["connected relay", "connected relay"]);
});

test.each(["alice", "bob"] as const)("a direct path is taken at once when %s allows it again", async (whose) => {
  const it = world();
  it[whose].setting.policy = "relay";
  await it.connect(10_000);
  expect(it.states()).toEqual(["connected relay", "connected relay"]);
  it[whose].setting.policy = "direct";
  it[whose].links.policyChanged(it[whose === "alice" ? "bob" : "alice"].id);
  await it.clock.advance(1000);
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
  expect([...it.rtc.live].map(({ kind }) => kind)).toEqual(["rtc", "rtc"]);
});

test("within the local network only: no other candidate leaves or is used, and no server is asked", async () => {
  const it = withPolicies("lan", "direct");
  await it.connect();
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
  expect(it.left()).toEqual([LAN]);
  const bobs = [...it.rtc.live].filter(({ options }) => options.iceServers.length === 0);
  expect(bobs).toHaveLength(1);
  expect(bobs[0]?.remoteCandidates.every(isLanCandidate)).toBe(true);
  expect(bobs[0]?.remoteCandidates).toHaveLength(1);
  expect(it.serversAsked()).toBe(1);
});

test.each(["alice", "bob"] as const)(
  "a path over the internet ends at once when %s wants only the local network",
  async (whose) => {
    const it = world();
    it.rtc.pair = {
      local: { address: "203.0.113.7", type: "srflx" },
      remote: { address: "203.0.113.9", type: "srflx" },
    };
    await it.connect();
    expect(it.states()).toEqual(["connected direct", "connected direct"]);
    const before = [...it.rtc.live];
    it.rtc.blocked = true;
    it[whose].setting.policy = "lan";
    it[whose].links.policyChanged(it[whose === "alice" ? "bob" : "alice"].id);
    // At once: not one more packet of this side goes that way.
    expect(before.filter((connection) => it.rtc.live.has(connection)).length).toBeLessThanOrEqual(1);
    await it.clock.advance(20_000);
    expect(before.filter((connection) => it.rtc.live.has(connection))).toEqual([]);
    for (const view of it.views()) expect(view.state).not.toBe("connected");
  },
);

test.each(["alice", "bob"] as const)("a path in the local network stays when %s wants only that", async (whose) => {
  const it = world();
  await it.connect();
  expect(it.states()).toEqual(["connected lan", "connected lan"]);
  const before = [...it.rtc.live];
  it[whose].setting.policy = "lan";
  it[whose].links.policyChanged(it[whose === "alice" ? "bob" : "alice"].id);
  await it.clock.advance(20_000);
  expect([...it.rtc.live]).toEqual(before);
});

test("within the local network only: without a path there the link waits, and the relay is refused", async () => {
  const it = withPolicies("lan", "direct");
  it.rtc.blocked = true;
  await it.connect(60_000);
  for (const view of it.views()) expect(view.state).not.toBe("connected");
  expect([...it.rtc.live].map(({ kind }) => kind)).not.toContain("relay");
});

test("before a contact is accepted nothing leaves under any policy", async () => {
  for (const policy of ["direct", "afterAccept", "relay", "lan"] as const) {
    const it = world({ mayLink: () => false, policyOf: () => ({ policy, acceptedByMe: true }) });
    await it.connect(30_000);
    expect(it.signals).toEqual([]);
    expect(it.rtc.opened).toBe(0);
  }
});

// ---- What the report says -------------------------------------------------------------------------------------------

test("the report names what was tried, the types of candidates and what became of it, and no address", async () => {
  const it = withPolicies("direct");
  it.rtc.blocked = true;
  await it.connect(RELAY_AFTER_MS + 200);
  const report = it.alice.links.report(it.bob.id);
  expect(report.attempts[0]).toMatchObject({
    via: "rtc",
    result: "given_up",
    reason: "relay_was_faster",
    localCandidates: ["host", "relay", "srflx"],
    remoteCandidates: ["host", "relay", "srflx"],
  });
  expect(report.attempts[1]).toMatchObject({ via: "relay", result: "connected", path: "relay" });
  expect(report.attempts[1]?.ms).toBeLessThan(1000);
  const text = JSON.stringify([report, it.net.log.lines]);
  expect(text).not.toMatch(/203\.0\.113|192\.168|candidate:/);
});

test("the history of a link that never stands is bounded", async () => {
  const it = world();
  it.rtc.silent = true;
  await it.connect(3_600_000);
  const { attempts } = it.alice.links.report(it.bob.id);
  expect(attempts).toHaveLength(LINK_HISTORY_MAX);
  expect(attempts.at(-1)?.generation).toBeGreaterThan((attempts[0]?.generation ?? 0) + LINK_HISTORY_MAX - 2);
});

test("a test of a connection answers when a fresh one worked, or with what is known when none does", async () => {
  const it = world();
  await it.connect();
  const [{ generation }] = it.views();
  let report: ReturnType<LinkManager["report"]> | null = null;
  const testing = it.alice.links.test(it.bob.id).then((it) => {
    report = it;
  });
  await it.clock.advance(100);
  await testing;
  expect(report).toMatchObject({ link: { state: "connected" } });
  expect(it.alice.links.report(it.bob.id).attempts.at(-1)).toMatchObject({ result: "connected" });
  expect(it.alice.links.report(it.bob.id).attempts.at(-1)?.generation).toBeGreaterThan(generation);
  it.rtc.silent = true;
  const failing = it.alice.links.test(it.bob.id);
  await it.clock.advance(LINK_CONNECT_TIMEOUT_MS + HANDSHAKE_TIMEOUT_MS);
  expect((await failing).link.state).not.toBe("connected");
});

test("a test tells what the STUN servers saw, until the network changes; only where a link may ask them too", async () => {
  const asked: (readonly string[])[] = [];
  const it = world({
    iceServers: async () => ok(["stun:198.51.100.1:3478"]),
    probeNat: async (urls) => {
      asked.push(urls);
      return { nat: "varies", asked: 1, answered: 1 };
    },
  });
  await it.connect();
  const report = () => it.alice.links.report(it.bob.id);
  expect(report()).toMatchObject({ nat: "unknown", stun: null });
  const runTest = async (): Promise<void> => {
    const testing = it.alice.links.test(it.bob.id);
    await it.clock.advance(1000);
    await testing;
  };
  await runTest();
  expect(report()).toMatchObject({ nat: "varies", stun: { asked: 1, answered: 1 } });
  expect(report().attempts.at(-1)).toMatchObject({ servers: { stun: 1, turn: 0 } });
  it.alice.links.networkChanged();
  expect(report().stun).toBeNull();
  await it.clock.advance(1000);
  it.alice.setting.policy = "relay";
  it.alice.links.policyChanged(it.bob.id);
  await it.clock.advance(1000);
  await runTest();
  expect(report()).toMatchObject({ link: { state: "connected", path: "relay" }, stun: null });
  expect(asked).toHaveLength(1);
});

test("a test with somebody who is offline, or while links are switched off, ends at once", async () => {
  const it = world();
  for (const [me, other] of [
    [it.alice, it.bob],
    [it.bob, it.alice],
  ] as const) {
    other.member.online = false;
    const testing = me.links.test(other.id);
    await it.clock.advance(1000);
    expect((await testing).link).toMatchObject({ state: "discovering", reason: "peer_offline" });
    other.member.online = true;
  }
  await it.alice.links.disable();
  expect((await it.alice.links.test(it.bob.id)).link.state).toBe("disconnected");
});
