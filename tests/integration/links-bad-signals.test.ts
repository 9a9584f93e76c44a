import { readdirSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import type { UserId } from "#shared/base/ids.ts";
import { ATTEMPTS_BURST, ENVELOPE_BYTES_MAX } from "#shared/base/limits.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { encodeContent, type LinkSignal } from "#shared/wire/content.ts";
import { createRtcDriver, liveRtcObjects } from "../../src-main/links/driver.ts";
import type { Links } from "../../src-main/links/links.ts";
import { LinksWorld, untilConnected, untilView } from "../support/links-world.ts";
import { seededNumbers } from "../support/seeded.ts";

/**
 * Signals of somebody, an accepted contact or a server in between, who sends what they like and when they like. Carol
 * is linked all the while, and must not notice.
 */
const MiB = 1024 * 1024;
const opened: Links[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
});

type Heard = { from: UserId; sealed: Sealed; generation: number };

const world = async () => {
  const it = new LinksWorld();
  // The lower one dials: Alice answers Mallory and dials Trudy.
  const [m, a, c, t] = [it.add(0), it.add(1), it.add(2), it.add(3)];
  const alice = it.links(a);
  const carol = it.links(c);
  opened.push(alice, carol);
  alice.enable();
  carol.enable();
  alice.connect(c.userId);
  carol.connect(a.userId);
  const [{ generation }] = await Promise.all([untilConnected(alice, c.userId), untilConnected(carol, a.userId)]);
  carol.onMessage((event) => void carol.send(event.peer, event.generation, event.message));
  let tag = 0;
  /** How long Carol takes to answer, in ms; fails when the link is not the one of the beginning. */
  const askCarol = (): Promise<number> => {
    tag += 1;
    const mine = tag;
    const beganMs = performance.now();
    return new Promise((resolve) => {
      const subscription = alice.onMessage(({ message }) => {
        if (message.type !== "stop" || message.tag !== mine) return;
        subscription.dispose();
        resolve(performance.now() - beganMs);
      });
      expect(alice.send(c.userId, generation, { type: "stop", tag: mine })).toBe(true);
    });
  };
  const say = (from: UserId, signal: LinkSignal): void => sayRaw(from, encodeContent({ kind: "link", signal }));
  const sayRaw = (from: UserId, body: Uint8Array<ArrayBuffer>): void =>
    a.signals.emit({ from, sealed: { kind: "message", body }, generation: 1 });
  return { it, alice, carol, askCarol, say, sayRaw, member: a, mallory: m.userId, trudy: t.userId, carolId: c.userId };
};

/** A genuine offer of a connection that nobody will ever complete. */
const genuineOffer = async (it: LinksWorld): Promise<string> => {
  const { env } = it.deps(it.add(9));
  const driver = createRtcDriver(env);
  const sdp = Promise.withResolvers<string>();
  const made = driver.open({ iceServers: [], bulkLowBytes: 0 }, (event) => {
    if (event.type === "localDescription") sdp.resolve(event.sdp);
  });
  if (!made.ok) throw new Error(made.error.message);
  made.value.createOffer();
  const found = await sdp.promise;
  driver.dispose();
  return found;
};

const garbled = (sdp: string, chance: () => number): string => {
  const upTo = (bound: number): number => Math.floor(chance() * bound);
  const lines = sdp.split("\r\n");
  const change = [
    () => lines.splice(upTo(lines.length), 1 + upTo(4)),
    () => lines.splice(upTo(lines.length), 0, lines[upTo(lines.length)] ?? ""),
    () => lines.splice(upTo(lines.length), 1, "a=".padEnd(upTo(2000), "\u0000x\uffff")),
    () =>
      lines.splice(upTo(lines.length), 1, (lines[upTo(lines.length)] ?? "").replace(/\d+/g, "99999999999999999999")),
    () => lines.reverse(),
  ];
  for (let n = 0; n <= upTo(3); n += 1) change[upTo(change.length)]?.();
  return lines.join(chance() < 0.9 ? "\r\n" : "").slice(0, 32_768);
};

const threads = (): number => (process.platform === "linux" ? readdirSync("/proc/self/task").length : 0);

test("offers and answers of garbage end that link with a reason, and no other", async () => {
  const { it, alice, say, askCarol, mallory, trudy } = await world();
  const chance = seededNumbers(7);
  const offer = await genuineOffer(it);
  const kinds = [
    "",
    "v=0",
    "\r\n".repeat(1000),
    "x".repeat(32_768),
    "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
  ];
  const reasons = new Set<string | null>();
  for (let n = 0; n < 60; n += 1) {
    const sdp = kinds[n] ?? garbled(offer, chance);
    // Beyond every generation that Alice may have counted to meanwhile.
    say(mallory, { type: "offer", generation: Date.now() * 2 + n, sdp });
    say(mallory, {
      type: "candidate",
      generation: Date.now() * 2 + n,
      candidate: sdp.slice(0, 1024),
      mid: sdp.slice(0, 64),
    });
    await askCarol();
    const { reason, state } = alice.view(mallory);
    if (state === "failed") reasons.add(reason);
  }
  expect([...reasons]).toContain("bad_description");
  alice.connect(trudy);
  const { generation } = await untilView(
    alice,
    trudy,
    ({ state }) => state === "discovering" || state === "connecting",
  );
  say(trudy, { type: "answer", generation, sdp: "no description" });
  const view = await untilView(alice, trudy, ({ state }) => state === "failed");
  expect(view.reason).toBe("bad_description");
  await askCarol();
});

