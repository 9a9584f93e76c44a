import { createServer as createHttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Server, type Socket } from "socket.io";
import * as v from "valibot";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FileIdSchema } from "#shared/base/ids.ts";
import {
  ENVELOPE_RETRY_BASE_MS,
  MAILBOX_PUSH_WINDOW,
  SERVER_REQUEST_TIMEOUT_MS,
  SHARE_OPERATIONS_PAGE,
} from "#shared/base/limits.ts";
import type { ServerView } from "#shared/ipc/views.ts";
import { encodeRelayFrame } from "#shared/rendezvous/relay.ts";
import { append, emptyList, type ShareOperation } from "#shared/shares/share-log.ts";
import { logCrypto } from "../../src-main/crypto/signed-log.ts";
import type { EnvelopePush, Signaling } from "../../src-main/signaling/signaling.ts";
import { createSignaling } from "../../src-main/signaling/signaling-client.ts";
import { newRelayId } from "../support/relay-ends.ts";
import {
  bytes,
  createIdentity,
  deviceKeys,
  eventually,
  fileRecord,
  firstOperation,
  freshEnvelopeId,
  generous,
  oneTimeKeys,
  operationOn,
  RawClient,
  sealed,
  startServer,
  type TestEnv,
  type TestIdentity,
  type TestServer,
  testEnv,
} from "../support/rendezvous.ts";

interface Peer {
  readonly identity: TestIdentity;
  readonly env: TestEnv;
  readonly signaling: Signaling;
  readonly states: ServerView[];
  generations: number[];
}

const peers: Peer[] = [];
const createPeer = (identity = createIdentity()): Peer => {
  const env = testEnv();
  const signaling = createSignaling({ env, identity });
  const peer: Peer = { identity, env, signaling, states: [], generations: [] };
  signaling.onStateChanged((state) => peer.states.push(state));
  signaling.onConnected(({ generation }) => peer.generations.push(generation));
  peers.push(peer);
  return peer;
};
const connected = async (peer: Peer, url: string): Promise<Peer> => {
  peer.signaling.enable(url);
  await until(peer, "connected");
  return peer;
};
const until = (peer: Peer, state: ServerView["state"]) => eventually(() => peer.signaling.state.state).toBe(state);

let server: TestServer;
beforeEach(async () => {
  server = await startServer(generous);
});
afterEach(async () => {
  for (const peer of peers.splice(0)) {
    expect(peer.env.log.lines.filter((line) => line.includes('"level":"error"'))).toEqual([]);
    peer.signaling.dispose();
  }
  await server.dispose();
});

