import { once } from "node:events";
import { connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { BULK_HEADER_BYTES, writeBulkHeader } from "#shared/wire/frame.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import { LinksWorld, untilConnected } from "../support/links-world.ts";
import type { Impairment } from "../support/net/impairment.ts";
import { TcpRelay } from "../support/net/tcp-impair.ts";
import { throughRelay, UdpRelay } from "../support/net/udp-impair.ts";

/**
 * Bulk frames over a link whose packets pass the seeded UDP relay, with one association and with as many as it opens by
 * itself, and TCP through the relay that paces like Reno on the same network. All in this process.
 */
const NETWORKS = {
  "50 ms": { delayMs: 25 },
  "100 ms": { delayMs: 50 },
  "50 ms, 1 % lost": { delayMs: 25, lossRate: 0.01 },
} satisfies Record<string, Partial<Impairment>>;

/** Stripes are judged for some seconds each; what comes then counts. */
const WARM_UP_MS = 16_000;
const MEASURED_MS = 10_000;
const FRAME_BYTES = 64 * 1024;
const SEED = 5;

interface Rate {
  /** From the first byte on, and once everything has settled. */
  readonly fromStart: number;
  readonly settled: number;
}

const rateOf = async (received: () => number): Promise<Rate> => {
  const megabits = (bytes: number, ms: number): number => Math.round(bytes / ms / 12.5) / 10;
  const startedAtMs = performance.now();
  await sleep(WARM_UP_MS);
  const [atMs, before] = [performance.now(), received()];
  await sleep(MEASURED_MS);
  const endMs = performance.now();
  return { fromStart: megabits(received(), endMs - startedAtMs), settled: megabits(received() - before, endMs - atMs) };
};

const overLink = async (impairment: Partial<Impairment>, stripes: boolean): Promise<Rate> => {
  await using relay = new UdpRelay({ seed: SEED, impairment });
  const world = new LinksWorld();
  const [a, b] = [world.add(0), world.add(1)];
  const linksOf = (member: typeof a): LinkManager =>
    world.links(member, { stripes, driver: throughRelay(createRtcDriver(world.deps(member).env), relay) });
  const [alice, bob] = [linksOf(a), linksOf(b)];
  for (const links of [alice, bob]) links.enable();
  alice.connect(b.userId);
  bob.connect(a.userId);
  await Promise.all([untilConnected(alice, b.userId), untilConnected(bob, a.userId)]);
  let received = 0;
  bob.onBulk(({ peer, generation, bytes }) => {
    received += bytes;
    bob.release(peer, generation, bytes);
  });
  const frame = new Uint8Array(FRAME_BYTES);
  let sent = 0;
  const pump = (): void => {
    const { generation } = alice.view(b.userId);
    do writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence: sent, index: sent }, FRAME_BYTES - BULK_HEADER_BYTES);
    while (alice.sendBulk(b.userId, generation, frame) === "sent" && ++sent > 0);
  };
  alice.onDrained(pump);
  alice.onChanged(pump);
  pump();
  const rate = await rateOf(() => received);
  for (const links of [alice, bob]) links.dispose();
  return rate;
};

const overTcp = async (impairment: Partial<Impairment>): Promise<Rate> => {
  let received = 0;
  const server = createServer((socket) => socket.on("data", (data) => (received += data.length)).on("error", () => 0));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  await using relay = await TcpRelay.open({
    seed: SEED,
    target: { host: "127.0.0.1", port: address.port },
    impairment,
  });
  const socket = connect(relay.port, "127.0.0.1");
  socket.on("error", () => undefined);
  await once(socket, "connect");
  const block = new Uint8Array(FRAME_BYTES);
  const pump = (): void => {
    while (socket.write(block));
  };
  socket.on("drain", pump);
  pump();
  const rate = await rateOf(() => received);
  socket.destroy();
  server.close();
  return rate;
};

/** Megabits a second. */
export const measureImpaired = async (): Promise<Record<string, unknown>> => {
  const found: Record<string, unknown> = {};
  for (const [network, impairment] of Object.entries(NETWORKS)) {
    const one = await overLink(impairment, false);
    const striped = await overLink(impairment, true);
    const tcp = await overTcp(impairment);
    const ratio = (to: Rate): number => Math.round((striped.settled / to.settled) * 100) / 100;
    found[network] = { one, striped, tcp, toOne: ratio(one), toTcp: ratio(tcp) };
  }
  return found;
};
