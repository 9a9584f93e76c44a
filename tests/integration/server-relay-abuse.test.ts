import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RELAY_FRAME_BYTES_MAX, RELAY_USAGE_STEP_BYTES, RELAY_WINDOW_BYTES } from "#shared/base/limits.ts";
import { relayCost } from "#shared/rendezvous/relay.ts";
import { temporaryFolder } from "../support/files.ts";
import {
  befriend,
  newRelayId,
  numbered,
  numbersOf,
  openRelayBetween,
  type RelayEnd,
  relayedFriends,
} from "../support/relay-ends.ts";
import { createIdentity, generous, RawClient, startServer } from "../support/rendezvous.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";

const MiB = 1024 * 1024;
const DAY_MS = 24 * 60 * 60 * 1000;
const FRAMES_PER_MIB = Math.ceil(MiB / RELAY_FRAME_BYTES_MAX);

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let running: ServerProcess | undefined;
const clients: RawClient[] = [];
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await running?.end("SIGKILL");
  running = undefined;
  await folder.dispose();
});

const residentBytes = (pid: number | undefined): number =>
  Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024;

/** The websocket below socket.io, which can stop reading. */
const webSocketOf = (client: RawClient): { pause(): void; resume(): void } => {
  const { transport } = client.socket.io.engine;
  if (!("ws" in transport)) throw new Error("the client has a websocket");
  return transport.ws as { pause(): void; resume(): void };
};

describe.skipIf(process.platform !== "linux")("readers that stall", () => {
  it("slow their writers down and fill no memory; what they were sent arrives when they read again", async () => {
    running = await startServerProcess(folder.path, "--relay-rate", "1000000", "--relay-total", "1000000");
    const { url } = running;
    const [carol, dave] = await relayedFriends(url);
    clients.push(carol.client, dave.client);
    const reader = await RawClient.loggedIn(url);
    clients.push(reader);
    const pairs: (readonly [RelayEnd, RelayEnd])[] = [];
    const writers: RawClient[] = [];
    for (let i = 0; i < 12; i++) writers.push(await RawClient.loggedIn(url));
    clients.push(...writers);
    await reader.must("presence.watch", { userIds: writers.map((writer) => writer.identity.userId) });
    for (const writer of writers) {
      await writer.must("presence.watch", { userIds: [reader.identity.userId] });
      pairs.push(await openRelayBetween(writer, reader));
    }
    // Warm: every path of the server has run and grown to its size.
    await Promise.all(pairs.map(([writer]) => writer.sendAll(20, (i) => numbered(i))));
    await Promise.all(pairs.map(([, end]) => end.until(() => end.frames.length === 20)));
    const before = residentBytes(running.child.pid);

    webSocketOf(reader).pause();
    let accepted = 0;
    for (const [writer] of pairs) {
      // As much as there is credit for; then for five turns nothing more comes.
      for (let quiet = 0; quiet < 5; ) {
        while (writer.sendIfAllowed(numbered(writer.sent % 251))) quiet = 0;
        await writer.client.must("keys.status", {});
        quiet++;
      }
      accepted += 1;
    }
    expect(accepted).toBe(12);
    for (const [writer] of pairs) {
      expect(writer.closed).toBe(undefined);
      expect(writer.granted - writer.sent).toBeLessThan(relayCost(RELAY_FRAME_BYTES_MAX));
    }
    const grown = residentBytes(running.child.pid) - before;
    process.stdout.write(`12 stalled pairs: resident memory of the server grew by ${(grown / MiB).toFixed(1)} MiB\n`);
    expect(grown).toBeLessThan(12 * RELAY_WINDOW_BYTES + 24 * MiB);

    // Others do not notice.
    await carol.sendAll(100, (i) => numbered(i));
    await dave.until(() => dave.frames.length === 100);
    expect(numbersOf(dave.frames)).toEqual(Array.from({ length: 100 }, (_, i) => i));

    webSocketOf(reader).resume();
    for (const [writer, end] of pairs) await end.until(() => end.received === writer.sent);
    for (const [writer] of pairs) await writer.sendAll(10, (i) => numbered(i));
    for (const [writer, end] of pairs) await end.until(() => end.received === writer.sent);
    expect(pairs.map(([writer, end]) => [writer.closed, end.closed])).toEqual(pairs.map(() => [undefined, undefined]));
  });
});

