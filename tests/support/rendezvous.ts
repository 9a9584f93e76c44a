import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { io, type Socket } from "socket.io-client";
import * as parser from "socket.io-parser";
import * as v from "valibot";
import { expect, inject } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { type Bytes, toBase64Url } from "#shared/base/bytes.ts";
import { type Disposable, toDisposable } from "#shared/base/disposable.ts";
import type { Clock, Env, Log } from "#shared/base/env.ts";
import {
  type EnvelopeId,
  EnvelopeIdSchema,
  type FileId,
  FileIdSchema,
  type UserId,
  UserIdSchema,
} from "#shared/base/ids.ts";
import { boundedParser } from "#shared/rendezvous/bounded-parser.ts";
import {
  type DeviceKeys,
  deviceKeysSigningBytes,
  loginSigningBytes,
  PROTOCOL,
  type RequestInput,
  type RequestName,
  type RequestOutput,
} from "#shared/rendezvous/protocol.ts";
import { draftFor, emptyList, type ShareList, type ShareOperation, type ShareWish } from "#shared/shares/share-log.ts";
import { chunkBytesFor, manifestSigningBytes } from "#shared/wire/manifest.ts";
import { logCrypto, signShareOperation } from "../../src-main/crypto/signed-log.ts";
import { systemRandom } from "../../src-main/env.ts";
import type { SignalingIdentity } from "../../src-main/signaling/signaling.ts";
import { userIdOf } from "../../src-server/account-key.ts";
import { distributedEngine } from "../../src-server/distributed.ts";
import type { RateOptions } from "../../src-server/rates.ts";
import { createServer, type RendezvousServer, type ServerOptions } from "../../src-server/server.ts";
import { createDatabase } from "./engines.ts";
import { temporaryFolder } from "./files.ts";

export { generous } from "./rendezvous-rates.ts";

export const bytes = (length: number): Bytes => new Uint8Array(randomBytes(length));
export const freshEnvelopeId = (): EnvelopeId => v.parse(EnvelopeIdSchema, toBase64Url(bytes(16)));
const freshFileId = () => v.parse(FileIdSchema, toBase64Url(bytes(16)));

/** Polls until the expectation holds; the time is a backstop for a busy machine, not a demand. */
export const eventually = <T>(read: () => T | Promise<T>) => expect.poll(read, { timeout: 25_000, interval: 10 });

/** Buffers, as a Node client gets them, as plain byte arrays, to compare whole answers. */
export const plain = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
};

// ---- Environment --------------------------------------------------------------------------------------------------

