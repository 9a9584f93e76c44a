import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  INVITE_CODE_ALPHABET,
  INVITE_CODE_LENGTH,
  INVITE_TTL_MS,
  INVITES_OPEN_MAX,
  RATE_CODE_TRIES,
  RATE_CODE_TRIES_PER_ADDRESS,
} from "#shared/base/limits.ts";
import { bytes, plain, RawClient, startServer, type TestServer } from "../support/rendezvous.ts";

let server: TestServer;
beforeEach(async () => {
  server = await startServer();
});
afterEach(() => server.dispose());

const newInvite = () => ({ inviteId: bytes(16), commitment: bytes(32) });
/** A well-formed code that is very probably nobody's. */
const WRONG = "222222";

describe("invite codes", () => {
  it("lead to the invitation once, over a restart, in either case", async () => {
    const host = await RawClient.loggedIn(server.url);
    const invite = newInvite();
    const { code, expiresAtMs } = await host.must("invites.create", invite);
    expect(code).toMatch(new RegExp(`^[${INVITE_CODE_ALPHABET}]{${INVITE_CODE_LENGTH}}$`));
    expect(expiresAtMs - server.env.clock.now()).toBeGreaterThan(INVITE_TTL_MS - 60_000);
    await server.restart();

    const guest = await RawClient.loggedIn(server.url);
    const found = await guest.must("invites.resolve", { code: code.toLowerCase() });
    expect(plain(found)).toEqual({ ...invite, userId: host.identity.userId, accountKey: host.identity.accountKey });
    const late = await RawClient.loggedIn(server.url);
    expect(await late.outcome("invites.resolve", { code })).toBe("unknown_code");
    guest.close();
    late.close();
  });

  it("are given to one of many who resolve them at once", async () => {
    const host = await RawClient.loggedIn(server.url);
    const { code } = await host.must("invites.create", newInvite());
    const guests = await Promise.all(Array.from({ length: 8 }, () => RawClient.loggedIn(server.url)));
    const outcomes = await Promise.all(guests.map((guest) => guest.outcome("invites.resolve", { code })));
    expect(outcomes.filter((outcome) => outcome === "ok")).toHaveLength(1);
    for (const client of [host, ...guests]) client.close();
  });

  it("expire, and then look exactly like wrong ones, used ones and one's own", async () => {
    const host = await RawClient.loggedIn(server.url);
    const guest = await RawClient.loggedIn(server.url);
    const expired = await host.must("invites.create", newInvite());
    server.env.clock.advance(INVITE_TTL_MS + 1);
    const used = await host.must("invites.create", newInvite());
    await guest.must("invites.resolve", { code: used.code });
    const own = await guest.must("invites.create", newInvite());
    const answers = [];
    for (const code of [expired.code, used.code, own.code, WRONG]) {
      answers.push(await guest.request("invites.resolve", { code }));
    }
    expect(answers[0]).toMatchObject({ ok: false, error: { type: "unknown_code" } });
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    // One's own code stays open for the other person.
    expect(await host.outcome("invites.resolve", { code: own.code })).toBe("ok");
    host.close();
    guest.close();
  });

  it("give the same invitation the same code, and refuse other contents", async () => {
    const host = await RawClient.loggedIn(server.url);
    const invite = newInvite();
    const first = await host.must("invites.create", invite);
    expect(await host.must("invites.create", invite)).toEqual(first);
    expect(await host.outcome("invites.create", { ...invite, commitment: bytes(32) })).toBe("conflict");
    host.close();
  });

  it("are limited per person, until one was used or has expired", async () => {
    const host = await RawClient.loggedIn(server.url);
    const codes: string[] = [];
    for (let i = 0; i < INVITES_OPEN_MAX; i++) codes.push((await host.must("invites.create", newInvite())).code);
    expect(new Set(codes).size).toBe(INVITES_OPEN_MAX);
    expect(await host.outcome("invites.create", newInvite())).toBe("too_many_invites");
    const guest = await RawClient.loggedIn(server.url);
    await guest.must("invites.resolve", { code: codes[0] ?? "" });
    expect(await host.outcome("invites.create", newInvite())).toBe("ok");
    expect(await host.outcome("invites.create", newInvite())).toBe("too_many_invites");
    server.env.clock.advance(INVITE_TTL_MS + 1);
    expect(await host.outcome("invites.create", newInvite())).toBe("ok");
    host.close();
    guest.close();
  });

  it("cannot be guessed with one account: after the tries even the right code is refused", async () => {
    const host = await RawClient.loggedIn(server.url);
    const { code } = await host.must("invites.create", newInvite());
    const guesser = await RawClient.loggedIn(server.url);
    const guesses = Array.from({ length: RATE_CODE_TRIES + 3 }, () =>
      guesser.outcome("invites.resolve", { code: WRONG }),
    );
    const outcomes = await Promise.all(guesses);
    expect(outcomes.filter((outcome) => outcome === "unknown_code")).toHaveLength(RATE_CODE_TRIES);
    expect(await guesser.outcome("invites.resolve", { code })).toBe("rate_limited");
    // A neighbour behind the same address still can.
    const neighbour = await RawClient.loggedIn(server.url);
    expect(await neighbour.outcome("invites.resolve", { code })).toBe("ok");
    for (const client of [host, guesser, neighbour]) client.close();
  });

  it("cannot be guessed with many accounts of one address", async () => {
    const host = await RawClient.loggedIn(server.url);
    const { code } = await host.must("invites.create", newInvite());
    let wrong = 0;
    for (let account = 0; account < RATE_CODE_TRIES_PER_ADDRESS; account++) {
      const guesser = await RawClient.loggedIn(server.url);
      const outcome = await guesser.outcome("invites.resolve", { code: WRONG });
      expect(outcome).toBe("unknown_code");
      wrong++;
      guesser.close();
    }
    expect(wrong).toBe(RATE_CODE_TRIES_PER_ADDRESS);
    const fresh = await RawClient.loggedIn(server.url);
    expect(await fresh.outcome("invites.resolve", { code })).toBe("rate_limited");
    host.close();
    fresh.close();
  });
});