describe("the quota", () => {
  it("ends the relay of whoever uses it up, for the day, also over a restart", async () => {
    const server = await startServer(generous, false, {
      relay: { bytesPerSecond: 1e9, totalBytesPerSecond: 1e9, dailyBytes: MiB },
    });
    try {
      const [a, b] = await relayedFriends(server.url);
      clients.push(a.client, b.client);
      await a.sendAll(FRAMES_PER_MIB + 5, (i) => numbered(i));
      await Promise.all([a.until(() => a.closed !== undefined), b.until(() => b.closed !== undefined)]);
      expect([a.closed, b.closed]).toEqual(["relay_quota", "relay_quota"]);
      expect(b.frames.length).toBeLessThanOrEqual(FRAMES_PER_MIB);
      const opening = (from: RawClient, to: RawClient) =>
        from.outcome("relay.open", { relayId: newRelayId(), to: to.identity.userId });
      expect(await opening(a.client, b.client)).toBe("relay_quota");
      // Each account has its own, and the other one can still be the one who opens; accepting is refused then.
      const relayId = newRelayId();
      await b.client.must("relay.open", { relayId, to: a.client.identity.userId });
      expect(await a.client.outcome("relay.accept", { relayId, from: b.client.identity.userId })).toBe("relay_quota");

      await server.restart();
      const [alice, bob] = [
        await RawClient.loggedIn(server.url, a.client.identity),
        await RawClient.loggedIn(server.url, b.client.identity),
      ];
      clients.push(alice, bob);
      await befriend(alice, bob);
      expect(await opening(alice, bob)).toBe("relay_quota");
      expect(await opening(bob, alice)).toBe("ok");
      server.env.clock.advance(DAY_MS);
      expect(await opening(alice, bob)).toBe("ok");
      expect(server.env.log.lines.filter((line) => line.includes('"level":"error"'))).toEqual([]);
    } finally {
      await server.dispose();
    }
  });

  it("of a month adds its days up and ends with it", async () => {
    const server = await startServer(generous, false, {
      relay: { bytesPerSecond: 1e9, totalBytesPerSecond: 1e9, monthlyBytes: 2 * MiB },
    });
    try {
      // To the second of the next month, so that four more days are in the same one.
      const now = new Date(server.env.clock.now());
      const next = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 2);
      server.env.clock.advance(next - now.getTime());
      const [alice, bob] = [createIdentity(), createIdentity()];
      const send = async (frames: number): Promise<unknown> => {
        const ends = [await RawClient.loggedIn(server.url, alice), await RawClient.loggedIn(server.url, bob)] as const;
        clients.push(...ends);
        await befriend(...ends);
        if ((await ends[0].outcome("relay.open", { relayId: newRelayId(), to: bob.userId })) === "relay_quota")
          return "refused";
        const [a, b] = await openRelayBetween(...ends);
        await a.sendAll(frames, (i) => numbered(i));
        await a.until(() => a.closed !== undefined || b.frames.length === frames);
        return a.closed ?? "sent";
      };
      const outcomes = [];
      for (let day = 0; day < 4; day++) {
        outcomes.push(await send(FRAMES_PER_MIB - 3));
        server.env.clock.advance(DAY_MS);
      }
      expect(outcomes).toEqual(["sent", "sent", "relay_quota", "refused"]);
      server.env.clock.advance(31 * DAY_MS);
      expect(await send(3)).toBe("sent");
    } finally {
      await server.dispose();
    }
  });

  it("forgets less than a step when the server is killed", async () => {
    const quota = 12 * MiB;
    const flags = ["--relay-rate", "1000000", "--relay-total", "1000000", "--relay-daily", String(quota / MiB)];
    const [alice, bob] = [createIdentity(), createIdentity()];
    const connect = async (): Promise<readonly [RelayEnd, RelayEnd]> => {
      running = await startServerProcess(folder.path, ...flags);
      const ends = [await RawClient.loggedIn(running.url, alice), await RawClient.loggedIn(running.url, bob)] as const;
      clients.push(...ends);
      await befriend(...ends);
      return openRelayBetween(...ends);
    };
    const [a, b] = await connect();
    await a.sendAll(9 * FRAMES_PER_MIB, (i) => numbered(i));
    await b.until(() => b.frames.length === 9 * FRAMES_PER_MIB);
    // A write of the server's that comes after those of the relay: they are on disk with it.
    await a.client.must("invites.create", { inviteId: new Uint8Array(16), commitment: new Uint8Array(32) });
    await running?.end("SIGKILL");
    const [c, d] = await connect();
    await c.sendAll(12 * FRAMES_PER_MIB, (i) => numbered(i));
    await c.until(() => c.closed !== undefined);
    expect(c.closed).toBe("relay_quota");
    const relayed = (b.frames.length + d.frames.length) * RELAY_FRAME_BYTES_MAX;
    expect(relayed).toBeGreaterThan(quota - MiB);
    expect(relayed).toBeLessThan(quota + RELAY_USAGE_STEP_BYTES);
  });
});