describe("connecting", () => {
  it("logs in, tells so, and answers requests", async () => {
    const peer = createPeer();
    expect(peer.signaling.state).toEqual({ state: "disconnected", url: "", error: null });
    await connected(peer, server.url);
    expect(peer.states.map(({ state }) => state)).toEqual(["connecting", "connected"]);
    expect(peer.generations).toEqual([peer.signaling.generation]);
    const { identity, signaling } = peer;
    const left = await signaling.request("keys.publish", { keys: deviceKeys(identity), ...oneTimeKeys(100) });
    expect(left).toEqual({ ok: true, value: { oneTimeEc: 100, oneTimeKyber: 100 } });
    const bundle = await signaling.request("keys.fetch", { userId: identity.userId });
    expect(bundle).toMatchObject({ ok: true, value: { accountKey: identity.accountKey, oneTimeEc: { id: 1 } } });
    const refused = await signaling.request("keys.fetch", { userId: createIdentity().userId });
    expect(refused).toMatchObject({ ok: false, error: { type: "unknown_user" } });
    signaling.disable();
    await until(peer, "disconnected");
    expect(signaling.state.error).toBeNull();
  });

  it.each(["", "x", "http://localhost", "ws://", "ws://host/path", "ws://user@host", "ws://host?x"])(
    "rests on the address %j and says what it should look like",
    (url) => {
      const { signaling } = createPeer();
      signaling.enable(url);
      expect(signaling.state).toMatchObject({ state: "disconnected", url, error: { type: "bad_server_url" } });
    },
  );

  it("says in words that a server is unreachable, and connects once it is there", async () => {
    const peer = createPeer();
    await server.stop();
    peer.signaling.enable(server.url);
    await eventually(() => peer.signaling.state.error?.type).toBe("server_unreachable");
    expect(peer.signaling.state.state).toBe("connecting");
    expect(peer.signaling.state.error?.message).toContain("ECONNREFUSED");
    const request = peer.signaling.request("keys.status", {});
    await server.restart();
    expect(await request).toMatchObject({ ok: true });
    expect(peer.signaling.state).toEqual({ state: "connected", url: server.url, error: null });
  });

  it("changes over to another server", async () => {
    const other = await startServer();
    const peer = await connected(createPeer(), server.url);
    const before = peer.signaling.generation;
    expect(peer.signaling.serverId).toBe(server.server.serverId);
    const seen: (string | null)[] = [];
    peer.signaling.onStateChanged(({ state }) => {
      if (state === "connected") seen.push(peer.signaling.serverId);
    });
    peer.signaling.enable(other.url);
    await eventually(() => peer.signaling.state).toMatchObject({ state: "connected", url: other.url });
    expect(peer.signaling.generation).toBeGreaterThan(before);
    // Whoever hears of the connection can already tell which server it is.
    expect(seen).toEqual([other.server.serverId]);
    peer.signaling.dispose();
    await other.dispose();
  });

  it("survives being switched on and off at random", async () => {
    const peer = createPeer();
    for (let i = 0; i < 60; i++) {
      if (i % 3 === 2) peer.signaling.disable();
      else peer.signaling.enable(server.url);
      if (i % 4 === 0) await new Promise((resolve) => setTimeout(resolve, (i * 7) % 23));
    }
    await connected(peer, server.url);
    expect(await peer.signaling.request("keys.status", {})).toMatchObject({ ok: true });
    const health = (await fetch(`http://${server.host}/health`).then((r) => r.json())) as { sessions: number };
    expect(health.sessions).toBe(1);
  });

  it("does not fight with another program over one profile", async () => {
    const first = await connected(createPeer(), server.url);
    const second = await connected(createPeer(first.identity), server.url);
    await eventually(() => first.states.some(({ error }) => error?.type === "server_refused")).toBe(true);
    await until(first, "connected");
    await until(second, "connecting");
    expect(second.signaling.state.error?.message).toContain("runs twice");
  });
});

describe("requests", () => {
  it("end with a typed error when no server comes", async () => {
    const peer = createPeer();
    const request = peer.signaling.request("keys.status", {});
    peer.env.clock.advance(SERVER_REQUEST_TIMEOUT_MS + 1);
    expect(await request).toMatchObject({ ok: false, error: { type: "server_unreachable" } });
    const open = peer.signaling.request("keys.status", {});
    peer.signaling.dispose();
    expect(await open).toMatchObject({ ok: false, error: { type: "server_unreachable" } });
    expect(await peer.signaling.request("keys.status", {})).toMatchObject({ ok: false });
  });

  it("go again over a new connection and happen once", async () => {
    const recipient = await RawClient.loggedIn(server.url);
    const peer = await connected(createPeer(), server.url);
    const put = () =>
      peer.signaling.request("mailbox.put", {
        to: recipient.identity.userId,
        id: freshEnvelopeId(),
        sealed: sealed(),
      });
    const cutter = (async () => {
      for (let i = 0; i < 5; i++) {
        await new Promise((resolve) => setTimeout(resolve, 60));
        // A second login of the same device cuts the first off in the middle of its requests.
        (await RawClient.loggedIn(server.url, peer.identity)).close();
      }
    })();
    // Not all at once: the last of 300 would wait for longer than a request may on a busy machine.
    const results: Awaited<ReturnType<typeof put>>[] = [];
    while (results.length < 300) results.push(...(await Promise.all(Array.from({ length: 50 }, put))));
    await cutter;
    // Stored once each: a repeat gets the answer of the first.
    expect(results.filter((result) => !result.ok || !result.value.stored)).toEqual([]);
    expect(peer.generations.length).toBeGreaterThan(1);
    recipient.close();
    const health = await fetch(`http://${server.host}/health`).then((response) => response.json());
    expect(health).toMatchObject({ envelopes: 300 });
  });

  it("rest when the server asks for patience, and then succeed", async () => {
    await server.dispose();
    server = await startServer({ requestsPerSecond: 40, requestsBurst: 40 });
    const peer = await connected(createPeer(), server.url);
    const results = await Promise.all(Array.from({ length: 150 }, () => peer.signaling.request("keys.status", {})));
    expect(results.filter((result) => !result.ok)).toEqual([]);
  });
});

