import { afterEach, describe, expect, it } from "vitest";
import {
  RELAY_CREDIT_STEP_BYTES,
  RELAY_FRAME_BYTES_MAX,
  RELAY_PENDING_MS,
  RELAY_WINDOW_BYTES,
  RELAYS_PER_DEVICE_MAX,
} from "#shared/base/limits.ts";
import { encodeRelayFrame, relayCost } from "#shared/rendezvous/relay.ts";
import type { RelayOptions } from "../../src-server/relays.ts";
import {
  befriend,
  newRelayId,
  numbered,
  numbersOf,
  openRelayBetween,
  RelayEnd,
  relayedFriends,
} from "../support/relay-ends.ts";
import {
  bytes,
  createIdentity,
  generous,
  isDistributed,
  RawClient,
  startServer,
  type TestServer,
} from "../support/rendezvous.ts";

const clients: RawClient[] = [];
let server: TestServer | undefined;
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await server?.dispose();
});

const start = async (relay: Partial<RelayOptions> = {}): Promise<string> => {
  server = await startServer(generous, false, { relay: { bytesPerSecond: 1e9, totalBytesPerSecond: 1e9, ...relay } });
  return server.url;
};
const login = async (url: string, identity = createIdentity()): Promise<RawClient> => {
  const client = await RawClient.loggedIn(url, identity);
  clients.push(client);
  return client;
};
const friends = async (url: string): Promise<readonly [RelayEnd, RelayEnd]> => {
  const ends = await relayedFriends(url);
  clients.push(...ends.map((end) => end.client));
  return ends;
};
/** The server has handled everything that this client sent before. */
const settled = (client: RawClient) => client.must("keys.status", {});
const health = async (url: string): Promise<Record<string, number>> =>
  (await (await fetch(`${url.replace("ws:", "http:")}/health`)).json()) as Record<string, number>;

