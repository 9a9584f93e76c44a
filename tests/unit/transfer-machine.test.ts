import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import {
  REQUEST_TIMEOUT_MS,
  SEEDER_EMPTY_RETRY_MS,
  SEEDER_PATIENCE_MS,
  SEEDER_RETRY_MS,
  WORKER_LOSSES_MAX,
  WORKER_LOSSES_WINDOW_MS,
} from "#shared/base/limits.ts";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";
import { step } from "../../src-main/transfer/transfer-machine.ts";
import {
  type Effect,
  type Event,
  hasLastOf,
  initialState,
  type State,
  storedCountOf,
} from "../../src-main/transfer/transfer-state.ts";

const user = (letter: string): UserId => v.parse(UserIdSchema, letter.repeat(32));
const [ALICE, CAROL] = [user("a"), user("c")];
const NO_COUNTERS = { requested: 0, duplicate: 0, late: 0, rejected: 0 };

/** What an event is without its time, per member of the union. */
type Untimed<E> = E extends unknown ? Omit<E, "now"> : never;

/** Drives the machine and keeps what it asked for. */
class Run {
  state: State;
  now = 1000;
  effects: readonly Effect[] = [];
  readonly phases: string[] = [];

  constructor(chunkCount = 10, windowChunks = 32) {
    const setup = { chunkCount, windowChunks, startChunks: 16, backlogChunks: 64, drainTimeoutMs: 5000, seed: 0 };
    this.state = initialState(setup, { rest: "queued", storedCount: 0, counters: NO_COUNTERS });
  }

  do(event: Untimed<Event>): this {
    // Only the time is added, so the event is one of the union again.
    const [state, effects] = step(this.state, { ...event, now: this.now } as Event);
    if (state.kind !== this.state.kind) this.phases.push(state.kind);
    this.state = state;
    this.effects = effects;
    return effects.some(({ type }) => type === "proceed") ? this.do({ type: "proceed" }) : this;
  }

  opened(stored: number[] = [], isPartial = false): this {
    const { chunkCount } = this.state.setup;
    const map = stored.reduce((m, i) => m.with(i), PieceMap.empty(chunkCount));
    const pages = PieceMap.full(Math.ceil(chunkCount / 1024));
    this.do({ type: "start" });
    return this.do({
      type: "opened",
      run: this.state.run,
      stored: map,
      pages,
      counters: NO_COUNTERS,
      finishedPath: null,
      isPartial,
    });
  }

  /** A seeder that is linked and serves everything; its session number. */
  serving(peer: UserId, generation = 1): number {
    this.do({ type: "seederJoined", peer, generation });
    const open = this.one("open");
    this.do({ type: "have", session: open.session, available: null, leaves: true });
    return open.session;
  }

  arrive(session: number, index: number): this {
    return this.do({ type: "chunkArrived", session, index, frame: 100 + index });
  }
  stored(session: number, index: number): this {
    return this.do({ type: "chunkStored", run: this.state.run, session, index });
  }
  /** Arrives and is stored. */
  get(session: number, ...indices: number[]): this {
    for (const index of indices) this.arrive(session, index).stored(session, index);
    return this;
  }

  all<T extends Effect["type"]>(type: T): Extract<Effect, { type: T }>[] {
    return this.effects.filter((e): e is Extract<Effect, { type: T }> => e.type === type);
  }
  one<T extends Effect["type"]>(type: T): Extract<Effect, { type: T }> {
    const found = this.all(type);
    expect(found.map((e) => e.type)).toEqual([type]);
    return found[0] as Extract<Effect, { type: T }>;
  }
  requested(): number[] {
    return this.effects.flatMap((e) => (e.type === "request" ? [...e.indices] : []));
  }
  endWork(): this {
    this.do({ type: "assembled", run: this.state.run });
    this.do({ type: "verified", run: this.state.run });
    return this.do({ type: "finished", run: this.state.run, savedPath: "/d/f" });
  }
}

const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i);

