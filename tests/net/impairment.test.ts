import { once } from "node:events";
import { connect, createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { UserId } from "#shared/base/ids.ts";
import { STRIPES_FIRST } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import { BULK_HEADER_BYTES, writeBulkHeader } from "#shared/wire/frame.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import type { Links } from "../../src-main/links/links.ts";
import type { LinkTransport, TransportDriver } from "../../src-main/links/transport.ts";
import { LinksWorld, untilConnected, untilView } from "../support/links-world.ts";
import { CLEAR, type Impairment, Lane } from "../support/net/impairment.ts";
import { RenoPace, TcpRelay } from "../support/net/tcp-impair.ts";
import { throughRelay, UdpRelay } from "../support/net/udp-impair.ts";

const opened: Links[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
});

const fates = (seed: number, packets: number, change: Partial<Impairment>): number[][] => {
  const lane = new Lane(seed);
  return Array.from({ length: packets }, (_, at) => lane.pass(1000, at, { ...CLEAR, ...change }));
};

describe("an impaired lane", () => {
  it("gives every packet of a seed the same fate, whatever is done to those before it", () => {
    const change = { lossRate: 0.05, jitterMs: 10, reorderRate: 0.1, duplicateRate: 0.02 };
    const first = fates(7, 2000, change);
    expect(fates(7, 2000, change)).toEqual(first);
    expect(fates(8, 2000, change)).not.toEqual(first);
    const lane = new Lane(7);
    const cleared = Array.from({ length: 2000 }, (_, at) =>
      lane.pass(1000, at, at < 1000 ? CLEAR : { ...CLEAR, ...change }),
    );
    expect(cleared.slice(1000)).toEqual(first.slice(1000));
  });

  it.each([0.01, 0.05])("loses the share that it was told to lose (%f)", (lossRate) => {
    const lost = fates(3, 100_000, { lossRate }).filter((copies) => copies.length === 0).length / 100_000;
    expect(lost).toBeGreaterThan(lossRate * 0.9);
    expect(lost).toBeLessThan(lossRate * 1.1);
  });

  it("lets packets overtake each other, and doubles some", () => {
    const arrivals = fates(5, 1000, { reorderRate: 0.1, reorderMs: 5, duplicateRate: 0.1 });
    const times = arrivals.map((copies) => copies[0] ?? 0);
    const overtaken = times.filter((time, at) => (times[at + 1] ?? time) < time).length;
    expect(overtaken).toBeGreaterThan(50);
    expect(arrivals.filter((copies) => copies.length === 2).length).toBeGreaterThan(50);
  });

  it("carries no more than its bandwidth and loses what its queue cannot hold", () => {
    const lane = new Lane(1);
    const narrow = { ...CLEAR, bytesPerSecond: 100_000, queueBytes: 10_000 };
    const burst = Array.from({ length: 20 }, () => lane.pass(1000, 0, narrow));
    expect(burst.flat()).toEqual([10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    expect(lane.pass(1000, 100, narrow)).toEqual([110]);
  });
});

const frameBytes = 16 * 1024;
const frameOf = (index: number): Uint8Array => {
  const frame = new Uint8Array(frameBytes).fill(index & 0xff, BULK_HEADER_BYTES);
  writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence: index, index }, frameBytes - BULK_HEADER_BYTES);
  return frame;
};

/** Sends frames over the link of that moment; resolves when the last one was handed to it. */
const sendFrames = async (links: Links, peer: UserId, generation: number, count: number): Promise<void> => {
  for (let index = 0; index < count; index += 1) {
    while (links.sendBulk(peer, generation, frameOf(index)) !== "sent") {
      await new Promise<void>((resolve) => {
        const subscription = links.onDrained(() => {
          subscription.dispose();
          resolve();
        });
      });
    }
  }
};

