import { expect, test } from "vitest";
import {
  STRIPE_ACK_DELAY_MS,
  STRIPE_LIMIT_FIRST_BYTES,
  STRIPE_LIMIT_MIN_BYTES,
  STRIPE_OFFERS_BURST,
  STRIPE_OPEN_TIMEOUT_MS,
  STRIPE_STALL_MS,
  STRIPE_TICK_MS,
  STRIPES_FIRST,
  STRIPES_MAX,
} from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { ControlOf } from "#shared/wire/control.ts";
import type { LinkPath } from "../../src-main/links/link-state.ts";
import { firstPlan, type StripePlan, type StripeSample, stepPlan } from "../../src-main/links/stripe-plan.ts";
import { Stripes } from "../../src-main/links/stripes.ts";
import type { LinkTransport, TransportDriver, TransportEvent } from "../../src-main/links/transport.ts";
import { ManualClock } from "../support/links-fake-rtc.ts";

// ---- How many --------------------------------------------------------------------------------------------------------

const busy: StripeSample = {
  isBusy: true,
  isOpening: false,
  open: STRIPES_FIRST,
  deliveredBytes: 100_000,
  path: "direct",
  rttMs: 50,
};
const after = (ticks: number, sample: Partial<StripeSample> = {}, from: StripePlan = firstPlan): StripePlan => {
  let plan = from;
  for (let tick = 0; tick < ticks; tick += 1) plan = stepPlan(plan, { ...busy, ...sample });
  return plan;
};

test("a busy link on a long path gets stripes, and more while they make it faster", () => {
  const first = after(2);
  expect(first).toMatchObject({ stage: "growing", wanted: STRIPES_FIRST });
  expect(after(10, { isOpening: true }, first)).toMatchObject({ stage: "growing", wanted: STRIPES_FIRST });
  expect(after(20, { deliveredBytes: 110_000 }, first)).toMatchObject({ stage: "settled", wanted: STRIPES_FIRST });
  const faster = after(7, { deliveredBytes: 300_000 }, first);
  expect(faster).toMatchObject({ stage: "growing", wanted: STRIPES_MAX });
  expect(after(20, { deliveredBytes: 900_000 }, faster)).toMatchObject({ stage: "settled", wanted: STRIPES_MAX });
});

test.each<[string, Partial<StripeSample>]>([
  ["that is idle", { isBusy: false }],
  ["within one machine", { path: "machine" }],
  ["that is relayed", { path: "relay" }],
  ["on a short path", { rttMs: 2 }],
  ["of unknown length", { rttMs: null }],
])("a link %s gets none", (_what, sample) => {
  expect(after(50, sample)).toEqual(firstPlan);
});

test("where none can be opened no more are tried", () => {
  expect(after(1, { open: 0 }, after(2))).toMatchObject({ stage: "settled", wanted: STRIPES_FIRST });
});

// ---- Two sides -------------------------------------------------------------------------------------------------------

const print = (seed: number): string => Array.from({ length: 32 }, () => seed.toString(16).padStart(2, "0")).join(":");
const sdpOf = (seed: number): string => `v=0\r\na=fingerprint:sha-256 ${print(seed).toUpperCase()}\r\n`;

interface Opened {
  readonly tell: (event: TransportEvent) => void;
  closed: boolean;
  sent: number;
  remote: string | null;
}

class Side {
  readonly clock = new ManualClock();
  readonly opened: Opened[] = [];
  readonly said: (ControlOf<"stripe"> | ControlOf<"stripeAck">)[] = [];
  readonly lost: string[] = [];
  frames = 0;
  rooms = 0;
  isOpen = true;
  path: LinkPath = "direct";
  readonly first = this.#transport({ tell: () => undefined, closed: false, sent: 0, remote: null });
  readonly stripes: Stripes;

