import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { RATE_TURN_FETCHES, TURN_CREDENTIAL_TTL_MS } from "#shared/base/limits.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import { createSignaling } from "../../src-main/signaling/signaling-client.ts";
import { turnCredentials } from "../../src-server/turn.ts";
import { temporaryFolder } from "../support/files.ts";
import {
  createIdentity,
  eventually,
  generous,
  RawClient,
  startServer,
  type TestServer,
  testEnv,
} from "../support/rendezvous.ts";
import { startServerProcess } from "../support/server-process.ts";

const SECRET = "secret-canary-5e7d";
const ice = {
  stunUrls: ["stun:stun.example.org:3478"],
  turn: { urls: ["turn:turn.example.org:3478", "turn:other.example.org:3479"], secret: SECRET },
};

let server: TestServer | undefined;
afterEach(async () => {
  await server?.dispose();
  server = undefined;
});

describe("TURN credentials", () => {
  it("are those of the TURN REST API, as coturn computes them", () => {
    // printf '1700000000:AAECAw' | openssl dgst -sha1 -hmac 'north' -binary | base64
    expect(turnCredentials("north", 1_700_000_000_999, Uint8Array.of(0, 1, 2, 3))).toEqual({
      username: "1700000000:AAECAw",
      password: "usDxSdYSjSPq2EknQqCQ+MrNbzM=",
    });
  });

  it("are given to whoever is logged in, each its own, and tell nothing about the account", async () => {
    server = await startServer(generous, false, { ice });
    const { client: stranger } = await RawClient.challenged(server.url);
    expect(await stranger.outcome("turn", {})).toBe("not_logged_in");
    const [alice, bob] = [await RawClient.loggedIn(server.url), await RawClient.loggedIn(server.url)];
    const answers = [await alice.must("turn", {}), await alice.must("turn", {}), await bob.must("turn", {})];
    const opaque = new Set<string>();
    for (const { stunUrls, turn } of answers) {
      expect({ stunUrls, urls: turn?.urls }).toEqual({ stunUrls: ice.stunUrls, urls: ice.turn.urls });
      const [, expiresAt = "", random = ""] = /^(\d+):([A-Za-z0-9_-]{22})$/.exec(turn?.username ?? "") ?? [];
      const leftMs = Number(expiresAt) * 1000 - server.env.clock.now();
      expect(Math.abs(leftMs - TURN_CREDENTIAL_TTL_MS)).toBeLessThan(60_000);
      expect(turn?.expiresInMs).toBe(TURN_CREDENTIAL_TTL_MS);
      expect(turn?.password).toBe(
        createHmac("sha1", SECRET)
          .update(turn?.username ?? "")
          .digest("base64"),
      );
      opaque.add(random);
    }
    expect(opaque.size).toBe(3);
    for (const client of [stranger, alice, bob]) client.close();
  });

  it("are not given endlessly, and where there is no TURN server there are none", async () => {
    server = await startServer(generous, false, { ice: { ...ice, turn: null } });
    const client = await RawClient.loggedIn(server.url);
    expect(await client.must("turn", {})).toEqual({ stunUrls: ice.stunUrls, turn: null });
    client.close();
    await server.dispose();
    server = await startServer(generous, false, { ice });
    const [alice, bob] = [await RawClient.loggedIn(server.url), await RawClient.loggedIn(server.url)];
    const outcomes = [];
    for (let i = 0; i <= RATE_TURN_FETCHES; i++) outcomes.push(await alice.outcome("turn", {}));
    expect(outcomes).toEqual([...Array(RATE_TURN_FETCHES).fill("ok"), "rate_limited"]);
    expect(await bob.outcome("turn", {})).toBe("ok");
    for (const other of [alice, bob]) other.close();
  });

  it("come from the flags of the program, which never writes the secret anywhere", async () => {
    const folder = await temporaryFolder();
    const secretFile = join(folder.path, "turn-secret");
    mkdirSync(folder.path, { recursive: true });
    writeFileSync(secretFile, `${SECRET}\n`);
    const flags = ["--stun-url", "stun:a:1", "--turn-url", "turn:b:2", "--turn-secret-file", secretFile];
    const running = await startServerProcess(join(folder.path, "data"), "--log-level", "trace", ...flags);
    try {
      const client = await RawClient.loggedIn(running.url);
      const { stunUrls, turn } = await client.must("turn", {});
      expect([stunUrls, turn?.urls]).toEqual([["stun:a:1"], ["turn:b:2"]]);
      const password = createHmac("sha1", SECRET)
        .update(turn?.username ?? "")
        .digest("base64");
      expect(turn?.password).toBe(password);
      expect(await running.end("SIGTERM")).toBe(0);
      for (const secret of [SECRET, password, turn?.username ?? ""]) expect(running.log()).not.toContain(secret);
    } finally {
      await running.end("SIGKILL");
      await folder.dispose();
    }
  });
});

const TURNSERVER = "/usr/bin/turnserver";

