import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  createIdentity,
  eventually,
  freshEnvelopeId,
  plain,
  RawClient,
  sealed,
  startServer,
  type TestServer,
} from "../support/rendezvous.ts";

let server: TestServer;
beforeEach(async () => {
  server = await startServer();
});
afterEach(() => server.dispose());

const watch = (client: RawClient, ...others: RawClient[]) =>
  client.must("presence.watch", { userIds: others.map((other) => other.identity.userId) });
const befriend = async (a: RawClient, b: RawClient): Promise<void> => {
  await watch(a, b);
  await watch(b, a);
};
const online = (client: RawClient) => ({ userId: client.identity.userId, online: true });
const offline = (client: RawClient) => ({ userId: client.identity.userId, online: false });
/** What the server sent before this request has arrived when its answer has. */
const settled = (...clients: RawClient[]) => Promise.all(clients.map((client) => client.must("keys.status", {})));

describe("presence", () => {
  it("is told only where both watch each other", async () => {
    const alice = await RawClient.loggedIn(server.url);
    const bob = await RawClient.loggedIn(server.url);
    const eve = await RawClient.loggedIn(server.url);
    expect(await watch(alice, bob)).toEqual({ online: [] });
    expect(await watch(eve, alice, bob)).toEqual({ online: [] });
    expect(await watch(bob, alice)).toEqual({ online: [alice.identity.userId] });
    await alice.until(() => alice.named("presence").length === 1);
    bob.close();
    await alice.until(() => alice.named("presence").length === 2);
    expect(alice.named("presence")).toEqual([online(bob), offline(bob)]);
    await settled(eve);
    expect(eve.named("presence")).toEqual([]);
    alice.close();
    eve.close();
  });

  it("ends when one of them stops watching", async () => {
    const alice = await RawClient.loggedIn(server.url);
    const bob = await RawClient.loggedIn(server.url);
    await watch(alice, bob);
    await watch(bob, alice);
    await watch(bob);
    await settled(alice);
    expect(alice.named("presence")).toEqual([online(bob), offline(bob)]);
    bob.close();
    const carol = await RawClient.loggedIn(server.url);
    await settled(alice);
    expect(alice.named("presence")).toHaveLength(2);
    alice.close();
    carol.close();
  });

  it("stays on until the last device has gone", async () => {
    const identity = createIdentity(1);
    const alice = await RawClient.loggedIn(server.url);
    const desk = await RawClient.loggedIn(server.url, identity);
    const laptop = await RawClient.loggedIn(server.url, { ...identity, deviceId: 2 });
    await watch(alice, desk);
    await watch(desk, alice);
    await watch(laptop, alice);
    desk.close();
    await desk.closed();
    laptop.close();
    await alice.until(() => alice.named("presence").length === 2);
    expect(alice.named("presence")).toEqual([online(desk), offline(desk)]);
    alice.close();
  });

  it("follows a device that connects anew", async () => {
    const alice = await RawClient.loggedIn(server.url);
    const bob = await RawClient.loggedIn(server.url);
    await watch(alice, bob);
    await watch(bob, alice);
    const again = await RawClient.loggedIn(server.url, bob.identity);
    await watch(again, alice);
    await settled(alice);
    expect(alice.named("presence")).toEqual([online(bob), offline(bob), online(bob)]);
    again.close();
    alice.close();
  });
});

describe("signals", () => {
  it("reach whoever is online, unchanged, and say so", async () => {
    const alice = await RawClient.loggedIn(server.url);
    const bob = await RawClient.loggedIn(server.url);
    await befriend(alice, bob);
    const signal = sealed(1000);
    expect(await alice.must("signal.send", { to: bob.identity.userId, sealed: signal })).toEqual({ delivered: true });
    expect(plain(bob.named("signal"))).toEqual([{ from: alice.identity.userId, sealed: signal }]);
    bob.close();
    await bob.closed();
    await eventually(() => alice.must("signal.send", { to: bob.identity.userId, sealed: signal })).toEqual({
      delivered: false,
    });
    const again = await RawClient.loggedIn(server.url, bob.identity);
    await watch(again, alice);
    expect(again.named("signal")).toEqual([]);
    again.close();
    alice.close();
  });

  it("reach nobody who does not watch the sender, who learns nothing from trying", async () => {
    const [bob, eve] = [await RawClient.loggedIn(server.url), await RawClient.loggedIn(server.url)];
    const toBob = { to: bob.identity.userId, sealed: sealed() };
    const outcomes = [await eve.must("signal.send", toBob)];
    await watch(eve, bob);
    outcomes.push(await eve.must("signal.send", toBob));
    await watch(bob);
    outcomes.push(await eve.must("signal.send", toBob));
    await watch(eve);
    await watch(bob, eve);
    outcomes.push(await eve.must("signal.send", toBob));
    await settled(bob);
    expect(outcomes).toEqual(Array(4).fill({ delivered: false }));
    expect(bob.named("signal")).toEqual([]);
    await watch(eve, bob);
    expect(await eve.must("signal.send", toBob)).toEqual({ delivered: true });
    bob.close();
    eve.close();
  });

  it("count as undelivered when the recipient goes away without acknowledging", async () => {
    const alice = await RawClient.loggedIn(server.url);
    const bob = await RawClient.loggedIn(server.url);
    await befriend(alice, bob);
    bob.acknowledgesSignals = false;
    const sending = alice.must("signal.send", { to: bob.identity.userId, sealed: sealed() });
    await bob.until(() => bob.named("signal").length === 1);
    bob.close();
    expect(await sending).toEqual({ delivered: false });
    alice.close();
  });

  it("are relayed once when the request is repeated", async () => {
    const alice = await RawClient.loggedIn(server.url);
    const bob = await RawClient.loggedIn(server.url);
    await befriend(alice, bob);
    const key = freshEnvelopeId();
    const signal = { to: bob.identity.userId, sealed: sealed() };
    const answers = [await alice.must("signal.send", signal, key), await alice.must("signal.send", signal, key)];
    expect(answers).toEqual([{ delivered: true }, { delivered: true }]);
    expect(bob.named("signal")).toHaveLength(1);
    expect(await alice.outcome("signal.send", { ...signal, sealed: sealed() }, key)).toBe("conflict");
    alice.close();
    bob.close();
  });
});