describe("the four scenarios of the drain phase", () => {
  test("a normal download: nothing in flight, no wait", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    expect(run.requested()).toEqual(range(10));
    run.get(alice, ...range(10));
    expect(run.phases).toEqual(["opening", "downloading", "draining", "assembling"]);
    expect(run.state.drain).toMatchObject({ startedAtMs: 1000, endedBy: "answered" });
    run.endWork();
    expect(run.phases.slice(-2)).toEqual(["verifying", "complete"]);
    expect(run.all("dropChunks")).toEqual([{ type: "dropChunks", what: "chunks" }]);
  });

  test("three in flight: all of them are waited for, then assembly", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.get(alice, ...range(6));
    for (const index of [6, 7, 8, 9]) run.arrive(alice, index);
    run.stored(alice, 6);
    expect(run.state.kind).toBe("draining");
    run.stored(alice, 7).stored(alice, 9);
    expect(run.state.kind).toBe("draining");
    run.stored(alice, 8);
    expect(run.state.kind).toBe("assembling");
    expect(storedCountOf(run.state)).toBe(10);
    expect(run.state.counters).toMatchObject({ duplicate: 0, late: 0 });
  });

  test("three in flight at a second seeder: its `stopped` ends the drain exactly, frames that were sent are waited for", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.get(alice, ...range(7));
    run.now += REQUEST_TIMEOUT_MS;
    run.do({ type: "wake" });
    expect(run.requested()).toEqual([7, 8, 9]);
    const carol = run.serving(CAROL);
    expect(run.requested()).toEqual([]);
    run.now += SEEDER_PATIENCE_MS;
    run.do({ type: "wake" });
    expect(run.requested()).toEqual([7, 8, 9]);
    run.get(carol, 7, 8, 9);
    expect(run.state.kind).toBe("draining");
    run.arrive(alice, 7);
    run.do({ type: "stopped", session: alice, framesSent: 9 });
    expect(run.state.kind).toBe("draining");
    run.arrive(alice, 8);
    expect(run.state.kind).toBe("assembling");
    expect(run.state.drain?.endedBy).toBe("stopped");
    expect(run.state.counters.duplicate).toBe(2);
  });

  test("timeout with a chunk missing: it is fetched again, never assembled with a hole", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    const carol = run.serving(CAROL);
    run.get(alice, ...range(7), 9);
    run.arrive(alice, 7).arrive(alice, 8).stored(alice, 7);
    expect(run.state.kind).toBe("draining");
    run.now += 5000;
    run.do({ type: "wake" });
    // It has arrived: what the disk will say of it is waited for.
    expect(run.state.kind).toBe("draining");
    run.do({ type: "chunkRejected", run: run.state.run, session: alice, index: 8, peer: ALICE });
    expect(run.state.kind).toBe("downloading");
    expect(run.one("request")).toEqual({ type: "request", session: carol, indices: [8] });
    run.get(carol, 8);
    expect(run.state.kind).toBe("assembling");
    expect(run.phases).not.toContain("failed");
  });

  test("a disk that takes longer than the timeout: nothing is fetched again, however often it passes", () => {
    const run = new Run().opened();
    run.do({ type: "configured", drainTimeoutMs: 100 });
    const alice = run.serving(ALICE);
    run.get(alice, ...range(7));
    for (const index of [7, 8, 9]) run.arrive(alice, index);
    expect(run.one("wakeAt").atMs).toBe(run.now + 100);
    for (let late = 0; late < 5; late += 1) {
      run.now += 100;
      run.do({ type: "wake" });
      expect(run.state.kind).toBe("draining");
      expect(run.state.wakeAtMs).toBeNull();
      expect(run.requested()).toEqual([]);
    }
    run.stored(alice, 7).stored(alice, 9).stored(alice, 8);
    expect(run.state).toMatchObject({ kind: "assembling", drain: { endedBy: "answered" }, staleResults: 0 });
    expect(run.state.counters).toMatchObject({ requested: 10, cancelled: 0, duplicate: 0, late: 0 });
  });

  test("a seeder that never answers `stop`: the timeout gives up what it owes, and the disk is waited for", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.get(alice, ...range(9));
    run.now += SEEDER_PATIENCE_MS;
    run.do({ type: "wake" });
    const carol = run.serving(CAROL);
    expect(run.requested()).toEqual([9]);
    run.arrive(carol, 9);
    expect(run.state.kind).toBe("draining");
    run.now += 5000;
    run.do({ type: "wake" });
    expect(run.state.kind).toBe("draining");
    run.stored(carol, 9);
    expect(run.state).toMatchObject({ kind: "assembling", drain: { endedBy: "timeout" } });
    expect(run.state.counters).toMatchObject({ requested: 11, cancelled: 1, late: 0 });
    run.arrive(alice, 9);
    expect(run.state.counters.late).toBe(1);
  });

  test("a chunk that is lost with its connection is fetched again, however often, and the work goes on", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    const carol = run.serving(CAROL);
    run.get(alice, ...range(7));
    run.arrive(alice, 7).arrive(alice, 8).arrive(alice, 9);
    expect(run.state.kind).toBe("draining");
    for (let loss = 0; loss < 2 * WORKER_LOSSES_MAX; loss += 1) {
      run.do({ type: "chunkGone", run: run.state.run, index: 9 });
      expect(run.state.kind).toBe("downloading");
      expect(run.requested()).toEqual([9]);
      const { session } = run.one("request");
      run.arrive(session, 9);
      run.now += 1000;
    }
    expect([alice, carol]).toContain(run.all("storeChunk")[0]?.session);
    run.stored(alice, 7).stored(alice, 8).stored(alice, 9);
    expect(run.phases).not.toContain("failed");
    expect(run.phases.filter((phase) => phase === "opening")).toHaveLength(1);
    expect(run.state.kind).toBe("assembling");
    expect(run.state.counters).toMatchObject({ requested: 16, cancelled: 6, duplicate: 0 });
  });

  test("duplicate chunks change neither progress nor storage", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.get(alice, ...range(6));
    run.arrive(alice, 5);
    expect(run.effects.filter((e) => e.type === "storeChunk")).toEqual([]);
    expect(run.one("dropFrame").frame).toBe(105);
    expect(storedCountOf(run.state)).toBe(6);
    // Nobody asked for it again, so it ends no request.
    expect(run.state.counters).toMatchObject({ duplicate: 0, late: 1 });
    run.get(alice, ...range(4, 6));
    expect(run.state.kind).toBe("assembling");
  });

  test("a late chunk while assembling never touches storage", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.get(alice, ...range(10)).arrive(alice, 2);
    expect(run.all("storeChunk")).toEqual([]);
    expect(run.one("dropFrame").frame).toBe(102);
    expect(run.state.counters.late).toBe(1);
    expect(run.endWork().state.kind).toBe("complete");
  });
});

