import { once } from "node:events";
import { connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { UserId } from "#shared/base/ids.ts";
import { BULK_HEADER_BYTES, writeBulkHeader } from "#shared/wire/frame.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import { LinksWorld, untilConnected } from "../support/links-world.ts";
import { ForkedRelay } from "../support/net/forked-relay.ts";
import type { Impairment } from "../support/net/impairment.ts";
import { throughRelay } from "../support/net/udp-impair.ts";

/**
 * Bulk frames over a link whose packets pass the seeded UDP relay, with one association and with as many as it opens by
 * itself, from one peer and from four, and TCP through the relay that paces like Reno on the same network. The ends
 * are in this process, each relay in one of its own.
 */
export const NETWORKS = {
  "50 ms": { delayMs: 25 },
  "100 ms": { delayMs: 50 },
  "50 ms, 1 % lost": { delayMs: 25, lossRate: 0.01 },
} satisfies Record<string, Partial<Impairment>>;

export type Network = keyof typeof NETWORKS;

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

/** Each connection has a way of its own through the relay. */
const overLinks = async (impairment: Partial<Impairment>, seeders: number, stripes: boolean): Promise<Rate> => {
  await using relay = await ForkedRelay.open({ seed: SEED, impairment, target: null });
  using owned = new DisposableStack();
  const world = new LinksWorld();
  const join = (order: number) => {
    const member = world.add(order);
    const driver = throughRelay(createRtcDriver(world.deps(member).env), relay);
    const links = owned.adopt(world.links(member, { stripes, driver }), (made) => made.dispose());
    links.enable();
    return { userId: member.userId, links };
  };
  const receiver = join(0);
  let received = 0;
  receiver.links.onBulk(({ peer, generation, bytes }) => {
    received += bytes;
    receiver.links.release(peer, generation, bytes);
  });
  const senders = Array.from({ length: seeders }, (_, i) => join(i + 1));
  for (const sender of senders) {
    sender.links.connect(receiver.userId);
    receiver.links.connect(sender.userId);
  }
  await Promise.all(
    senders.flatMap(({ userId, links }) => [
      untilConnected(links, receiver.userId),
      untilConnected(receiver.links, userId),
    ]),
  );
  for (const { links } of senders) pump(links, receiver.userId);
  return await rateOf(() => received);
};

/** From now on something is sent whenever there is room. */
const pump = (links: LinkManager, to: UserId): void => {
  const frame = new Uint8Array(FRAME_BYTES);
  let sent = 0;
  const fill = (): void => {
    const { generation } = links.view(to);
    do writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence: sent, index: sent }, FRAME_BYTES - BULK_HEADER_BYTES);
    while (links.sendBulk(to, generation, frame) === "sent" && ++sent > 0);
  };
  links.onDrained(fill);
  links.onChanged(fill);
  fill();
};

const overTcp = async (impairment: Partial<Impairment>): Promise<Rate> => {
  let received = 0;
  const server = createServer((socket) => socket.on("data", (data) => (received += data.length)).on("error", () => 0));
  await once(server.listen(0, "127.0.0.1"), "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
  const target = { host: "127.0.0.1", port: address.port };
  await using relay = await ForkedRelay.open({ seed: SEED, impairment, target });
  const socket = connect(relay.port ?? 0, "127.0.0.1");
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
export const measureImpaired = async (networks: readonly Network[]): Promise<Record<string, unknown>> => {
  const found: Record<string, unknown> = {};
  for (const network of networks) {
    const impairment = NETWORKS[network];
    const one = await overLinks(impairment, 1, false);
    const striped = await overLinks(impairment, 1, true);
    const fourSeeders = await overLinks(impairment, 4, true);
    const tcp = await overTcp(impairment);
    const ratio = (of: Rate, to: Rate): number => Math.round((of.settled / to.settled) * 100) / 100;
    found[network] = {
      one,
      striped,
      fourSeeders,
      tcp,
      toOne: ratio(striped, one),
      toTcp: ratio(striped, tcp),
      fourToOneSeeder: ratio(fourSeeders, striped),
    };
  }
  return found;
};
