import { createHash } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { LINK_MESSAGE_BYTES_MAX, RELAY_WINDOW_BYTES } from "#shared/base/limits.ts";
import { createRelayDriver } from "../../src-main/links/relay-driver.ts";
import type { RelayDriver } from "../../src-main/links/transport.ts";
import type { Signaling } from "../../src-main/signaling/signaling.ts";
import { createSignaling } from "../../src-main/signaling/signaling-client.ts";
import type { RelayOptions } from "../../src-server/relays.ts";
import { createRecordingProxy } from "../support/recording-proxy.ts";
import { introduce, TransportEnd } from "../support/relay-transports.ts";
import {
  bytes,
  createIdentity,
  eventually,
  generous,
  startServer,
  type TestEnv,
  type TestIdentity,
  type TestServer,
  testEnv,
} from "../support/rendezvous.ts";

interface Person {
  readonly identity: TestIdentity;
  readonly env: TestEnv;
  readonly signaling: Signaling;
  readonly driver: RelayDriver;
}

const people: Person[] = [];
let server: TestServer | undefined;
afterEach(async () => {
  for (const { signaling, driver, env } of people.splice(0)) {
    driver.dispose();
    signaling.dispose();
    expect(env.log.lines.filter((line) => line.includes('"level":"error"'))).toEqual([]);
  }
  await server?.dispose();
  server = undefined;
});

const start = async (relay: Partial<RelayOptions> = {}): Promise<TestServer> => {
  server = await startServer(generous, false, { relay: { bytesPerSecond: 1e9, totalBytesPerSecond: 1e9, ...relay } });
  return server;
};
const person = (url: string): Person => {
  const env = testEnv();
  const identity = createIdentity();
  const signaling = createSignaling({ env, identity });
  const driver = createRelayDriver({ env, relay: signaling.relay });
  signaling.enable(url);
  const made = { identity, env, signaling, driver };
  people.push(made);
  return made;
};
const befriend = async (a: Person, b: Person): Promise<void> => {
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    expect((await one.signaling.request("presence.watch", { userIds: [other.identity.userId] })).ok).toBe(true);
  }
};
const endTo = (from: Person, to: Person): TransportEnd => new TransportEnd(from.driver, to.identity.userId);
const linked = async (url: string) => {
  const [alice, bob] = [person(url), person(url)];
  await befriend(alice, bob);
  const [a, b] = [endTo(alice, bob), endTo(bob, alice)];
  await introduce(a, b);
  return { alice, bob, a, b };
};
const digest = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

