import { describe, expect, it } from "vitest";
import {
  LAN_ANNOUNCE_INTERVAL_MS,
  LAN_COMPARISONS_PER_MINUTE,
  LAN_EPOCH_MS,
  LAN_HEARD_MAX,
  LAN_HINTS_PER_PEER_MAX,
  LAN_PACKETS_PER_SECOND,
  LAN_RECORD_TTL_MS,
  LAN_TAGS_MAX,
  LAN_TAGS_PER_STRING,
} from "#shared/base/limits.ts";
import { systemRandom } from "../../src-main/env.ts";
import { hintCandidate, LanDiscovery } from "../../src-main/links/lan-discovery.ts";
import { initialLan, type LanEffect, type LanEvent, lanHints, stepLan } from "../../src-main/links/lan-machine.ts";
import {
  epochAt,
  type Heard,
  type LanRecord,
  lanRecords,
  newInstance,
  readLanAnswers,
  recognise,
  tagStrings,
} from "../../src-main/links/lan-record.ts";
import type { LanSocketEvents } from "../../src-main/links/lan-socket.ts";
import { quietLog } from "../support/files.ts";
import { ManualClock } from "../support/links-fake-rtc.ts";
import { userIdOf } from "../support/links-ids.ts";

const [alice, bob, eve] = [userIdOf(1), userIdOf(2), userIdOf(3)];
const secret = new Uint8Array(32).fill(7);
const NOW = 1_800_000_000_000;

const recordOf = (heard: readonly Heard[]): LanRecord => {
  const [first] = heard;
  if (first?.type !== "record") throw new Error("no record was read");
  return first.record;
};
const announced = (peers: readonly { peer: typeof bob; secret: Uint8Array }[], atMs = NOW): LanRecord => {
  const instance = newInstance(systemRandom);
  const strings = tagStrings(peers, alice, instance, epochAt(atMs), systemRandom);
  return recordOf(readLanAnswers(lanRecords(instance, 4000, strings, LAN_RECORD_TTL_MS)));
};

describe("a record on the local network", () => {
  it("is recognised by the contact it is for, with clocks an epoch apart, and by nobody else", () => {
    const record = announced([{ peer: bob, secret }]);
    const atBob = [{ peer: alice, secret }];
    for (const skew of [-LAN_EPOCH_MS, 0, LAN_EPOCH_MS]) expect(recognise(record, atBob, NOW + skew)).toBe(alice);
    expect(recognise(record, atBob, NOW + 2 * LAN_EPOCH_MS)).toBeNull();
    expect(recognise(record, [{ peer: alice, secret: new Uint8Array(32) }], NOW)).toBeNull();
    // Under another name, or sent back to its maker, it means nothing.
    expect(recognise({ ...record, instance: newInstance(systemRandom) }, atBob, NOW)).toBeNull();
    expect(recognise(record, [{ peer: bob, secret }], NOW)).toBeNull();
  });

  it("has nothing in common with the next one of the same person", () => {
    const [first, second] = [announced([{ peer: bob, secret }]), announced([{ peer: bob, secret }])];
    expect(first.instance).not.toBe(second.instance);
    expect([...first.tags].filter((tag) => second.tags.has(tag))).toEqual([]);
  });

  it("is as long for no contact as for many, and counts no more than it may", () => {
    const peers = (count: number) =>
      Array.from({ length: count }, (_, at) => ({ peer: userIdOf(at % 26), secret: new Uint8Array(32).fill(at) }));
    for (const count of [0, 1, LAN_TAGS_PER_STRING])
      expect(announced(peers(count)).tags.size).toBe(LAN_TAGS_PER_STRING);
    expect(announced(peers(LAN_TAGS_MAX + 50)).tags.size).toBe(LAN_TAGS_MAX);
  });

  it("is not read from what is not exactly of its form", () => {
    const strings = tagStrings([], alice, "a".repeat(20), 1, systemRandom);
    const [ptr, srv, txt] = lanRecords("a".repeat(20), 4000, strings, LAN_RECORD_TTL_MS);
    expect(readLanAnswers([ptr, srv, txt])).toHaveLength(1);
    expect(readLanAnswers([ptr, srv])).toEqual([]);
    expect(readLanAnswers([ptr, txt])).toEqual([]);
    expect(readLanAnswers([{ ...srv, data: { port: 65_536, target: "x" } }, txt])).toEqual([]);
    expect(readLanAnswers([srv, { ...txt, data: [Buffer.alloc(8)] }])).toEqual([]);
    expect(readLanAnswers([{ ...srv, name: "printer._weir._udp.local" }, txt])).toEqual([]);
    expect(readLanAnswers([...Array.from({ length: 32 }, () => ptr), srv, txt])).toEqual([]);
    expect(readLanAnswers([{ ...ptr, ttl: 0 }, srv, txt])).toEqual([{ type: "gone", instance: "a".repeat(20) }]);
  });
});

