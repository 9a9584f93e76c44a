import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";
import { step } from "../../src-main/transfer/transfer-machine.ts";
import { type Effect, type Event, initialState, type State } from "../../src-main/transfer/transfer-state.ts";

/** A download in simulated time, from seeders that each send one chunk after the other at their own speed. */
type Untimed<E> = E extends unknown ? Omit<E, "now"> : never;
type Lie = "wrong" | "leaves out" | "repeats" | "unasked" | "silent" | "mute" | "claims" | "counts";

interface Seeder {
  readonly chunkMs: number;
  readonly lie?: Lie;
}

const DELAY_MS = 20;
const user = (i: number): UserId => v.parse(UserIdSchema, "abcdefgh".charAt(i).repeat(32));

const download = (chunkCount: number, seeders: readonly Seeder[]): { ms: number; state: State; faults: string[] } => {
  let now = 0;
  let timer: number | null = null;
  const due: { atMs: number; event: Untimed<Event> }[] = [];
  const faults: string[] = [];
  const setup = { chunkCount, windowChunks: 48, startChunks: 16, backlogChunks: 192, drainTimeoutMs: 5000, seed: 0 };
  const none = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
  let state: State = initialState(setup, { rest: "queued", storedCount: 0, counters: none });
  const open = new Map<number, { by: number; queue: number[]; freeAtMs: number; sent: number; stopped: boolean }>();
  const bad = new Set<number>();
  let frames = 0;
  const later = (ms: number, event: Untimed<Event>): void => void due.push({ atMs: now + ms, event });

  const send = (id: number, index: number): void => {
    const s = open.get(id);
    const seeder = seeders[s?.by ?? 0];
    if (s === undefined || seeder === undefined) return;
    s.freeAtMs = Math.max(s.freeAtMs, now) + seeder.chunkMs;
    s.sent += 1;
    const frame = ++frames;
    if (seeder.lie === "wrong") bad.add(frame);
    due.push({ atMs: s.freeAtMs + DELAY_MS, event: { type: "chunkArrived", session: id, index, frame } });
  };

  const run = (effect: Effect): void => {
    switch (effect.type) {
      case "open": {
        const by = seeders.findIndex((_, i) => user(i) === effect.peer);
        open.set(effect.session, { by, queue: [], freeAtMs: now, sent: 0, stopped: false });
        if (seeders[by]?.lie === "mute") return;
        later(2 * DELAY_MS, { type: "have", session: effect.session, available: null, leaves: true });
        return;
      }
      case "request": {
        const s = open.get(effect.session);
        const lie = seeders[s?.by ?? 0]?.lie;
        if (s === undefined || lie === "silent") return;
        if (lie === "claims") {
          later(2 * DELAY_MS, { type: "unavailable", session: effect.session, indices: effect.indices });
          return;
        }
        for (const index of effect.indices) {
          if (lie === "leaves out" && index % 2 === 0) continue;
          send(effect.session, lie === "unasked" ? (index + 7) % chunkCount : index);
          if (lie === "repeats") send(effect.session, index);
        }
        return;
      }
      case "stop": {
        const s = open.get(effect.session);
        const lie = seeders[s?.by ?? 0]?.lie;
        if (s === undefined || lie === "mute" || lie === "silent") return;
        // What it has not begun to send is not sent.
        const gone = due.filter(
          (d) =>
            d.event.type === "chunkArrived" && d.event.session === effect.session && d.atMs - DELAY_MS > now + DELAY_MS,
        );
        for (const d of gone) due.splice(due.indexOf(d), 1);
        const framesSent = s.sent - gone.length + (lie === "counts" ? 1000 : 0);
        later(2 * DELAY_MS, { type: "stopped", session: effect.session, framesSent });
        return;
      }
      case "cancelRequests": {
        const s = open.get(effect.session);
        if (s === undefined) return;
        for (const index of effect.indices) {
          const at = due.findIndex(
            ({ event, atMs }) =>
              event.type === "chunkArrived" &&
              event.session === effect.session &&
              event.index === index &&
              atMs - DELAY_MS > now + DELAY_MS,
          );
          if (at < 0) continue;
          due.splice(at, 1);
          s.sent -= 1;
          s.freeAtMs -= seeders[s.by]?.chunkMs ?? 0;
        }
        return;
      }
      case "storeChunk": {
        const { session, index, frame } = effect;
        const peer = user(open.get(session)?.by ?? 0);
        const type = bad.has(frame) ? "chunkRejected" : "chunkStored";
        later(1, { type, run: effect.run, session, index, peer } as Untimed<Event>);
        return;
      }
      case "report":
        faults.push(`${effect.peer.charAt(0)} ${effect.fault}`);
        return;
      case "proceed":
        dispatch({ type: "proceed" });
        return;
      case "scan": {
        const pages = PieceMap.full(Math.ceil(chunkCount / 1024));
        later(0, {
          ...{ type: "opened", run: effect.run, stored: PieceMap.empty(chunkCount), pages },
          ...{ counters: none, finishedPath: null },
        } as Untimed<Event>);
        return;
      }
      case "wakeAt":
        timer = effect.atMs;
        return;
      default:
        return;
    }
  };

  const dispatch = (event: Untimed<Event>): void => {
    const [next, effects] = step(state, { ...event, now } as Event);
    state = next;
    for (const effect of effects) run(effect);
  };

  dispatch({ type: "start" });
  for (const i of seeders.keys()) dispatch({ type: "seederJoined", peer: user(i), generation: 1 });
  const isDone = (): boolean => state.kind === "assembling";
  while (!isDone() && now < 3_600_000) {
    const next = due.reduce<(typeof due)[number] | null>((a, b) => (a === null || b.atMs < a.atMs ? b : a), null);
    if (timer !== null && (next === null || timer < next.atMs)) {
      now = Math.max(now, timer);
      timer = null;
      dispatch({ type: "wake" });
    } else if (next !== null) {
      due.splice(due.indexOf(next), 1);
      now = Math.max(now, next.atMs);
      dispatch(next.event);
    } else break;
  }
  return { ms: now, state, faults };
};

