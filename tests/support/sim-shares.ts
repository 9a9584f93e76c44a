import { createHash } from "node:crypto";
import * as v from "valibot";
import { assert, defined } from "#shared/base/assert.ts";
import { type Bytes, bytesEqual, concatBytes, toBase32, toHex, utf8 } from "#shared/base/bytes.ts";
import { type FileId, FileIdSchema, type UserId, UserIdSchema } from "#shared/base/ids.ts";
import type { LogCrypto } from "#shared/base/log-crypto.ts";
import {
  append,
  emptyList,
  isMember,
  type ShareDraft,
  type ShareList,
  type ShareOperation,
  type ShareWish,
  shareSigningBytes,
} from "#shared/shares/share-log.ts";
import {
  type Replica,
  type ReplicaEffect,
  type ReplicaEvent,
  type ReportType,
  replicaStep,
  startReplica,
  verdictOf,
} from "../../src-main/shares/share-machine.ts";

/**
 * People with the real share machine around a server in memory. What is on its way is a bag: the test says what of it
 * arrives next, twice, or never. Signatures are keyed hashes, so that ten thousand worlds take seconds; the real ones
 * are tested with the list itself.
 */
const sha256 = (...parts: Uint8Array[]): Bytes =>
  new Uint8Array(
    createHash("sha256")
      .update(concatBytes(...parts))
      .digest(),
  );
const signatureOf = (key: Uint8Array, bytes: Uint8Array): Bytes => {
  const half = sha256(utf8("the secret of"), key, bytes);
  return concatBytes(half, half);
};
const userIdOf = (key: Uint8Array): UserId => v.parse(UserIdSchema, toBase32(key.subarray(0, 20)));
export const simCrypto: LogCrypto = {
  hash: (bytes) => sha256(bytes),
  verify: (key, bytes, signature) => bytesEqual(signature, signatureOf(key, bytes)),
  userIdOf,
};
const FILE: FileId = v.parse(FileIdSchema, "AAAAAAAAAAAAAAAAAAAAAA");

/** Where the operation is that gave this person access last, or ended it; -1 when there is none. */
const lastConcerning = (operations: readonly ShareOperation[], userId: UserId): number => {
  const named = operations.findLastIndex(({ userIds }) => userIds.includes(userId));
  const withdrawn = operations.at(-1)?.kind === "withdraw" && operations[named]?.kind === "add";
  return withdrawn ? operations.length - 1 : named;
};

export type ServerKind =
  | "honest"
  /** Half of the people are shown one history, the others another. */
  | "forks"
  /** Adds somebody without a signature. */
  | "forges"
  /** Forgets its newest operations now and then. */
  | "forgets"
  /** Shows half of the people nothing new. */
  | "withholds";

export interface SimOptions {
  readonly people: number;
  readonly server: ServerKind;
  /**
   * Defects that the simulation has to find: `merges` unites lists as the project did that this one learned from,
   * `trusts_old` serves from a list that was not fetched since the connection came back.
   */
  readonly mutant?: "merges" | "trusts_old";
}

interface Person {
  readonly index: number;
  readonly key: Bytes;
  readonly userId: UserId;
  replica: Replica;
  connected: boolean;
  /** Counts connections; answers to older ones never arrive. */
  connection: number;
  /** What the server had when this connection began, as far as this person may see it. */
  versionAtConnect: number;
  stored: { list: ShareList; heads: string[]; ownerVersion: number };
  readonly reports: Set<ReportType>;
  wishes: number;
}

export interface Choice {
  readonly what: string;
  act(): void;
}

interface Packet extends Choice {
  /** Notices and hints may be lost; an answer of the server is lost together with the connection only. */
  readonly mayBeLost: boolean;
}

interface ServerLog {
  list: ShareList;
  operations: ShareOperation[];
}

