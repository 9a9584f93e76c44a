import { afterEach, beforeEach, expect, test } from "vitest";
import type { UserId } from "#shared/base/ids.ts";
import {
  DIRECTORY_CLOCK_SKEW_MS,
  DIRECTORY_VALUE_BYTES_MAX,
  LEFT_GATHER_MS,
  LEFT_LOOK_MS,
  LEFT_SIGNALS_MAX,
  LEFT_WATCH_MS,
  LEFT_WATCHES_MAX,
} from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import {
  decodeLeftSignals,
  encodeContent,
  encodeLeftSignals,
  type LeftSignals as Left,
  type LinkSignal,
} from "#shared/wire/content.ts";
import { LeftSignals } from "../../src-main/links/left-signals.ts";
import { RELAY_MARK } from "../../src-main/links/transport.ts";
import { ManualClock } from "../support/links-fake-rtc.ts";
import { userIdOf } from "../support/links-ids.ts";
import { recordingLog } from "../support/links-world.ts";

const bob = userIdOf(1);
const dial: LinkSignal = { type: "dial", generation: 7 };
const offer: LinkSignal = { type: "offer", generation: 8, sdp: "v=0" };
const candidate = (name: string, generation = 8): LinkSignal => ({
  type: "candidate",
  generation,
  candidate: name,
  mid: "0",
});
const message = (body: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> => new Uint8Array([0, ...body]);

let clock: ManualClock;
let published: Left[];
/** What stands at Bob's place. */
let place: Uint8Array<ArrayBuffer> | null;
let looks: number;
let heard: LinkSignal[];
let connected: boolean;
let kind: Sealed["kind"];
let sealOverhead: number;
let left: LeftSignals;

beforeEach(() => {
  clock = new ManualClock();
  [published, place, looks, heard, connected, kind, sealOverhead] = [[], null, 0, [], false, "message", 0];
  left = new LeftSignals({
    clock,
    log: recordingLog(),
    directory: {
      publish: async (_peer, value) => {
        expect(value.length).toBeLessThanOrEqual(DIRECTORY_VALUE_BYTES_MAX);
        expect(value[0]).toBe(kind === "message" ? 0 : 1);
        const decoded = decodeLeftSignals(value.subarray(1, value.length - sealOverhead));
        if (decoded.ok) published.push(decoded.value);
        return ok({ expiresInMs: 1 });
      },
      lookup: async () => {
        looks += 1;
        return ok(place);
      },
    },
    mayLink: () => true,
    isConnected: () => connected,
    seal: async (_peer, plaintext) => ({ kind, body: new Uint8Array([...plaintext, ...new Uint8Array(sealOverhead)]) }),
    open: async (_peer, sealed) => sealed.body,
    onSignal: (_peer, signal) => heard.push(signal),
  });
});
afterEach(() => left.dispose());

const leftByBob = (signals: LinkSignal[], atMs = clock.now()): void => {
  place = message(encodeLeftSignals({ kind: "leftSignals", atMs, signals }));
};
const look = () => clock.advance(LEFT_LOOK_MS);
const gather = () => clock.advance(LEFT_GATHER_MS);

test("a dial is left once, and the peer still counts as offline", async () => {
  expect([left.undelivered(bob, dial), left.undelivered(bob, dial)]).toEqual([false, false]);
  await gather();
  expect(left.undelivered(bob, dial)).toBe(false);
  await gather();
  expect(published.map(({ signals }) => signals)).toEqual([[dial]]);
});

test("an offer is left, with the candidates that follow, for whoever asked for one just now, and for nobody else", async () => {
  expect([left.undelivered(bob, offer), left.undelivered(bob, candidate("a"))]).toEqual([false, false]);
  leftByBob([dial]);
  await look();
  expect(heard).toEqual([dial]);
  expect([left.undelivered(bob, offer), left.undelivered(bob, candidate("a"))]).toEqual([true, true]);
  await gather();
  expect(left.undelivered(bob, candidate("b"))).toBe(true);
  expect(left.undelivered(bob, candidate("of an older offer", 6))).toBe(false);
  expect(left.undelivered(bob, { ...offer, sdp: `${RELAY_MARK}\r\n` })).toBe(false);
  await gather();
  expect(published.map(({ signals }) => signals)).toEqual([
    [offer, candidate("a")],
    [offer, candidate("a"), candidate("b")],
  ]);
});

test("what is found is handed on once, also when more of it follows", async () => {
  left.undelivered(bob, dial);
  leftByBob([offer, candidate("a")]);
  await look();
  await look();
  leftByBob([offer, candidate("a"), candidate("b")]);
  await look();
  expect(heard).toEqual([offer, candidate("a"), candidate("b")]);
});

test("what is old, no left signals, or damaged means nothing", async () => {
  left.undelivered(bob, offer);
  leftByBob([dial], clock.now() - LEFT_WATCH_MS - DIRECTORY_CLOCK_SKEW_MS - LEFT_LOOK_MS);
  await look();
  for (const value of [
    message(encodeContent({ kind: "link", signal: dial })),
    new Uint8Array([9, 9, 9]),
    new Uint8Array([0]),
    message(new Uint8Array(300)),
  ]) {
    place = value;
    await look();
  }
  expect(heard).toEqual([]);
  expect(looks).toBe(5);
  expect(left.undelivered(bob, offer)).toBe(false);
});

test("it looks for so long, for so many, and not once the link stands", async () => {
  left.undelivered(bob, dial);
  await clock.advance(2 * LEFT_WATCH_MS);
  expect(looks).toBe(LEFT_WATCH_MS / LEFT_LOOK_MS - 1);
  expect(clock.timers).toBe(0);
  looks = 0;
  for (let i = 0; i < LEFT_WATCHES_MAX + 5; i += 1) left.undelivered(userIdOf(i + 1) as UserId, dial);
  await look();
  expect(looks).toBe(LEFT_WATCHES_MAX);
  connected = true;
  await clock.advance(LEFT_WATCH_MS);
  expect([looks, clock.timers]).toEqual([LEFT_WATCHES_MAX, 0]);
});

test("what does not fit one value loses its last candidates; their number is bounded", async () => {
  left.undelivered(bob, offer);
  leftByBob([dial]);
  await look();
  const long = "c".repeat(150);
  left.undelivered(bob, offer);
  for (let i = 0; i < 2 * LEFT_SIGNALS_MAX; i += 1) left.undelivered(bob, candidate(`${i} ${long}`));
  // A ciphertext that carries a key exchange.
  [kind, sealOverhead] = ["prekey", 1800];
  await gather();
  const [only] = published;
  expect(published.length).toBe(1);
  expect(only?.signals[0]).toEqual(offer);
  expect(only?.signals.length).toBe(LEFT_SIGNALS_MAX / 4);
});

test("nothing happens after the end", async () => {
  left.undelivered(bob, dial);
  left.dispose();
  expect(clock.timers).toBe(0);
  expect(left.undelivered(bob, dial)).toBe(false);
  await clock.advance(LEFT_WATCH_MS);
  expect([looks, published.length]).toEqual([0, 0]);
});