describe("a link over the server's relay", () => {
  it("carries both channels whole and in order, while signals pass beside it", async () => {
    const { url } = await start();
    const { alice, bob, a, b } = await linked(url);
    const bulk = Array.from({ length: 60 }, (_, i) => bytes(i % 10 === 0 ? LINK_MESSAGE_BYTES_MAX : 65_572));
    const control = Array.from({ length: 60 }, (_, i) => bytes(1 + i * 100));
    for (const [i, message] of bulk.entries()) {
      a.transport.send("bulk", message);
      b.transport.send("control", control[i] ?? message);
    }
    const seen: unknown[] = [];
    bob.signaling.onSignal(({ from }) => seen.push(from));
    const sealed = { kind: "message", body: bytes(100) } as const;
    const sent = await alice.signaling.request("signal.send", { to: bob.identity.userId, sealed });
    expect(sent).toEqual({ ok: true, value: { delivered: true } });
    expect(seen).toEqual([alice.identity.userId]);
    await b.until(() => b.messages("bulk").length === bulk.length);
    await a.until(() => a.messages("control").length === control.length);
    expect(b.messages("bulk").map(digest)).toEqual(bulk.map(digest));
    expect(a.messages("control").map(digest)).toEqual(control.map(digest));
    a.transport.close();
    expect(await b.first("ended")).toEqual({ type: "ended", reason: "closed", detail: "closed_by_peer" });
  });

  it("shows the server nothing of what it carries", async () => {
    const { url } = await start();
    await using proxy = await createRecordingProxy(url);
    const { a, b } = await linked(proxy.url);
    const canary = Buffer.from("canary-relayed-4be1-canary-relayed-4be1");
    const message = Buffer.concat(Array(4000).fill(canary));
    a.transport.send("bulk", message);
    b.transport.send("control", canary);
    await b.until(() => b.messages("bulk").length === 1);
    await a.until(() => a.messages("control").length === 1);
    expect(Buffer.compare(Buffer.from(b.messages("bulk")[0] ?? []), message)).toBe(0);
    const recorded = proxy.recorded();
    // Four times: from and to each side, so the proxy did see the frames.
    expect(recorded.length).toBeGreaterThan(2 * message.length);
    for (const form of ["latin1", "hex", "base64"] as const) {
      const needle = form === "latin1" ? canary.subarray(0, 12) : Buffer.from(canary.toString(form).slice(0, 16));
      expect(recorded.includes(needle)).toBe(false);
    }
    // Nor are the keys there: the descriptions travel inside Signal ciphertexts, here by hand.
    const { sdp } = await a.first("localDescription");
    const half = Buffer.from(/half:(\S+)/.exec(sdp)?.[1] ?? "", "base64url");
    expect(half.length).toBe(32);
    for (const form of [half, Buffer.from(half.toString("base64url")), Buffer.from(half.toString("hex"))])
      expect(recorded.includes(form)).toBe(false);
  });

  it("keeps what the reader cannot take at the sender, whose queue tells it", async () => {
    const { url } = await start({ bytesPerSecond: 1024 });
    const { a, b } = await linked(url);
    const message = bytes(60_000);
    for (let i = 0; i < 30; i++) a.transport.send("bulk", message);
    await b.until(() => b.messages("bulk").length >= 1);
    expect(a.transport.bufferedAmount("bulk")).toBeGreaterThan(30 * 60_000 - RELAY_WINDOW_BYTES);
    // With time there are tokens; everything comes.
    for (let got = b.messages("bulk").length; got < 30; got = b.messages("bulk").length) {
      server?.env.clock.advance(128_000);
      await b.until(() => b.messages("bulk").length > got);
    }
    expect(a.all("queueLow").length).toBe(1);
    expect(a.transport.bufferedAmount("bulk")).toBe(0);
  });

  it("ends with the connection to the server, and a new one can be made when that is back", async () => {
    const { url } = await start();
    const { alice, bob, a, b } = await linked(url);
    await server?.restart();
    // Whoever is cut off last still hears that the other one went.
    for (const end of [a, b]) expect(["server_lost", "peer_gone"]).toContain((await end.first("ended")).detail);
    for (const { signaling } of [alice, bob]) await eventually(() => signaling.state.state).toBe("connected");
    await befriend(alice, bob);
    const [c, d] = [endTo(alice, bob), endTo(bob, alice)];
    await introduce(c, d);
    c.transport.send("control", bytes(10));
    await d.first("message");
  });

  it("says why it cannot be made", async () => {
    const { url } = await start();
    const [alice, bob] = [person(url), person(url)];
    const lonely = endTo(alice, bob);
    lonely.transport.createOffer();
    expect(await lonely.first("ended")).toEqual({ type: "ended", reason: "failed", detail: "peer_offline" });
    await befriend(alice, bob);
    const [a, b] = [endTo(alice, bob), endTo(bob, alice)];
    a.transport.createOffer();
    const offer = await a.first("localDescription");
    a.transport.close();
    await alice.signaling.request("keys.status", {});
    b.transport.acceptOffer(offer.sdp);
    expect(await b.first("ended")).toEqual({ type: "ended", reason: "failed", detail: "unknown_relay" });
    await server?.dispose();

    const off = await start({ enabled: false });
    const [carol, dave] = [person(off.url), person(off.url)];
    await befriend(carol, dave);
    const refused = endTo(carol, dave);
    refused.transport.createOffer();
    expect((await refused.first("ended")).detail).toBe("relay_off");
  });
});