describe("giving up", () => {
  /** A server that lets people in and then answers nothing. */
  const silent = async (): Promise<{ url: string; requests: string[]; close(): Promise<void> }> => {
    const http = createHttpServer();
    const io = new Server(http, { transports: ["websocket"] });
    const requests: string[] = [];
    io.on("connection", (socket: Socket) => {
      socket.on("request", (request: { name: string }, answer: (value: unknown) => void) => {
        requests.push(request.name);
        if (request.name === "login") answer({ ok: true, value: { serverTimeMs: 0, pendingEnvelopes: 0 } });
      });
      socket.emit("challenge", { nonce: bytes(32), serverId: "silent" });
    });
    await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
    const { port } = http.address() as AddressInfo;
    return { url: `ws://127.0.0.1:${port}`, requests, close: () => io.close() };
  };
  const unreachable = { ok: false, error: { type: "server_unreachable" } };

  it("ends requests on their way at once, and refuses new ones until it is enabled again", async () => {
    const mute = await silent();
    const peer = await connected(createPeer(), mute.url);
    const pending = Array.from({ length: 100 }, () => peer.signaling.request("keys.status", {}));
    await eventually(() => mute.requests.length).toBeGreaterThan(1);
    const advanced = peer.env.clock.now();
    peer.signaling.disable();
    for (const answer of await Promise.all(pending)) expect(answer).toMatchObject(unreachable);
    expect(await peer.signaling.request("keys.status", {})).toMatchObject(unreachable);
    expect(peer.env.clock.now() - advanced).toBeLessThan(SERVER_REQUEST_TIMEOUT_MS / 2);
    await connected(peer, server.url);
    expect(await peer.signaling.request("keys.status", {})).toMatchObject({ ok: true });
    await mute.close();
  });

  it("does not take requests for one server to another", async () => {
    const mute = await silent();
    const peer = await connected(createPeer(), mute.url);
    const asked = peer.signaling.request("invites.create", { inviteId: bytes(16), commitment: bytes(32) });
    peer.signaling.enable(server.url);
    expect(await asked).toMatchObject(unreachable);
    await until(peer, "connected");
    expect(await peer.signaling.request("keys.status", {})).toMatchObject({ ok: true });
    await mute.close();
  });
});