/** The machine with time in the hands of the test. */
const machine = () => {
  let state = initialLan;
  let names = 0;
  const world = {
    atMs: 0,
    wakeAtMs: null as number | null,
    state: () => state,
    step(event: LanEvent): LanEffect[] {
      const fresh = `name${names++}`;
      const [next, effects] = stepLan(state, { atMs: world.atMs, random: 0.5, fresh, event });
      state = next;
      for (const effect of effects) if (effect.type === "wake") world.wakeAtMs = effect.atMs;
      return effects.filter((effect) => effect.type !== "wake");
    },
    /** Lets time pass, waking the machine whenever it wants to be. */
    pass(ms: number): LanEffect[] {
      const endMs = world.atMs + ms;
      const effects: LanEffect[] = [];
      while (world.wakeAtMs !== null && world.wakeAtMs <= endMs) {
        world.atMs = world.wakeAtMs;
        effects.push(...world.step({ type: "time" }));
      }
      world.atMs = endMs;
      return effects;
    },
  };
  return world;
};
const heard = (
  instance: string,
  peer: typeof bob | null,
  address = "10.0.0.2",
  ttlMs = LAN_RECORD_TTL_MS,
): LanEvent => ({
  type: "heard",
  ...{ instance, address, port: 4000, peer, ttlMs },
});
const count = (effects: readonly LanEffect[], type: LanEffect["type"]): number =>
  effects.filter((effect) => effect.type === type).length;

