import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { HAVE_INTERVAL_MS } from "#shared/base/limits.ts";
import { PieceMap } from "../../src-main/transfer/piece-map.ts";
import { step } from "../../src-main/transfer/transfer-machine.ts";
import {
  type Effect,
  type Event,
  initialState,
  isReceiving,
  type State,
} from "../../src-main/transfer/transfer-state.ts";

/**
 * Several people who fetch the same file at once, in simulated time: an owner who sends one chunk after the other, to each
 * in turn, and receivers who give each other what they have, many times faster.
 */
type Untimed<E> = E extends unknown ? Omit<E, "now"> : never;
const DELAY_MS = 5;
const PEER_CHUNK_MS = 2;
const OWNER = 0;

const user = (i: number): UserId => v.parse(UserIdSchema, "abcdefgh".charAt(i).repeat(32));

interface Upload {
  readonly to: number;
  readonly session: number;
  readonly queue: Set<number>;
  sent: number;
  told: PieceMap;
}

interface Options {
  readonly chunkCount: number;
  /** Of the owner, over all receivers. */
  readonly ownerChunkMs: number;
  /** One for each receiver. */
  readonly seeds: readonly number[];
  /** When each begins to download. */
  readonly startMs?: readonly number[];
}

interface Outcome {
  readonly ms: number;
  readonly fromOwner: number;
  /** What each receiver has got from the others. */
  readonly fromOthers: readonly number[];
}

