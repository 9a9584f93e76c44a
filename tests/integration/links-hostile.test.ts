import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import { RECEIVE_CREDIT_BYTES } from "#shared/base/limits.ts";
import { encodeControlFrame, writeBulkHeader } from "#shared/wire/frame.ts";
import type { LinksDeps } from "../../src-main/links/connection-manager.ts";
import { createRtcDriver, type RtcConnection, type RtcDriver } from "../../src-main/links/driver.ts";
import type { Links } from "../../src-main/links/links.ts";
import { linksOver, type Wire } from "../support/links-peer-process.ts";
import { LinksWorld, untilConnected, untilView } from "../support/links-world.ts";

const opened: Links[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
});

/** The real driver, with the connections that it makes within reach: what a peer that ignores our rules can send. */
const tapped = (world: LinksWorld, member: Parameters<LinksWorld["deps"]>[0]) => {
  const real = createRtcDriver(world.deps(member).env);
  const connections: RtcConnection[] = [];
  const driver: RtcDriver = {
    open(options, onEvent) {
      const result = real.open(options, onEvent);
      if (result.ok) connections.push(result.value);
      return result;
    },
    dispose: () => real.dispose(),
  };
  return { driver, connections };
};

/** Mallory is an accepted contact of Alice whose program does as it likes. */
const withMallory = async (overrides: Partial<LinksDeps> = {}) => {
  const world = new LinksWorld();
  const [a, m] = [world.add(0), world.add(1)];
  const tap = tapped(world, m);
  const alice = world.links(a);
  const mallory = world.links(m, { driver: tap.driver, ...overrides });
  opened.push(alice, mallory);
  alice.enable();
  mallory.enable();
  alice.connect(m.userId);
  mallory.connect(a.userId);
  const raw = (): RtcConnection => {
    const connection = tap.connections.at(-1);
    if (connection === undefined) throw new Error("no connection");
    return connection;
  };
  return { world, alice, mallory, aliceId: a.userId, malloryId: m.userId, raw };
};
const json = (value: object): Uint8Array => encodeControlFrame(Buffer.from(JSON.stringify(value)));

const ended = async (alice: Links, malloryId: Parameters<Links["view"]>[0], reason: string): Promise<void> => {
  const view = await untilView(alice, malloryId, (it) => it.reason === reason);
  expect(view.state).toBe("failed");
};

test.each([
  [
    "a message cut short",
    (rtc: RtcConnection) => rtc.send("control", json({ type: "stop", tag: 1 }).slice(0, 12)),
    "bad_frame",
  ],
  ["a malformed message", (rtc: RtcConnection) => rtc.send("control", json({ type: "stop", tag: "x" })), "bad_message"],
  [
    "a second hello",
    (rtc: RtcConnection) => rtc.send("control", json({ type: "proof", signature: "A".repeat(86) })),
    "unexpected_message",
  ],
  ["a bulk frame of no kind", (rtc: RtcConnection) => rtc.send("bulk", new Uint8Array(100)), "bad_frame"],
] as const)("%s ends the link with a reason", async (_what, attack, reason) => {
  const { alice, malloryId, raw } = await withMallory();
  await untilConnected(alice, malloryId);
  const done = ended(alice, malloryId, reason);
  expect(attack(raw()).ok).toBe(true);
  await done;
});

test("a message of an unknown type is ignored, and the link goes on", async () => {
  const { alice, mallory, aliceId, malloryId, raw } = await withMallory();
  const [, atMallory] = await Promise.all([untilConnected(alice, malloryId), untilConnected(mallory, aliceId)]);
  const got = new Promise<string>((resolve) => void alice.onMessage(({ message }) => resolve(message.type)));
  raw().send("control", json({ type: "from_the_future", x: 1 }));
  mallory.send(aliceId, atMallory.generation, { type: "typing", typing: true });
  expect(await got).toBe("typing");
});

test("a peer that sends beyond its credit is cut off", async () => {
  const { alice, mallory, aliceId, malloryId, raw } = await withMallory();
  await Promise.all([untilConnected(alice, malloryId), untilConnected(mallory, aliceId)]);
  let received = 0;
  alice.onBulk(({ bytes }) => {
    received += bytes;
  });
  const done = ended(alice, malloryId, "credit_exceeded");
  const frame = new Uint8Array(256 * 1024);
  writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence: 0, index: 0 }, frame.length - 20);
  for (let sent = 0; sent < 2 * RECEIVE_CREDIT_BYTES; sent += frame.length) raw().send("bulk", frame);
  await done;
  expect(received).toBe(RECEIVE_CREDIT_BYTES);
});

