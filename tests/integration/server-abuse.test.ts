import { connect } from "node:net";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import WebSocket from "ws";
import { SERVER_MESSAGE_BYTES_MAX } from "#shared/base/limits.ts";
import { requests } from "#shared/rendezvous/protocol.ts";
import {
  bytes,
  createIdentity,
  eventually,
  fileRecord,
  freshEnvelopeId,
  generous,
  RawClient,
  registration,
  sealed,
  startServer,
  type TestServer,
} from "../support/rendezvous.ts";

let server: TestServer;
beforeEach(async () => {
  server = await startServer(generous);
});
afterEach(async () => {
  // Whatever was done to it, it still serves.
  const client = await RawClient.loggedIn(server.url);
  expect(await client.outcome("keys.status", {})).toBe("ok");
  client.close();
  const health = await fetch(`http://${server.host}/health`).then((response) => response.json());
  expect(health).toMatchObject({ ok: true, failures: 0 });
  await server.dispose();
});

interface Health {
  sessions: number;
}

/** Values of the kinds that occur in requests, so that random bodies get past the first check now and then. */
const field = fc.oneof(
  fc.anything({ withNullPrototype: false, withBigInt: false, withDate: false, withMap: false, withSet: false }),
  fc.uint8Array({ maxLength: 70 }).map((data) => Buffer.from(data)),
  fc.constantFrom(0, 1, -1, 1.5, Number.MAX_SAFE_INTEGER, "", "x", null, [], {}, bytes(32), bytes(33), bytes(64)),
  fc.constantFrom(createIdentity().userId, freshEnvelopeId(), "ABCDEF", true, false),
  fc.record({ kind: fc.constantFrom("message", "prekey", "other"), body: fc.constantFrom(bytes(1), bytes(0), "text") }),
);

const names = Object.keys(requests) as (keyof typeof requests)[];
const fieldsOf = (name: keyof typeof requests): string[] => Object.keys(requests[name].input.entries);

describe("malformed requests", () => {
  it.each(names)("%s: 500 random bodies get a typed refusal or an answer, never `internal`", async (name) => {
    let client = await RawClient.loggedIn(server.url);
    const shaped = fc.dictionary(fc.constantFrom(...fieldsOf(name), "extra"), field);
    await fc.assert(
      fc.asyncProperty(fc.oneof(shaped, field), async (input) => {
        if (!client.socket.connected) client = await RawClient.loggedIn(server.url);
        const answer = await client.send({ key: freshEnvelopeId(), name, input });
        if (answer.ok) return;
        expect(answer.error.type).toMatch(/^[a-z_]+$/);
        expect(answer.error.type).not.toBe("internal");
        expect(answer.error.message).toMatch(/^[A-Z].*\.$/);
      }),
      { numRuns: 500 },
    );
    client.close();
  });

  it("refuses bodies without a key, name or object, and unknown names", async () => {
    const client = await RawClient.loggedIn(server.url);
    const key = freshEnvelopeId();
    for (const body of [null, 1, "x", [], {}, { key }, { name: "keys.status" }, { key: "k", name: "keys.status" }]) {
      expect(await client.send(body)).toMatchObject({ ok: false, error: { type: "bad_request" } });
    }
    for (const name of ["", "nothing", "__proto__", "constructor", "toString", "keys.status "]) {
      expect(await client.send({ key, name, input: {} })).toMatchObject({ error: { type: "unknown_request" } });
    }
    client.close();
  });

  it("ends connections that speak something else", async () => {
    const asks: ((client: RawClient) => void)[] = [
      (client) => client.socket.emit("request", { key: freshEnvelopeId(), name: "keys.status", input: {} }),
      (client) => client.socket.emit("another", {}, () => undefined),
      (client) => client.socket.emit("request", {}, {}, {}, () => undefined),
      (client) => client.socket.io.engine.write("garbage"),
      (client) => client.socket.io.engine.write("2"),
      (client) => {
        client.socket.io.engine.write('51-["request",{"_placeholder":true,"num":9}]');
        client.socket.io.engine.write(Buffer.from([1]) as never);
      },
      (client) => client.socket.io.engine.write("5999999-[]"),
      (client) => client.socket.io.engine.write(`2["request",${"[".repeat(100_000)}${"]".repeat(100_000)}]`),
    ];
    for (const ask of asks) {
      const client = await RawClient.loggedIn(server.url);
      ask(client);
      await client.closed();
    }
  });

  it("survives deep nesting with binary parts", async () => {
    const client = await RawClient.loggedIn(server.url);
    client.socket.on("disconnect", () => undefined);
    client.socket.io.engine.write(
      `51-7["request",${"[".repeat(200_000)}{"_placeholder":true,"num":0}${"]".repeat(200_000)}]`,
    );
    client.socket.io.engine.write(Buffer.from([1]) as never);
    await Promise.race([client.closed(), new Promise((resolve) => setTimeout(resolve, 500))]);
    client.close();
  });

  it("ends connections that send more than fits", async () => {
    const client = await RawClient.loggedIn(server.url);
    const put = { to: client.identity.userId, id: freshEnvelopeId() };
    // Too large for an envelope, not for a message.
    expect(await client.outcome("mailbox.put", { ...put, sealed: sealed(100_000) })).toBe("bad_request");
    const lost = client.request("mailbox.put", { ...put, sealed: sealed(SERVER_MESSAGE_BYTES_MAX) });
    await expect(lost).rejects.toThrow();
  });

  it("bounds a packet as a whole, also before the login", async () => {
    const { client } = await RawClient.challenged(server.url);
    // Each part is allowed; together they would be a hundred times what a message may have.
    const parts = Array.from({ length: 200 }, () => bytes(SERVER_MESSAGE_BYTES_MAX / 2));
    client.socket.emit("request", parts, () => undefined);
    await client.closed();
  });
});

