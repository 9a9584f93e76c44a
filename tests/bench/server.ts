import { generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { io, type Socket } from "socket.io-client";
import type { Bytes } from "#shared/base/bytes.ts";
import { toBase64Url } from "#shared/base/bytes.ts";
import { loginSigningBytes, PROTOCOL } from "#shared/rendezvous/protocol.ts";
import { userIdOf } from "../../src-server/account-key.ts";
import { type Engines, startEngines } from "../support/engines.ts";
import { type ServerProcess, startServerChild } from "../support/server-process.ts";
import { cpuSecondsOf, memoryOf } from "./proc.ts";

/**
 * The server by itself: what a client that is connected costs, and how many messages and signals pass through it, on one
 * SQLite node, on one node with PostgreSQL and Redis, and on two of them with each pair of people at different nodes. The
 * clients, in this process, use as much of the machine as the server does; compare the lines with each other.
 */
const CLIENTS = 2000;
const PAIRS_AT_WORK = 64;
const SECONDS = 5;
const IDLE_SECONDS = 5;
const LOGINS_AT_ONCE = 50;
const BODY_BYTES = 1000;

interface Person {
  readonly userId: string;
  readonly socket: Socket;
  request(name: string, input: unknown): Promise<unknown>;
}

const connect = async (url: string): Promise<Person> => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const accountKey = new Uint8Array(publicKey.export({ format: "der", type: "spki" }).subarray(-32));
  const userId = userIdOf(accountKey);
  const socket = io(url, { transports: ["websocket"], reconnection: false, forceNew: true });
  const request = async (name: string, input: unknown): Promise<unknown> => {
    const answer = await socket.emitWithAck("request", { key: toBase64Url(randomBytes(16)), name, input });
    if (!answer.ok) throw new Error(`${name}: ${answer.error.type}`);
    return answer.value;
  };
  const { nonce, serverId } = await new Promise<{ nonce: Bytes; serverId: string }>((resolve, reject) => {
    socket.once("challenge", resolve);
    socket.once("connect_error", reject);
  });
  const host = new URL(url).host;
  const signature = sign(null, loginSigningBytes(nonce, serverId, host, userId as never), privateKey);
  await request("login", { protocol: PROTOCOL, userId, deviceId: 1, accountKey, host, signature });
  return { userId, socket, request };
};

/** Pairs of people who watch each other: the first at the first node, the second at the last. */
const connectPairs = async (urls: readonly string[], pairs: number): Promise<(readonly [Person, Person])[]> => {
  const made: (readonly [Person, Person])[] = [];
  const [first, last] = [urls[0] ?? "", urls.at(-1) ?? ""];
  const work = async (): Promise<void> => {
    while (pairs-- > 0) {
      const [a, b] = [await connect(first), await connect(last)];
      await a.request("presence.watch", { userIds: [b.userId] });
      await b.request("presence.watch", { userIds: [a.userId] });
      made.push([a, b]);
    }
  };
  await Promise.all(Array.from({ length: LOGINS_AT_ONCE }, work));
  return made;
};

const percentile = (sorted: readonly number[], share: number): number =>
  Number((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN).toFixed(1));

/** One after the other in each of `pairs`, all pairs at once; what a second of the servers' processors is good for, too. */
const paced = async (
  servers: readonly ServerProcess[],
  pairs: readonly (readonly [Person, Person])[],
  act: (from: Person, to: Person) => Promise<unknown>,
) => {
  const times: number[] = [];
  const cpuBefore = cpuOf(servers);
  const begun = performance.now();
  const end = begun + SECONDS * 1000;
  await Promise.all(
    pairs.map(async ([a, b]) => {
      while (performance.now() < end) {
        const at = performance.now();
        await act(a, b);
        times.push(performance.now() - at);
      }
    }),
  );
  times.sort((x, y) => x - y);
  return {
    perSecond: Math.round(times.length / ((performance.now() - begun) / 1000)),
    perCpuSecond: Math.round(times.length / (cpuOf(servers) - cpuBefore)),
    p50Ms: percentile(times, 0.5),
    p99Ms: percentile(times, 0.99),
  };
};

