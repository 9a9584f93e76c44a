import { createHash } from "node:crypto";
import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { type Bytes, concatBytes, toBase32 } from "#shared/base/bytes.ts";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import type { LogCrypto } from "#shared/base/log-crypto.ts";
import {
  append,
  draftFor,
  draftOfCreate,
  emptyLog,
  type GroupDraft,
  type GroupLog,
  type GroupOperation,
  type GroupWish,
  groupIdOf,
  groupSigningBytes,
  missingFor,
} from "#shared/groups/group-log.ts";
import { type GroupEvent, historyOf, viewOf } from "#shared/groups/group-view.ts";
import { counted } from "../support/counts.ts";
import { shuffled } from "../support/seeded.ts";

/**
 * People who change a group at the same time, hear of it late and in any order, and one who signs operations that pretend
 * to be older than they are. Afterwards everybody has everything and must see the same group. Signatures are hashes here:
 * thousands of worlds are played.
 */
const sha256 = (bytes: Uint8Array): Bytes => new Uint8Array(createHash("sha256").update(bytes).digest());
const keyOf = (n: number): Bytes => sha256(Uint8Array.of(n));
const userIdOf = (key: Uint8Array): UserId => v.parse(UserIdSchema, toBase32(sha256(key).subarray(0, 20)));
const signature = (key: Uint8Array, bytes: Uint8Array): Bytes => {
  const half = sha256(concatBytes(key, bytes));
  return concatBytes(half, half);
};
const crypto: LogCrypto = {
  hash: sha256,
  verify: (key, bytes, signed) => Buffer.from(signature(key, bytes)).equals(Buffer.from(signed)),
  userIdOf,
};
const signed = (draft: GroupDraft, who: number): GroupOperation => {
  const unsigned = { ...draft, actorKey: keyOf(who) };
  return { ...unsigned, signature: signature(unsigned.actorKey, groupSigningBytes(unsigned)) };
};

const PEOPLE = 6;
const ids = Array.from({ length: PEOPLE }, (_, n) => userIdOf(keyOf(n)));
const idOf = (n: number): UserId => defined(ids[n % PEOPLE], "a person");
const person = (n: number) => ({ userId: idOf(n), name: `person ${n % PEOPLE}` });
/** The last one signs whatever they like on whatever they like, as far as a log takes it. */
const LIAR = PEOPLE - 1;

interface World {
  readonly logs: GroupLog[];
  readonly backdated: Set<string>;
}
const hashesOf = (log: GroupLog): Set<string> => new Set(log.indexByHash.keys());

const wishFrom = (number: number): GroupWish => {
  const target = Math.floor(number / 8) % PEOPLE;
  const kinds = ["add", "add", "add", "remove", "remove", "role", "rename", "rename"] as const;
  // Somebody who leaves does nothing afterwards, so it is rare.
  const kind = number % 101 === 0 ? "leave" : (kinds[number % 8] ?? "add");
  switch (kind) {
    case "add":
      return { kind, people: [person(target), person(target + 1)] };
    case "remove":
      return { kind, userId: idOf(target) };
    case "role":
      return { kind, userId: idOf(target), role: number % 3 === 0 ? "member" : "admin" };
    case "rename":
      return { kind, name: `name ${number % 97}` };
    default:
      return { kind };
  }
};

const take = (log: GroupLog, operations: readonly GroupOperation[]): GroupLog =>
  operations.reduce((grown, operation) => {
    const next = append(grown, operation, crypto);
    return next.ok ? next.value : grown;
  }, log);

