import { deserialize, serialize } from "node:v8";
import { createClient } from "redis";
import { toBase64Url } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import {
  CLUSTER_HEARTBEAT_MS,
  CLUSTER_LOG_EVENTS,
  CLUSTER_NODE_TTL_MS,
  CLUSTER_RECONNECT_BASE_MS,
  CLUSTER_RECONNECT_MAX_MS,
} from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { StartError } from "../store.ts";
import type { Bus, BusListener } from "./bus.ts";
import type { LogEvent, NodeMessage } from "./messages.ts";

/**
 * The bus on Redis 6.2 or newer: the log is a stream, messages to one node are published on a channel of its own, and who is
 * alive is a sorted set with the time, by the clock of Redis, of each node's last sign of life. Nothing in Redis is needed
 * after a restart of Redis, and nothing of it is the truth: see docs/adr/0011-several-servers.md, also for why this is not the
 * Redis adapter of socket.io.
 */
export type RedisClient = ReturnType<typeof connectTo>;

const READ_BLOCK_MS = 1000;
const READ_COUNT = 512;
/** In all keys: nodes that speak another version of the messages do not hear each other. */
const VERSION = 1;
const CLIENT_TIMEOUT_MS = 5000;

/** `begin` only marks a place in the log. */
type Written = { readonly sequence: 0; readonly type: "begin" | "bye" } | LogEvent;

const connectTo = (url: string, hasBegun: () => boolean) =>
  createClient({
    url,
    // What cannot be sent now fails now: it is made good by a snapshot, not by an old message.
    disableOfflineQueue: true,
    socket: {
      connectTimeout: CLIENT_TIMEOUT_MS,
      reconnectStrategy: (retries) =>
        hasBegun() && Math.min(CLUSTER_RECONNECT_MAX_MS, CLUSTER_RECONNECT_BASE_MS * 2 ** Math.min(retries, 10)),
    },
    pingInterval: CLIENT_TIMEOUT_MS,
  });

export class RedisBus implements Bus {
  readonly nodeId: string;
  readonly #env: Env;
  readonly #prefix: string;
  /** For everything that does not wait. */
  readonly commands: RedisClient;
  readonly #reader: RedisClient;
  readonly #subscriber: RedisClient;
  readonly #alive = new Map<string, { heardAtMs: number }>();
  #listener: BusListener | null = null;
  #heartbeat: Disposable | null = null;
  #lastHeardRedisMs = 0;
  #offset = "$";
  #hasBegun = false;
  #closed = false;
  #reading: Promise<void> = Promise.resolve();
  #turns: (() => void)[] = [];
  #isTurning = false;

  private constructor(url: string, serverId: string, env: Env) {
    this.#env = env;
    this.nodeId = toBase64Url(env.random.bytes(9));
    this.#prefix = `weir:${serverId}:${VERSION}`;
    [this.commands, this.#reader, this.#subscriber] = [1, 2, 3].map(() => connectTo(url, () => this.#hasBegun)) as [
      RedisClient,
      RedisClient,
      RedisClient,
    ];
  }

  /** @throws StartError when Redis cannot be reached. */
  static async connect(url: string, serverId: string, env: Env): Promise<RedisBus> {
    let bus: RedisBus;
    try {
      bus = new RedisBus(url, serverId, env);
    } catch (error) {
      throw new StartError(`--redis is no address of Redis: ${messageOf(error)}.`);
    }
    try {
      for (const client of bus.#clients) {
        // Without a listener the process would end.
        client.on("error", (error: unknown) => bus.#failed(error));
        await client.connect();
      }
      await bus.commands.ping();
    } catch (error) {
      bus.#destroy();
      throw new StartError(
        `Redis cannot be used: ${messageOf(error)}. Check the address in --redis, its password, and whether it runs.`,
      );
    }
    bus.#hasBegun = true;
    for (const client of bus.#clients) client.on("ready", () => bus.#readyAgain());
    return bus;
  }

  get #clients(): readonly RedisClient[] {
    return [this.commands, this.#reader, this.#subscriber];
  }

  get connected(): boolean {
    return this.#clients.every((client) => client.isReady);
  }

  async start(listener: BusListener): Promise<readonly string[]> {
    this.#listener = listener;
    await this.#subscriber.subscribe(this.#channel(this.nodeId), (payload) => this.#hear(payload), true);
    await this.#signOfLife();
    // Everything that follows this event is read; what the others wrote before it is in their snapshots.
    this.#offset = await this.#write({ sequence: 0, type: "begin" });
    const others = await this.#listed();
    for (const nodeId of others) this.#alive.set(nodeId, { heardAtMs: this.#env.clock.monotonicMs() });
    this.#reading = this.#read();
    this.#arm();
    return others;
  }

  async append(event: LogEvent): Promise<void> {
    await this.#write(event);
  }

  send(nodeId: string, message: NodeMessage): void {
    // Serialized now: frames are views of buffers that the network reuses.
    const payload = serialize({ from: this.nodeId, message });
    this.commands.publish(this.#channel(nodeId), payload).catch((error: unknown) => {
      this.#env.log.debug("a message to another node was lost", { error: messageOf(error) });
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#heartbeat?.dispose();
    try {
      await this.#write({ sequence: 0, type: "bye" });
      await this.commands.zRem(this.#nodesKey, this.nodeId);
    } catch (error) {
      this.#env.log.warn("the other nodes could not be told of the end", { error: messageOf(error) });
    }
    this.#destroy();
    await this.#reading;
  }

  get #nodesKey(): string {
    return `${this.#prefix}:nodes`;
  }

  #channel(nodeId: string): string {
    return `${this.#prefix}:node:${nodeId}`;
  }

  async #write(event: Written): Promise<string> {
    const fields = { from: this.nodeId, event: JSON.stringify(event) };
    const TRIM = { strategy: "MAXLEN", strategyModifier: "~", threshold: CLUSTER_LOG_EVENTS } as const;
    return String(await this.commands.xAdd(`${this.#prefix}:log`, "*", fields, { TRIM }));
  }

  #destroy(): void {
    for (const client of this.#clients) if (client.isOpen) client.destroy();
  }

  #failed(error: unknown): void {
    if (this.#hasBegun && !this.#closed)
      this.#env.log.warn("the connection to Redis failed", { error: messageOf(error) });
  }

  /** Any of the three: what was on its way when its connection ended may be lost, either way. */
  #readyAgain(): void {
    if (this.#closed || !this.connected) return;
    this.#signOfLife()
      .then(() => this.#turn(() => this.#listener?.interrupted()))
      .catch((error: unknown) => this.#failed(error));
  }

  // ---- Reading ----------------------------------------------------------------------------------------------------

  async #read(): Promise<void> {
    while (!this.#closed) {
      try {
        const streams = await this.#reader.xRead(
          { key: `${this.#prefix}:log`, id: this.#offset },
          { BLOCK: READ_BLOCK_MS, COUNT: READ_COUNT },
        );
        for (const { id, message } of entriesOf(streams)) {
          this.#offset = id;
          this.#logged(message);
        }
      } catch (error) {
        if (this.#closed) return;
        this.#env.log.debug("the log of the nodes could not be read", { error: messageOf(error) });
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#env.clock.setTimer(CLUSTER_RECONNECT_BASE_MS, resolve);
        await promise;
      }
    }
  }

  #logged({ from, event }: Readonly<Record<string, string>>): void {
    if (from === undefined || event === undefined || from === this.nodeId) return;
    // Written by a node of this version.
    const written = JSON.parse(event) as Written;
    this.#turn(() => {
      if (written.type === "bye") {
        this.#lost(from);
        return;
      }
      this.#heard(from);
      if (written.type !== "begin") this.#listener?.logged(from, written as LogEvent);
    });
  }