describe("a relay", () => {
  it("passes frames on unchanged and in order, both ways at once, and counts them", async () => {
    const url = await start();
    const [a, b] = await friends(url);
    const sizes = [1, 17, 1000, RELAY_FRAME_BYTES_MAX];
    const payloads = Array.from({ length: 200 }, (_, i) => bytes(sizes[i % sizes.length] ?? 1));
    const back = payloads.map((payload) => payload.toReversed());
    await Promise.all([a.sendAll(200, (i) => payloads[i] ?? bytes(1)), b.sendAll(200, (i) => back[i] ?? bytes(1))]);
    await Promise.all([a.until(() => a.frames.length === 200), b.until(() => b.frames.length === 200)]);
    expect(b.frames).toEqual(payloads);
    expect(a.frames).toEqual(back);
    const relayedBytes = 2 * payloads.reduce((sum, payload) => sum + payload.length, 0);
    expect(await health(url)).toMatchObject({
      relays: 1,
      relaysOpened: 1,
      relayedFrames: 400,
      relayedBytes,
      relayViolations: 0,
    });
    expect(await a.client.outcome("relay.close", { relayId: a.relayId })).toBe("ok");
    await b.until(() => b.closed !== undefined);
    expect([a.closed, b.closed]).toEqual([undefined, "closed_by_peer"]);
    expect(await a.client.outcome("relay.close", { relayId: a.relayId })).toBe("ok");
    expect(await health(url)).toMatchObject({ relays: 0 });
  });

  it("is only for people who watch each other, and to others everybody looks offline", async () => {
    const url = await start();
    const [alice, eve] = [await login(url), await login(url)];
    const toAlice = () => eve.request("relay.open", { relayId: newRelayId(), to: alice.identity.userId });
    const stranger = await toAlice();
    await eve.must("presence.watch", { userIds: [alice.identity.userId] });
    const watcher = await toAlice();
    const nobody = await eve.request("relay.open", { relayId: newRelayId(), to: createIdentity().userId });
    expect(stranger).toMatchObject({ ok: false, error: { type: "peer_offline" } });
    expect(watcher).toEqual(stranger);
    expect(nobody).toEqual(stranger);
    expect(await eve.outcome("relay.open", { relayId: newRelayId(), to: eve.identity.userId })).toBe("peer_offline");
  });

  it("can be accepted by whom it is for, once, and says nothing to anybody else", async () => {
    const url = await start();
    const [alice, bob, eve] = [await login(url), await login(url), await login(url)];
    await befriend(alice, bob);
    const relayId = newRelayId();
    const from = alice.identity.userId;
    expect(await bob.outcome("relay.accept", { relayId, from })).toBe("unknown_relay");
    await alice.must("relay.open", { relayId, to: bob.identity.userId });
    // The same again, as a client does whose first answer was lost.
    await alice.must("relay.open", { relayId, to: bob.identity.userId });
    expect(await eve.outcome("relay.accept", { relayId, from })).toBe("unknown_relay");
    expect(await bob.outcome("relay.accept", { relayId, from: eve.identity.userId })).toBe("unknown_relay");
    expect(await eve.outcome("relay.open", { relayId, to: bob.identity.userId })).toBe("conflict");
    expect(await eve.outcome("relay.close", { relayId })).toBe("ok");
    await bob.must("relay.accept", { relayId, from });
    await bob.must("relay.accept", { relayId, from });
    const laptop = await login(url, { ...bob.identity, deviceId: 2 });
    expect(await laptop.outcome("relay.accept", { relayId, from })).toBe("unknown_relay");
  });

  it("ends when either side goes, stops watching, opens another, or does not accept in time", async () => {
    const url = await start();
    const [a, b] = await friends(url);
    b.client.close();
    await a.until(() => a.closed !== undefined);
    expect(a.closed).toBe("peer_gone");

    const [c, d] = await friends(url);
    await d.client.must("presence.watch", { userIds: [] });
    await c.until(() => c.closed !== undefined);
    expect([c.closed, d.closed]).toEqual(["not_allowed", "not_allowed"]);

    const [e, f] = await friends(url);
    const again = newRelayId();
    await e.client.must("relay.open", { relayId: again, to: f.client.identity.userId });
    await f.until(() => f.closed !== undefined);
    expect([e.closed, f.closed]).toEqual(["replaced", "replaced"]);
    const expiring = new RelayEnd(e.client, again);
    server?.env.clock.advance(RELAY_PENDING_MS);
    await expiring.until(() => expiring.closed !== undefined);
    expect(expiring.closed).toBe("not_accepted");
    expect(await health(url)).toMatchObject({ relays: 0, relayViolations: 0 });
  });

  it("can be switched off, and there are only so many of them", async () => {
    const url = await start({ relaysMax: RELAYS_PER_DEVICE_MAX + 1 });
    const alice = await login(url);
    const others = [];
    for (let i = 0; i <= RELAYS_PER_DEVICE_MAX; i++) others.push(await login(url));
    const userIds = others.map((other) => other.identity.userId);
    await alice.must("presence.watch", { userIds });
    const outcomes = [];
    for (const other of others) {
      await other.must("presence.watch", { userIds: [alice.identity.userId] });
      outcomes.push(await alice.outcome("relay.open", { relayId: newRelayId(), to: other.identity.userId }));
    }
    expect(outcomes).toEqual([...Array(RELAYS_PER_DEVICE_MAX).fill("ok"), "too_many_relays"]);
    const [bob, carol] = others;
    if (bob === undefined || carol === undefined) throw new Error("there are others");
    const toAlice = (from: RawClient) =>
      from.outcome("relay.open", { relayId: newRelayId(), to: alice.identity.userId });
    expect([await toAlice(bob), await toAlice(carol)]).toEqual(["ok", "too_many_relays"]);
    await server?.dispose();

    const off = await start({ enabled: false });
    const [dave, erin] = [await login(off), await login(off)];
    await befriend(dave, erin);
    expect(await dave.outcome("relay.open", { relayId: newRelayId(), to: erin.identity.userId })).toBe("relay_off");
  });
});

describe("a relay's credit", () => {
  it("holds the sender back while the reader does not acknowledge, and not longer", async () => {
    const [a, b] = await friends(await start());
    b.acknowledges = false;
    let sent = 0;
    while (a.sendIfAllowed(numbered(sent))) sent++;
    await b.until(() => b.frames.length === sent);
    await settled(a.client);
    expect(a.sent).toBeLessThanOrEqual(RELAY_WINDOW_BYTES);
    expect(a.sent + relayCost(RELAY_FRAME_BYTES_MAX)).toBeGreaterThan(RELAY_WINDOW_BYTES);
    expect(a.granted).toBe(RELAY_WINDOW_BYTES);
    b.acknowledges = true;
    b.acknowledge(b.received);
    await a.sendAll(50, (i) => numbered(sent + i));
    await b.until(() => b.frames.length === sent + 50);
    expect(numbersOf(b.frames)).toEqual(Array.from({ length: sent + 50 }, (_, i) => i));
  });

  it.skipIf(isDistributed)("comes at the rate of the device, over all its relays", async () => {
    // A step takes two minutes, so that no real time of this test matters.
    const stepMs = 128_000;
    const url = await start({ bytesPerSecond: (RELAY_CREDIT_STEP_BYTES * 1000) / stepMs });
    const [first, b] = await friends(url);
    const carol = await login(url);
    await carol.must("presence.watch", { userIds: [first.client.identity.userId] });
    await first.client.must("presence.watch", { userIds: [b.client.identity.userId, carol.identity.userId] });
    const relayId = newRelayId();
    const second = new RelayEnd(first.client, relayId);
    await first.client.must("relay.open", { relayId, to: carol.identity.userId });
    await carol.must("relay.accept", { relayId, from: first.client.identity.userId });
    await settled(first.client);
    const granted = () => [first.granted, second.granted].map((amount) => amount / RELAY_CREDIT_STEP_BYTES);
    const seen = [granted()];
    for (let steps = 2; steps <= 4; steps++) {
      server?.env.clock.advance(stepMs);
      await first.until(() => first.granted + second.granted === steps * RELAY_CREDIT_STEP_BYTES);
      seen.push(granted());
    }
    expect(seen).toEqual([
      [1, 0],
      [2, 0],
      [2, 1],
      [3, 1],
    ]);
  });
});