const exchange = ({ chunkCount, ownerChunkMs, seeds, startMs = [] }: Options): Outcome => {
  let now = 0;
  const due: { atMs: number; order: number; act: () => void }[] = [];
  let order = 0;
  const later = (ms: number, act: () => void): void => void due.push({ atMs: now + ms, order: order++, act });
  const none = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
  const states = new Map<number, State>();
  const timers = new Map<number, number>();
  /** Sessions by whoever serves them. */
  const uploads = new Map<number, Upload[]>();
  const sending = new Set<number>();
  const telling = new Set<number>();
  const got = seeds.map(() => [0, ...seeds.map(() => 0)]);
  let frames = 0;

  const stateOf = (i: number): State => {
    const state = states.get(i);
    if (state === undefined) throw new Error("nobody");
    return state;
  };
  const heldBy = (i: number): PieceMap | null => {
    if (i === OWNER) return PieceMap.full(chunkCount);
    const state = stateOf(i);
    return isReceiving(state) || state.kind === "assembling" ? state.pieces.stored : null;
  };
  const toReceiver = (i: number, event: Untimed<Event>): void => later(DELAY_MS, () => dispatch(i, event));
  const uploadsOf = (i: number): Upload[] => uploads.get(i) ?? [];

  /** Sends the next chunk, to each in turn. */
  const pump = (by: number): void => {
    if (sending.has(by)) return;
    const list = uploadsOf(by);
    const next = list.find(({ queue }) => queue.size > 0);
    if (next === undefined) return;
    sending.add(by);
    uploads.set(by, [...list.filter((one) => one !== next), next]);
    const index = [...next.queue][0] ?? 0;
    next.queue.delete(index);
    next.sent += 1;
    later(by === OWNER ? ownerChunkMs : PEER_CHUNK_MS, () => {
      sending.delete(by);
      const row = got[next.to - 1];
      if (row !== undefined) row[by] = (row[by] ?? 0) + 1;
      toReceiver(next.to, { type: "chunkArrived", session: next.session, index, frame: ++frames });
      pump(by);
    });
  };

  const tell = (by: number): void => {
    if (telling.has(by)) return;
    telling.add(by);
    later(HAVE_INTERVAL_MS, () => {
      telling.delete(by);
      const held = heldBy(by);
      if (held === null) return;
      for (const upload of uploadsOf(by)) {
        const runs = upload.told.runsAddedBy(held, 256);
        upload.told = upload.told.withRuns(runs);
        if (runs.length > 0) toReceiver(upload.to, { type: "haveMore", session: upload.session, runs, leaves: true });
      }
    });
  };

  const open = (by: number, to: number, session: number): void => {
    const held = heldBy(by);
    if (by !== OWNER) dispatch(by, { type: "seederInterested", peer: user(to) });
    if (held === null) {
      toReceiver(to, { type: "refused", session, reason: "not_held" });
      return;
    }
    uploads.set(by, [...uploadsOf(by), { to, session, queue: new Set(), sent: 0, told: held }]);
    toReceiver(to, { type: "have", session, available: by === OWNER ? null : held, leaves: true });
  };

  const run = (i: number, effect: Effect): void => {
    const uploadFor = (session: number): [number, Upload] | null => {
      for (const [by, list] of uploads)
        for (const upload of list) if (upload.to === i && upload.session === session) return [by, upload];
      return null;
    };
    switch (effect.type) {
      case "scan":
        later(1, () =>
          dispatch(i, {
            ...{ type: "opened", run: effect.run, stored: PieceMap.empty(chunkCount), finishedPath: null },
            ...{ pages: PieceMap.full(Math.ceil(chunkCount / 1024)), counters: none },
          }),
        );
        return;
      case "open": {
        const by = [OWNER, ...[...seeds.keys()].map((r) => r + 1)].find((p) => user(p) === effect.peer) ?? OWNER;
        later(DELAY_MS, () => open(by, i, effect.session));
        return;
      }
      case "request":
        later(DELAY_MS, () => {
          const [by, upload] = uploadFor(effect.session) ?? [OWNER, null];
          for (const index of effect.indices) upload?.queue.add(index);
          pump(by);
        });
        return;
      case "cancelRequests":
        later(DELAY_MS, () => {
          for (const index of effect.indices) uploadFor(effect.session)?.[1].queue.delete(index);
        });
        return;
      case "stop":
        later(DELAY_MS, () => {
          const [by, upload] = uploadFor(effect.session) ?? [OWNER, null];
          if (upload === null) return;
          uploads.set(
            by,
            uploadsOf(by).filter((one) => one !== upload),
          );
          toReceiver(i, { type: "stopped", session: effect.session, framesSent: upload.sent });
        });
        return;
      case "storeChunk": {
        const { run: of, session, index } = effect;
        later(1, () => {
          dispatch(i, { type: "chunkStored", run: of, session, index });
          tell(i);
        });
        return;
      }
      case "proceed":
        dispatch(i, { type: "proceed" });
        return;
      case "wakeAt":
        if (effect.atMs === null) timers.delete(i);
        else timers.set(i, effect.atMs);
        return;
      default:
        return;
    }
  };

  const dispatch = (i: number, event: Untimed<Event>): void => {
    const [next, effects] = step(stateOf(i), { ...event, now } as Event);
    states.set(i, next);
    for (const effect of effects) run(i, effect);
  };

  const receivers = [...seeds.keys()].map((r) => r + 1);
  for (const i of receivers) {
    const setup = { chunkCount, windowChunks: 48, startChunks: 16, backlogChunks: 192, drainTimeoutMs: 5000 };
    const own = { ...setup, seed: seeds[i - 1] ?? 0 };
    states.set(i, initialState(own, { rest: "queued", storedCount: 0, counters: none }));
    later(startMs[i - 1] ?? 0, () => {
      const others = receivers.filter((other) => other !== i).map(user);
      dispatch(i, { type: "members", owner: user(OWNER), others });
      for (const peer of [user(OWNER), ...others]) dispatch(i, { type: "seederJoined", peer, generation: 1 });
      dispatch(i, { type: "start" });
    });
  }
  const isDone = (): boolean => receivers.every((i) => stateOf(i).kind === "assembling");
  while (!isDone() && now < 3_600_000) {
    due.sort((a, b) => a.atMs - b.atMs || a.order - b.order);
    const timer = [...timers].reduce<[number, number] | null>((a, b) => (a === null || b[1] < a[1] ? b : a), null);
    const [next] = due;
    if (timer !== null && (next === undefined || timer[1] < next.atMs)) {
      now = Math.max(now, timer[1]);
      timers.delete(timer[0]);
      dispatch(timer[0], { type: "wake" });
    } else if (next !== undefined) {
      due.shift();
      now = next.atMs;
      next.act();
    } else break;
  }
  expect(isDone()).toBe(true);
  const fromOwner = got.reduce((sum, row) => sum + (row[OWNER] ?? 0), 0);
  return { ms: now, fromOwner, fromOthers: got.map(([, ...rest]) => rest.reduce((sum, n) => sum + n, 0)) };
};

describe("people who fetch the same file at once", () => {
  test("give each other what the owner sends only once, wherever they begin", () => {
    for (const seed of [40, 4_000_000_000, 7919, 123_456_789, 987_654_321, 2_718_281_828]) {
      const { fromOwner, fromOthers } = exchange({
        chunkCount: 128,
        ownerChunkMs: 31,
        seeds: [seed, seed ^ 0x5bd1_e980],
      });
      // Twice the file would be all of it to both.
      expect(fromOwner).toBeLessThan(1.75 * 128);
      for (const chunks of fromOthers) expect(chunks).toBeGreaterThan(128 / 8);
    }
  });

  test("do so in larger groups and when they come one after the other", () => {
    const three = exchange({ chunkCount: 128, ownerChunkMs: 20, seeds: [11, 2_222_222, 3_333_333_333] });
    expect(three.fromOwner).toBeLessThan(2 * 128);
    const late = exchange({ chunkCount: 128, ownerChunkMs: 31, seeds: [5, 5_555_555], startMs: [0, 1000] });
    expect(late.fromOwner).toBeLessThan(1.75 * 128);
  });
});
