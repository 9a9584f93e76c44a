import { assert, assertNever } from "#shared/base/assert.ts";
import type { UserId } from "#shared/base/ids.ts";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";
import { step } from "../../src-main/transfer/transfer-machine.ts";
import {
  type Effect,
  type Event,
  initialState,
  isReceiving,
  type State,
  storedCountOf,
} from "../../src-main/transfer/transfer-state.ts";

/**
 * A world around one transfer machine: seeders with links that break, frames that overtake each other, are doubled or
 * bad, a disk worker, a user who pauses and cancels. Nothing happens by itself: everything that could happen next is in
 * `choices`, and the test's numbers say which one does. So every run is a list of numbers, which fast-check shrinks.
 */
type Untimed<E> = E extends unknown ? Omit<E, "now"> : never;
type Choice = { readonly label: string; readonly act: () => void };

/**
 * `wrong`: some of its chunks are not the file's. `pages`: its pages of hashes are not. `repeats`: sends everything twice.
 * `unasked`: sends what it was not asked for. `silent`: sends nothing. `mute`: does not even answer. `claims`: has nothing
 * of what it claims. `counts`: says that it sent more than it was asked for. `partial` is honest: it receives the file itself.
 */
export type SimKind =
  | "honest"
  | "partial"
  | "wrong"
  | "pages"
  | "repeats"
  | "unasked"
  | "silent"
  | "mute"
  | "claims"
  | "counts";

interface SimSession {
  readonly session: number;
  /** Control messages on their way to us, in order. */
  readonly control: Untimed<Event>[];
  /** Frames on their way to us, in no order. */
  frames: { kind: "chunk" | "leaves"; index: number; bad: boolean }[];
  queue: number[];
  framesSent: number;
  ended: boolean;
}

interface SimSeeder {
  readonly id: UserId;
  readonly kind: SimKind;
  /** What a partial one has. */
  held: PieceMap;
  generation: number;
  linked: boolean;
  sessions: Map<number, SimSession>;
}

export interface WorldOptions {
  readonly chunkCount: number;
  readonly seeders: readonly { id: UserId; kind: SimKind }[];
  readonly windowChunks?: number;
  /** For tests of the tests: the machine with something taken out. */
  readonly step?: typeof step;
}

const isHonest = ({ kind }: { kind: SimKind }): boolean => kind === "honest" || kind === "partial";

/** One step may pass through a state that has nothing to wait for: downloading, then pausing, then idle. */
const LEGAL: Readonly<Record<State["kind"], readonly State["kind"][]>> = {
  idle: ["opening", "cancelled", "failed"],
  // Back to opening: the worker was lost.
  opening: ["downloading", "draining", "idle", "cancelled", "failed", "complete"],
  downloading: ["opening", "draining", "pausing", "idle", "cancelled", "failed"],
  pausing: ["idle", "downloading", "draining", "cancelled", "failed"],
  draining: ["opening", "assembling", "downloading", "pausing", "idle", "cancelled", "failed"],
  assembling: ["opening", "verifying", "downloading", "draining", "cancelled", "failed"],
  verifying: ["opening", "complete", "cancelled", "failed"],
  complete: [],
  failed: ["opening", "cancelled"],
  cancelled: [],
};