const play = (choices: readonly number[]): World => {
  const place = { atMs: 1000, nonce: new Uint8Array(16) };
  const draft = draftOfCreate("group", [person(1), person(2), person(LIAR)], person(0), place);
  if (!draft.ok) throw new Error(draft.error.type);
  const create = signed(draft.value, 0);
  // Two admins besides the owner, one of whom is the liar: plain members can do nothing but leave.
  const start = [1, LIAR].reduce(
    (log, who) => {
      const wish = { kind: "role", userId: idOf(who), role: "admin" } as const;
      const made = draftFor(log, wish, idOf(0), place);
      return made.ok ? take(log, [signed(made.value, 0)]) : log;
    },
    take(emptyLog(groupIdOf(create, crypto)), [create]),
  );
  const world: World = { logs: ids.map(() => start), backdated: new Set() };
  choices.forEach((number, step) => {
    // Those who may change something do it most.
    const who = defined([0, 0, 1, LIAR, LIAR, 2, 3, 4][number % 8], "a person");
    const rest = Math.floor(number / 8);
    const own = defined(world.logs[who], "a log");
    const nonce = Uint8Array.from({ length: 16 }, (_, i) => (i === 0 ? step & 255 : i === 1 ? step >> 8 : who));
    if (rest % 3 === 0) {
      // Somebody hears a part of what somebody else knows.
      const other = defined(world.logs[Math.floor(rest / 3) % PEOPLE], "a log");
      const news = missingFor(other, own.heads);
      world.logs[who] = take(own, news.slice(0, 1 + (rest % 4)));
      return;
    }
    // The liar may forget what they know, and say what they please on top of the rest.
    const from = who === LIAR ? replayed(own, 1 + (rest % own.nodes.length)) : own;
    const made = draftFor(from, wishFrom(Math.floor(rest / 3)), idOf(who), { atMs: 1000 + step, nonce });
    if (!made.ok) return;
    const operation = signed(made.value, who);
    const grown = take(own, [operation]);
    for (const hash of hashesOf(grown)) if (!hashesOf(own).has(hash) && from !== own) world.backdated.add(hash);
    world.logs[who] = grown;
  });
  return world;
};

/** The first operations of a log alone. */
const replayed = (log: GroupLog, count: number): GroupLog =>
  take(
    emptyLog(log.groupId),
    log.nodes.slice(0, count).map(({ operation }) => operation),
  );

const everything = (world: World): GroupOperation[] => {
  const all = new Map<string, GroupOperation>();
  for (const { nodes } of world.logs) for (const { hash, operation } of nodes) all.set(hash, operation);
  return [...all.values()];
};

/** All of it, in an order of its own for each device, again and again until nothing is missing. */
const complete = (log: GroupLog, operations: readonly GroupOperation[], number: () => number): GroupLog => {
  let grown = log;
  for (let round = 0; round <= operations.length; round++) {
    const next = take(grown, shuffled(operations, number));
    if (next.nodes.length === grown.nodes.length) return next;
    grown = next;
  }
  return grown;
};
const shown = (log: GroupLog): string => JSON.stringify([log.view.name, [...log.view.members]]);

/** What somebody knows who has read every line of the story, and nothing else. */
const retold = (events: readonly GroupEvent[]): string => {
  const roles = new Map<UserId, string>();
  let owner: UserId | null = null;
  let title = "";
  for (const { kind, node, people, name } of events) {
    title = name ?? title;
    if (kind === "create") owner = node.operation.actor;
    if (kind === "create") roles.set(node.operation.actor, "owner");
    for (const { userId } of people)
      if (kind === "remove" || kind === "leave") roles.delete(userId);
      else roles.set(userId, userId === owner ? "owner" : kind === "admin" ? "admin" : "member");
  }
  return JSON.stringify([title, [...roles].sort()]);
};
const seen = ({ view }: GroupLog): string =>
  JSON.stringify([view.name, [...view.members].map(([userId, { role }]) => [userId, role]).sort()]);
const told = (events: readonly GroupEvent[]): string[] =>
  events.map(({ kind, node, people }) => `${kind} ${node.hash} ${people.map(({ name }) => name).join()}`);

const scenario = fc.record({
  choices: fc.array(fc.noBias(fc.nat()), { minLength: 10, maxLength: 80, size: "max" }),
  seed: fc.nat(),
});
const numbersFrom = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
};
/** The logs of all devices after each has everything, in an order of its own. */
const converged = (choices: readonly number[], seed: number) => {
  const world = play(choices);
  const operations = everything(world);
  const number = numbersFrom(seed);
  return { operations, number, all: world.logs.map((log) => complete(log, operations, number)) };
};
const RUNS = counted(200, 10_000);