describe("a download from several seeders", () => {
  test("is as fast as all of them together", () => {
    const one = download(1000, [{ chunkMs: 5 }]);
    const four = download(1000, [{ chunkMs: 5 }, { chunkMs: 5 }, { chunkMs: 5 }, { chunkMs: 5 }]);
    expect(four.state.kind).toBe("assembling");
    expect(one.ms / four.ms).toBeGreaterThan(3.5);
  });

  test("is delayed by at most a tenth by one that has a hundredth of the others' speed, wherever it joins", () => {
    const fast = download(1000, [{ chunkMs: 5 }, { chunkMs: 5 }]).ms;
    for (const at of [0, 1, 2]) {
      const seeders = [{ chunkMs: 5 }, { chunkMs: 5 }].toSpliced(at, 0, { chunkMs: 500 });
      const { ms, state } = download(1000, seeders);
      expect(state.kind).toBe("assembling");
      expect(ms).toBeLessThanOrEqual(fast * 1.1);
    }
  });

  const named: Partial<Record<Lie, string>> = {
    wrong: "b bad_data",
    repeats: "b unasked_data",
    unasked: "b unasked_data",
    claims: "b false_claims",
  };
  for (const lie of ["wrong", "leaves out", "repeats", "unasked", "silent", "mute", "claims", "counts"] as const)
    test(`completes among liars: ${lie}`, () => {
      const { state, faults } = download(1000, [{ chunkMs: 5 }, { chunkMs: 5, lie }, { chunkMs: 5 }]);
      expect(state.kind).toBe("assembling");
      const { requested, duplicate, rejected, cancelled } = state.counters;
      expect(requested).toBe(1000 + duplicate + rejected + cancelled);
      // The first bad chunk ends it; the rest of what it sends is not even looked at.
      expect(rejected).toBe(lie === "wrong" ? 1 : 0);
      const fault = named[lie];
      if (fault !== undefined) expect(faults).toEqual([fault]);
    });
});