describe("envelopes", () => {
  const put = (sender: Peer, to: Peer, id = freshEnvelopeId()) =>
    sender.signaling.request("mailbox.put", { to: to.identity.userId, id, sealed: sealed(50) });

  it("are handed over one at a time, in order, and deleted after `ack` only", async () => {
    const alice = await connected(createPeer(), server.url);
    const bob = await connected(createPeer(), server.url);
    bob.signaling.disable();
    await until(bob, "disconnected");
    const ids = Array.from({ length: 200 }, freshEnvelopeId);
    for (const id of ids) expect(await put(alice, bob, id)).toMatchObject({ ok: true });

    const handed: string[] = [];
    let active = 0;
    let most = 0;
    const refusedOnce = new Set(ids.slice(0, 1));
    bob.signaling.setEnvelopeHandler(async ({ id }) => {
      most = Math.max(most, ++active);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 2));
      active--;
      if (refusedOnce.delete(id)) return "retry";
      handed.push(id);
      return "ack";
    });
    await connected(bob, server.url);
    await eventually(() => refusedOnce.size).toBe(0);
    expect(handed).toEqual([]);
    bob.signaling.disable();
    await until(bob, "disconnected");
    await connected(bob, server.url);
    await eventually(() => handed.length).toBe(200);
    expect(handed).toEqual(ids);
    expect(most).toBe(1);
    const health = () => fetch(`http://${server.host}/health`).then((response) => response.json());
    await eventually(health).toMatchObject({ envelopes: 0 });
  });

  it("of one sender that cannot be taken in stop nobody else's, and come in order when asked for again", async () => {
    const bob = await connected(createPeer(), server.url);
    const [stuck, free] = [await connected(createPeer(), server.url), await connected(createPeer(), server.url)];
    const handed = new Map<string, string[]>([stuck, free].map((peer) => [peer.identity.userId, []]));
    let blocked = true;
    let refused = 0;
    bob.signaling.setEnvelopeHandler(async ({ id, from }) => {
      if (blocked && from === stuck.identity.userId) {
        refused++;
        return "retry";
      }
      handed.get(from)?.push(id);
      return "ack";
    });
    const ids = Array.from({ length: 2 * MAILBOX_PUSH_WINDOW + 10 }, freshEnvelopeId);
    for (const id of ids) expect(await put(stuck, bob, id)).toMatchObject({ ok: true });
    await eventually(() => refused).toBeGreaterThan(0);
    const others = Array.from({ length: 2 * MAILBOX_PUSH_WINDOW + 10 }, freshEnvelopeId);
    for (const id of others) expect(await put(free, bob, id)).toMatchObject({ ok: true });
    await eventually(() => handed.get(free.identity.userId)).toEqual(others);
    expect(handed.get(stuck.identity.userId)).toEqual([]);
    // It is tried again by itself, with a growing rest.
    const before = refused;
    await eventually(() => {
      bob.env.clock.advance(ENVELOPE_RETRY_BASE_MS);
      return refused;
    }).toBeGreaterThan(before + 1);
    blocked = false;
    bob.signaling.askAgain(stuck.identity.userId);
    await eventually(() => handed.get(stuck.identity.userId)?.length).toBe(ids.length);
    expect(handed.get(stuck.identity.userId)).toEqual(ids);
    expect(handed.get(free.identity.userId)).toEqual(others);
    const health = () => fetch(`http://${server.host}/health`).then((response) => response.json());
    await eventually(health).toMatchObject({ envelopes: 0 });
  }, 60_000);

  it("wait for a handler that comes late, and reach it once each over breaks of either side", async () => {
    const alice = await connected(createPeer(), server.url);
    const bob = await connected(createPeer(), server.url);
    const seen: EnvelopePush["id"][] = [];
    const ids = Array.from({ length: 120 }, freshEnvelopeId);
    const sending = (async () => {
      for (const id of ids) expect(await put(alice, bob, id)).toMatchObject({ ok: true });
    })();
    await new Promise((resolve) => setTimeout(resolve, 50));
    bob.signaling.setEnvelopeHandler(async ({ id }) => {
      // Above, an envelope that was handed over before is recognised.
      if (!seen.includes(id)) seen.push(id);
      return "ack";
    });
    for (let i = 0; i < 4; i++) {
      await new Promise((resolve) => setTimeout(resolve, 40));
      if (i % 2 === 0) await server.restart();
      else (await RawClient.loggedIn(server.url, bob.identity)).close();
    }
    await sending;
    await eventually(() => seen.length).toBe(ids.length);
    expect(seen).toEqual(ids);
  }, 60_000);
});

describe("pushes", () => {
  it("bring signals, presence and low keys", async () => {
    const alice = await connected(createPeer(), server.url);
    const bob = await connected(createPeer(), server.url);
    const signals: unknown[] = [];
    const presence: unknown[] = [];
    const low: unknown[] = [];
    bob.signaling.onSignal((signal) => signals.push(signal));
    alice.signaling.onPresence((change) => presence.push(change));
    bob.signaling.onKeysLow((left) => low.push(left));
    await alice.signaling.request("presence.watch", { userIds: [bob.identity.userId] });
    await bob.signaling.request("presence.watch", { userIds: [alice.identity.userId] });
    await eventually(() => presence).toEqual([{ userId: bob.identity.userId, online: true }]);
    const signal = sealed(70);
    const sent = await alice.signaling.request("signal.send", { to: bob.identity.userId, sealed: signal });
    expect(sent).toEqual({ ok: true, value: { delivered: true } });
    expect(signals).toEqual([{ from: alice.identity.userId, sealed: signal, generation: bob.signaling.generation }]);
    await bob.signaling.request("keys.publish", { keys: deviceKeys(bob.identity), ...oneTimeKeys(1) });
    await alice.signaling.request("keys.fetch", { userId: bob.identity.userId });
    await eventually(() => low).toEqual([{ oneTimeEc: 0, oneTimeKyber: 0 }]);
  });

  it("never bring the log anything but ids, counts and times", async () => {
    const canary = "canary-5c1e";
    const body = new Uint8Array(Buffer.from(canary.repeat(4)));
    const alice = await connected(createPeer(), server.url);
    const bob = await connected(createPeer(), server.url);
    bob.signaling.setEnvelopeHandler(async () => "ack");
    await alice.signaling.request("presence.watch", { userIds: [bob.identity.userId] });
    await bob.signaling.request("presence.watch", { userIds: [alice.identity.userId] });
    await alice.signaling.request("signal.send", { to: bob.identity.userId, sealed: { kind: "message", body } });
    await alice.signaling.request("mailbox.put", {
      to: bob.identity.userId,
      id: freshEnvelopeId(),
      sealed: { kind: "prekey", body },
    });
    await server.restart();
    await until(bob, "connected");
    const log = [...alice.env.log.lines, ...bob.env.log.lines, ...server.env.log.lines].join("\n");
    expect(log).toContain("logged in");
    expect(log).toContain(server.server.serverId);
    const signature = Buffer.from(alice.identity.accountKey).toString("base64url");
    for (const secret of [canary, Buffer.from(canary).toString("base64url"), signature, alice.identity.userId]) {
      expect(log).not.toContain(secret);
    }
  });
});