  constructor() {
    const driver: TransportDriver = {
      open: (_options, tell) => {
        const opened: Opened = { tell, closed: false, sent: 0, remote: null };
        this.opened.push(opened);
        return ok(this.#transport(opened));
      },
      dispose: () => undefined,
    };
    this.stripes = new Stripes({
      clock: this.clock,
      driver,
      options: { iceServers: [] },
      admits: () => true,
      path: () => this.path,
      isOpen: () => this.isOpen,
      send: (message) => void this.said.push(message),
      onFrame: () => {
        this.frames += 1;
      },
      onQueueLow: () => undefined,
      onRoom: () => {
        this.rooms += 1;
      },
      lose: (reason) => void this.lost.push(reason),
    });
    this.stripes.understood();
    this.stripes.measured(50);
  }

  #transport(opened: Opened): LinkTransport {
    return {
      createOffer: () => ok(undefined),
      acceptOffer: () => ok(undefined),
      acceptAnswer: () => ok(undefined),
      addRemoteCandidate: () => ok(undefined),
      send: () => {
        opened.sent += 1;
        return ok(undefined);
      },
      bufferedAmount: () => 0,
      remoteFingerprint: () => opened.remote,
      selectedPair: () => ({
        local: { address: "10.0.0.1", type: "host" },
        remote: { address: "10.0.0.2", type: "host" },
      }),
      bytesReceived: () => 0,
      close: () => {
        opened.closed = true;
      },
    };
  }

  /** As much as there is room for. */
  send(bytes = 65_536): number {
    let count = 0;
    for (; count < 10_000 && this.stripes.hasRoom(bytes); count += 1)
      this.stripes.next(this.first, bytes).send("bulk", new Uint8Array(1));
    return count;
  }

  ack(...received: { index: number; bytes: number }[]): void {
    this.stripes.acked({ type: "stripeAck", received: received as ControlOf<"stripeAck">["received"] });
  }

  of(kind: ControlOf<"stripe">["said"]["kind"]): ControlOf<"stripe">[] {
    return this.said.filter((it): it is ControlOf<"stripe"> => it.type === "stripe" && it.said.kind === kind);
  }
}

/** Busy for long enough, so that stripes are being opened. */
const dialing = async (): Promise<Side> => {
  const side = new Side();
  for (let tick = 0; tick < 5; tick += 1) {
    side.send();
    await side.clock.advance(STRIPE_TICK_MS);
  }
  expect(side.opened).toHaveLength(STRIPES_FIRST);
  return side;
};
const hear = (side: Side, index: number, said: ControlOf<"stripe">["said"], mine = false): void =>
  side.stripes.message({ type: "stripe", index, mine, said });
const openAll = (side: Side): void => {
  for (const [at, stripe] of side.opened.entries()) {
    hear(side, at + 1, { kind: "answer", sdp: sdpOf(7) });
    stripe.remote = print(7).toUpperCase();
    stripe.tell({ type: "channelOpen", channel: "bulk" });
    hear(side, at + 1, { kind: "ready" });
  }
};
const striped = async (): Promise<Side> => {
  const side = await dialing();
  side.ack({ index: 0, bytes: 1e9 });
  openAll(side);
  expect(side.stripes.count).toBe(STRIPES_FIRST);
  return side;
};

test("frames go over the stripes alone once they are open, evenly, and pause until then", async () => {
  const side = await dialing();
  side.ack({ index: 0, bytes: 1e9 });
  expect(side.send()).toBe(0);
  for (const { tell } of side.opened)
    tell({ type: "localCandidate", candidate: "candidate:1 1 UDP 1 10.0.0.1 5 typ host", mid: "0" });
  // The peer's end is not listening before its answer is here.
  expect(side.of("candidate")).toEqual([]);
  openAll(side);
  expect(side.of("candidate")).toHaveLength(STRIPES_FIRST);
  expect(side.rooms).toBeGreaterThan(0);
  expect(side.send()).toBe((STRIPES_FIRST * STRIPE_LIMIT_FIRST_BYTES) / 65_536);
  expect(new Set(side.opened.map(({ sent }) => sent))).toEqual(new Set([STRIPE_LIMIT_FIRST_BYTES / 65_536]));
  // Who gets through more gets more.
  const rooms = side.rooms;
  side.ack({ index: 2, bytes: STRIPE_LIMIT_FIRST_BYTES });
  expect(side.rooms).toBe(rooms + 1);
  side.send();
  expect(side.opened.map(({ sent }) => sent)).toEqual([4, 8, 4, 4]);
});