export class ShareWorld {
  readonly people: Person[];
  readonly options: SimOptions;
  readonly stranger: UserId = userIdOf(sha256(utf8("stranger")));
  /** How often a chunk was served, and to whom it was not. */
  served = 0;
  refused = 0;
  readonly #packets: Packet[] = [];
  readonly #step = replicaStep(simCrypto);
  readonly #logs: [ServerLog, ServerLog];
  #now = 1000;
  #wishId = 0;

  constructor(options: SimOptions) {
    this.options = options;
    const keys = Array.from({ length: options.people }, (_, i) => sha256(utf8(`person ${i}`)));
    const owner = userIdOf(defined(keys[0], "owner"));
    const empty = emptyList(FILE, owner, simCrypto);
    const first = this.#signed(defined(keys[0], "owner"), {
      ...{ fileId: FILE, version: 1, kind: "add", userIds: [userIdOf(defined(keys[1], "first member"))] },
      ...{ terms: empty.terms, actor: owner, atMs: this.#now, previousHash: empty.head },
    });
    const list = this.#appended(empty, first);
    this.#logs = [
      { list, operations: [first] },
      { list, operations: [first] },
    ];
    this.people = keys.map((key, index) => ({
      ...{ index, key, userId: userIdOf(key), connected: false, connection: 0, versionAtConnect: 0, wishes: 0 },
      replica: startReplica(userIdOf(key), index === 0 ? list : empty, index === 0 ? [toHex(list.head)] : []),
      stored: { list: index === 0 ? list : empty, heads: index === 0 ? [toHex(list.head)] : [], ownerVersion: 0 },
      reports: new Set<ReportType>(),
    }));
    for (const person of this.people) this.#connect(person);
  }

  /** Everything that could happen next. */
  deliveries(): Choice[] {
    return [...this.#packets];
  }

  disturbances(): Choice[] {
    const choices: Choice[] = this.#packets
      .filter(({ mayBeLost }) => mayBeLost)
      .map((packet) => ({ what: `lost: ${packet.what}`, act: () => this.#take(packet) }));
    for (const person of this.people) {
      const { index } = person;
      if (person.connected) choices.push({ what: `${index} loses the server`, act: () => this.#disconnect(person) });
      else choices.push({ what: `${index} connects`, act: () => this.#connect(person) });
      choices.push({ what: `${index} is killed and comes back`, act: () => this.#restart(person) });
    }
    if (this.options.server === "forgets")
      choices.push({ what: "the server forgets", act: () => this.#forget(this.#logs[0]) });
    return choices;
  }

  /** What people want, right or wrong. */
  wish(by: number, whom: number, kind: "add" | "revoke" | "leave" | "withdraw"): void {
    const person = defined(this.people[by % this.people.length], "person");
    const other = defined(this.people[whom % this.people.length], "other");
    // Whoever does not know the file has nothing to wish for; the list would refuse it anyway.
    if (person.replica.list.version === 0 || person.replica.wishes.length > 3) return;
    const what: ShareWish = kind === "leave" || kind === "withdraw" ? { kind } : { kind, userIds: [other.userId] };
    this.#wishId += 1;
    this.#dispatch(person, { type: "wished", wish: { id: this.#wishId, what } });
  }

  /** Everybody asks everybody for a chunk. */
  requestChunks(): void {
    for (const seeder of this.people) {
      for (const { userId } of this.people) if (userId !== seeder.userId) this.#requestChunk(seeder, userId);
      this.#requestChunk(seeder, this.stranger);
    }
  }

  /** All is well again: everybody is connected, and everything arrives. */
  heal(): void {
    for (let round = 0; round < 3; round += 1) {
      for (const person of this.people) if (!person.connected) this.#connect(person);
      for (let turn = 0; this.#packets.length > 0; turn += 1) {
        assert(turn < 20_000, "the packets never end");
        this.#packets[0]?.act();
      }
      // What a lying server kept back is asked for again with the next connection.
      for (const person of this.people) this.#disconnect(person);
    }
    for (const person of this.people) this.#connect(person);
    for (let turn = 0; this.#packets.length > 0; turn += 1) {
      assert(turn < 20_000, "the packets never end");
      this.#packets[0]?.act();
    }
  }

  /** With an honest server: all have one list, and nobody's wish is left. */
  checkConverged(): void {
    const { list } = this.#logs[0];
    for (const { replica, userId, index } of this.people) {
      assert(replica.wishes.length === 0, `${index} still waits for a wish`);
      assert(replica.reported.size === 0, `${index} blames an honest server: ${[...replica.reported].join()}`);
      if (!isMember(list, userId)) {
        assert(!replica.list.members.has(userId), `${index} believes to have access`);
        continue;
      }
      assert(replica.list.version === list.version, `${index} is at ${replica.list.version} of ${list.version}`);
      assert(bytesEqual(replica.list.head, list.head), `${index} has another history`);
      assert([...replica.list.members.keys()].join() === [...list.members.keys()].join(), `${index} has other members`);
      assert(replica.confirmed, `${index} is not sure of its list`);
    }
  }

  /** Whether two people hold different operations under one version. */
  hasTwoHistories(): boolean {
    return this.people.some((a) =>
      this.people.some((b) => a.replica.heads.some((head, i) => (b.replica.heads[i] ?? head) !== head)),
    );
  }

  // ---- People --------------------------------------------------------------------------------------------------------

  #requestChunk(seeder: Person, userId: UserId): void {
    const { replica } = seeder;
    const judged = this.options.mutant === "trusts_old" ? { ...replica, connected: true, confirmed: true } : replica;
    if (verdictOf(judged, userId, this.#now) !== "serve") {
      this.refused += 1;
      return;
    }
    this.served += 1;
    const where = `${seeder.index} at version ${replica.list.version}`;
    const newest = this.#truth(seeder);
    assert(isMember(newest, userId), `${where} served somebody whom the newest list that it has seen leaves out`);
    if (userId === newest.ownerId || seeder.userId === newest.ownerId) return;
    assert(seeder.connected, `${where} served without the server`);
    if (this.options.server === "honest")
      assert(replica.list.version >= seeder.versionAtConnect, `${where} served before it fetched the list`);
    assert(replica.list.version >= replica.ownerVersion, `${where} served below what the owner told it`);
  }

  /** The list that the operations make which this person stored, computed without the machine. */
  #truth(person: Person): ShareList {
    const { heads } = person.replica;
    const log = defined(
      this.#histories().find(
        (history) => (heads.at(-1) ?? "") === "" || history.heads[heads.length - 1] === heads.at(-1),
      ),
      "a history that somebody signed",
    );
    return defined(log.lists[heads.length], "a list of that version");
  }

  readonly #known = new Map<string, { list: ShareList }>();
  /** By the head after them. */
  readonly #operations = new Map<string, ShareOperation>();
  /** Every list that was ever reached by genuine operations. */
  #histories(): { heads: string[]; lists: ShareList[] }[] {
    return this.#logs.flatMap(({ operations }) => [this.#replay(operations)]).concat(this.#forgotten);
  }
  readonly #forgotten: { heads: string[]; lists: ShareList[] }[] = [];

  #replay(operations: readonly ShareOperation[]): { heads: string[]; lists: ShareList[] } {
    let list = emptyList(FILE, defined(this.people[0], "owner").userId, simCrypto);
    const lists = [list];
    for (const operation of operations) {
      list = this.#appended(list, operation);
      lists.push(list);
    }
    return { heads: lists.slice(1).map(({ head }) => toHex(head)), lists };
  }

  #appended(list: ShareList, operation: ShareOperation): ShareList {
    const id = toHex(sha256(list.head, operation.signature));
    const known = this.#known.get(id);
    if (known !== undefined) return known.list;
    const next = append(list, operation, simCrypto);
    assert(next.ok, "the server keeps genuine operations only");
    this.#known.set(id, { list: next.value });
    this.#operations.set(toHex(next.value.head), operation);
    return next.value;
  }

  #connect(person: Person): void {
    person.connected = true;
    person.connection += 1;
    person.versionAtConnect = this.#visible(person, this.#logOf(person)).length;
    this.#dispatch(person, { type: "connected" });
  }

  #disconnect(person: Person): void {
    person.connected = false;
    person.connection += 1;
    this.#dispatch(person, { type: "disconnected" });
  }

  #restart(person: Person): void {
    const { list, heads, ownerVersion } = person.stored;
    const wishes = person.replica.wishes.filter(({ what }) => what.kind !== "add");
    person.connected = false;
    person.connection += 1;
    person.replica = { ...startReplica(person.userId, list, heads), ownerVersion };
    for (const wish of wishes) this.#dispatch(person, { type: "wished", wish });
  }

  #dispatch(person: Person, event: ReplicaEvent): void {
    this.#now += 1;
    const before = person.replica;
    const [after, effects] = this.#step(before, { ...event, nowMs: this.#now });
    person.replica = after;
    person.stored = { ...person.stored, ownerVersion: after.ownerVersion };
    assert(after.list.version >= before.list.version, `the list of ${person.index} went back`);
    if (this.options.mutant === "merges" && event.type === "fetched") {
      const members = new Map([...before.list.members, ...after.list.members]);
      person.replica = { ...after, list: { ...after.list, members } };
    }
    for (const effect of effects) this.#run(person, effect);
  }

  #run(person: Person, effect: ReplicaEffect): void {
    switch (effect.type) {
      case "fetch":
        this.#send(`${person.index} fetches`, person, () => this.#fetch(person, effect.since));
        return;
      case "submit":
        this.#send(`${person.index} submits`, person, () =>
          this.#submit(person, this.#signed(person.key, effect.draft)),
        );
        return;
      case "store":
        person.stored = {
          ...{ list: person.replica.list, heads: [...person.replica.heads] },
          ownerVersion: person.replica.ownerVersion,
        };
        for (const operation of effect.operations)
          if (operation.actor === person.userId) this.#notify(person, effect.before);
        return;
      case "restore":
        if (effect.from > 1) this.#restore(person, effect.from);
        return;
      case "report":
        person.reports.add(effect.report);
        return;
      default:
        return;
    }
  }

  /** To everybody who was or is in the list; each may read up to what left them out. */
  #notify(person: Person, before: ShareList): void {
    const { list } = person.replica;
    for (const other of this.people) {
      if (other === person || !(isMember(list, other.userId) || isMember(before, other.userId))) continue;
      const heads = person.replica.heads;
      const end = isMember(list, other.userId)
        ? heads.length
        : lastConcerning(
            heads.flatMap((head) => this.#operations.get(head) ?? []),
            other.userId,
          ) + 1;
      const head = end === list.version ? list.head : this.#headAt(person, end);
      this.#post(`notice of ${end} to ${other.index}`, () =>
        this.#dispatch(other, { type: "told", from: person.userId, version: end, head }),
      );
    }
  }

  #headAt(person: Person, version: number): Bytes {
    const next = defined(this.#operations.get(person.replica.heads[version] ?? ""), "the operation after it");
    return next.previousHash;
  }

  // ---- Server --------------------------------------------------------------------------------------------------------

  #logOf(person: Person): ServerLog {
    const second = this.options.server === "forks" && person.index % 2 === 1;
    return this.#logs[second ? 1 : 0];
  }

  /** Whoever is no member any more sees the list up to that; a server that withholds shows some people nothing new. */
  #visible(person: Person, { list, operations }: ServerLog): ShareOperation[] {
    const shown = this.options.server === "withholds" && person.index % 2 === 1 ? operations.slice(0, 1) : operations;
    if (isMember(list, person.userId)) return shown;
    return shown.slice(0, lastConcerning(shown, person.userId) + 1);
  }

  #fetch(person: Person, since: number): void {
    const log = this.#logOf(person);
    const visible = [...this.#visible(person, log)];
    const newest = visible.at(-1);
    this.#answer(person, `${person.index} gets the list`, () => {
      if (newest === undefined) return this.#dispatch(person, { type: "fetchFailed", unknown: true });
      const { head } = visible.reduce((list, op) => this.#appended(list, op), this.#emptyList());
      const operations = visible.slice(since);
      if (this.options.server === "forges") operations.push(this.#forged(visible, newest));
      this.#dispatch(person, { type: "fetched", operations, version: visible.length, head });
    });
  }

  #emptyList(): ShareList {
    return emptyList(FILE, defined(this.people[0], "owner").userId, simCrypto);
  }

  /** It adds a stranger in the owner's name. */
  #forged(visible: readonly ShareOperation[], newest: ShareOperation): ShareOperation {
    const list = visible.reduce((before, op) => this.#appended(before, op), this.#emptyList());
    return {
      ...newest,
      ...{ version: list.version + 1, kind: "add", terms: null, userIds: [this.stranger], previousHash: list.head },
      ...{ actor: list.ownerId, actorKey: defined(this.people[0], "owner").key, signature: new Uint8Array(64) },
    };
  }

  #submit(person: Person, operation: ShareOperation): void {
    const log = this.#logOf(person);
    const next = isMember(log.list, person.userId) ? append(log.list, operation, simCrypto) : null;
    if (next?.ok) {
      const before = log.list;
      log.list = this.#appended(before, operation);
      log.operations.push(operation);
      for (const other of this.people)
        if (other !== person && (isMember(before, other.userId) || isMember(log.list, other.userId)))
          this.#post(`hint to ${other.index}`, () => {
            if (other.connected) this.#dispatch(other, { type: "hinted", version: operation.version });
          });
    }
    this.#answer(person, `${person.index} hears of its operation`, () => {
      if (next?.ok) return this.#dispatch(person, { type: "submitted", operation });
      if (next === null) {
        const error = { type: "unknown_file", message: "unknown" };
        return this.#dispatch(person, { type: "submitFailed", error });
      }
      if (next.error.type === "share_conflict") return this.#dispatch(person, { type: "conflicted" });
      this.#dispatch(person, { type: "submitFailed", error: next.error });
    });
  }

  #forget(log: ServerLog): void {
    if (log.operations.length < 2) return;
    this.#forgotten.push(this.#replay(log.operations));
    log.operations.pop();
    log.list = log.operations.reduce((list, op) => this.#appended(list, op), this.#emptyList());
  }

  /** What the server has forgotten is given back to it. */
  #restore(person: Person, from: number): void {
    const log = this.#logOf(person);
    for (const head of person.replica.heads.slice(from - 1)) {
      const next = append(log.list, defined(this.#operations.get(head), "an operation"), simCrypto);
      if (!next.ok) return;
      log.list = next.value;
      log.operations.push(defined(this.#operations.get(head), "an operation"));
    }
  }

  // ---- On the way ----------------------------------------------------------------------------------------------------

  /** A request over the connection of now; lost with it. */
  #send(what: string, person: Person, arrive: () => void): void {
    const { connection } = person;
    this.#packet(what, false, () => {
      if (person.connection === connection) arrive();
    });
  }

  #answer(person: Person, what: string, arrive: () => void): void {
    this.#send(what, person, arrive);
  }

  #post(what: string, arrive: () => void): void {
    this.#packet(what, true, arrive);
  }

  #packet(what: string, mayBeLost: boolean, arrive: () => void): void {
    const packet: Packet = {
      what,
      mayBeLost,
      act: () => {
        this.#take(packet);
        arrive();
      },
    };
    this.#packets.push(packet);
  }

  #take(packet: Packet): void {
    const at = this.#packets.indexOf(packet);
    if (at >= 0) this.#packets.splice(at, 1);
  }

  #signed(key: Bytes, draft: ShareDraft): ShareOperation {
    const unsigned = { ...draft, actorKey: key };
    return { ...unsigned, signature: signatureOf(key, shareSigningBytes(unsigned)) };
  }
}