const sealed = () => ({ kind: "message", body: randomBytes(BODY_BYTES) });

/** From the put to the push at the recipient, who acknowledges each. */
const sendMessage = (from: Person, to: Person): Promise<void> =>
  new Promise((resolve, reject) => {
    const id = toBase64Url(randomBytes(16));
    const onPush = (push: { name: string; value: { id: string } }): void => {
      if (push.name !== "envelope" || push.value.id !== id) return;
      to.socket.off("push", onPush);
      Promise.all([stored, to.request("mailbox.ack", { ids: [id] })]).then(() => resolve(), reject);
    };
    to.socket.on("push", onPush);
    const stored = from.request("mailbox.put", { to: to.userId, id, sealed: sealed() });
    stored.catch(reject);
  });

const sendSignal = async (from: Person, to: Person): Promise<void> => {
  const answer = (await from.request("signal.send", { to: to.userId, sealed: sealed() })) as { delivered: boolean };
  if (!answer.delivered) throw new Error("a signal was not delivered");
};

const cpuOf = (servers: readonly ServerProcess[]): number =>
  servers
    .flatMap((server) => Object.values(cpuSecondsOf(server.child.pid) ?? {}))
    .reduce((sum, seconds) => sum + seconds, 0);

const memory = (servers: readonly ServerProcess[]): number =>
  servers.reduce((sum, server) => sum + (memoryOf(server.child.pid, "VmRSS") ?? 0), 0);

const acknowledgeSignals = (pairs: readonly (readonly [Person, Person])[]): void => {
  for (const { socket } of pairs.flat()) socket.on("push", (_: unknown, acknowledge?: () => void) => acknowledge?.());
};

const measure = async (engine: string, servers: readonly ServerProcess[], clients: number) => {
  const before = memory(servers);
  const pairs = await connectPairs(
    servers.map((server) => server.url),
    clients / 2,
  );
  acknowledgeSignals(pairs);
  const cpuIdle = cpuOf(servers);
  await new Promise((resolve) => setTimeout(resolve, IDLE_SECONDS * 1000));
  const idleCpu = (cpuOf(servers) - cpuIdle) / IDLE_SECONDS;
  const kibPerClient = Math.round((memory(servers) - before) / 1024 / clients);
  const atWork = pairs.slice(0, PAIRS_AT_WORK);
  const messages = await paced(servers, atWork, sendMessage);
  const signals = await paced(servers, atWork, sendSignal);
  for (const { socket } of pairs.flat()) socket.disconnect();
  return {
    engine,
    nodes: servers.length,
    clients,
    kibPerClient,
    idleCpuMicrosPerClientSecond: Math.round((idleCpu / clients) * 1e6),
    messages,
    signals,
  };
};

const end = (servers: readonly ServerProcess[]) => Promise.all(servers.map((server) => server.end("SIGTERM")));

const onSqlite = async () => {
  const folder = await mkdtemp(join(tmpdir(), "weir-bench-"));
  const servers = [await startServerChild("--data", folder)];
  try {
    return await measure("sqlite", servers, CLIENTS);
  } finally {
    await end(servers);
    await rm(folder, { recursive: true, force: true });
  }
};

const onNodes = async (engines: Engines, nodes: number) => {
  const args = ["--database", await engines.createDatabase(), "--redis", engines.redisUrl];
  const servers = await Promise.all(Array.from({ length: nodes }, () => startServerChild(...args)));
  try {
    return await measure("postgres+redis", servers, CLIENTS / 4);
  } finally {
    await end(servers);
  }
};

/** One line for each kind of server. */
export const measureServer = async () => {
  const sqlite = await onSqlite();
  const engines = await startEngines();
  try {
    return { lines: [sqlite, await onNodes(engines, 1), await onNodes(engines, 2)] };
  } finally {
    await engines.stop();
  }
};