describe("hostile clients of the relay", () => {
  it("lose the relay when they send or acknowledge what they may not", async () => {
    const url = await start();
    const [a, b] = await friends(url);
    b.acknowledges = false;
    for (let i = 0; i < 20; i++) a.send(numbered(i));
    await Promise.all([a.until(() => a.closed !== undefined), b.until(() => b.closed !== undefined)]);
    expect([a.closed, b.closed]).toEqual(["broken_rules", "broken_rules"]);
    expect(b.received).toBeLessThanOrEqual(RELAY_WINDOW_BYTES);

    for (const taken of [1, 10_000_000]) {
      const [c, d] = await friends(url);
      c.acknowledge(taken);
      await d.until(() => d.closed !== undefined);
      expect(d.closed).toBe("broken_rules");
    }
    expect(await health(url)).toMatchObject({ relayViolations: 3, malformed: 0, failures: 0 });
    // Both are still logged in and can make another one.
    const [again] = await openRelayBetween(a.client, b.client);
    expect(again.granted).toBeGreaterThan(0);
  });

  it("are cut off for what is no frame or acknowledgement at all, and before they log in", async () => {
    const url = await start();
    const [victim, other] = await friends(url);
    const id = victim.relayId;
    const bodies: [string, unknown[]][] = [
      ["relay", []],
      ["relay", ["text"]],
      ["relay", [null]],
      ["relay", [encodeRelayFrame(id, new Uint8Array(0))]],
      ["relay", [encodeRelayFrame(id, new Uint8Array(RELAY_FRAME_BYTES_MAX + 1))]],
      ["relay", [encodeRelayFrame(id, bytes(10)), encodeRelayFrame(id, bytes(10))]],
      ["relayAck", [{ relayId: id }]],
      ["relayAck", [{ relayId: id, takenBytes: -1 }]],
      ["relayAck", [{ relayId: "x", takenBytes: 1 }]],
      ["relayAck", [[]]],
      ["relayClose", [id]],
    ];
    for (const [event, args] of bodies) {
      const hostile = await login(url);
      hostile.socket.emit(event, ...args);
      await hostile.closed();
    }
    const { client: early } = await RawClient.challenged(url);
    clients.push(early);
    early.socket.emit("relay", encodeRelayFrame(id, bytes(10)));
    await early.closed();
    victim.send(bytes(10));
    await other.until(() => other.frames.length === 1);
    expect(await health(url)).toMatchObject({ malformed: bodies.length + 1, failures: 0 });
  });

  it("cannot send into a relay of others, nor flood relays that are gone", async () => {
    const url = await start({ bytesPerSecond: RELAY_CREDIT_STEP_BYTES });
    const [a, b] = await friends(url);
    const eve = await login(url);
    const stray = encodeRelayFrame(a.relayId, bytes(1000));
    for (let i = 0; i < 100; i++) eve.socket.emit("relay", stray);
    eve.socket.emit("relayAck", { relayId: a.relayId, takenBytes: 1 });
    await settled(eve);
    a.send(numbered(7, 100));
    await b.until(() => b.frames.length === 1);
    expect(numbersOf(b.frames)).toEqual([7]);
    const large = encodeRelayFrame(newRelayId(), bytes(RELAY_FRAME_BYTES_MAX));
    let frames = 0;
    while (eve.socket.connected && frames < 1000) {
      eve.socket.emit("relay", large);
      frames++;
      if (frames % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await eve.closed();
    expect(frames).toBeLessThan(1000);
    expect(await health(url)).toMatchObject({ relays: 1, malformed: 1, failures: 0 });
  });
});
