import fc from "fast-check";
import * as v from "valibot";
import { expect, test } from "vitest";
import { FileIdSchema, type UserId, UserIdSchema } from "#shared/base/ids.ts";
import type { Receipt } from "#shared/shares/receipt.ts";
import {
  openBook,
  type ReceiptBook,
  type ReceiptEffect,
  type ReceiptEvent,
  receiptKey,
  receiptStep,
} from "../../src-main/shares/receipts-machine.ts";
import { counted } from "../support/counts.ts";

/**
 * People who make receipts and exchange them over a server, with connections that break at any moment, restarts, answers
 * that are lost, and a change of server. In the end everybody has everything that anybody made.
 */
const PAGE = 2;
const fileId = v.parse(FileIdSchema, "AAAAAAAAAAAAAAAAAAAAAA");
const idOf = (index: number): UserId => v.parse(UserIdSchema, "abcdefgh".charAt(index).repeat(32));

interface Person {
  readonly userId: UserId;
  book: ReceiptBook;
  connection: number;
  /** What its database has, and which of its own the server of now has confirmed. */
  readonly stored: Map<string, Receipt>;
  readonly sent: Set<string>;
}

class World {
  readonly people: Person[];
  readonly packets: (() => void)[] = [];
  server: Receipt[] = [];
  #now = 0;
  readonly #forgetsUnsent: boolean;

  constructor(count: number, { forgetsUnsent = false } = {}) {
    this.#forgetsUnsent = forgetsUnsent;
    this.people = Array.from({ length: count }, (_, i) => ({
      ...{ userId: idOf(i), book: openBook([]), connection: 0, stored: new Map(), sent: new Set<string>() },
    }));
  }

  make(person: Person, subject: UserId): void {
    this.#now += 1;
    const kind = subject === person.userId ? "completed" : "offered";
    const proof = { root: new Uint8Array(32), actorKey: new Uint8Array(32), signature: new Uint8Array(64) };
    const receipt: Receipt = { fileId, kind, subject, actor: person.userId, atMs: this.#now, ...proof };
    this.#dispatch(person, { type: "made", receipt });
  }

  connect(person: Person): void {
    person.connection += 1;
    const own = [...person.stored.values()].filter(({ actor }) => actor === person.userId);
    const unsent = this.#forgetsUnsent ? [] : own.map(receiptKey).filter((key) => !person.sent.has(key));
    this.#dispatch(person, { type: "connected", unsent });
  }

  disconnect(person: Person): void {
    person.connection += 1;
    if (person.book.connected) this.#dispatch(person, { type: "disconnected" });
  }

  restart(person: Person): void {
    person.connection += 1;
    person.book = openBook([...person.stored.values()]);
  }

  /** The new one knows nothing. */
  changeServer(): void {
    for (const person of this.people) {
      this.disconnect(person);
      person.sent.clear();
    }
    this.server = [];
  }

  want(person: Person): void {
    this.#dispatch(person, { type: "wanted" });
  }

  heal(): void {
    for (const person of this.people) this.connect(person);
    for (let round = 0; round < 3; round += 1) {
      while (this.packets.length > 0) this.packets.shift()?.();
      for (const person of this.people) this.want(person);
    }
    while (this.packets.length > 0) this.packets.shift()?.();
  }

  #dispatch(person: Person, event: ReceiptEvent): void {
    const [book, effects] = receiptStep(person.book, event);
    person.book = book;
    for (const effect of effects) this.#run(person, effect);
  }

  #later(person: Person, act: () => void): void {
    const { connection } = person;
    this.packets.push(() => {
      if (person.connection === connection) act();
    });
  }

  #run(person: Person, effect: ReceiptEffect): void {
    switch (effect.type) {
      case "store":
        for (const receipt of effect.receipts) person.stored.set(receiptKey(receipt), receipt);
        return;
      case "settled":
        person.sent.add(receiptKey(effect.receipt));
        return;
      case "fetch":
        this.#later(person, () => {
          const receipts = this.server.slice(effect.after, effect.after + PAGE);
          const total = this.server.length;
          this.#later(person, () =>
            this.#dispatch(person, { type: "fetched", receipts, read: effect.after + receipts.length, total }),
          );
        });
        return;
      case "send":
        this.#later(person, () => {
          const key = receiptKey(effect.receipt);
          if (!this.server.some((known) => receiptKey(known) === key)) this.server.push(effect.receipt);
          this.#later(person, () => this.#dispatch(person, { type: "sent", key }));
        });
        return;
      default:
    }
  }
}

const scenario = fc.record({
  people: fc.integer({ min: 2, max: 5 }),
  choices: fc.array(fc.nat({ max: 999_999 }), { minLength: 5, maxLength: 80, size: "max" }),
});

const play = (numRuns: number, options?: { forgetsUnsent: boolean }) =>
  fc.check(
    fc.property(scenario, ({ people, choices }) => {
      const world = new World(people, options);
      const made = new Set<string>();
      for (const choice of choices) {
        const person = world.people[choice % people] as Person;
        const rest = Math.floor(choice / 10);
        const what = rest % 16;
        if (what < 4) {
          const subject = idOf(Math.floor(rest / 16) % people);
          world.make(person, subject);
          made.add(`${person.userId === subject ? "completed" : "offered"} ${subject}`);
        } else if (what < 11) world.packets.splice(rest % Math.max(1, world.packets.length), 1)[0]?.();
        else if (what === 11) world.connect(person);
        else if (what === 12) world.disconnect(person);
        else if (what === 13) world.restart(person);
        else if (what === 14) world.want(person);
        else if (rest % 5 === 0) world.changeServer();
      }
      world.heal();
      for (const person of world.people) {
        expect([...person.book.known.keys()].sort()).toEqual([...made].sort());
        expect([...person.stored.keys()].sort()).toEqual([...made].sort());
        expect(person.book).toMatchObject({ current: true, unsent: [], fetching: "no" });
      }
    }),
    { numRuns, seed: 1, endOnFailure: true },
  );

const RUNS = counted(400, 10_000);
test(`everybody ends with everybody's receipts, whatever breaks on the way: ${RUNS} worlds`, () => {
  const result = play(RUNS);
  expect(result.failed ? String(result.errorInstance) : null).toBeNull();
});

test("finds a program that gives no receipt to a server it comes back to", () => {
  expect(play(500, { forgetsUnsent: true }).failed).toBe(true);
});