describe("seeders", () => {
  test("the window is bounded and refilled a quarter at a time", () => {
    const run = new Run(100, 16).opened();
    const alice = run.serving(ALICE);
    expect(run.requested()).toEqual(range(16));
    run.get(alice, 0, 1, 2);
    expect(run.requested()).toEqual([]);
    // Until the disk has it, a chunk counts as under way.
    run.arrive(alice, 3);
    expect(run.requested()).toEqual([]);
    run.stored(alice, 3);
    expect(run.requested()).toEqual(range(4, 16));
    expect(run.state.counters.requested).toBe(20);
  });

  test("two seeders share the work without asking twice", () => {
    const run = new Run(20, 8).opened();
    run.serving(ALICE);
    expect(run.requested()).toEqual(range(8));
    run.serving(CAROL);
    expect(run.requested()).toEqual(range(8, 8));
  });

  test("what a lost link owed is asked for over the next one", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.get(alice, 0, 1);
    run.do({ type: "seederLeft", peer: ALICE, generation: 1 });
    run.arrive(alice, 2);
    expect(run.state.counters.late).toBe(1);
    run.serving(ALICE, 2);
    expect(run.requested()).toEqual(range(8, 2));
  });

  test("what was opened over the successor of a link that is given up goes on; the rest is asked for again", () => {
    const run = new Run(40, 8).opened();
    const before = run.serving(ALICE);
    run.do({ type: "refused", session: before, reason: "busy" });
    run.now += SEEDER_RETRY_MS;
    run.do({ type: "wake" });
    const { session } = run.one("open");
    run.do({ type: "have", session, available: null, leaves: true });
    const carol = run.serving(CAROL);
    expect(run.requested()).toEqual(range(8, 8));
    run.do({ type: "seederMoved", peer: ALICE, from: 1, to: 2, sessions: [session] });
    run.do({ type: "seederJoined", peer: ALICE, generation: 2 });
    expect(run.effects.map(({ type }) => type)).toEqual(["publish"]);
    run.get(session, 0, 1);
    expect(run.state.counters).toMatchObject({ late: 0, cancelled: 8 });
    expect(run.requested()).toEqual([16, 17]);
    run.do({ type: "seederLeft", peer: ALICE, generation: 1 });
    run.get(session, 2);
    expect(storedCountOf(run.state)).toBe(3);
    run.do({ type: "seederMoved", peer: CAROL, from: 1, to: 2, sessions: [] });
    expect(run.one("open")).toMatchObject({ peer: CAROL, generation: 2 });
    run.arrive(carol, 8);
    expect(run.state.counters).toMatchObject({ late: 1, cancelled: 16 });
    run.do({ type: "seederLeft", peer: ALICE, generation: 2 });
    expect(run.state.swarm.peers.has(ALICE)).toBe(false);
  });

  test("a bad chunk bans its sender for the file, and another seeder is asked", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.arrive(alice, 0).do({ type: "chunkRejected", run: run.state.run, session: alice, index: 0, peer: ALICE });
    expect(run.one("stop").session).toBe(alice);
    expect(run.state.counters.rejected).toBe(1);
    run.do({ type: "seederJoined", peer: ALICE, generation: 2 });
    expect(run.all("open")).toEqual([]);
    run.serving(CAROL);
    expect(run.requested()).toEqual(range(10));
    run.do({ type: "retry" });
    expect(run.one("open").peer).toBe(ALICE);
  });

  test("a busy seeder is asked again later, a refusal by the last one fails the download", () => {
    const run = new Run().opened();
    run.do({ type: "seederJoined", peer: ALICE, generation: 1 });
    run.do({ type: "refused", session: run.one("open").session, reason: "busy" });
    expect(run.all("open")).toEqual([]);
    expect(run.one("wakeAt").atMs).toBe(run.now + SEEDER_RETRY_MS);
    run.now += SEEDER_RETRY_MS;
    run.do({ type: "wake" });
    run.do({ type: "refused", session: run.one("open").session, reason: "file_changed" });
    expect(run.state).toMatchObject({ kind: "failed", error: { type: "file_changed" } });
    run.do({ type: "retry" });
    expect(run.state.kind).toBe("opening");
  });

  test("what only somebody who is away may have is waited for; that the owner takes it back is the end all the same", () => {
    const run = new Run(4).opened();
    run.do({ type: "members", owner: ALICE, others: [CAROL] });
    run.do({ type: "seederJoined", peer: ALICE, generation: 1 });
    run.do({ type: "refused", session: run.one("open").session, reason: "file_changed" });
    expect(run.state.kind).toBe("downloading");
    const carol = run.serving(CAROL);
    run.get(carol, 0);
    run.do({ type: "seederLeft", peer: CAROL, generation: 1 });
    expect(run.state.kind).toBe("downloading");
    // What one of several says about the right to it is not the owner's word.
    const other = new Run(4).opened();
    other.do({ type: "members", owner: ALICE, others: [CAROL] });
    other.do({ type: "seederJoined", peer: CAROL, generation: 1 });
    other.do({ type: "refused", session: other.one("open").session, reason: "no_access" });
    expect(other.state.kind).toBe("downloading");
    other.do({ type: "seederLeft", peer: CAROL, generation: 1 });
    other.do({ type: "seederJoined", peer: ALICE, generation: 1 });
    other.do({ type: "refused", session: other.one("open").session, reason: "no_access" });
    expect(other.state).toMatchObject({ kind: "failed", error: { type: "no_access" } });
    // Carol may not have it any more, so nobody is left.
    run.do({ type: "members", owner: ALICE, others: [] });
    expect(run.state).toMatchObject({ kind: "failed", error: { type: "file_changed" } });
  });

  test("unavailable chunks are not asked of that seeder again", () => {
    const run = new Run(4).opened();
    const alice = run.serving(ALICE);
    run.do({ type: "unavailable", session: alice, indices: [1, 2] });
    expect(run.requested()).toEqual([]);
    run.serving(CAROL);
    expect(run.requested()).toEqual([1, 2]);
  });

  test("a seeder that has nothing of what is missing counts as none, and is asked again after a rest", () => {
    const run = new Run(4).opened();
    const alice = run.serving(ALICE);
    run.get(alice, 0);
    run.do({ type: "unavailable", session: alice, indices: [1, 2] });
    expect(run.all("stop")).toEqual([]);
    run.do({ type: "unavailable", session: alice, indices: [3] });
    expect(run.one("stop").session).toBe(alice);
    expect(run.one("forget").session).toBe(alice);
    expect(run.state.swarm.sessions.size).toBe(0);
    expect(run.one("wakeAt").atMs).toBe(run.now + SEEDER_EMPTY_RETRY_MS);
    run.now += SEEDER_EMPTY_RETRY_MS;
    run.do({ type: "wake" });
    expect(run.one("open").peer).toBe(ALICE);
    run.do({ type: "have", session: run.one("open").session, available: null, leaves: true });
    expect(run.requested()).toEqual([1, 2, 3]);
  });

  test("leaves come before chunks, one page ahead", () => {
    const run = new Run(3000, 8);
    run.do({ type: "start" });
    const opened = {
      stored: PieceMap.empty(3000),
      pages: PieceMap.empty(3),
      counters: NO_COUNTERS,
      finishedPath: null,
    };
    run.do({ type: "opened", run: run.state.run, ...opened });
    const alice = run.serving(ALICE);
    expect(run.requested()).toEqual([]);
    expect(run.all("requestLeaves").map((e) => e.page)).toEqual([0, 1]);
    run.do({ type: "leavesArrived", session: alice, page: 0, frame: 7 });
    expect(run.one("storeLeaves")).toMatchObject({ page: 0, frame: 7 });
    run.do({ type: "leavesStored", run: run.state.run, page: 0 });
    expect(run.requested()).toEqual(range(8));
  });
});

