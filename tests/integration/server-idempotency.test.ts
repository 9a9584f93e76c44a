import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { IDEMPOTENCY_TTL_MS, SERVER_SWEEP_INTERVAL_MS } from "#shared/base/limits.ts";
import type { RequestInput } from "#shared/rendezvous/protocol.ts";
import {
  bytes,
  deviceKeys,
  fileRecord,
  freshEnvelopeId,
  generous,
  oneTimeKeys,
  plain,
  RawClient,
  registration,
  sealed,
  startServer,
  type TestServer,
} from "../support/rendezvous.ts";

let server: TestServer;
let alice: RawClient;
let bob: RawClient;
beforeEach(async () => {
  server = await startServer(generous);
  alice = await RawClient.loggedIn(server.url);
  bob = await RawClient.loggedIn(server.url);
  await bob.must("keys.publish", { keys: deviceKeys(bob.identity), ...oneTimeKeys(20) });
});
afterEach(async () => {
  alice.close();
  bob.close();
  await server.dispose();
});

/** Every request that changes something, and what shows how often it did. */
const writes = {
  "keys.publish": {
    input: (): RequestInput<"keys.publish"> => ({ keys: deviceKeys(alice.identity), ...oneTimeKeys(3) }),
    effect: () => alice.must("keys.status", {}),
  },
  "keys.fetch": {
    input: (): RequestInput<"keys.fetch"> => ({ userId: bob.identity.userId }),
    effect: () => bob.must("keys.status", {}),
  },
  "mailbox.put": {
    input: (): RequestInput<"mailbox.put"> => ({
      to: bob.identity.userId,
      id: freshEnvelopeId(),
      sealed: sealed(),
    }),
    effect: async () => {
      await bob.must("keys.status", {});
      return bob.named("envelope").length;
    },
  },
  "invites.create": {
    input: (): RequestInput<"invites.create"> => ({ inviteId: bytes(16), commitment: bytes(32) }),
    effect: async () => 0,
  },
  "files.register": {
    input: (): RequestInput<"files.register"> => registration(alice.identity, fileRecord(alice.identity)),
    effect: async () => 0,
  },
} as const;

describe("idempotency", () => {
  it.each(Object.keys(writes) as (keyof typeof writes)[])(
    "%s with the same key has one effect and one answer: at once, later, over a restart",
    async (name) => {
      const key = freshEnvelopeId();
      const { input: create, effect } = writes[name];
      const input = create();
      const twice = await Promise.all([alice.request(name, input, key), alice.request(name, input, key)]);
      expect(twice[0]).toMatchObject({ ok: true });
      expect(plain(twice[1])).toEqual(plain(twice[0]));
      const after = await effect();
      expect(plain(await alice.request(name, input, key))).toEqual(plain(twice[0]));
      expect(await effect()).toEqual(after);

      await server.restart();
      const again = await RawClient.loggedIn(server.url, alice.identity);
      expect(plain(await again.request(name, input, key))).toEqual(plain(twice[0]));
      again.close();
    },
  );

  it("answers a repeated refusal with the first one, also when the cause is gone", async () => {
    const key = freshEnvelopeId();
    const carol = await RawClient.loggedIn(server.url);
    const fetch = { userId: carol.identity.userId };
    expect(await alice.outcome("keys.fetch", fetch, key)).toBe("unknown_user");
    await carol.must("keys.publish", { keys: deviceKeys(carol.identity), ...oneTimeKeys(1) });
    expect(await alice.outcome("keys.fetch", fetch, key)).toBe("unknown_user");
    expect(await alice.outcome("keys.fetch", fetch)).toBe("ok");
    carol.close();
  });

  it("refuses a key that was used for another request or another input", async () => {
    const key = freshEnvelopeId();
    const put = () => ({ to: bob.identity.userId, id: freshEnvelopeId(), sealed: sealed() });
    await alice.must("mailbox.put", put(), key);
    expect(await alice.outcome("mailbox.put", put(), key)).toBe("conflict");
    expect(await alice.outcome("keys.fetch", { userId: bob.identity.userId }, key)).toBe("conflict");
  });

  it("keeps the keys of two accounts apart", async () => {
    const key = freshEnvelopeId();
    const one = await alice.must("invites.create", { inviteId: bytes(16), commitment: bytes(32) }, key);
    const other = await bob.must("invites.create", { inviteId: bytes(16), commitment: bytes(32) }, key);
    expect(other.code).not.toBe(one.code);
  });

  it("forgets after its time", async () => {
    const key = freshEnvelopeId();
    const first = await alice.must("invites.create", { inviteId: bytes(16), commitment: bytes(32) }, key);
    server.env.clock.advance(IDEMPOTENCY_TTL_MS + 1);
    const second = await alice.must("invites.create", { inviteId: bytes(16), commitment: bytes(32) }, key);
    expect(second.code).not.toBe(first.code);
    server.env.clock.advance(SERVER_SWEEP_INTERVAL_MS);
    expect(await alice.outcome("keys.status", {})).toBe("ok");
  });
});