  #hear(payload: Buffer): void {
    const { from, message } = deserialize(payload) as { from: string; message: NodeMessage };
    this.#turn(() => this.#listener?.received(from, message));
  }

  /** One a turn of the event loop: what an answer sets off in promises comes before what arrived after it. */
  #turn(work: () => void): void {
    this.#turns.push(work);
    if (this.#isTurning) return;
    this.#isTurning = true;
    setImmediate(() => this.#nextTurn());
  }

  #nextTurn(): void {
    const work = this.#turns.shift();
    if (work === undefined || this.#closed) {
      this.#isTurning = false;
      return;
    }
    try {
      work();
    } catch (error) {
      this.#env.log.error("a message of another node failed", { error: messageOf(error) });
    }
    setImmediate(() => this.#nextTurn());
  }

  // ---- Who is alive -----------------------------------------------------------------------------------------------

  #arm(): void {
    if (this.#closed) return;
    this.#heartbeat = this.#env.clock.setTimer(CLUSTER_HEARTBEAT_MS, () => {
      this.#beat()
        .catch((error: unknown) => this.#env.log.warn("no sign of life could be given", { error: messageOf(error) }))
        .finally(() => this.#arm());
    });
  }

  async #beat(): Promise<void> {
    let listed: ReadonlySet<string>;
    try {
      await this.#signOfLife();
      listed = new Set(await this.#listed());
    } catch (error) {
      this.#loseSilent(new Set(), CLUSTER_NODE_TTL_MS);
      throw error;
    }
    this.#turn(() => {
      for (const nodeId of listed) this.#heard(nodeId);
      // One that has just begun may have been heard before it was listed.
      this.#loseSilent(listed, CLUSTER_HEARTBEAT_MS);
    });
  }

  #loseSilent(listed: ReadonlySet<string>, silentMs: number): void {
    const oldestMs = this.#env.clock.monotonicMs() - silentMs;
    for (const [nodeId, { heardAtMs }] of [...this.#alive]) {
      if (!listed.has(nodeId) && heardAtMs < oldestMs) this.#turn(() => this.#lost(nodeId));
    }
  }

  #heard(nodeId: string): void {
    const known = this.#alive.has(nodeId);
    this.#alive.set(nodeId, { heardAtMs: this.#env.clock.monotonicMs() });
    if (!known) this.#listener?.nodeJoined(nodeId);
  }

  #lost(nodeId: string): void {
    if (this.#alive.delete(nodeId)) this.#listener?.nodeLeft(nodeId);
  }

  async #signOfLife(): Promise<void> {
    const [seconds, microseconds] = await this.commands.time();
    this.#lastHeardRedisMs = Number(seconds) * 1000 + Number(microseconds) / 1000;
    await this.commands.zAdd(this.#nodesKey, { value: this.nodeId, score: this.#lastHeardRedisMs });
    await this.commands.zRemRangeByScore(this.#nodesKey, 0, this.#lastHeardRedisMs - 10 * CLUSTER_NODE_TTL_MS);
  }

  async #listed(): Promise<string[]> {
    const oldestMs = this.#lastHeardRedisMs - CLUSTER_NODE_TTL_MS;
    const listed = await this.commands.zRangeByScore(this.#nodesKey, oldestMs, "+inf");
    return listed.filter((nodeId) => nodeId !== this.nodeId);
  }
}

interface Entry {
  readonly id: string;
  readonly message: Readonly<Record<string, string>>;
}

/** The answer's type in redis is that of every protocol version together. */
const entriesOf = (streams: unknown): readonly Entry[] =>
  (streams as readonly { messages: readonly Entry[] }[] | null)?.[0]?.messages ?? [];