describe("the user", () => {
  test("pauses: chunks under way are kept, nothing more is asked for", () => {
    const run = new Run(100, 8).opened();
    const alice = run.serving(ALICE);
    run.arrive(alice, 0).do({ type: "pause" });
    expect(run.one("stop").session).toBe(alice);
    run.arrive(alice, 1);
    expect(run.one("storeChunk").index).toBe(1);
    run.stored(alice, 0).stored(alice, 1);
    expect(run.state.kind).toBe("pausing");
    run.do({ type: "stopped", session: alice, framesSent: 2 });
    expect(run.state).toMatchObject({ kind: "idle", rest: "paused", storedCount: 2 });
    run.opened([0, 1]);
    expect(run.one("open").peer).toBe(ALICE);
  });

  test("pauses while the disk is slower than the timeout: it rests with what has arrived", () => {
    const run = new Run(100, 8).opened();
    const alice = run.serving(ALICE);
    run.arrive(alice, 0).arrive(alice, 1).do({ type: "pause" });
    run.now += 5000;
    run.do({ type: "wake" });
    expect(run.state).toMatchObject({ kind: "pausing", wakeAtMs: null });
    run.stored(alice, 0).stored(alice, 1);
    expect(run.state).toMatchObject({ kind: "idle", rest: "paused", storedCount: 2 });
    expect(run.state.counters).toMatchObject({ requested: 8, cancelled: 6 });
  });

  test("pauses and goes on before the seeder answered: it is asked again once it has stopped", () => {
    const run = new Run(100, 8).opened();
    const alice = run.serving(ALICE);
    run.do({ type: "pause" }).do({ type: "start" });
    expect(run.state.kind).toBe("downloading");
    run.do({ type: "stopped", session: alice, framesSent: 0 });
    expect(run.one("open").session).not.toBe(alice);
  });

  test("cancels: everything is dropped, and what comes later is late", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.arrive(alice, 0).do({ type: "cancel" });
    expect(run.one("dropChunks").what).toBe("everything");
    expect(run.state.kind).toBe("cancelled");
    run.arrive(alice, 1).do({ type: "chunkStored", run: 1, session: alice, index: 0 });
    expect(run.state).toMatchObject({ kind: "cancelled", counters: { late: 1 }, staleResults: 1 });
  });
});