const linkedThrough = async (relay: UdpRelay) => {
  const world = new LinksWorld();
  const [a, b] = [world.add(0), world.add(1)];
  const [alice, bob] = [a, b].map((member) =>
    world.links(member, { driver: throughRelay(createRtcDriver(world.deps(member).env), relay) }),
  );
  if (alice === undefined || bob === undefined) throw new Error("two people were made");
  opened.push(alice, bob);
  for (const links of [alice, bob]) links.enable();
  alice.connect(b.userId);
  bob.connect(a.userId);
  const [view] = await Promise.all([untilConnected(alice, b.userId), untilConnected(bob, a.userId)]);
  return { alice, bob, aliceId: a.userId, bobId: b.userId, generation: view.generation };
};

describe("a link through the UDP relay", () => {
  it("delivers everything over a network that loses 5 %, delays, doubles and reorders", async () => {
    await using relay = new UdpRelay({
      seed: 11,
      impairment: { lossRate: 0.05, delayMs: 5, jitterMs: 2, reorderRate: 0.05, duplicateRate: 0.01 },
    });
    const { alice, bob, aliceId, bobId, generation } = await linkedThrough(relay);
    const indices = new Set<number>();
    const done = new Promise<void>((resolve) => {
      bob.onBulk((event) => {
        if (event.frame.kind === "chunk") indices.add(event.frame.index);
        bob.release(event.peer, event.generation, event.bytes);
        if (indices.size === 40) resolve();
      });
    });
    await Promise.all([sendFrames(alice, bobId, generation, 40), done]);
    await untilView(alice, bobId, (view) => (view.rttMs ?? 0) >= 10);
    expect(relay.counts.lost).toBeGreaterThan(0);
    expect(bob.view(aliceId).state).toBe("connected");
  });

  it("notices a blackout, and links again in a new generation when it ends", async () => {
    await using relay = new UdpRelay({ seed: 12, impairment: { delayMs: 5 } });
    const { alice, bobId, generation } = await linkedThrough(relay);
    relay.cut();
    await untilView(alice, bobId, (view) => view.state !== "connected");
    expect(relay.counts.blackedOut).toBeGreaterThan(0);
    relay.restore();
    const again = await untilConnected(alice, bobId);
    expect(again.generation).toBeGreaterThan(generation);
  });
});

/** Knows what is open of a driver, in order, and how to break it. */
const watched = (driver: TransportDriver) => {
  const open = new Map<LinkTransport, () => void>();
  const watching: TransportDriver = {
    open(options, onEvent) {
      const opened = driver.open(options, onEvent);
      if (!opened.ok) return opened;
      const transport: LinkTransport = {
        ...opened.value,
        close() {
          open.delete(transport);
          opened.value.close();
        },
      };
      open.set(transport, () => onEvent({ type: "ended", reason: "failed" }));
      return ok(transport);
    },
    dispose: () => driver.dispose(),
  };
  return { driver: watching, open };
};

