import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PREKEY_BATCH, PREKEY_REFILL_BELOW, RATE_BUNDLE_FETCHES } from "#shared/base/limits.ts";
import {
  bytes,
  createIdentity,
  deviceKeys,
  generous,
  isDistributed,
  oneTimeKeys,
  plain,
  RawClient,
  startServer,
  type TestServer,
} from "../support/rendezvous.ts";

let server: TestServer;
beforeEach(async () => {
  server = await startServer(generous);
});
afterEach(() => server.dispose());

describe("prekey bundles", () => {
  it("gives 200 parallel fetches 100 distinct one-time keys, and the last-resort key to the rest", async () => {
    const owner = await RawClient.loggedIn(server.url);
    const keys = deviceKeys(owner.identity);
    const left = await owner.must("keys.publish", { keys, ...oneTimeKeys(PREKEY_BATCH) });
    expect(left).toEqual({ oneTimeEc: PREKEY_BATCH, oneTimeKyber: PREKEY_BATCH });

    const fetchers = await Promise.all(Array.from({ length: 200 }, () => RawClient.loggedIn(server.url)));
    const { userId } = owner.identity;
    const bundles = await Promise.all(fetchers.map((fetcher) => fetcher.must("keys.fetch", { userId })));

    for (const kind of ["oneTimeEc", "oneTimeKyber"] as const) {
      const ids = bundles.flatMap((bundle) => bundle[kind]?.id ?? []);
      expect(ids).toHaveLength(PREKEY_BATCH);
      expect(new Set(ids).size).toBe(PREKEY_BATCH);
    }
    const last = bundles.find((bundle) => bundle.oneTimeKyber === null);
    expect(last?.keys.lastResortKyber.id).toBe(keys.lastResortKyber.id);
    expect(new Uint8Array(last?.accountKey ?? [])).toEqual(owner.identity.accountKey);
    expect(await owner.must("keys.status", {})).toEqual({ published: true, oneTimeEc: 0, oneTimeKyber: 0 });
    // Fetches at two nodes count what is left without each other.
    const warnings = isDistributed ? 1 : 100 + PREKEY_REFILL_BELOW;
    await owner.until(() => owner.named("keysLow").length >= warnings);
    for (const client of [...fetchers, owner]) client.close();
  });

  it("gives what was published, byte for byte", async () => {
    const owner = await RawClient.loggedIn(server.url);
    const keys = deviceKeys(owner.identity);
    const oneTime = oneTimeKeys(1);
    await owner.must("keys.publish", { keys, ...oneTime });
    const other = await RawClient.loggedIn(server.url);
    const bundle = await other.must("keys.fetch", { userId: owner.identity.userId });
    const expected = {
      userId: owner.identity.userId,
      deviceId: 1,
      accountKey: owner.identity.accountKey,
      keys,
      oneTimeEc: oneTime.oneTimeEc[0],
      oneTimeKyber: oneTime.oneTimeKyber[0],
    };
    expect(plain(bundle)).toEqual(expected);
    owner.close();
    other.close();
  });

  it("never takes an id twice, not even of a key that was given away", async () => {
    const owner = await RawClient.loggedIn(server.url);
    const keys = deviceKeys(owner.identity);
    const oneTime = oneTimeKeys(2);
    await owner.must("keys.publish", { keys, ...oneTime });
    const other = await RawClient.loggedIn(server.url);
    await other.must("keys.fetch", { userId: owner.identity.userId });

    expect(await owner.outcome("keys.publish", { keys, ...oneTime })).toBe("duplicate_key_id");
    const taken = { oneTimeEc: oneTime.oneTimeEc.slice(0, 1), oneTimeKyber: [] };
    expect(await owner.outcome("keys.publish", { keys, ...taken })).toBe("duplicate_key_id");
    const twice = { oneTimeEc: [5, 5].map((id) => ({ id, key: bytes(33) })), oneTimeKyber: [] };
    expect(await owner.outcome("keys.publish", { keys, ...twice })).toBe("duplicate_key_id");
    // A refused upload leaves nothing behind.
    expect(await owner.must("keys.status", {})).toEqual({ published: true, oneTimeEc: 1, oneTimeKyber: 1 });
    expect(await owner.must("keys.publish", { keys, ...oneTimeKeys(1, 5) })).toEqual({ oneTimeEc: 2, oneTimeKyber: 2 });
    owner.close();
    other.close();
  });

  it("replaces the long-lived keys, and drops one-time keys that belong to another identity", async () => {
    const owner = await RawClient.loggedIn(server.url);
    const identityKey = bytes(33);
    await owner.must("keys.publish", { keys: deviceKeys(owner.identity, identityKey), ...oneTimeKeys(3) });
    const rotated = deviceKeys(owner.identity, identityKey);
    const left = await owner.must("keys.publish", { keys: rotated, ...oneTimeKeys(0) });
    expect(left).toEqual({ oneTimeEc: 3, oneTimeKyber: 3 });
    const anew = deviceKeys(owner.identity);
    expect(await owner.must("keys.publish", { keys: anew, ...oneTimeKeys(1) })).toEqual({
      oneTimeEc: 1,
      oneTimeKyber: 1,
    });
    owner.close();
  });

  it("refuses keys that the account did not sign", async () => {
    const owner = await RawClient.loggedIn(server.url);
    const foreign = deviceKeys(createIdentity());
    expect(await owner.outcome("keys.publish", { keys: foreign, ...oneTimeKeys(1) })).toBe("bad_signature");
    const keys = deviceKeys(owner.identity);
    const altered = { ...keys, signedPreKey: { ...keys.signedPreKey, key: bytes(33) } };
    expect(await owner.outcome("keys.publish", { keys: altered, ...oneTimeKeys(1) })).toBe("bad_signature");
    expect(await owner.must("keys.status", {})).toEqual({ published: false, oneTimeEc: 0, oneTimeKyber: 0 });
    expect(await owner.outcome("keys.fetch", { userId: owner.identity.userId })).toBe("unknown_user");
    owner.close();
  });

  it("keeps one account from using up the keys of a person", async () => {
    const owner = await RawClient.loggedIn(server.url);
    await owner.must("keys.publish", { keys: deviceKeys(owner.identity), ...oneTimeKeys(20) });
    const greedy = await RawClient.loggedIn(server.url);
    const { userId } = owner.identity;
    for (let i = 0; i < RATE_BUNDLE_FETCHES; i++) expect(await greedy.outcome("keys.fetch", { userId })).toBe("ok");
    expect(await greedy.outcome("keys.fetch", { userId })).toBe("rate_limited");
    expect((await owner.must("keys.status", {})).oneTimeEc).toBe(20 - RATE_BUNDLE_FETCHES);
    const other = await RawClient.loggedIn(server.url);
    expect(await other.outcome("keys.fetch", { userId })).toBe("ok");
    for (const client of [owner, greedy, other]) client.close();
  });
});
