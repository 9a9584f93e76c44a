import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createServer, StartError } from "../../src-server/server.ts";
import { realEnv, temporaryFolder } from "../support/files.ts";
import {
  bytes,
  deviceKeys,
  fileRecord,
  freshEnvelopeId,
  oneTimeKeys,
  RawClient,
  registration,
  sealed,
} from "../support/rendezvous.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let running: ServerProcess | undefined;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(async () => {
  await running?.end("SIGKILL");
  await folder.dispose();
});

const cli = (...args: string[]) =>
  spawnSync(process.execPath, ["src-server/main.ts", ...args], { encoding: "utf8", timeout: 20_000 });

describe("the server as a program", () => {
  it("says where it listens, reports its health, and ends cleanly", async () => {
    running = await startServerProcess(folder.path);
    expect(running.url).toMatch(/^ws:\/\/127\.0\.0\.1:\d+$/);
    const base = running.url.replace("ws:", "http:");
    const client = await RawClient.loggedIn(running.url);
    await client.must("mailbox.put", { to: client.identity.userId, id: freshEnvelopeId(), sealed: sealed(100) });
    const response = await fetch(`${base}/health?x`);
    expect(response.status).toBe(200);
    const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
    expect(await response.json()).toMatchObject({
      ok: true,
      version,
      connections: 1,
      sessions: 1,
      users: 1,
      accounts: 1,
      envelopes: 1,
      envelopeBytes: 100,
      failures: 0,
    });
    expect((await fetch(`${base}/health`, { method: "HEAD" })).status).toBe(200);
    expect((await fetch(`${base}/health`, { method: "POST" })).status).toBe(405);
    for (const path of ["/", "/healthy", "/socket.io.js", "/../server.db"]) {
      expect((await fetch(base + path)).status).toBe(404);
    }
    expect(await running.end("SIGTERM")).toBe(0);
    await client.closed();
    const again = await startServerProcess(folder.path);
    expect(await again.end("SIGINT")).toBe(0);
  });

  it("shows its metrics to this machine, not through a proxy, and elsewhere for the token", async () => {
    running = await startServerProcess(folder.path);
    let metrics = `${running.url.replace("ws:", "http:")}/metrics`;
    const client = await RawClient.loggedIn(running.url);
    await client.outcome("keys.status", {});
    await client.send({ key: freshEnvelopeId(), name: "keys.status\n", input: {} });
    const text = await (await fetch(metrics)).text();
    expect(text).toContain('weir_requests_total{request="login",outcome="ok"} 1');
    expect(text).toContain('weir_requests_total{request="keys.status",outcome="ok"} 1');
    expect(text).toContain('weir_requests_total{request="unknown",outcome="unknown_request"} 1');
    expect(text).toMatch(/^weir_sessions 1$/m);
    expect(text).toMatch(/^weir_cluster_nodes 1$/m);
    expect(text).not.toContain(client.identity.userId);
    const proxied = await fetch(metrics, { headers: { "x-forwarded-for": "192.0.2.1" } });
    expect([proxied.status, await proxied.text()]).toEqual([403, expect.stringContaining("--metrics-token-file")]);
    expect((await fetch(metrics, { method: "POST" })).status).toBe(405);
    client.close();
    await running.end("SIGKILL");

    const token = join(folder.path, "token");
    writeFileSync(token, "north\n");
    running = await startServerProcess(folder.path, "--metrics-token-file", token);
    metrics = `${running.url.replace("ws:", "http:")}/metrics`;
    expect((await fetch(metrics)).status).toBe(401);
    expect((await fetch(metrics, { headers: { authorization: "Bearer south" } })).status).toBe(401);
    expect((await fetch(metrics, { headers: { authorization: "Bearer north" } })).status).toBe(200);
  });

  it("says what is wrong with PostgreSQL or Redis and ends with 1", () => {
    const nowhere = cli("--database", "postgres:///weir?host=/nowhere", "--redis", "unix:///nowhere");
    expect(nowhere.status).toBe(1);
    expect(nowhere.stderr).toContain("Check the address in --database");
  });

  it("explains wrong arguments and ends with 2", () => {
    for (const args of [
      [],
      ["--data"],
      ["--data", ""],
      ["--data", "x", "--port", "70000"],
      ["--data", "x", "--port", "a"],
      ["--bogus"],
      ["more"],
    ]) {
      const { status, stderr, stdout } = cli(...args);
      expect({ args, status }).toEqual({ args, status: 2 });
      expect(stderr).toContain("Usage: npm run -s server");
      expect(stdout).toBe("");
    }
  });

  it("says what is wrong with the folder or the port and ends with 1", async () => {
    running = await startServerProcess(folder.path);
    const inUse = cli("--data", folder.path);
    expect(inUse.status).toBe(1);
    expect(inUse.stderr).toContain("is in use");
    const port = new URL(running.url).port;
    const taken = cli("--data", join(folder.path, "other"), "--port", port);
    expect(taken.status).toBe(1);
    expect(taken.stderr).toContain("Choose another");
    writeFileSync(join(folder.path, "file"), "");
    expect(cli("--data", join(folder.path, "file")).stderr).toContain("cannot be made");
  });

  it("leaves the data of a newer version alone", async () => {
    mkdirSync(folder.path, { recursive: true });
    await (await createServer({ data: folder.path, host: "127.0.0.1", port: 0, env: realEnv })).close();
    const database = new Sqlite(join(folder.path, "server.db"));
    database.exec("INSERT INTO kysely_migration VALUES ('9999-later', '2099-01-01T00:00:00.000Z')");
    database.close();
    const starting = createServer({ data: folder.path, host: "127.0.0.1", port: 0, env: realEnv });
    await expect(starting).rejects.toThrow(StartError);
    await expect(starting).rejects.toThrow("newer version");
  });

  it("keeps its files to itself and its database durable", async () => {
    running = await startServerProcess(folder.path);
    for (const name of readdirSync(folder.path).filter((file) => file.startsWith("server.db"))) {
      expect([name, statSync(join(folder.path, name)).mode & 0o077]).toEqual([name, 0]);
    }
  });

  it("writes neither ciphertext nor codes nor keys to its log, and its database has only what it needs", async () => {
    running = await startServerProcess(folder.path, "--log-level", "trace");
    const client = await RawClient.loggedIn(running.url);
    const canary = Buffer.from("canary-7f3a-canary-7f3a-canary-7f3a");
    const { code } = await client.must("invites.create", { inviteId: bytes(16), commitment: bytes(32) });
    await client.must("keys.publish", { keys: deviceKeys(client.identity), ...oneTimeKeys(2) });
    await client.must("files.register", registration(client.identity, fileRecord(client.identity)));
    const signal = { kind: "message", body: new Uint8Array(canary) } as const;
    const other = await RawClient.loggedIn(running.url);
    await client.must("presence.watch", { userIds: [other.identity.userId] });
    await other.must("presence.watch", { userIds: [client.identity.userId] });
    const sent = await client.must("signal.send", { to: other.identity.userId, sealed: signal });
    expect(sent).toEqual({ delivered: true });
    await client.send({ key: freshEnvelopeId(), name: String(canary), input: { [String(canary)]: String(canary) } });
    await client.send({ key: freshEnvelopeId(), name: "keys.fetch", input: { userId: String(canary) } });
    await running.end("SIGTERM");

    expect(running.log()).toContain("server stopped");
    for (const secret of [canary, canary.toString("base64url").slice(0, 40), canary.toString("hex"), code]) {
      expect(running.log()).not.toContain(String(secret));
    }
    expect(running.log()).not.toContain(client.identity.userId);
    // A signal is handed on and not kept.
    const stored = readdirSync(folder.path).map((name) => readFileSync(join(folder.path, name)));
    for (const content of stored) expect(content.includes(canary)).toBe(false);
  });
});