describe("a group that several people change at once", () => {
  test("whoever has the same operations sees the same group, whatever order they came in", () => {
    let changes = 0;
    fc.assert(
      fc.property(scenario, ({ choices, seed }) => {
        const { operations, all } = converged(choices, seed);
        changes += operations.length;
        for (const log of all) expect(log.nodes.length).toBe(operations.length);
        expect(new Set(all.map(shown)).size).toBe(1);
        expect(new Set(all.map(({ heads }) => heads.join())).size).toBe(1);
      }),
      { numRuns: RUNS, seed: 1 },
    );
    expect(changes).toBeGreaterThan(RUNS * 5);
  });

  test("what is told of it comes to what it is, however it is cut, and is the same for whoever heard it at once", () => {
    let unsaid = 0;
    fc.assert(
      fc.property(scenario, ({ choices, seed }) => {
        const { number, all } = converged(choices, seed);
        for (const log of all) {
          const cut = Math.floor(number() * log.nodes.length);
          const runs = [log.nodes.slice(0, cut), log.nodes.slice(cut)].filter((run) => run.length > 0);
          expect(retold(historyOf(runs))).toBe(seen(log));
          expect(retold(historyOf(log.nodes.map((node) => [node])))).toBe(seen(log));
          // No line says what was so before.
          const events = historyOf(runs);
          const steps = events.map((_, end) => retold(events.slice(0, end + 1)));
          expect(steps.filter((step, i) => step === steps[i - 1])).toEqual([]);
          unsaid += log.nodes.length - new Set(events.map(({ node }) => node)).size;
        }
        expect(new Set(all.map(({ nodes }) => told(historyOf([nodes])).join("\n"))).size).toBe(1);
      }),
      { numRuns: counted(60, 3000), seed: 4 },
    );
    expect(unsaid).toBeGreaterThan(60);
  });

  test("whoever the owner removed, and nobody added afterwards, is out and without a say, whatever they sign", () => {
    let removed = 0;
    fc.assert(
      fc.property(scenario, ({ choices, seed }) => {
        const world = play(choices);
        const log = complete(defined(world.logs[0], "the owner's log"), everything(world), numbersFrom(seed));
        const liar = idOf(LIAR);
        const isBefore = (a: number, b: number): boolean => ((log.nodes[b]?.before ?? 0n) >> BigInt(a)) % 2n === 1n;
        const ownerLeft = log.nodes.some(({ operation }) => operation.kind === "leave" && operation.actor === idOf(0));
        const removals = log.nodes.filter(
          ({ operation: { kind, actor, people } }) =>
            kind === "remove" && actor === idOf(0) && people.some(({ userId }) => userId === liar),
        );
        const last = removals.at(-1);
        if (last === undefined || ownerLeft) return;
        const readmitted = log.nodes.some(
          ({ index, operation: { kind, people } }) =>
            kind === "add" && people.some(({ userId }) => userId === liar) && !isBefore(index, last.index),
        );
        if (readmitted) return;
        removed += 1;
        expect(log.view.members.has(liar)).toBe(false);
        // What the liar signed on top of an older group than the owner's removal says nothing.
        const without = log.nodes.filter(
          ({ index, operation }) => operation.actor !== liar || isBefore(index, last.index),
        );
        const set = without.reduce((bits, { index }) => bits | (1n << BigInt(index)), 0n);
        const view = viewOf(log.nodes, set);
        expect([...log.view.members.keys()]).toEqual([...view.members.keys()]);
        expect(log.view.name).toBe(view.name);
      }),
      { numRuns: RUNS, seed: 2 },
    );
    expect(removed).toBeGreaterThan(RUNS / 50);
  });

  test("a group that takes operations as they come does not agree with itself: the defect is found", () => {
    const asTheyCome = (log: GroupLog): string => {
      const members = new Set<string>();
      for (const { operation } of log.nodes) {
        members.add(defined(log.nodes[0], "a beginning").operation.actor);
        for (const { userId } of operation.people)
          if (operation.kind === "add" || operation.kind === "create") members.add(userId);
          else if (operation.kind === "remove" || operation.kind === "leave") members.delete(userId);
      }
      return [...members].sort().join();
    };
    const outcome = fc.check(
      fc.property(scenario, ({ choices, seed }) => {
        const world = play(choices);
        const operations = everything(world);
        const number = numbersFrom(seed);
        return new Set(world.logs.map((log) => asTheyCome(complete(log, operations, number)))).size === 1;
      }),
      { numRuns: RUNS, seed: 1, endOnFailure: true },
    );
    expect(outcome.failed).toBe(true);
  });
});