describe("a hostile server", () => {
  /** Answers every login and lets the test do the rest. */
  const hostile = async (answer: (name: string) => unknown, connect: (socket: Socket) => void = () => undefined) => {
    const http = createHttpServer();
    const io = new Server(http, { transports: ["websocket"] });
    const sockets: Socket[] = [];
    io.on("connection", (socket) => {
      sockets.push(socket);
      socket.emit("challenge", { nonce: bytes(32), serverId: "hostile" });
      socket.on("request", ({ name }: { name: string }, reply: (value: unknown) => void) =>
        reply(name === "login" ? { ok: true, value: { serverTimeMs: 1, pendingEnvelopes: 0 } } : answer(name)),
      );
      connect(socket);
    });
    await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
    const { port } = http.address() as AddressInfo;
    return { url: `ws://127.0.0.1:${port}`, sockets, close: () => io.close() };
  };

  it("gets nowhere with malformed answers", async () => {
    const values = [undefined, null, 1, {}, { ok: true }, { ok: "yes" }, { ok: true, value: { published: 1 } }];
    let next = 0;
    const evil = await hostile(() => values[next++ % values.length]);
    const peer = await connected(createPeer(), evil.url);
    for (const _ of values) {
      expect(await peer.signaling.request("keys.status", {})).toMatchObject({
        ok: false,
        error: { type: "bad_answer" },
      });
    }
    peer.signaling.dispose();
    await evil.close();
  });

  it("gets nowhere with frames and pushes of relays that do not exist, and lines hear only what is theirs", async () => {
    const evil = await hostile(() => ({ ok: true, value: {} }));
    const peer = await connected(createPeer(), evil.url);
    const heard: unknown[] = [];
    const relayId = newRelayId();
    const line = peer.signaling.relay.open(relayId, createIdentity().userId, {
      opened: () => heard.push("opened"),
      credit: (grantedBytes) => heard.push(grantedBytes),
      frame: (body) => heard.push(new Uint8Array(body)),
      closed: (reason) => heard.push(reason),
    });
    await eventually(() => heard).toEqual(["opened"]);
    const [socket] = evil.sockets;
    for (const frame of [undefined, null, "x", {}, bytes(0), bytes(16), bytes(17), bytes(400_000)])
      socket?.emit("relay", frame);
    socket?.emit("relay");
    for (const value of [
      null,
      {},
      { relayId },
      { relayId, grantedBytes: -1 },
      { relayId: newRelayId(), grantedBytes: 5 },
    ])
      socket?.emit("push", { name: "relayCredit", value });
    for (const value of [null, { relayId }, { relayId, reason: "No!" }, { relayId: newRelayId(), reason: "other" }])
      socket?.emit("push", { name: "relayClosed", value });
    const frame = bytes(40);
    socket?.emit("push", { name: "relayCredit", value: { relayId, grantedBytes: 7 } });
    socket?.emit("relay", encodeRelayFrame(relayId, frame));
    socket?.emit("push", { name: "relayClosed", value: { relayId, reason: "enough" } });
    socket?.emit("relay", encodeRelayFrame(relayId, frame));
    socket?.emit("push", { name: "relayClosed", value: { relayId, reason: "again" } });
    socket?.emit("push", { name: "keysLow", value: { oneTimeEc: 1, oneTimeKyber: 1 } });
    await new Promise<void>((resolve) => peer.signaling.onKeysLow(() => resolve()));
    expect(heard).toEqual(["opened", 7, frame, "enough"]);
    line.send(bytes(10));
    line.close();
    expect(peer.signaling.state.state).toBe("connected");
    peer.signaling.dispose();
    await evil.close();
  });

  it("gets nowhere with malformed pushes, and good ones still arrive", async () => {
    const evil = await hostile(() => ({ ok: true, value: { deleted: 1 } }));
    const peer = await connected(createPeer(), evil.url);
    const events: unknown[] = [];
    const handled: unknown[] = [];
    peer.signaling.onSignal((signal) => events.push(signal));
    peer.signaling.onPresence((presence) => events.push(presence));
    peer.signaling.onKeysLow((low) => events.push(low));
    peer.signaling.setEnvelopeHandler(async (envelope) => {
      handled.push(envelope.id);
      return "ack";
    });
    const [socket] = evil.sockets;
    for (const name of ["envelope", "signal", "presence", "keysLow", "other", "__proto__", 3]) {
      for (const value of [undefined, null, [], {}, { from: "x" }, { userId: "x", online: 1 }, { sealed: sealed() }]) {
        socket?.emit("push", { name, value });
      }
    }
    for (const push of [null, 1, [], "x"]) socket?.emit("push", push);
    socket?.emit("challenge", { nonce: bytes(32), serverId: "again" });
    socket?.emit("challenge", { nonce: "short" });
    const userId = createIdentity().userId;
    socket?.emit("push", { name: "presence", value: { userId, online: true } });
    await eventually(() => events).toEqual([{ userId, online: true }]);
    // More envelopes than a window are not taken in, while the first is still being handled.
    const envelope = () => ({ id: freshEnvelopeId(), from: userId, sealed: sealed(), receivedAtMs: 1 });
    for (let i = 0; i < 20; i++) socket?.emit("push", { name: "envelope", value: envelope() });
    await eventually(() => handled.length).toBe(20);
    expect(peer.signaling.state.state).toBe("connected");
    peer.signaling.dispose();
    await evil.close();
  });

  it("that never answers the login is given up, with a sentence", async () => {
    const http = createHttpServer();
    const io = new Server(http, { transports: ["websocket"] });
    await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
    const { port } = http.address() as AddressInfo;
    const peer = createPeer();
    peer.signaling.enable(`ws://127.0.0.1:${port}`);
    await eventually(() => io.engine.clientsCount).toBe(1);
    peer.env.clock.advance(SERVER_REQUEST_TIMEOUT_MS * 2);
    await eventually(() => peer.signaling.state.error?.message).toContain("does not answer");
    expect(peer.signaling.state.state).toBe("connecting");
    peer.signaling.dispose();
    await io.close();
  });
});

it("takes the largest page of a share list that there is, and stays connected", async () => {
  const peer = await connected(createPeer(), server.url);
  const { identity, signaling } = peer;
  const record = fileRecord(identity);
  const friend = createIdentity().userId;
  const fileId = v.parse(FileIdSchema, record.fileId);
  const operations = [firstOperation(identity, fileId, [])];
  let list = emptyList(fileId, identity.userId, logCrypto);
  for (let version = 1; version <= SHARE_OPERATIONS_PAGE; version += 1) {
    const last = operations[version - 1] as ShareOperation;
    const next = append(list, last, logCrypto);
    if (!next.ok) throw new Error(next.error.type);
    list = next.value;
    const kind = version % 2 === 0 ? "revoke" : "add";
    if (version < SHARE_OPERATIONS_PAGE) operations.push(operationOn(list, identity, { kind, userIds: [friend] }));
  }
  expect(await signaling.request("files.register", { record, operations })).toEqual({
    ok: true,
    value: { version: SHARE_OPERATIONS_PAGE },
  });
  const answer = await signaling.request("files.operations", { fileId, since: 0 });
  expect(answer.ok && answer.value.operations.length).toBe(SHARE_OPERATIONS_PAGE);
  expect(peer.generations).toHaveLength(1);
});