describe("floods", () => {
  it("slow one account down and leave the others alone", async () => {
    await server.dispose();
    server = await startServer({ requestsBurst: 50, requestsPerSecond: 10 });
    const flooder = await RawClient.loggedIn(server.url);
    const other = await RawClient.loggedIn(server.url);
    const answers = await Promise.all(Array.from({ length: 200 }, () => flooder.request("keys.status", {})));
    const refused = answers.flatMap((answer) => (answer.ok ? [] : [answer.error]));
    expect(refused.length).toBeGreaterThan(100);
    for (const error of refused) {
      expect(error).toMatchObject({ type: "rate_limited", retryAfterMs: expect.any(Number) });
      expect(error.retryAfterMs).toBeLessThanOrEqual(1000);
    }
    expect(await other.outcome("keys.status", {})).toBe("ok");
    flooder.close();
    other.close();
  });

  it("of answers to a client that does not read end its connection", async () => {
    const client = await RawClient.loggedIn(server.url);
    const members = Array.from({ length: 1000 }, () => createIdentity().userId);
    const record = fileRecord(client.identity);
    await client.must("files.register", registration(client.identity, record, members));
    // 35 KB an answer, and nobody reads.
    const transport = client.socket.io.engine.transport as unknown as { ws: { _socket: { pause(): void } } };
    transport.ws._socket.pause();
    const sessions = async (): Promise<number> => {
      for (let i = 0; i < 200; i++) {
        const ask = { key: freshEnvelopeId(), name: "files.get", input: { fileId: record.fileId } };
        client.socket.emit("request", ask, () => undefined);
      }
      const health = (await fetch(`http://${server.host}/health`).then((response) => response.json())) as Health;
      return health.sessions;
    };
    await eventually(sessions).toBe(0);
    client.close();
  });

  it("does not let a client that does not read hold up the end of the server", async () => {
    const client = await RawClient.loggedIn(server.url);
    const transport = client.socket.io.engine.transport as unknown as { ws: { _socket: { pause(): void } } };
    transport.ws._socket.pause();
    await server.restart();
    client.close();
  }, 10_000);
});

describe("raw connections", () => {
  it("garbage instead of HTTP, half requests and wrong upgrades do no harm", async () => {
    const { hostname, port } = new URL(server.url);
    for (const text of [
      "\0\0\0\0",
      "GET / HT",
      "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n",
    ]) {
      const socket = connect(Number(port), hostname);
      socket.on("error", () => undefined);
      socket.resume();
      socket.end(text);
      await new Promise((resolve) => socket.once("close", resolve));
    }
    for (const path of [
      "/",
      "/socket.io/",
      "/socket.io/?EIO=3&transport=websocket",
      "/socket.io/?EIO=4&transport=websocket&sid=x",
    ]) {
      const socket = new WebSocket(`${server.url}${path}`);
      await new Promise((resolve) => {
        socket.once("error", resolve);
        socket.once("close", resolve);
        socket.once("message", () => socket.close());
      });
    }
  });

  it("another namespace or none gets no challenge", async () => {
    const socket = new WebSocket(`${server.url}/socket.io/?EIO=4&transport=websocket`);
    const heard: string[] = [];
    socket.on("message", (data) => heard.push(String(data)));
    await new Promise((resolve) => socket.once("open", resolve));
    socket.send("40/admin,");
    await eventually(() => heard.some((text) => text.startsWith("44/admin,"))).toBe(true);
    expect(heard.join()).not.toContain("challenge");
    socket.close();
  });
});