describe("from outside", () => {
  test("a new drain timeout holds for a download that runs", () => {
    const run = new Run(100, 8).opened();
    run.serving(ALICE);
    run.do({ type: "configured", drainTimeoutMs: 100 }).do({ type: "pause" });
    expect(run.one("wakeAt").atMs).toBe(run.now + 100);
    run.do({ type: "configured", drainTimeoutMs: 9000 });
    expect(run.all("wakeAt")).toEqual([]);
  });

  test("a reason to give up stops it with its chunks kept, unless everything has arrived", () => {
    const error = { type: "contact_blocked", message: "blocked" };
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.get(alice, 0, 1).do({ type: "giveUp", error });
    expect(run.one("stop").session).toBe(alice);
    expect(run.state).toMatchObject({ kind: "failed", error, storedCount: 2 });
    run.do({ type: "giveUp", error: { type: "other", message: "" } });
    expect(run.state).toMatchObject({ kind: "failed", error });
    const finishing = new Run().opened(range(10)).do({ type: "giveUp", error });
    expect(finishing.state.kind).toBe("assembling");
    expect(new Run().do({ type: "giveUp", error }).state.kind).toBe("failed");
  });
});

describe("work", () => {
  test("a full disk fails the download and keeps the chunks for a retry", () => {
    const run = new Run().opened();
    const alice = run.serving(ALICE);
    run.get(alice, 0, 1).arrive(alice, 2);
    run.do({ type: "storeFailed", run: run.state.run, error: { type: "disk_full", message: "full" } });
    expect(run.state).toMatchObject({ kind: "failed", error: { type: "disk_full" }, storedCount: 2 });
    expect(run.all("dropChunks")).toEqual([]);
  });

  test("rows damaged on disk are fetched again", () => {
    const run = new Run().opened(range(10));
    expect(run.state.kind).toBe("assembling");
    expect(run.state.drain?.endedBy).toBe("idle");
    run.do({ type: "chunksLost", run: run.state.run, indices: [3, 4] });
    const alice = run.serving(ALICE);
    expect(run.requested()).toEqual([3, 4]);
    run.get(alice, 3, 4);
    expect(run.endWork().state.kind).toBe("complete");
  });

  test("nothing of a finished download changes with who comes and goes, or thousands would be told again", () => {
    const run = new Run().opened(range(10)).endWork();
    const finished = run.state;
    for (const type of ["seederJoined", "seederLeft", "seederJoined"] as const)
      run.do({ type, peer: ALICE, generation: 1 });
    expect(run.state).toBe(finished);
  });

  test("a file without chunks passes every phase", () => {
    const run = new Run(0).opened().endWork();
    expect(run.phases).toEqual(["opening", "draining", "assembling", "verifying", "complete"]);
  });

  test("results of an older run change nothing and are counted", () => {
    const run = new Run().opened(range(10));
    const old = run.state.run;
    run.do({ type: "chunksLost", run: old, indices: [0] });
    run.do({ type: "assembled", run: old });
    expect(run.state).toMatchObject({ kind: "downloading", staleResults: 1 });
  });
});