/** A UDP port that was free a moment ago. */
const freePort = async (): Promise<number> => {
  const socket = createSocket("udp4").bind(0, "127.0.0.1");
  await once(socket, "listening");
  const { port } = socket.address();
  socket.close();
  return port;
};

describe.skipIf(!existsSync(TURNSERVER))("coturn (skipped where it is not installed)", () => {
  it("grants an allocation for what the client makes of the credentials", async () => {
    const folder = await temporaryFolder();
    const port = await freePort();
    const local = ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", `--listening-port=${port}`, "--realm=weir"];
    const files = [`--pidfile=${join(folder.path, "pid")}`, `--userdb=${join(folder.path, "db")}`, "--log-file=stdout"];
    const auth = [
      "--use-auth-secret",
      `--static-auth-secret=${SECRET}`,
      "--no-cli",
      "--no-tls",
      "--no-dtls",
      "--no-tcp",
    ];
    const coturn = spawn(TURNSERVER, ["-n", "--verbose", ...local, ...files, ...auth], { cwd: folder.path });
    let log = "";
    for (const stream of [coturn.stdout, coturn.stderr]) {
      stream.on("data", (part: Buffer) => {
        log += part.toString();
      });
    }
    const logged = (text: string): Promise<void> =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (log.includes(text)) resolve();
        };
        coturn.stdout.on("data", look);
        coturn.once("exit", (code) => reject(new Error(`coturn ended (${code}): ${log}`)));
        look();
      });
    const env = testEnv();
    const signaling = createSignaling({ env, identity: createIdentity() });
    const driver = createRtcDriver(env);
    try {
      await logged("UDP listener opened");
      const turnUrl = `turn:127.0.0.1:${port}`;
      server = await startServer(generous, false, { ice: { stunUrls: [], turn: { urls: [turnUrl], secret: SECRET } } });
      signaling.enable(server.url);
      const list = await signaling.iceServers();
      if (!list.ok) throw new Error(list.error.message);
      const relayed = new Promise<string>((resolve) => {
        const opened = driver.open({ iceServers: list.value, bulkLowBytes: 0 }, (event) => {
          if (event.type === "localCandidate" && event.candidate.includes("typ relay")) resolve(event.candidate);
        });
        if (opened.ok) opened.value.createOffer();
      });
      expect(await relayed).toContain("127.0.0.1");
      const username = decodeURIComponent(/^turn:([^:]+):/.exec(list.value[0] ?? "")?.[1] ?? "");
      await logged(`user <${username}>: incoming packet ALLOCATE processed, success`);
    } finally {
      driver.dispose();
      signaling.dispose();
      coturn.removeAllListeners("exit");
      const ended = once(coturn, "close");
      coturn.kill("SIGKILL");
      await ended;
      await folder.dispose();
    }
  });
});

describe("the client's list of STUN and TURN servers", () => {
  it("is fetched once, again shortly before it ends, and is that of the server in use", async () => {
    server = await startServer(generous, false, { ice });
    const env = testEnv();
    const signaling = createSignaling({ env, identity: createIdentity() });
    const requests = () => fetch(`${server?.url.replace("ws:", "http:")}/health`).then((answer) => answer.json());
    try {
      signaling.enable(server.url);
      const [first, second] = await Promise.all([signaling.iceServers(), signaling.iceServers()]);
      if (!first.ok || !second.ok) throw new Error("the server has a list");
      expect(second.value).toBe(first.value);
      const [stun, turn = "", other = ""] = first.value;
      expect(stun).toBe("stun:stun.example.org:3478");
      const [, user = "", password = "", host] = /^turn:([^:@]+):([^:@]+)@(.+)$/.exec(turn) ?? [];
      expect(host).toBe("turn.example.org:3478");
      expect(other).toBe(`turn:${user}:${password}@other.example.org:3479`);
      expect(decodeURIComponent(password)).toBe(
        createHmac("sha1", SECRET).update(decodeURIComponent(user)).digest("base64"),
      );
      const { requests: before } = (await requests()) as { requests: number };
      expect(await signaling.iceServers()).toEqual(first);
      expect(((await requests()) as { requests: number }).requests).toBe(before);

      env.clock.advance(TURN_CREDENTIAL_TTL_MS - 30 * 60_000);
      const renewed = await signaling.iceServers();
      expect(renewed.ok && renewed.value[1] !== turn).toBe(true);

      // Without the server the list is good for as long as the credentials are, and then it is an error.
      await server.stop();
      await eventually(() => signaling.state.state).toBe("connecting");
      env.clock.advance(TURN_CREDENTIAL_TTL_MS - 30 * 60_000);
      signaling.disable();
      expect(await signaling.iceServers()).toEqual(renewed);
      env.clock.advance(60 * 60_000);
      expect(await signaling.iceServers()).toMatchObject({ ok: false, error: { type: "server_unreachable" } });
    } finally {
      signaling.dispose();
    }
  });
});
