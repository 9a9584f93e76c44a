import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  LOGIN_TIMEOUT_MS,
  SERVER_PENDING_LOGINS_MAX,
  SERVER_PENDING_LOGINS_PER_ADDRESS_MAX,
} from "#shared/base/limits.ts";
import {
  createIdentity,
  eventually,
  isDistributed,
  RawClient,
  startServer,
  type TestServer,
} from "../support/rendezvous.ts";

let server: TestServer;
beforeEach(async () => {
  server = await startServer();
});
afterEach(() => server.dispose());

describe("login", () => {
  it("lets in who signs the challenge with the account key", async () => {
    const { client, nonce, serverId } = await RawClient.challenged(server.url);
    expect(nonce).toHaveLength(32);
    expect(serverId).toBe(server.server.serverId);
    expect(await client.outcome("keys.status", {})).toBe("not_logged_in");

    const answer = await client.must("login", client.loginInput(nonce, serverId));
    expect(answer.pendingEnvelopes).toBe(0);
    expect(Math.abs(answer.serverTimeMs - server.env.clock.now())).toBeLessThan(60_000);
    expect(await client.must("keys.status", {})).toEqual({ published: false, oneTimeEc: 0, oneTimeKyber: 0 });
    client.close();
  });

  it("keeps its id over a restart", async () => {
    const before = server.server.serverId;
    await server.restart();
    expect(server.server.serverId).toBe(before);
  });

  it.each([
    [
      "a signature by another key",
      (c: RawClient, n: Uint8Array, s: string) => ({
        ...c.loginInput(n, s),
        signature: createIdentity().sign(n),
      }),
    ],
    [
      "a signature over another nonce",
      (c: RawClient, _n: Uint8Array, s: string) => c.loginInput(new Uint8Array(32), s),
    ],
    ["a signature for another server", (c: RawClient, n: Uint8Array) => c.loginInput(n, "another server")],
    [
      "a login that was made for another host",
      (c: RawClient, n: Uint8Array, s: string) => c.loginInput(n, s, "evil.example:443"),
    ],
    [
      "a user id of another account key",
      (c: RawClient, n: Uint8Array, s: string) => ({
        ...c.loginInput(n, s),
        userId: createIdentity().userId,
      }),
    ],
  ])("refuses %s and ends the connection", async (_what, input) => {
    const { client, nonce, serverId } = await RawClient.challenged(server.url);
    const answer = await client.request("login", input(client, nonce, serverId));
    expect(answer).toMatchObject({ ok: false, error: { type: "login_refused" } });
    await client.closed();
  });

  it("refuses a login that was recorded on another connection", async () => {
    const first = await RawClient.challenged(server.url);
    const recorded = first.client.loginInput(first.nonce, first.serverId);
    expect(await first.client.outcome("login", recorded)).toBe("ok");
    const second = await RawClient.challenged(server.url, first.client.identity);
    expect(await second.client.outcome("login", recorded)).toBe("login_refused");
    first.client.close();
  });

  it("takes one login per nonce", async () => {
    const { client, nonce, serverId } = await RawClient.challenged(server.url);
    const login = client.loginInput(nonce, serverId);
    const both = await Promise.all([client.outcome("login", login), client.outcome("login", login)]);
    expect(both.sort()).toEqual(["login_refused", "ok"]);
    expect(await client.outcome("keys.status", {})).toBe("ok");
    client.close();
  });

  it("replaces the connection of the same device and keeps that of another one", async () => {
    const identity = createIdentity(1);
    const first = await RawClient.loggedIn(server.url, identity);
    const other = await RawClient.loggedIn(server.url, { ...identity, deviceId: 2 });
    const second = await RawClient.loggedIn(server.url, identity);
    await first.closed();
    expect(other.socket.connected).toBe(true);
    expect(await second.outcome("keys.status", {})).toBe("ok");
    second.close();
    other.close();
  });

  it("ends a connection that does not log in in time", async () => {
    const { client } = await RawClient.challenged(server.url);
    server.env.clock.advance(LOGIN_TIMEOUT_MS + 1);
    await client.closed();
    const { client: late, nonce, serverId } = await RawClient.challenged(server.url);
    expect(await late.outcome("login", late.loginInput(nonce, serverId))).toBe("ok");
    server.env.clock.advance(LOGIN_TIMEOUT_MS + 1);
    expect(await late.outcome("keys.status", {})).toBe("ok");
    late.close();
  });

  describe("connections that have not logged in", () => {
    const from = (address: string) =>
      RawClient.challenged(server.url, createIdentity(), { "x-forwarded-for": address });
    beforeEach(async () => {
      await server.dispose();
      // A proxy of ours says where a client is.
      server = await startServer({}, true);
    });

    it.skipIf(isDistributed)("are bounded for one address, which keeps nobody else out", async () => {
      const count = SERVER_PENDING_LOGINS_PER_ADDRESS_MAX;
      const idle = await Promise.all(Array.from({ length: count }, () => from("192.0.2.1")));
      await expect(from("192.0.2.1")).rejects.toThrow();
      const { client: other } = await from("192.0.2.2");
      // Whoever logged in or went makes room.
      const [first, second] = idle;
      if (first === undefined || second === undefined) throw new Error("no connection");
      expect(await first.client.outcome("login", first.client.loginInput(first.nonce, first.serverId))).toBe("ok");
      const { client: third } = await from("192.0.2.1");
      await expect(from("192.0.2.1")).rejects.toThrow();
      second.client.close();
      await eventually(async () => {
        const again = await from("192.0.2.1").catch(() => null);
        return again?.client.socket.connected ?? false;
      }).toBe(true);
      await expect(from("192.0.2.1")).rejects.toThrow();
      for (const { client } of idle) client.close();
      for (const client of [other, third]) client.close();
    });

    it.skipIf(isDistributed)("are bounded in all, until they are gone", async () => {
      const idle = await Promise.all(
        Array.from({ length: SERVER_PENDING_LOGINS_MAX }, (_, i) => from(`192.0.2.${i % 8}`)),
      );
      await expect(from("192.0.2.99")).rejects.toThrow();
      server.env.clock.advance(LOGIN_TIMEOUT_MS + 1);
      await Promise.all(idle.map(({ client }) => client.closed()));
      const client = await RawClient.loggedIn(server.url);
      client.close();
    });
  });
});