/** Everything that was logged, as one text, to look for what must not be in it. */
export const recordingLog = (): Log & { lines: string[] } => {
  const lines: string[] = [];
  const write =
    (level: string) =>
    (message: string, fields?: Record<string, unknown>): void =>
      void lines.push(JSON.stringify({ level, message, ...fields }));
  const log = { lines, debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
  const whole: Log & { lines: string[] } = { ...log, child: () => whole };
  return whole;
};

/** The real clock, which the test can move forward; timers that become due by that fire at once. */
export class MovableClock implements Clock {
  #offsetMs = 0;
  readonly #timers = new Set<{ dueMs: number; fire(): void }>();

  now(): number {
    return Date.now() + this.#offsetMs;
  }

  monotonicMs(): number {
    return performance.now() + this.#offsetMs;
  }

  setTimer(delayMs: number, fn: () => void): Disposable {
    const end = (): void => {
      clearTimeout(timer);
      this.#timers.delete(entry);
    };
    const entry = {
      dueMs: this.now() + delayMs,
      fire: () => {
        end();
        fn();
      },
    };
    const timer = setTimeout(entry.fire, delayMs);
    this.#timers.add(entry);
    return toDisposable(end);
  }

  advance(ms: number): void {
    this.#offsetMs += ms;
    for (const timer of [...this.#timers]) if (timer.dueMs <= this.now()) timer.fire();
  }
}

export interface TestEnv extends Env {
  readonly clock: MovableClock;
  readonly log: Log & { lines: string[] };
}
export const testEnv = (): TestEnv => ({ clock: new MovableClock(), random: systemRandom, log: recordingLog() });

// ---- Server ---------------------------------------------------------------------------------------------------------

export interface TestServer {
  readonly url: string;
  readonly host: string;
  readonly env: TestEnv;
  readonly dataDir: string;
  readonly server: RendezvousServer;
  /** Stops it and starts it again on the same data and the same port. */
  restart(): Promise<void>;
  /** Stops it and keeps the data. */
  stop(): Promise<void>;
  dispose(): Promise<void>;
}

/** Some tests look into the SQLite file, or at what is a single node's own. */
export const isDistributed = process.env["WEIR_TEST_ENGINE"] === "distributed";

/**
 * On SQLite; in the project `distributed` of vitest two servers that share a PostgreSQL and a Redis, between which the
 * clients go back and forth, as behind a load balancer: each use of `url` names the other one.
 */
export const startServer = (
  rates: Partial<RateOptions> = {},
  trustProxy = false,
  more: Pick<ServerOptions, "ice" | "relay"> = {},
): Promise<TestServer> => {
  const options = { host: "127.0.0.1", rates, trustProxy, ...more };
  return isDistributed ? startNodes(options) : startAlone(options);
};

type TestOptions = Omit<ServerOptions, "data" | "port" | "env">;

const startNodes = async (options: TestOptions): Promise<TestServer> => {
  const { folder, redisUrl, template } = inject("engines");
  const data = distributedEngine({ database: await createDatabase(folder, template), redis: redisUrl });
  const env = testEnv();
  const start = (port: number) => createServer({ ...options, data, port, env });
  const servers = await Promise.all([start(0), start(0)]);
  const urls = servers.map((server) => server.url);
  const ports = urls.map((url) => Number(new URL(url).port));
  let turn = 0;
  const nodeInTurn = (): number => turn++ % servers.length;
  return {
    get url() {
      return defined(urls[nodeInTurn()], "a node");
    },
    get host() {
      return new URL(defined(urls[nodeInTurn()], "a node")).host;
    },
    env,
    dataDir: "",
    get server() {
      return defined(servers[0], "a node");
    },
    async restart() {
      await Promise.all(servers.map((server) => server.close()));
      for (const [index, port] of ports.entries()) servers[index] = await start(port);
    },
    async stop() {
      await Promise.all(servers.map((server) => server.close()));
    },
    async dispose() {
      await Promise.all(servers.map((server) => server.close()));
    },
  };
};

const startAlone = async (options: TestOptions): Promise<TestServer> => {
  const folder = await temporaryFolder();
  const env = testEnv();
  const start = (port: number) => createServer({ ...options, data: folder.path, port, env });
  let server = await start(0);
  const { url } = server;
  const { host, port } = new URL(url);
  return {
    url,
    host,
    env,
    dataDir: folder.path,
    get server() {
      return server;
    },
    async restart() {
      await server.close();
      server = await start(Number(port));
    },
    stop: () => server.close(),
    async dispose() {
      await server.close();
      await folder.dispose();
    },
  };
};

// ---- Identities ------------------------------------------------------------------------------------------------------

export interface TestIdentity extends SignalingIdentity {
  readonly privateKey: KeyObject;
}

export const createIdentity = (deviceId = 1): TestIdentity => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const accountKey = new Uint8Array(publicKey.export({ format: "der", type: "spki" }).subarray(-32));
  return {
    privateKey,
    userId: v.parse(UserIdSchema, userIdOf(accountKey)),
    deviceId,
    accountKey,
    sign: (data) => new Uint8Array(sign(null, data, privateKey)),
    newRequestKey: freshEnvelopeId,
  };
};

/** Keys that look right to the server, which cannot check what only libsignal can. */
export const deviceKeys = (identity: TestIdentity, identityKey: Bytes = bytes(33)): DeviceKeys => {
  const keys = {
    registrationId: 7,
    identityKey,
    signedPreKey: { id: 1, key: bytes(33), signature: bytes(64) },
    lastResortKyber: { id: 1, key: bytes(1569), signature: bytes(64) },
  };
  return { ...keys, signature: identity.sign(deviceKeysSigningBytes(keys, identity.userId, identity.deviceId)) };
};

export const oneTimeKeys = (
  count: number,
  firstId = 1,
): Pick<RequestInput<"keys.publish">, "oneTimeEc" | "oneTimeKyber"> => ({
  oneTimeEc: Array.from({ length: count }, (_, i) => ({ id: firstId + i, key: bytes(33) })),
  oneTimeKyber: Array.from({ length: count }, (_, i) => ({ id: firstId + i, key: bytes(1569), signature: bytes(64) })),
});

export const sealed = (size = 40): RequestInput<"mailbox.put">["sealed"] => ({ kind: "message", body: bytes(size) });

export const fileRecord = (
  owner: TestIdentity,
  sizeBytes = 200_000,
  fileId = freshFileId(),
): RequestInput<"files.register">["record"] => {
  const chunkBytes = chunkBytesFor(sizeBytes);
  const manifest = {
    fileId,
    ownerId: owner.userId,
    sizeBytes,
    chunkBytes,
    chunkCount: Math.ceil(sizeBytes / chunkBytes),
    root: bytes(32),
    createdAtMs: 1_700_000_000_000,
  };
  return { ...manifest, signature: owner.sign(manifestSigningBytes(manifest)) };
};

/** The first operation of a file's share list. */
export const firstOperation = (
  owner: TestIdentity,
  fileId: FileId,
  members: readonly UserId[] = [],
): ShareOperation => {
  const empty = emptyList(fileId, owner.userId, logCrypto);
  return operationOn(empty, owner, { kind: "add", userIds: members });
};

/** What an owner sends to register a file. */
export const registration = (
  owner: TestIdentity,
  record: RequestInput<"files.register">["record"],
  members: readonly UserId[] = [],
): RequestInput<"files.register"> => ({
  record,
  operations: [firstOperation(owner, v.parse(FileIdSchema, record.fileId), members)],
});

/** What the actor signs to make this so. */
export const operationOn = (list: ShareList, actor: TestIdentity, wish: ShareWish): ShareOperation => {
  const draft = draftFor(list, wish, actor.userId, 1_700_000_000_000);
  if (!draft.ok) throw new Error(draft.error.type);
  return signShareOperation(draft.value, actor);
};

// ---- Clients ---------------------------------------------------------------------------------------------------------

type Answer<Name extends RequestName> =
  | { ok: true; value: RequestOutput<Name> }
  | { ok: false; error: { type: string; message: string; retryAfterMs?: number } };

export interface SeenPush {
  name: string;
  value: Record<string, unknown> & { id?: string; from?: string; userId?: string; online?: boolean };
}

/**
 * A client of another make: plain socket.io-client with its default settings, which can also misbehave.
 */
export class RawClient {
  readonly identity: TestIdentity;
  readonly socket: Socket;
  readonly pushes: SeenPush[] = [];
  readonly #host: string;
  readonly #waiters = new Set<() => void>();
  /** False: signals are not acknowledged. */
  acknowledgesSignals = true;

  private constructor(url: string, identity: TestIdentity, extraHeaders: Record<string, string>) {
    this.identity = identity;
    this.#host = new URL(url).host;
    this.socket = io(url, {
      ...{ transports: ["websocket"], reconnection: false, forceNew: true, autoConnect: false },
      ...{ extraHeaders, parser: boundedParser(parser) },
    });
    this.socket.on("push", (push: SeenPush, acknowledge?: () => void) => {
      this.pushes.push(push);
      if (this.acknowledgesSignals) acknowledge?.();
      for (const wake of [...this.#waiters]) wake();
    });
  }

  /** Connected and challenged, not logged in. */
  static async challenged(
    url: string,
    identity = createIdentity(),
    extraHeaders: Record<string, string> = {},
  ): Promise<{ client: RawClient; nonce: Uint8Array; serverId: string }> {
    const client = new RawClient(url, identity, extraHeaders);
    const challenge = new Promise<{ nonce: Uint8Array; serverId: string }>((resolve, reject) => {
      client.socket.once("challenge", resolve);
      client.socket.once("connect_error", reject);
      client.socket.once("disconnect", () => reject(new Error("the connection ended before a challenge")));
    });
    client.socket.connect();
    return { client, ...(await challenge) };
  }

  static async loggedIn(url: string, identity = createIdentity()): Promise<RawClient> {
    const { client, nonce, serverId } = await RawClient.challenged(url, identity);
    const answer = await client.request("login", client.loginInput(nonce, serverId));
    if (!answer.ok) throw new Error(`${answer.error.type}: ${answer.error.message}`);
    return client;
  }

  loginInput(nonce: Uint8Array, serverId: string, host = this.#host): RequestInput<"login"> {
    const { userId, deviceId, accountKey } = this.identity;
    const signature = this.identity.sign(loginSigningBytes(nonce, serverId, host, userId));
    return { protocol: PROTOCOL, userId, deviceId, accountKey, host, signature };
  }

  request<Name extends RequestName>(
    name: Name,
    input: RequestInput<Name>,
    key: string = freshEnvelopeId(),
  ): Promise<Answer<Name>> {
    return this.send({ key, name, input });
  }

  /** Anything at all; rejects when the connection ends before an answer. */
  send(body: unknown): Promise<Answer<never>> {
    return new Promise((resolve, reject) => {
      const gone = (): void => reject(new Error("the connection ended"));
      // The library would keep the request for a connection that never comes.
      if (!this.socket.connected) return gone();
      this.socket.once("disconnect", gone);
      this.socket.emit("request", body, (answer: Answer<never>) => {
        this.socket.off("disconnect", gone);
        resolve(answer);
      });
    });
  }

  /** The value of an answer that must be a success. */
  async must<Name extends RequestName>(
    name: Name,
    input: RequestInput<Name>,
    key?: string,
  ): Promise<RequestOutput<Name>> {
    const answer = await this.request(name, input, key);
    if (!answer.ok) throw new Error(`${name}: ${answer.error.type}: ${answer.error.message}`);
    return answer.value;
  }

  /** The type of the refusal, or "ok". */
  async outcome<Name extends RequestName>(name: Name, input: RequestInput<Name>, key?: string): Promise<string> {
    const answer = await this.request(name, input, key);
    return answer.ok ? "ok" : answer.error.type;
  }

  named(name: string): SeenPush["value"][] {
    return this.pushes.filter((push) => push.name === name).map((push) => push.value);
  }

  /** Resolves as soon as `done` holds for what was pushed so far. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiters.delete(wake);
          resolve();
        };
        this.#waiters.add(wake);
      });
    }
  }

  async closed(): Promise<void> {
    if (this.socket.connected) await new Promise((resolve) => this.socket.once("disconnect", resolve));
  }

  close(): void {
    this.socket.disconnect();
  }
}