test("signals that are too large or none at all cost nothing but themselves", async () => {
  const { it, alice, say, sayRaw, askCarol, mallory } = await world();
  const before = alice.view(mallory);
  const droppedBefore = it.log.lines.filter((line) => line.startsWith("signal dropped")).length;
  const large = "a".repeat(40_000);
  say(mallory, { type: "offer", generation: 1, sdp: large });
  say(mallory, { type: "candidate", generation: 1, candidate: large, mid: "0" });
  say(mallory, { type: "candidate", generation: 1, candidate: "candidate:1", mid: large });
  say(mallory, { type: "close", generation: 1, reason: large });
  sayRaw(mallory, new Uint8Array(ENVELOPE_BYTES_MAX * 4).fill(0x41));
  sayRaw(mallory, new Uint8Array(0));
  sayRaw(mallory, encodeContent({ kind: "profile", name: "Mallory", seq: 1, received: 0, oldest: 1 }));
  await askCarol();
  expect(it.log.lines.filter((line) => line.startsWith("signal dropped")).length - droppedBefore).toBe(7);
  expect(alice.view(mallory)).toEqual(before);
});

test("a flood of genuine offers, each newer than the last, holds little and disturbs nobody", async () => {
  const { it, alice, say, askCarol, mallory } = await world();
  const sdp = await genuineOffer(it);
  const calm: number[] = [];
  for (let n = 0; n < 50; n += 1) calm.push(await askCarol());
  globalThis.gc?.();
  const before = { rss: process.memoryUsage.rss(), threads: threads() };
  let most = 0;
  const flooded: number[] = [];
  for (let wave = 0; wave < 40; wave += 1) {
    for (let n = 0; n < 250; n += 1) say(mallory, { type: "offer", generation: Date.now() * 2 + wave * 250 + n, sdp });
    flooded.push(await askCarol());
    most = Math.max(most, liveRtcObjects());
  }
  const after = { rss: process.memoryUsage.rss(), threads: threads() };
  const median = (times: number[]): string =>
    (times.sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0).toFixed(1);
  process.stdout.write(
    `10,000 offers: ${most} native objects at most, ${Math.round((after.rss - before.rss) / MiB)} MiB, threads ${before.threads} to ${after.threads}; ` +
      `another link's round trip ${median(calm)} ms before, ${median(flooded)} ms during\n`,
  );
  // Three native objects for a connection, of the attempts that a peer has at once and a few that are being given up.
  expect(most).toBeLessThan(3 * (ATTEMPTS_BURST + 16));
  expect(after.rss - before.rss).toBeLessThan(32 * MiB);
  expect(["connecting", "failed"]).toContain(alice.view(mallory).state);
});

test.each([
  ["that we dial", 4],
  ["that dials us", 0],
])(
  "every signal of a peer %s again, three times, in any order: the link stays, and a manager that starts anew is not misled",
  async (_who, order) => {
    const { it, member, alice, askCarol } = await world();
    const b = it.add(order);
    const recorded: Heard[] = [];
    const subscription = member.signals.event((event) => {
      if (event.from === b.userId) recorded.push(event);
    });
    const bob = it.links(b);
    opened.push(bob);
    bob.enable();
    bob.connect(member.userId);
    alice.connect(b.userId);
    const [before] = await Promise.all([untilConnected(alice, b.userId), untilConnected(bob, member.userId)]);
    subscription.dispose();
    expect(recorded.length).toBeGreaterThan(1);
    const replay = (): void => {
      for (const round of [recorded, [...recorded].reverse(), recorded])
        for (const event of round) member.signals.emit(event);
    };
    replay();
    await askCarol();
    expect(alice.view(b.userId)).toMatchObject({ state: "connected", generation: before.generation });
    expect(alice.view(b.userId).staleEvents).toBeGreaterThan(before.staleEvents);

    alice.dispose();
    const again = it.links(member);
    opened.push(again);
    const got = new Promise<void>((resolve) => void again.onMessage(() => resolve()));
    bob.onChanged(({ peerId, state, generation }) => {
      if (peerId === member.userId && state === "connected")
        bob.send(member.userId, generation, { type: "stop", tag: 1 });
    });
    again.enable();
    replay();
    again.connect(b.userId);
    replay();
    await Promise.all([untilConnected(again, b.userId), got]);
  },
  60_000,
);
