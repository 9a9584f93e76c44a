import { createHash } from "node:crypto";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterEach, describe, expect, it } from "vitest";
import {
  DIRECTORY_CLOCK_SKEW_MS,
  DIRECTORY_ENTRIES_PER_DEVICE_MAX,
  DIRECTORY_TTL_MS,
  DIRECTORY_VALUE_BYTES_MAX,
  SERVER_SWEEP_INTERVAL_MS,
} from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import {
  createCandidateDirectory,
  daysToLookUp,
  directoryKey,
  directoryToken,
} from "../../src-main/links/candidate-directory.ts";
import { createSignaling } from "../../src-main/signaling/signaling-client.ts";
import { temporaryFolder } from "../support/files.ts";
import {
  bytes,
  createIdentity,
  generous,
  isDistributed,
  plain,
  RawClient,
  startServer,
  type TestServer,
  testEnv,
} from "../support/rendezvous.ts";
import { startServerProcess } from "../support/server-process.ts";

const DAY_MS = 24 * 60 * 60 * 1000;
const keyOf = (token: Uint8Array): Uint8Array<ArrayBuffer> =>
  new Uint8Array(createHash("sha256").update(token).digest());

let server: TestServer | undefined;
afterEach(async () => {
  await server?.dispose();
  server = undefined;
});

describe("the directory", () => {
  it("gives a value to whoever knows its key, until it is replaced or an hour old", async () => {
    server = await startServer(generous);
    const [alice, bob] = [await RawClient.loggedIn(server.url), await RawClient.loggedIn(server.url)];
    const token = bytes(32);
    const key = keyOf(token);
    expect(await bob.must("directory.get", { key })).toEqual({ value: null });
    for (const size of [1, DIRECTORY_VALUE_BYTES_MAX]) {
      const value = bytes(size);
      expect(await alice.must("directory.put", { token, value })).toEqual({ expiresInMs: DIRECTORY_TTL_MS });
      expect(plain(await bob.must("directory.get", { key }))).toEqual({ value });
    }
    for (const value of [bytes(0), bytes(DIRECTORY_VALUE_BYTES_MAX + 1)])
      expect(await alice.outcome("directory.put", { token, value })).toBe("bad_request");
    await server.restart();
    const again = await RawClient.loggedIn(server.url, bob.identity);
    expect((await again.must("directory.get", { key })).value?.length).toBe(DIRECTORY_VALUE_BYTES_MAX);
    server.env.clock.advance(DIRECTORY_TTL_MS);
    expect(await again.must("directory.get", { key })).toEqual({ value: null });
    for (const client of [alice, bob, again]) client.close();
  });

  it("lets nobody write who knows only the key, and nobody at all who is not logged in", async () => {
    server = await startServer(generous);
    const [alice, eve] = [await RawClient.loggedIn(server.url), await RawClient.loggedIn(server.url)];
    const token = bytes(32);
    const value = bytes(100);
    await alice.must("directory.put", { token, value });
    // The key in the place of the token names another place.
    await eve.must("directory.put", { token: keyOf(token), value: bytes(100) });
    expect(plain(await eve.must("directory.get", { key: keyOf(token) }))).toEqual({ value });
    const { client } = await RawClient.challenged(server.url);
    expect(await client.outcome("directory.put", { token, value })).toBe("not_logged_in");
    for (const other of [alice, eve, client]) other.close();
  });

  it.skipIf(isDistributed)(
    "holds so many entries of a device, whose own can be replaced, and has room again when they end",
    async () => {
      server = await startServer(generous);
      const identity = createIdentity();
      (await RawClient.loggedIn(server.url, identity)).close();
      await server.stop();
      const database = new Sqlite(join(server.dataDir, "server.db"));
      const insert = database.prepare("INSERT INTO directory VALUES (?, ?, ?, ?, ?)");
      const expiresAt = server.env.clock.now() + DIRECTORY_TTL_MS / 2;
      database.transaction(() => {
        for (let i = 1; i < DIRECTORY_ENTRIES_PER_DEVICE_MAX; i++)
          insert.run(bytes(32), identity.userId, identity.deviceId, bytes(9), expiresAt);
      })();
      database.close();
      await server.restart();
      const alice = await RawClient.loggedIn(server.url, identity);
      const put = (client: RawClient, token = bytes(32)) => client.outcome("directory.put", { token, value: bytes(9) });
      const last = bytes(32);
      expect([await put(alice, last), await put(alice), await put(alice, last)]).toEqual([
        "ok",
        "directory_full",
        "ok",
      ]);
      const laptop = await RawClient.loggedIn(server.url, { ...alice.identity, deviceId: 2 });
      expect(await put(laptop)).toBe("ok");
      server.env.clock.advance(DIRECTORY_TTL_MS + SERVER_SWEEP_INTERVAL_MS);
      expect(await put(alice)).toBe("ok");
      alice.close();
      laptop.close();
    },
  );

  it("keeps what it answered over a kill", async () => {
    const folder = await temporaryFolder();
    let running = await startServerProcess(folder.path);
    try {
      const [token, value] = [bytes(32), bytes(500)];
      await (await RawClient.loggedIn(running.url)).must("directory.put", { token, value });
      await running.end("SIGKILL");
      running = await startServerProcess(folder.path);
      const client = await RawClient.loggedIn(running.url);
      expect(plain(await client.must("directory.get", { key: keyOf(token) }))).toEqual({ value });
      client.close();
    } finally {
      await running.end("SIGKILL");
      await folder.dispose();
    }
  });
});