test("a peer that floods the control channel is cut off", async () => {
  const { alice, mallory, aliceId, malloryId, raw } = await withMallory();
  await Promise.all([untilConnected(alice, malloryId), untilConnected(mallory, aliceId)]);
  const done = ended(alice, malloryId, "control_flood");
  const ping = json({ type: "pong", id: 1 });
  const flood = async (): Promise<void> => {
    for (let sent = 0; sent < 1_000_000; sent += 1) {
      if (!raw().send("control", ping).ok) return;
      if (sent % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await Promise.all([flood(), done]);
}, 60_000);

test("a peer that cannot prove its account never connects, and nothing of it is accepted", async () => {
  const { alice, malloryId, raw } = await withMallory({ account: { sign: () => new Uint8Array(64) } });
  let accepted = 0;
  alice.onMessage(() => {
    accepted += 1;
  });
  alice.onChanged((view) => {
    if (view.state === "handshaking") raw().send("control", json({ type: "typing", typing: true }));
    expect(view.state).not.toBe("connected");
  });
  await untilView(alice, malloryId, (view) => view.state === "failed");
  expect(["wrong_proof", "unexpected_message"]).toContain(alice.view(malloryId).reason);
  expect(accepted).toBe(0);
});

test("somebody whose signals carry another certificate is found out", async () => {
  const world = new LinksWorld();
  const [a, b] = [world.add(0), world.add(1)];
  const fingerprint = /a=fingerprint:sha-256 [0-9A-F:]+/;
  const other = `a=fingerprint:sha-256 ${Array(32).fill("AB").join(":")}`;
  const real = createRtcDriver(world.deps(b).env);
  // The DTLS layer of Alice must refuse it already; no data channel may ever open.
  const driver: RtcDriver = {
    open: (options, onEvent) =>
      real.open(options, (event) =>
        onEvent(event.type === "localDescription" ? { ...event, sdp: event.sdp.replace(fingerprint, other) } : event),
      ),
    dispose: () => real.dispose(),
  };
  const alice = world.links(a);
  const bob = world.links(b, { driver });
  opened.push(alice, bob);
  const states: string[] = [];
  alice.onChanged((view) => states.push(view.state));
  alice.enable();
  bob.enable();
  alice.connect(b.userId);
  bob.connect(a.userId);
  await untilView(alice, b.userId, (view) => view.state === "failed");
  expect(states).not.toContain("handshaking");
});

test("nothing leaves towards somebody who is not accepted, and nothing of theirs is opened", async () => {
  const world = new LinksWorld();
  const [a, s] = [world.add(0), world.add(1)];
  let opens = 0;
  const deps = world.deps(a);
  const alice = world.links(a, {
    mayLink: () => false,
    sessions: {
      ...deps.sessions,
      open: (peer, sealed, commit) => {
        opens += 1;
        return deps.sessions.open(peer, sealed, commit);
      },
    },
  });
  const stranger = world.links(s);
  opened.push(alice, stranger);
  alice.enable();
  stranger.enable();
  alice.connect(s.userId);
  stranger.connect(a.userId);
  await expect.poll(() => world.signals).toBeGreaterThan(0);
  const sentByStranger = world.signals;
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(opens).toBe(0);
  expect(world.signals).toBe(sentByStranger);
  expect(alice.view(s.userId).state).toBe("disconnected");
});

const peerProcess = fileURLToPath(new URL("../support/links-peer-process.ts", import.meta.url));

test("a killed peer is noticed within six seconds", async () => {
  const child = fork(peerProcess, [], { execArgv: [] });
  const { links, heard, peer } = linksOver(0, (wire) => void (child.connected && child.send(wire)));
  opened.push(links);
  child.on("message", (wire) => heard(wire as Wire));
  links.enable();
  links.connect(peer);
  await untilConnected(links, peer);
  child.kill("SIGKILL");
  const killedAtMs = performance.now();
  const view = await untilView(links, peer, ({ state }) => state !== "connected");
  expect(view.reason).toBe("peer_silent");
  // Two intervals of pings and their timeout, with room for a busy machine; the library alone takes 13 to 29 s.
  expect(performance.now() - killedAtMs).toBeLessThan(10_000);
}, 40_000);

test("a process with links ends by itself once they are disposed of", async () => {
  const child = fork(peerProcess, ["leave"], { execArgv: [] });
  const { links, heard, peer } = linksOver(0, (wire) => void (child.connected && child.send(wire)));
  opened.push(links);
  child.on("message", (wire) => heard(wire as Wire));
  const exit = new Promise<number | null>((resolve) => void child.on("exit", (code) => resolve(code)));
  links.enable();
  links.connect(peer);
  expect(await exit).toBe(0);
  const view = await untilView(links, peer, ({ state }) => state !== "connected" && state !== "handshaking");
  expect(view.reason).toBe("peer_closed");
}, 40_000);