export class SimWorld {
  state: State;
  now = 0;
  readonly visited: State["kind"][] = [];
  readonly #step: typeof step;
  readonly #options: WorldOptions;
  readonly #seeders: SimSeeder[];
  /** What the disk holds; the truth that progress is compared with. */
  readonly #disk = new Set<number>();
  readonly #pages = new Set<number>();
  /** `commit`: what reaches the disk before anybody is told; `gone`: what is told when the frame was lost with its connection; `index` of a chunk. */
  #work: { label: string; act: () => void; index?: number; commit?: () => void; gone?: () => void }[] = [];
  readonly #frames = new Map<number, { bad: boolean }>();
  #nextFrame = 1;
  #wakeAtMs: number | null = null;
  #maxStored = 0;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#step = options.step ?? step;
    this.#seeders = options.seeders.map((seeder) => ({
      ...{ ...seeder, generation: 0, linked: false, sessions: new Map() },
      held: PieceMap.empty(options.chunkCount),
    }));
    const setup = {
      chunkCount: options.chunkCount,
      windowChunks: options.windowChunks ?? 4,
      startChunks: 16,
      backlogChunks: 16,
      drainTimeoutMs: 5000,
      seed: 0,
    };
    const counters = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
    this.state = initialState(setup, { rest: "queued", storedCount: 0, counters });
  }

  dispatch(event: Untimed<Event>): void {
    const before = this.state;
    const [next, effects] = this.#step(before, { ...event, now: this.now } as Event);
    this.state = next;
    if (next.kind !== before.kind) {
      const isLegal = LEGAL[before.kind].includes(next.kind) || this.#options.step !== undefined;
      assert(isLegal, `illegal edge ${before.kind} -> ${next.kind}`);
      this.visited.push(next.kind);
    }
    this.#checkFrame(event, effects);
    for (const effect of effects) this.#run(effect);
    this.#checkInvariants(before);
  }

  /** I2 and I3, and the promise that every frame is settled exactly once. */
  #checkFrame(event: Untimed<Event>, effects: readonly Effect[]): void {
    const settled = effects.filter(
      ({ type }) => type === "storeChunk" || type === "storeLeaves" || type === "dropFrame",
    );
    const isFrame = event.type === "chunkArrived" || event.type === "leavesArrived";
    assert(settled.length === (isFrame ? 1 : 0), `a frame had ${settled.length} fates`);
  }

  #checkInvariants(before: State): void {
    const { state } = this;
    const stored = storedCountOf(state);
    if ("pieces" in state && state.kind !== "assembling" && state.kind !== "verifying") {
      // I1: what counts as progress is on the disk, each chunk once.
      assert(stored <= this.#disk.size, "progress counts a chunk that is not stored");
      for (let i = 0; i < this.#options.chunkCount; i += 1)
        assert(!state.pieces.stored.has(i) || this.#disk.has(i), `chunk ${i} is not on disk`);
    }
    if (
      state.kind === "assembling" ||
      state.kind === "verifying" ||
      (state.kind === "complete" && before.kind !== "opening")
    )
      assert(this.#disk.size === this.#options.chunkCount, `${state.kind} with a hole`);
    assert(stored <= this.#options.chunkCount, "more chunks than there are");
    this.#checkCounters(stored);
    if (state.kind === "assembling" && before.kind === "draining")
      for (const [, session] of state.swarm.sessions)
        assert(session.owed.size === 0 || session.stage.kind === "stopping", "assembly while a request is outstanding");
    this.#maxStored = Math.max(this.#maxStored, stored);
  }

  /** Every request ends in exactly one way, or is outstanding. */
  #checkCounters(stored: number): void {
    const { requested, duplicate, rejected, cancelled } = this.state.counters;
    const isCounting = isReceiving(this.state) || this.state.kind === "complete";
    if (!isCounting || this.#options.step !== undefined) return;
    const sessions = [...this.state.swarm.sessions.values()];
    const owed = sessions.reduce((sum, session) => sum + session.owed.size + session.overdue.size, 0);
    const storing = isReceiving(this.state) ? this.state.pieces.storing.size : 0;
    const ended = stored + duplicate + rejected + cancelled;
    assert(
      requested === ended + owed + storing,
      `${requested} requests, ${ended} ended, ${owed} + ${storing} under way`,
    );
  }

  // ---- What could happen next -------------------------------------------------------------------------------------------

  /** Ordinary progress; the first of each kind is the one that would come next if all were in order. */
  choices(): Choice[] {
    const choices: Choice[] = [];
    const [work] = this.#work;
    if (work !== undefined)
      choices.push({
        label: work.label,
        act: () => {
          this.#work.shift();
          work.act();
        },
      });
    for (const seeder of this.#seeders) {
      if (!seeder.linked) {
        if (isHonest(seeder)) choices.push({ label: `${seeder.id[0]} joins`, act: () => this.#join(seeder) });
        continue;
      }
      for (const session of seeder.sessions.values()) choices.push(...this.#sessionChoices(seeder, session));
      if (seeder.kind === "partial" && !seeder.held.isFull)
        choices.push({ label: `${seeder.id[0]} gains`, act: () => this.#gain(seeder) });
    }
    if (choices.length === 0 && this.#wakeAtMs !== null) choices.push(this.#timer(this.#wakeAtMs));
    return choices;
  }

  #sessionChoices(seeder: SimSeeder, s: SimSession): Choice[] {
    const choices: Choice[] = [];
    const [message] = s.control;
    if (message !== undefined)
      choices.push({
        label: `control ${message.type}`,
        act: () => {
          s.control.shift();
          this.dispatch(message);
        },
      });
    if (s.queue.length > 0 && seeder.kind !== "silent")
      choices.push({ label: "send", act: () => this.#send(seeder, s) });
    s.frames.forEach((frame, at) => {
      choices.push({
        label: `frame ${frame.index}`,
        act: () => {
          s.frames = s.frames.filter((_, i) => i !== at);
          this.#deliver(s, frame);
        },
      });
    });
    return choices;
  }

  #timer(dueMs: number): Choice {
    return {
      label: "timer",
      act: () => {
        this.now = Math.max(this.now, dueMs);
        this.dispatch({ type: "wake" });
      },
    };
  }

  /** What goes wrong, and what the user does. */
  disturbances(): Choice[] {
    const passTime = (): void => {
      this.now += 1700;
    };
    const choices: Choice[] = [{ label: "time", act: passTime }];
    for (const type of ["start", "pause", "queue", "retry"] as const)
      choices.push({ label: type, act: () => this.dispatch({ type }) });
    choices.push({ label: "configured", act: () => this.dispatch({ type: "configured", drainTimeoutMs: 900 }) });
    const error = { type: "contact_blocked", message: "blocked" };
    choices.push({ label: "give up", act: () => this.dispatch({ type: "giveUp", error }) });
    if (this.#wakeAtMs !== null) choices.push(this.#timer(this.#wakeAtMs));
    if (this.#disk.size > 0 && this.state.kind === "assembling")
      choices.push({ label: "disk damage", act: () => this.#damage() });
    if (this.#work.length > 0) choices.push({ label: "disk full", act: () => this.#failWork() });
    const frame = this.#work.find(({ gone }) => gone !== undefined);
    if (frame !== undefined) choices.push({ label: "frame gone", act: () => this.#loseFrame(frame) });
    if (this.#work.length > 0) choices.push({ label: "worker lost", act: () => this.#loseWorker() });
    for (const seeder of this.#seeders) {
      if (!seeder.linked) choices.push({ label: "join", act: () => this.#join(seeder) });
      else {
        choices.push({ label: "leave", act: () => this.#leave(seeder) });
        choices.push({ label: "move", act: () => this.#move(seeder) });
      }
      for (const s of seeder.sessions.values()) {
        if (seeder.kind === "unasked") choices.push({ label: "unasked", act: () => this.#sendUnasked(s) });
        choices.push({ label: "refuse", act: () => this.#refuse(s) });
        if (s.queue.length > 0) choices.push({ label: "unavailable", act: () => this.#lack(s) });
      }
    }
    return choices;
  }

  cancel(): void {
    this.dispatch({ type: "cancel" });
  }

  #sendUnasked(s: SimSession): void {
    s.framesSent += 1;
    this.#deliver(s, { kind: "chunk", index: s.framesSent % Math.max(1, this.#options.chunkCount), bad: true });
  }

  /** A receiver that seeds has stored one chunk more, and says so. */
  #gain(seeder: SimSeeder): void {
    const index = seeder.held.nextMissing(0, null);
    if (index === null) return;
    seeder.held = seeder.held.with(index);
    const leaves = seeder.held.count > 1;
    for (const { session, control, ended } of seeder.sessions.values())
      if (!ended) control.push({ type: "haveMore", session, runs: [[index, 1]], leaves });
    if (seeder.held.count === 1) this.dispatch({ type: "seederInterested", peer: seeder.id });
  }

  #refuse(s: SimSession): void {
    if (s.ended) return;
    s.ended = true;
    s.queue = [];
    s.control.push({ type: "refused", session: s.session, reason: s.framesSent % 2 === 0 ? "busy" : "file_changed" });
  }

  /** It does not have what it is asked for next. */
  #lack(s: SimSession): void {
    const indices = s.queue.splice(0, 1);
    s.control.push({ type: "unavailable", session: s.session, indices });
  }

  #failWork(): void {
    this.#work.shift();
    this.dispatch({ type: "workFailed", run: this.state.run, error: { type: "disk_full", message: "full" } });
  }

  #loseFrame(frame: { gone?: () => void }): void {
    this.#work = this.#work.filter((work) => work !== frame);
    frame.gone?.();
  }

  /** All that it was given is answered with its end; the first of it had reached the disk. */
  #loseWorker(): void {
    const { run } = this.state;
    const lost = this.#work;
    this.#work = [];
    lost[0]?.commit?.();
    const error = { type: "worker_ended", message: "gone" };
    for (const { commit } of lost)
      this.dispatch({ type: commit === undefined ? "workFailed" : "storeFailed", run, error });
  }

  #join(seeder: SimSeeder): void {
    seeder.linked = true;
    seeder.generation += 1;
    this.dispatch({ type: "seederJoined", peer: seeder.id, generation: seeder.generation });
  }

  #leave(seeder: SimSeeder): void {
    seeder.linked = false;
    // Frames that the link had delivered already may still wait in our queue: late ones are dispatched after the end.
    const left = [...seeder.sessions.values()].flatMap((s) => s.frames.slice(0, 1).map((frame) => ({ s, frame })));
    seeder.sessions.clear();
    this.dispatch({ type: "seederLeft", peer: seeder.id, generation: seeder.generation });
    for (const { s, frame } of left) this.#deliver(s, frame);
  }

  /** Its link is given up and had been replaced; every second session had been opened over the other link. */
  #move(seeder: SimSeeder): void {
    const from = seeder.generation;
    seeder.generation += 1;
    const goOn = new Map([...seeder.sessions].filter(([session]) => session % 2 === 0));
    const left = [...seeder.sessions.values()]
      .filter(({ session }) => !goOn.has(session))
      .flatMap((s) => s.frames.slice(0, 1).map((frame) => ({ s, frame })));
    seeder.sessions = goOn;
    const sessions = [...goOn.keys()];
    this.dispatch({ type: "seederMoved", peer: seeder.id, from, to: seeder.generation, sessions });
    for (const { s, frame } of left) this.#deliver(s, frame);
  }

  #send(seeder: SimSeeder, s: SimSession): void {
    const index = s.queue.shift();
    assert(index !== undefined, "something is queued");
    if (seeder.kind === "claims" || (seeder.kind === "partial" && !seeder.held.has(index))) {
      s.control.push({ type: "unavailable", session: s.session, indices: [index] });
      return;
    }
    const copies = seeder.kind === "repeats" ? 2 : 1;
    s.framesSent += copies;
    for (let copy = 0; copy < copies; copy += 1)
      s.frames.push({ kind: "chunk", index, bad: seeder.kind === "wrong" && index % 3 === 0 });
  }

  #deliver(s: SimSession, { kind, index, bad }: SimSession["frames"][number]): void {
    const frame = this.#nextFrame++;
    this.#frames.set(frame, { bad });
    if (kind === "chunk") this.dispatch({ type: "chunkArrived", session: s.session, index, frame });
    else this.dispatch({ type: "leavesArrived", session: s.session, page: index, frame });
  }

  #damage(): void {
    const [index] = this.#disk;
    if (index === undefined) return;
    this.#work = [];
    this.#disk.delete(index);
    this.dispatch({ type: "chunksLost", run: this.state.run, indices: [index] });
  }

  // ---- Effects ------------------------------------------------------------------------------------------------------------

  #session(id: number): SimSession | undefined {
    for (const { sessions } of this.#seeders) {
      const found = sessions.get(id);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #run(effect: Effect): void {
    switch (effect.type) {
      case "open": {
        const seeder = this.#seeders.find(({ id }) => id === effect.peer);
        assert(seeder?.linked === true && seeder.generation === effect.generation, "opened over a link that is gone");
        const { session } = effect;
        const { kind, held } = seeder;
        const have = { available: kind === "partial" ? held : null, leaves: kind !== "partial" || held.count > 1 };
        const nothing = kind === "partial" && held.count === 0;
        const control: Untimed<Event>[] = nothing
          ? [{ type: "refused", session, reason: "not_held" }]
          : [
              { type: "accepted", session },
              { type: "have", session, ...have },
            ];
        if (kind === "mute") control.length = 0;
        seeder.sessions.set(session, { session, control, frames: [], queue: [], framesSent: 0, ended: nothing });
        return;
      }
      case "request": {
        const s = this.#session(effect.session);
        for (const index of effect.indices) {
          assert(this.state.kind === "downloading" && !this.#isStored(index), "asked for what is stored");
          assert(
            !this.#work.some((work) => work.index === index),
            "asked for what has arrived, and waits for the disk",
          );
        }
        if (s !== undefined && !s.ended) s.queue.push(...effect.indices.filter((index) => !s.queue.includes(index)));
        return;
      }
      case "cancelRequests": {
        const s = this.#session(effect.session);
        if (s !== undefined) s.queue = s.queue.filter((index) => !effect.indices.includes(index));
        return;
      }
      case "requestLeaves": {
        const s = this.#session(effect.session);
        if (s === undefined || s.ended) return;
        const from = this.#seeders.find(({ sessions }) => sessions.has(effect.session));
        if (from?.kind === "silent") return;
        s.framesSent += 1;
        s.frames.push({ kind: "leaves", index: effect.page, bad: from?.kind === "pages" });
        return;
      }
      case "stop": {
        const s = this.#session(effect.session);
        if (s === undefined || s.ended) return;
        s.ended = true;
        s.queue = [];
        const by = this.#seeders.find(({ sessions }) => sessions.has(effect.session));
        if (by?.kind === "mute" || by?.kind === "silent") return;
        const framesSent = s.framesSent + (by?.kind === "counts" ? 1000 : 0);
        s.control.push({ type: "stopped", session: s.session, framesSent });
        return;
      }
      case "storeChunk": {
        assert(
          ["downloading", "draining", "pausing"].includes(this.state.kind),
          `a late chunk reached storage in ${this.state.kind}`,
        );
        const held = this.#frames.get(effect.frame);
        const { run, session, index } = effect;
        const peer = this.#peerOf(session);
        this.#work.push({
          label: `store ${index}`,
          index,
          commit: () => {
            if (held?.bad !== true) this.#disk.add(index);
          },
          gone: () => this.dispatch({ type: "chunkGone", run, index }),
          act: () => {
            if (held?.bad === true) return this.dispatch({ type: "chunkRejected", run, session, index, peer });
            const type = this.#disk.has(index) ? "chunkDuplicate" : "chunkStored";
            this.#disk.add(index);
            this.dispatch({ type, run, session, index });
          },
        });
        return;
      }
      case "storeLeaves": {
        const { run, page, session } = effect;
        const isBad = this.#frames.get(effect.frame)?.bad === true;
        const peer = this.#peerOf(session);
        this.#work.push({
          label: `leaves ${page}`,
          commit: () => {
            if (!isBad) this.#pages.add(page);
          },
          gone: () => this.dispatch({ type: "leavesGone", run, page }),
          act: () => {
            if (isBad) return this.dispatch({ type: "leavesRejected", run, page, session, peer });
            this.#pages.add(page);
            this.dispatch({ type: "leavesStored", run, page });
          },
        });
        return;
      }
      case "report":
        return;
      case "scan":
        this.#scan(effect.run);
        return;
      case "assemble":
        this.#work.push({ label: "assemble", act: () => this.dispatch({ type: "assembled", run: effect.run }) });
        return;
      case "verify":
        this.#work.push({ label: "verify", act: () => this.dispatch({ type: "verified", run: effect.run }) });
        return;
      case "finish":
        this.#work.push({
          label: "finish",
          act: () => this.dispatch({ type: "finished", run: effect.run, savedPath: "/d/f" }),
        });
        return;
      case "proceed":
        this.dispatch({ type: "proceed" });
        return;
      case "wakeAt":
        this.#wakeAtMs = effect.atMs;
        return;
      case "dropChunks":
      case "dropFrame":
      case "forget":
      case "stopWork":
      case "wantLinks":
      case "checkpoint":
      case "publish":
        return;
      default:
        assertNever(effect, "effect");
    }
  }

  #isStored(index: number): boolean {
    return "pieces" in this.state && this.state.pieces.stored.has(index);
  }

  readonly #peerBySession = new Map<number, UserId>();
  #peerOf(session: number): UserId {
    for (const { id, sessions } of this.#seeders) if (sessions.has(session)) this.#peerBySession.set(session, id);
    const peer = this.#peerBySession.get(session) ?? this.#seeders[0]?.id;
    assert(peer !== undefined, "a session has a peer");
    return peer;
  }

  /** The worker flushes what it was given before it scans. */
  #scan(run: number): void {
    const { chunkCount } = this.#options;
    this.#work.push({
      label: "scan",
      act: () => {
        let stored = PieceMap.empty(chunkCount);
        for (const index of this.#disk) stored = stored.with(index);
        let pages = PieceMap.empty(Math.ceil(chunkCount / 1024));
        for (const page of this.#pages) pages = pages.with(page);
        const counters = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
        this.dispatch({ type: "opened", run, stored, pages, counters, finishedPath: null });
      },
    });
  }
}