test("frames go on when the peer says that a stripe is ready before it is known to be open here", async () => {
  const side = await dialing();
  side.ack({ index: 0, bytes: 1e9 });
  expect(side.send()).toBe(0);
  const rooms = side.rooms;
  for (const [at, stripe] of side.opened.entries()) {
    hear(side, at + 1, { kind: "answer", sdp: sdpOf(7) });
    hear(side, at + 1, { kind: "ready" });
    stripe.remote = print(7).toUpperCase();
  }
  expect([side.rooms, side.send()]).toEqual([rooms, 0]);
  for (const { tell } of side.opened) tell({ type: "channelOpen", channel: "bulk" });
  expect(side.rooms).toBeGreaterThan(rooms);
  expect(side.send()).toBeGreaterThan(0);
});

test("when no stripe can be opened, frames go on over the link's own association", async () => {
  const side = await dialing();
  side.ack({ index: 0, bytes: 1e9 });
  expect(side.send()).toBe(0);
  await side.clock.advance(STRIPE_OPEN_TIMEOUT_MS + STRIPE_TICK_MS);
  expect(side.opened.every(({ closed }) => closed)).toBe(true);
  expect(side.rooms).toBeGreaterThan(0);
  expect(side.send()).toBeGreaterThan(0);
  await side.clock.advance(60_000);
  expect(side.opened).toHaveLength(STRIPES_FIRST);
  expect(side.lost).toEqual([]);
});

test("how much may be under way follows the speed, and never stops a slow way altogether", async () => {
  const side = new Side();
  let acked = 0;
  const roundOf = async (bytesPerTick: number): Promise<void> => {
    side.send();
    acked += bytesPerTick;
    side.ack({ index: 0, bytes: acked });
    await side.clock.advance(STRIPE_TICK_MS);
  };
  side.stripes.measured(5);
  await roundOf(0);
  await roundOf(1000);
  side.ack({ index: 0, bytes: 1e9 });
  expect(side.send()).toBe(STRIPE_LIMIT_MIN_BYTES / 65_536);
  // A frame that is larger than the limit goes alone.
  side.ack({ index: 0, bytes: 1e9 });
  expect(side.send(300_000)).toBe(1);
});

test("a slow stripe holds up nobody but itself", async () => {
  const side = await striped();
  let slow = 0;
  for (let tick = 0; tick < 4; tick += 1) {
    for (let round = 0; round < 3; round += 1) {
      side.send();
      side.ack(...[2, 3, 4].map((index) => ({ index, bytes: (side.opened[index - 1]?.sent ?? 0) * 65_536 })));
    }
    slow += 65_536;
    side.ack({ index: 1, bytes: slow });
    side.send();
    await side.clock.advance(STRIPE_TICK_MS);
  }
  side.ack(...[2, 3, 4].map((index) => ({ index, bytes: 1e9 })));
  const before = side.opened.map(({ sent }) => sent);
  expect((before[0] ?? 0) * 65_536 - slow).toBeLessThanOrEqual(STRIPE_LIMIT_FIRST_BYTES);
  side.send();
  const [slowNow, ...fastNow] = side.opened.map(({ sent }, i) => sent - (before[i] ?? 0));
  expect(slowNow).toBeLessThanOrEqual(1);
  // Each has room for what it delivers in half a second, not for what the slow one does.
  for (const frames of fastNow) expect(frames).toBeGreaterThanOrEqual((2 * STRIPE_LIMIT_FIRST_BYTES) / 65_536);
});

test("within one machine nothing waits, nor toward a peer that tells nothing", async () => {
  const side = new Side();
  side.path = "machine";
  expect(side.send()).toBe(10_000);
  await side.clock.advance(10 * STRIPE_TICK_MS);
  expect(side.opened).toEqual([]);
});

test("a stripe that breaks with bytes under way ends the link; one that has delivered all does not", async () => {
  const quiet = await striped();
  quiet.opened[1]?.tell({ type: "ended", reason: "failed" });
  expect([quiet.lost, quiet.stripes.count, quiet.opened[1]?.closed]).toEqual([[], STRIPES_FIRST - 1, true]);

  const loud = await striped();
  loud.send();
  hear(loud, 2, { kind: "end", receivedBytes: 65_536 });
  expect(loud.lost).toEqual(["stripe_lost"]);

  // The peer has all of it, only its word that it has was still on its way.
  const done = await striped();
  done.send();
  hear(done, 2, { kind: "end", receivedBytes: STRIPE_LIMIT_FIRST_BYTES });
  expect(done.lost).toEqual([]);
});