describe("a link on a long path that loses packets", () => {
  it("opens stripes under load, hears messages meanwhile, and loses nothing when they break", async () => {
    await using relay = new UdpRelay({ seed: 3, impairment: { lossRate: 0.01, delayMs: 10 } });
    const world = new LinksWorld();
    const [a, b] = [world.add(0), world.add(1)];
    const drivers = [a, b].map((member) => watched(throughRelay(createRtcDriver(world.deps(member).env), relay)));
    const [ofAlice, ofBob] = drivers;
    if (ofAlice === undefined || ofBob === undefined) throw new Error("two people were made");
    const [alice, bob] = [world.links(a, { driver: ofAlice.driver }), world.links(b, { driver: ofBob.driver })];
    opened.push(alice, bob);
    for (const links of [alice, bob]) links.enable();
    alice.connect(b.userId);
    bob.connect(a.userId);
    const [{ generation }] = await Promise.all([untilConnected(alice, b.userId), untilConnected(bob, a.userId)]);

    /** By number, what has come in each generation. */
    const arrived = new Map<number, Set<number>>();
    const tags: number[] = [];
    bob.onBulk((event) => {
      if (event.frame.kind === "chunk") {
        const seen = arrived.get(event.generation) ?? new Set();
        expect(seen.has(event.frame.index)).toBe(false);
        arrived.set(event.generation, seen.add(event.frame.index));
      }
      bob.release(event.peer, event.generation, event.bytes);
    });
    bob.onMessage(({ message }) => {
      if (message.type === "stop") tags.push(message.tag);
    });
    let isEnough = false;
    let sent = 0;
    const pump = (): void => {
      const view = alice.view(b.userId);
      while (!isEnough && alice.sendBulk(b.userId, view.generation, frameOf(sent)) === "sent") sent += 1;
    };
    const subscriptions = [alice.onDrained(pump), alice.onChanged(pump)];
    pump();
    const patient = { timeout: 30_000, interval: 50 };
    await expect.poll(() => ofAlice.open.size, patient).toBe(1 + STRIPES_FIRST);
    await expect.poll(() => ofBob.open.size, patient).toBe(1 + STRIPES_FIRST);
    // A message comes through at once, however many frames are waiting.
    const before = sent;
    await expect.poll(() => sent, patient).toBeGreaterThan(before + 30);
    alice.send(b.userId, generation, { type: "stop", tag: 1 });
    await expect.poll(() => tags, { timeout: 5000 }).toEqual([1]);

    // They break at the far end with frames on their way: the link begins anew, and what was asked for is sent again.
    for (const breakIt of [...ofBob.open.values()].slice(1)) breakIt();
    await untilView(alice, b.userId, (view) => view.generation > generation && view.state === "connected");
    isEnough = true;
    for (const subscription of subscriptions) subscription.dispose();
    const [next] = await Promise.all([untilConnected(alice, b.userId), untilConnected(bob, a.userId)]);
    await sendFrames(alice, b.userId, next.generation, 20);
    await alice.disconnect(b.userId);
    expect(tags).toEqual([1]);
    for (let index = 0; index < 20; index += 1)
      expect([...arrived.values()].some((indices) => indices.has(index))).toBe(true);
    // With the link all of its connections go.
    await bob.disconnect(a.userId);
    await expect.poll(() => [ofAlice.open.size, ofBob.open.size], patient).toEqual([0, 0]);
  }, 90_000);
});

describe("the TCP relay", () => {
  it("hands on every byte in order, and the end", async () => {
    const sent = Buffer.alloc(300_000, "0123456789");
    const server = createServer((socket) => socket.pipe(socket));
    await once(server.listen(0, "127.0.0.1"), "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    await using relay = await TcpRelay.open({
      seed: 1,
      target: { host: "127.0.0.1", port: address.port },
      impairment: { lossRate: 0.01, delayMs: 2 },
    });
    const socket = connect(relay.port, "127.0.0.1");
    socket.end(sent);
    const parts: Buffer[] = [];
    for await (const part of socket) parts.push(part);
    expect(Buffer.concat(parts).equals(sent)).toBe(true);
    expect(relay.counts.lost).toBeGreaterThan(0);
    server.close();
  });

  it("is as fast as Reno: near MSS / RTT x 1.22 / sqrt(loss)", () => {
    const pace = new RenoPace(5);
    const impairment = { ...CLEAR, lossRate: 0.01, delayMs: 25 };
    let last = 0;
    for (let sent = 0; sent < 50_000; sent += 1) last = pace.send(1448, 0, impairment).arrivesAtMs;
    const bytesPerSecond = (50_000 * 1448) / (last / 1000);
    const bound = (1448 / 0.05) * (1.22 / Math.sqrt(0.01));
    expect(bytesPerSecond / bound).toBeGreaterThan(0.7);
    expect(bytesPerSecond / bound).toBeLessThan(1.3);
  });
});