describe("discovery on the local network", () => {
  it("announces itself twice, asks ever more rarely, and takes another name before the epoch ends", () => {
    const lan = machine();
    expect(lan.step({ type: "start" })).toEqual([]);
    const first = lan.pass(2000);
    expect(count(first, "announce")).toBe(2);
    const rest = lan.pass(LAN_EPOCH_MS - 2001);
    expect(count(rest, "query")).toBeLessThan(25);
    expect(count(rest, "takeBack")).toBe(1);
    const names = [...first, ...rest].flatMap((effect) => (effect.type === "announce" ? [effect.instance] : []));
    expect(new Set(names).size).toBe(2);
  });

  it("goes on although a timer fires a moment too early", () => {
    const lan = machine();
    lan.step({ type: "start" });
    lan.pass(10);
    const dueAtMs = lan.wakeAtMs ?? 0;
    lan.atMs = dueAtMs - 1;
    lan.wakeAtMs = null;
    expect(lan.step({ type: "time" })).toEqual([]);
    expect(lan.wakeAtMs).toBe(dueAtMs);
  });

  it("answers a flood of questions once a second", () => {
    const lan = machine();
    lan.step({ type: "start" });
    lan.pass(10_000);
    const effects: LanEffect[] = [];
    for (let at = 0; at < 10_000; at += 1) effects.push(...lan.step({ type: "asked" }), ...lan.pass(1));
    expect(count(effects, "announce")).toBeGreaterThan(5);
    expect(count(effects, "announce")).toBeLessThanOrEqual(10_000 / LAN_ANNOUNCE_INTERVAL_MS);
  });

  it("finds a contact once, keeps it while it is heard, and loses it with time or its goodbye", () => {
    const lan = machine();
    lan.step({ type: "start" });
    const hint = { peer: bob, address: "10.0.0.2", port: 4000 };
    expect(lan.step(heard("b", bob))).toEqual([{ type: "found", hint }]);
    lan.pass(LAN_RECORD_TTL_MS - 1);
    expect(lan.step(heard("b", null))).toEqual([]);
    expect(count(lan.pass(LAN_RECORD_TTL_MS - 1), "lost")).toBe(0);
    expect(lan.pass(2)).toContainEqual({ type: "lost", hint });
    lan.step(heard("b", bob));
    expect(lan.step({ type: "gone", instance: "b", address: "10.0.0.66" })).toEqual([]);
    expect(lan.step({ type: "gone", instance: "b", address: "10.0.0.2" })).toEqual([{ type: "lost", hint }]);
    lan.step(heard("b", bob));
    expect(lan.step({ type: "stop" })).toContainEqual({ type: "lost", hint });
    expect(lan.wakeAtMs).toBeNull();
    expect(lan.step(heard("b", bob))).toEqual([]);
  });

  it("keeps within its bounds: strangers give way, a person has few addresses, a long lifetime is cut", () => {
    const lan = machine();
    lan.step({ type: "start" });
    for (let at = 0; at < 2 * LAN_HEARD_MAX; at += 1) lan.step(heard(`stranger${at}`, null, `10.0.1.${at % 250}`));
    for (let at = 0; at < 2 * LAN_HINTS_PER_PEER_MAX; at += 1) lan.step(heard(`bob${at}`, bob, `10.0.0.${at}`));
    expect(lanHints(lan.state())).toHaveLength(LAN_HINTS_PER_PEER_MAX);
    const state = lan.state();
    expect(state.name === "on" && state.entries.length).toBe(LAN_HEARD_MAX);
    const other = machine();
    other.step({ type: "start" });
    other.step(heard("e", eve, "10.0.0.9", 1e12));
    expect(count(other.pass(6 * 60_000), "lost")).toBe(1);
  });
});

describe("its shell", () => {
  const shell = () => {
    const clock = new ManualClock();
    const sockets: LanSocketEvents[] = [];
    let asked = 0;
    const discovery = new LanDiscovery({
      env: { clock, random: systemRandom, log: quietLog },
      self: bob,
      peers: () => {
        asked += 1;
        return [{ peer: alice, secret }];
      },
      port: 5000,
      interfaces: () => ["10.0.0.5"],
      openSocket: (_address, events) => {
        sockets.push(events);
        return { query: () => undefined, respond: () => undefined, dispose: () => undefined };
      },
    });
    discovery.start();
    const [events] = sockets;
    if (events === undefined) throw new Error("no socket was opened");
    return { clock, discovery, events, asked: () => asked };
  };
  const answersOf = (atMs: number): unknown[] => {
    const instance = newInstance(systemRandom);
    const strings = tagStrings([{ peer: bob, secret }], alice, instance, epochAt(atMs), systemRandom);
    return lanRecords(instance, 4000, strings, LAN_RECORD_TTL_MS);
  };

  it("gives a candidate for a contact on this network, and none for an address from elsewhere", () => {
    const { clock, discovery, events } = shell();
    const found: (string | null)[] = [];
    discovery.onFound((hint) => found.push(hintCandidate(hint)));
    events.onAnswers("198.51.100.1", answersOf(clock.now()));
    expect(found).toEqual([]);
    events.onAnswers("10.0.0.7", answersOf(clock.now()));
    expect(found).toEqual(["candidate:lan 1 UDP 2122317823 10.0.0.7 4000 typ host"]);
    expect(discovery.hints()).toHaveLength(1);
    discovery.dispose();
    expect(discovery.hints()).toEqual([]);
  });

  it("does only so much work for a flood", () => {
    const { clock, events, asked } = shell();
    const before = asked();
    for (let at = 0; at < 10 * LAN_PACKETS_PER_SECOND; at += 1) events.onAnswers("10.0.0.66", answersOf(clock.now()));
    expect(asked() - before).toBeLessThanOrEqual(LAN_COMPARISONS_PER_MINUTE);
  });
});
