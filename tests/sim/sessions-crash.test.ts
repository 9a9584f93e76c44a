import fc from "fast-check";
import { expect, test, vi } from "vitest";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import type { SignalReads } from "../../src-main/store/signal.ts";
import { counted } from "../support/counts.ts";
import {
  createSessionPeer,
  openText,
  type SessionPeer,
  storedState,
  text,
  typeOf,
  unwrap,
} from "../support/session-peer.ts";

// Thousands of messages; a busy machine needs longer than the usual limit.
vi.setConfig({ testTimeout: 180_000 });

/**
 * The caller's `commit` fails at random points of a conversation: a full disk, a broken rule, or the process dies there.
 * Then nothing may have moved: not the ratchet, not a prekey, not an identity; and the same message opens afterwards.
 */
class Crash extends Error {}
const crash = (): never => {
  throw new Crash("commit failed");
};

const step = fc.record({
  fromAlice: fc.boolean(),
  sealCrashes: fc.nat({ max: 2 }),
  openCrashes: fc.nat({ max: 2 }),
  restart: fc.boolean(),
});

const sealWithCrashes = async (from: SessionPeer, to: SessionPeer, value: string, crashes: number): Promise<Sealed> => {
  for (let i = 0; i < crashes; i++) {
    const before = storedState(from);
    await expect(from.sessions.seal(to.userId, text("never sent"), crash)).rejects.toThrow(Crash);
    expect(storedState(from)).toEqual(before);
  }
  return unwrap(await from.sessions.seal(to.userId, text(value), (sealed) => sealed));
};

const openWithCrashes = async (
  to: SessionPeer,
  from: SessionPeer,
  sealed: Sealed,
  crashes: number,
  restart: boolean,
) => {
  for (let i = 0; i < crashes; i++) {
    const before = storedState(to);
    await expect(to.sessions.open(from.userId, sealed, crash)).rejects.toThrow(Crash);
    if (restart) await to.reopen();
    expect(storedState(to)).toEqual(before);
  }
  return openText(to, from, sealed);
};

test.each([["with one-time keys"], ["with the last-resort key"]])(
  "a commit that fails undoes everything, %s",
  async (kind) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
        const alice = await createSessionPeer({ fast: true });
        const bob = await createSessionPeer({ fast: true });
        try {
          const bundle = kind === "with one-time keys" ? await bob.bundle() : await bob.bundleWithoutOneTimeKeys();
          unwrap(await alice.sessions.start(bob.userId, bundle));
          let bobKnowsAlice = false;
          for (const [i, { fromAlice, sealCrashes, openCrashes, restart }] of steps.entries()) {
            const [from, to] = fromAlice || !bobKnowsAlice ? [alice, bob] : [bob, alice];
            const sealed = await sealWithCrashes(from, to, `message ${i}`, sealCrashes);
            const opened = await openWithCrashes(to, from, sealed, openCrashes, restart);
            expect(opened).toEqual({ ok: true, value: `message ${i}` });
            expect(typeOf(await openText(to, from, sealed))).toBe("duplicate_message");
            bobKnowsAlice = true;
          }
        } finally {
          alice.dispose();
          bob.dispose();
        }
      }),
      { numRuns: counted(15, 40) },
    );
  },
);

test("what commit writes and the ratchet move together", async () => {
  const alice = await createSessionPeer();
  const bob = await createSessionPeer();
  try {
    for (const peer of [alice, bob]) peer.db.sql.exec("CREATE TABLE rows (text TEXT NOT NULL)");
    const rows = (peer: SessionPeer): unknown => peer.db.sql.prepare("SELECT text FROM rows").pluck().all();
    const insert = (peer: SessionPeer, value: string): void => {
      peer.db.sql.prepare("INSERT INTO rows VALUES (?)").run(value);
    };
    unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
    await expect(
      alice.sessions.seal(bob.userId, text("x"), () => {
        insert(alice, "half");
        crash();
      }),
    ).rejects.toThrow(Crash);
    expect(rows(alice)).toEqual([]);
    const sealed = unwrap(
      await alice.sessions.seal(bob.userId, text("x"), (value) => {
        insert(alice, "sent");
        return value;
      }),
    );
    expect(rows(alice)).toEqual(["sent"]);
    const opening = bob.sessions.open(alice.userId, sealed, () => {
      insert(bob, "half");
      crash();
    });
    await expect(opening).rejects.toThrow(Crash);
    expect(rows(bob)).toEqual([]);
    unwrap(await bob.sessions.open(alice.userId, sealed, () => insert(bob, "received")));
    expect(rows(bob)).toEqual(["received"]);
  } finally {
    alice.dispose();
    bob.dispose();
  }
});

test("a database that fails in the middle of a call is not taken for a bad message", async () => {
  const alice = await createSessionPeer();
  let broken = false;
  const bob = await createSessionPeer({
    wrapReads: (reads) => ({
      ...bound(reads),
      signedPreKey: (id) => {
        if (broken) throw new Crash("disk I/O error");
        return reads.signedPreKey(id);
      },
    }),
  });
  try {
    unwrap(await alice.sessions.start(bob.userId, await bob.bundle()));
    const sealed = unwrap(await alice.sessions.seal(bob.userId, text("hello"), (value) => value));
    broken = true;
    await expect(openText(bob, alice, sealed)).rejects.toThrow("disk I/O error");
    broken = false;
    expect(unwrap(await openText(bob, alice, sealed))).toBe("hello");
  } finally {
    alice.dispose();
    bob.dispose();
  }
});

const bound = (reads: SignalReads): SignalReads => ({
  session: (peer) => reads.session(peer),
  trustedIdentity: (peer) => reads.trustedIdentity(peer),
  preKey: (id) => reads.preKey(id),
  signedPreKey: (id) => reads.signedPreKey(id),
  kyberPreKey: (id) => reads.kyberPreKey(id),
  kyberUseKnown: (use) => reads.kyberUseKnown(use),
});