describe("candidates in the directory", () => {
  it("are found by the other of the two, on the day, over midnight, and by nobody else", async () => {
    server = await startServer(generous);
    const { url } = server;
    const secret = bytes(32);
    const person = (fingerprint: string) => {
      const env = testEnv();
      const identity = createIdentity();
      const signaling = createSignaling({ env, identity });
      signaling.enable(url);
      return { env, identity, signaling, fingerprint };
    };
    const [alice, bob, eve] = [person("aa"), person("bb"), person("ee")];
    const people = [alice, bob, eve];
    const directory = (self: typeof alice, shared: Uint8Array | null) =>
      createCandidateDirectory({
        clock: self.env.clock,
        signaling: self.signaling,
        fingerprint: self.fingerprint,
        fingerprintOf: (peer) => people.find(({ identity }) => identity.userId === peer)?.fingerprint ?? null,
        pairwiseSecret: () => shared,
      });
    try {
      const value = bytes(300);
      const published = await directory(alice, secret).publish(bob.identity.userId, value);
      expect(published).toEqual(ok({ expiresInMs: DIRECTORY_TTL_MS }));
      const found = (self: typeof alice, shared: Uint8Array | null = secret) =>
        directory(self, shared).lookup(alice.identity.userId);
      expect(plain(await found(bob))).toEqual(ok(value));
      expect(await found(eve, bytes(32))).toEqual(ok(null));
      expect(await found(eve, null)).toMatchObject({ ok: false, error: { type: "no_pairwise_secret" } });
      // Alice's place is not Bob's.
      expect(await directory(alice, secret).lookup(bob.identity.userId)).toEqual(ok(null));
      // A clock that is ten minutes off, and a day that ended meanwhile.
      bob.env.clock.advance(DIRECTORY_CLOCK_SKEW_MS);
      expect(plain(await found(bob))).toEqual(ok(value));
    } finally {
      for (const { signaling } of people) signaling.dispose();
    }
  });

  it("are kept under a key that only the pair can compute and that moves every day", () => {
    const secret = Uint8Array.from({ length: 32 }, (_, i) => i);
    const token = directoryToken(secret, "00ff", 19_000);
    // python3: hmac.new(bytes(range(32)), b"00ff:ice_candidates\0" + b"19000", "sha3_512").digest()[:32]
    expect(Buffer.from(token).toString("hex")).toBe("ac2ce574a9744184961da62c4804c81ba3eeb1a20eab3afafa121cdc7792d452");
    expect(directoryKey(token)).toEqual(keyOf(token));
    const others = [
      directoryToken(secret, "00ff", 19_001),
      directoryToken(secret, "00fe", 19_000),
      directoryToken(bytes(32), "00ff", 19_000),
    ];
    expect(new Set([token, ...others].map((one) => Buffer.from(one).toString("hex"))).size).toBe(4);
    const midnight = 20_000 * DAY_MS;
    expect(daysToLookUp(midnight + DAY_MS / 2)).toEqual([20_000]);
    expect(daysToLookUp(midnight - 1)).toEqual([20_000, 19_999]);
    expect(daysToLookUp(midnight + 1)).toEqual([20_000, 19_999]);
    expect(daysToLookUp(midnight + DIRECTORY_TTL_MS + DIRECTORY_CLOCK_SKEW_MS)).toEqual([20_000]);
  });
});