test("a stripe on which nothing moves any more is broken, one that rests is not", async () => {
  const side = await striped();
  await side.clock.advance(3 * STRIPE_STALL_MS);
  expect(side.lost).toEqual([]);
  side.send();
  for (let tick = 0; tick < STRIPE_STALL_MS / STRIPE_TICK_MS + 2; tick += 1) {
    for (const index of [1, 3, 4]) side.ack({ index, bytes: 65_536 * (tick + 1) });
    side.send();
    await side.clock.advance(STRIPE_TICK_MS);
  }
  expect(side.lost).toEqual(["stripe_lost"]);
  expect(side.opened.slice(0, STRIPES_FIRST).map(({ closed }) => closed)).toEqual([false, true, false, false]);
});

test("a stripe with another certificate than the one announced ends the link, before anything went over it", async () => {
  const side = await dialing();
  const [stripe] = side.opened;
  hear(side, 1, { kind: "answer", sdp: sdpOf(7) });
  if (stripe !== undefined) stripe.remote = print(8).toUpperCase();
  stripe?.tell({ type: "channelOpen", channel: "bulk" });
  expect([side.lost, stripe?.sent]).toEqual([["fingerprint_mismatch"], 0]);
});

test("the other side takes frames only over stripes that are open, tells what has come, and takes only so many", async () => {
  const side = new Side();
  const frame = (): TransportEvent => ({ type: "message", channel: "bulk", bytes: new Uint8Array(100) });
  hear(side, 1, { kind: "offer", sdp: sdpOf(3) }, true);
  const [stripe] = side.opened;
  stripe?.tell({ type: "localDescription", kind: "answer", sdp: sdpOf(4) });
  expect(side.of("answer")).toHaveLength(1);
  if (stripe !== undefined) stripe.remote = print(3).toUpperCase();
  stripe?.tell({ type: "channelOpen", channel: "bulk" });
  expect(side.of("ready")).toEqual([{ type: "stripe", index: 1, mine: false, said: { kind: "ready" } }]);
  stripe?.tell(frame());
  side.stripes.arrived(7);
  await side.clock.advance(STRIPE_ACK_DELAY_MS);
  expect(side.frames).toBe(1);
  const acks = side.said.filter(({ type }) => type === "stripeAck");
  expect(acks).toEqual([
    {
      type: "stripeAck",
      received: [
        { index: 0, bytes: 7 },
        { index: 1, bytes: 100 },
      ],
    },
  ]);

  hear(side, 2, { kind: "offer", sdp: sdpOf(3) }, true);
  side.opened[1]?.tell(frame());
  expect([side.frames, side.lost]).toEqual([1, ["unexpected_message"]]);

  const flooded = new Side();
  for (let index = 1; index <= STRIPES_MAX; index += 1) hear(flooded, index, { kind: "offer", sdp: sdpOf(3) }, true);
  hear(flooded, 1, { kind: "offer", sdp: sdpOf(3) }, true);
  expect(flooded.opened).toHaveLength(STRIPES_MAX);
  for (let round = 0; round < 100; round += 1) {
    hear(flooded, 1, { kind: "end", receivedBytes: 0 }, true);
    hear(flooded, 1, { kind: "offer", sdp: sdpOf(3) }, true);
  }
  expect(flooded.opened).toHaveLength(STRIPE_OFFERS_BURST);
});

test("the end of the link is the end of all of them, and nothing opens while it says goodbye", async () => {
  const side = await striped();
  hear(side, 3, { kind: "offer", sdp: sdpOf(3) }, true);
  side.isOpen = false;
  hear(side, 4, { kind: "offer", sdp: sdpOf(3) }, true);
  expect(side.opened).toHaveLength(STRIPES_FIRST + 1);
  side.send();
  side.stripes.dispose();
  expect(side.opened.every(({ closed }) => closed)).toBe(true);
  const said = side.said.length;
  for (const { tell } of side.opened) tell({ type: "ended", reason: "closed" });
  await side.clock.advance(100_000);
  expect([side.lost, side.said.length]).toEqual([[], said]);
});
