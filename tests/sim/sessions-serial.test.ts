import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { ok } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { createKeyedQueue, type KeyedQueue } from "../../src-main/crypto/keyed-queue.ts";
import type { SignalReads } from "../../src-main/store/signal.ts";
import { counted } from "../support/counts.ts";
import { seededNumbers, shuffled } from "../support/seeded.ts";
import {
  connect,
  counterOf,
  createSessionPeer,
  openText,
  type SessionPeer,
  sealText,
  typeOf,
} from "../support/session-peer.ts";

// Thousands of messages; a busy machine needs longer than the usual limit.
vi.setConfig({ testTimeout: 180_000 });

const peers: SessionPeer[] = [];
const create = async (options: Parameters<typeof createSessionPeer>[0]): Promise<SessionPeer> => {
  const peer = await createSessionPeer({ fast: true, ...options });
  peers.push(peer);
  return peer;
};
const disposePeers = (): void => {
  for (const peer of peers.splice(0)) peer.dispose();
};
afterEach(disposePeers);

/** Every read of the database waits first. */
const delayed =
  (pause: () => Promise<unknown>) =>
  (reads: SignalReads): SignalReads => {
    const after = async <T>(read: () => T | Promise<T>): Promise<T> => {
      await pause();
      return read();
    };
    return {
      session: (peer) => after(() => reads.session(peer)),
      trustedIdentity: (peer) => after(() => reads.trustedIdentity(peer)),
      preKey: (id) => after(() => reads.preKey(id)),
      signedPreKey: (id) => after(() => reads.signedPreKey(id)),
      kyberPreKey: (id) => after(() => reads.kyberPreKey(id)),
      kyberUseKnown: (use) => after(() => reads.kyberUseKnown(use)),
    };
  };

/** What every message queue must not be: the double that shows what the real one is for. */
const noLock: KeyedQueue = {
  run: async (_key, task) => ok(await task()),
  force: (_key, task) => task(),
};

describe("ten operations at once on one session", () => {
  test.each([[1], [2]])("500 rounds, seed %i: all delivered, no counter twice, no replay accepted", async (seed) => {
    const number = seededNumbers(seed);
    const pause = async (): Promise<void> => {
      for (let turns = Math.floor(number() * 3); turns > 0; turns--) await new Promise(setImmediate);
    };
    const alice = await create({ wrapReads: delayed(pause) });
    const bob = await create({ wrapReads: delayed(pause) });
    await connect(alice, bob);
    const counters = new Set<string>();
    let sealedInAll = 0;
    const sealTen = (from: SessionPeer, to: SessionPeer, round: number): Promise<{ text: string; sealed: Sealed }[]> =>
      Promise.all(
        Array.from({ length: 10 }, async (_, i) => {
          const text = `${round}/${i}`;
          return { text, sealed: await sealText(from, to, text) };
        }),
      );
    const openAll = (to: SessionPeer, from: SessionPeer, messages: { text: string; sealed: Sealed }[]) =>
      Promise.all(
        shuffled(messages, number).map(async ({ text, sealed }) => {
          expect(await openText(to, from, sealed)).toEqual({ ok: true, value: text });
        }),
      );
    const note = (messages: { sealed: Sealed }[]): void => {
      for (const { sealed } of messages) counters.add(counterOf(sealed));
      sealedInAll += messages.length;
    };

    let toAlice = await sealTen(bob, alice, -1);
    note(toAlice);
    for (let round = 0; round < 250; round++) {
      // Alice seals and opens at the same time, so both kinds of operation meet in one queue; then Bob does.
      const [toBob] = await Promise.all([sealTen(alice, bob, round), openAll(alice, bob, toAlice)]);
      note(toBob);
      const replayed = toAlice[Math.floor(number() * toAlice.length)];
      const [next, , replay] = await Promise.all([
        sealTen(bob, alice, round),
        openAll(bob, alice, toBob),
        replayed === undefined ? null : openText(alice, bob, replayed.sealed),
      ]);
      expect(replay === null ? null : typeOf(replay)).toBe("duplicate_message");
      toAlice = next;
      note(toAlice);
    }
    expect(sealedInAll).toBe(10 * 501);
    expect(counters.size).toBe(sealedInAll);
  });
});

describe("two messages at once, with every read scheduled", () => {
  /** True when every message that was sealed is opened. */
  const allDelivered = async (scheduler: fc.Scheduler, queue: KeyedQueue): Promise<boolean> => {
    let reads = 0;
    let scheduling = false;
    const pause = async (): Promise<void> => {
      if (scheduling) await scheduler.schedule(Promise.resolve(), `read ${reads++}`);
    };
    const alice = await create({ queue, wrapReads: delayed(pause) });
    const bob = await create({});
    try {
      await connect(alice, bob);
      const fromBob = await sealText(bob, alice, "from bob");
      scheduling = true;
      const [first, second, opened] = await scheduler.waitFor(
        Promise.all([sealText(alice, bob, "first"), sealText(alice, bob, "second"), openText(alice, bob, fromBob)]),
      );
      scheduling = false;
      const received = [await openText(bob, alice, first), await openText(bob, alice, second), opened];
      const replay = await openText(alice, bob, fromBob);
      return received.every((result) => result.ok) && typeOf(replay) === "duplicate_message";
    } finally {
      disposePeers();
    }
  };
  const property = (queue: () => KeyedQueue) =>
    fc.asyncProperty(fc.scheduler(), async (scheduler) => {
      expect(await allDelivered(scheduler, queue())).toBe(true);
    });

  test("without the lock a message is lost", async () => {
    const found = await fc.check(
      property(() => noLock),
      { numRuns: 30, seed: 1, endOnFailure: true },
    );
    expect(found.failed).toBe(true);
    expect(String(found.errorInstance)).toContain("expected false to be true");
  });

  test("with the lock none is", async () => {
    await fc.assert(
      property(() => createKeyedQueue()),
      { numRuns: counted(25, 60) },
    );
  });
});