describe("a worker that dies", () => {
  const gone = { type: "worker_ended", message: "gone" };

  test("makes a download scan what is stored and go on with what is missing", () => {
    const run = new Run(4);
    run.opened();
    const session = run.serving(ALICE);
    run.arrive(session, 0).stored(session, 0).arrive(session, 1);
    run.do({ type: "storeFailed", run: run.state.run, error: gone });
    expect(run.state.kind).toBe("opening");
    expect(run.effects.map(({ type }) => type)).toEqual(expect.arrayContaining(["stop", "stopWork", "scan"]));
    expect(storedCountOf(run.state)).toBe(1);
    // What the same death ends besides is stale.
    const { staleResults } = run.state;
    run.do({ type: "storeFailed", run: run.state.run - 1, error: gone });
    expect(run.state).toMatchObject({ kind: "opening", staleResults: staleResults + 1 });
    const stored = PieceMap.empty(4).with(0).with(1);
    run.do({
      ...{ type: "opened", run: run.state.run, stored, pages: PieceMap.full(1) },
      ...{ counters: NO_COUNTERS, finishedPath: null },
    });
    expect(run.state.kind).toBe("downloading");
    expect(storedCountOf(run.state)).toBe(2);
  });

  test("while the file is assembled or saved begins that again", () => {
    for (const step of ["assembled", "verified"] as const) {
      const run = new Run(1);
      run.opened([0]);
      expect(run.state.kind).toBe("assembling");
      run.do({ type: "assembled", run: run.state.run });
      if (step === "verified") run.do({ type: "verified", run: run.state.run });
      run.do({ type: "workFailed", run: run.state.run, error: gone });
      expect(run.state.kind).toBe("opening");
    }
  });

  test("leaves a download that is being paused paused", () => {
    const run = new Run(2);
    run.opened();
    const session = run.serving(ALICE);
    run.arrive(session, 0).do({ type: "pause" });
    expect(run.state.kind).toBe("pausing");
    run.do({ type: "storeFailed", run: run.state.run, error: gone });
    expect(run.state).toMatchObject({ kind: "idle", rest: "paused" });
  });

  test("too often in a short time is told to the user", () => {
    const run = new Run(1);
    run.do({ type: "start" });
    const die = (): void => void run.do({ type: "workFailed", run: run.state.run, error: gone });
    for (let i = 0; i < WORKER_LOSSES_MAX; i += 1) {
      die();
      expect(run.state.kind).toBe("opening");
    }
    // The first ones are forgotten by then.
    run.now += WORKER_LOSSES_WINDOW_MS;
    die();
    expect(run.state.kind).toBe("opening");
    for (let i = 1; i < WORKER_LOSSES_MAX; i += 1) die();
    expect(run.state.kind).toBe("opening");
    die();
    expect(run.state).toMatchObject({ kind: "failed", error: gone });
  });
});

describe("a folder whose list comes first", () => {
  test("is opened again once the list is stored, with its seeders, and neither drained nor assembled before", () => {
    const run = new Run().opened(range(8), true);
    const alice = run.serving(ALICE);
    expect(run.requested()).toEqual([8, 9]);
    run.get(alice, 8).arrive(alice, 9);
    expect(run.state.kind).toBe("downloading");
    run.stored(alice, 9);
    expect(run.one("scan")).toEqual({ type: "scan", run: run.state.run });
    expect(run.state.kind).toBe("opening");
    // Now it is known that 3 to 6 are wanted as well.
    const stored = [0, 1, 2, 7, 8, 9].reduce((map, i) => map.with(i), PieceMap.empty(10));
    const scanned = { stored, pages: PieceMap.full(1), counters: NO_COUNTERS, finishedPath: null };
    run.do({ type: "opened", run: run.state.run, ...scanned });
    expect(run.requested()).toEqual([3, 4, 5, 6]);
    run.get(alice, 3, 4, 5, 6);
    expect(run.phases).toEqual(["opening", "downloading", "opening", "downloading", "draining", "assembling"]);
  });

  test("that is paused meanwhile goes on where it was", () => {
    const run = new Run().opened(range(8), true);
    const alice = run.serving(ALICE);
    run.get(alice, 8).do({ type: "pause" });
    run.do({ type: "stopped", session: alice, framesSent: 1 });
    expect(run.state).toMatchObject({ kind: "idle", storedCount: 9 });
    run.opened(range(9), true);
    run.do({ type: "have", session: run.one("open").session, available: null, leaves: true });
    expect(run.requested()).toEqual([9]);
  });
});

test("the list of a folder, which is its last and shorter chunk, counts as such while the rest is looked for and while it rests", () => {
  const run = new Run();
  const hidden = PieceMap.full(10).without(9);
  run.do({ type: "start" });
  const scanned = { run: run.state.run, pages: PieceMap.full(1), counters: NO_COUNTERS, finishedPath: null };
  run.do({ type: "opened", ...scanned, stored: hidden, hidden, isPartial: true });
  run.get(run.serving(ALICE), 9);
  expect(run.state).toMatchObject({ kind: "opening", storedCount: 1, hasLast: true });
  const found = { ...scanned, run: run.state.run, stored: PieceMap.empty(10).with(9) };
  run.do({ type: "opened", ...found, hidden: PieceMap.empty(10) });
  expect([run.state.kind, storedCountOf(run.state), hasLastOf(run.state)]).toEqual(["downloading", 1, true]);
  run.do({ type: "pause" });
  run.now += 5000;
  run.do({ type: "wake" });
  expect(run.state).toMatchObject({ kind: "idle", storedCount: 1, hasLast: true });
});
