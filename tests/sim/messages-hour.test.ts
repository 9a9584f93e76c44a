import { expect, test } from "vitest";
import { toDisposable } from "#shared/base/disposable.ts";
import type { Clock } from "#shared/base/env.ts";
import { chatIdOf } from "#shared/base/ids.ts";
import { createLinks } from "../../src-main/links/connection-manager.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import type { TransportDriver } from "../../src-main/links/transport.ts";
import { type ChatPeer, ChatWorld, type Network, pair } from "../support/chat-world.ts";
import { counted } from "../support/counts.ts";
import { FakeRtc } from "../support/links-fake-rtc.ts";
import { seededNumbers } from "../support/seeded.ts";

/**
 * An hour of two people's lives: real messages over real links, connections and the server from a bad day. Profiles are
 * killed and start again, the cable is pulled, the server goes away, signals are lost, repeated and late.
 */
const MESSAGES = counted(1500, 10_000);
const HOUR_MS = 3_600_000;
const TURN_MS = 1000;
const STEP_MS = 100;
/** After the hour: the longest backoff, and what the last outage held up. */
const CALM_MS = 15 * 60_000;

/** A clock whose timers go off together, in their order: one step of the world serves all of them. */
const inSteps = (clock: Clock): Clock => {
  const steps = new Map<number, (() => void)[]>();
  return {
    now: () => clock.now(),
    monotonicMs: () => clock.monotonicMs(),
    setTimer(delayMs, fn) {
      const at = Math.ceil((clock.monotonicMs() + delayMs) / STEP_MS);
      const step = steps.get(at) ?? [];
      if (!steps.has(at)) {
        steps.set(at, step);
        clock.setTimer(at * STEP_MS - clock.monotonicMs(), () => {
          steps.delete(at);
          for (const due of step) due();
        });
      }
      step.push(fn);
      return toDisposable(() => {
        if (step.includes(fn)) step.splice(step.indexOf(fn), 1);
      });
    },
  };
};

class BadDay implements Network {
  readonly rtc = new FakeRtc();
  readonly managers = new Map<ChatPeer, LinkManager>();
  readonly #chance: () => number;
  readonly #clock: Clock;
  rough = true;
  signals = 0;

  constructor(chance: () => number, clock: Clock) {
    this.#chance = chance;
    this.#clock = clock;
    this.rtc.delay = { clock: inSteps(clock), ms: () => chance() * 3 * STEP_MS };
  }

  links(peer: ChatPeer, life: { readonly alive: boolean }, deps: Parameters<Network["links"]>[2]): LinkManager {
    const real = this.rtc.driver();
    // Of a process that was killed nothing is heard any more, not even a goodbye.
    const driver: TransportDriver = {
      open: (options, onEvent) => real.open(options, (event) => life.alive && onEvent(event)),
      dispose: () => undefined,
    };
    const links = createLinks({ ...deps, driver, addresses: () => "" });
    this.managers.set(peer, links);
    return links;
  }

  signal(to: ChatPeer, from: Parameters<Network["signal"]>[1], sealed: Parameters<Network["signal"]>[2]): void {
    this.signals += 1;
    if (this.rough && this.#chance() < 0.1) return;
    for (let copies = this.rough && this.#chance() < 0.1 ? 2 : 1; copies > 0; copies -= 1)
      this.#clock.setTimer(this.rough ? this.#chance() * 500 : 5, () => to.tellSignal(from, sealed));
  }
}

const liveAnHour = async (seed: number) => {
  const chance = seededNumbers(seed);
  let nowMs = (): number => 0;
  let setTimer: Clock["setTimer"] = () => ({ dispose: () => undefined });
  const clock: Clock = { now: () => nowMs(), monotonicMs: () => nowMs(), setTimer: (ms, fn) => setTimer(ms, fn) };
  const day = new BadDay(chance, clock);
  const world = new ChatWorld({ crypto: "counting", seed, network: day });
  ({ setTimer } = world.envFor({ alive: true }).clock);
  nowMs = () => world.nowMs;
  const [alice, bob] = [await world.join("Alice"), await world.join("Bob")];
  await pair(world, alice, bob);
  const both = [
    { me: alice, other: bob, sent: [] as string[] },
    { me: bob, other: alice, sent: [] as string[] },
  ] as const;
  const wantLinks = (): void => {
    for (const { me, other } of both) {
      if (!me.alive) continue;
      day.managers.get(me)?.enable();
      day.managers.get(me)?.connect(other.userId);
    }
  };
  wantLinks();

  const seen = { kills: 0, cuts: 0, outages: 0, links: new Set<string>(), sentOverLink: 0 };
  const later = (withinMs: number, fn: () => void): void => void clock.setTimer(chance() * withinMs, fn);
  const trouble = async (): Promise<void> => {
    const { me } = both[chance() < 0.5 ? 0 : 1];
    const what = chance();
    if (what < 0.4 && me.alive) {
      seen.kills += 1;
      me.kill();
    } else if (what < 0.7) {
      seen.cuts += 1;
      day.rtc.silent = true;
      later(30_000, () => {
        day.rtc.silent = false;
      });
    } else if (me.alive) {
      seen.outages += 1;
      me.setServer("disconnected");
      me.loseAnswer = () => chance() < 0.1;
      later(20_000, () => {
        me.loseAnswer = () => false;
        me.setServer("connected");
      });
    }
  };

  const turns = HOUR_MS / TURN_MS;
  for (let turn = 0; turn < turns; turn += 1) {
    for (const { me, other, sent } of both) {
      if (!me.alive && chance() < 0.2) {
        await me.start();
        wantLinks();
      }
      const due = Math.floor(((turn + 1) * MESSAGES) / 2 / turns);
      while (me.alive && sent.length < due) {
        const text = `${me.name} ${sent.length}`;
        me.send(other, text);
        sent.push(text);
      }
      const view = day.managers.get(me)?.view(other.userId);
      if (me.alive && view?.state === "connected") seen.links.add(`${me.name} ${view.generation}`);
    }
    if (turn % 60 === 0) for (const { me, other } of both) if (me.alive) me.messages.markRead(chatIdOf(other.userId));
    if (chance() < 1 / 30) await trouble();
    await world.advance(TURN_MS);
  }
  day.rough = false;
  for (const { me, other, sent } of both) {
    if (!me.alive) await me.start();
    me.loseAnswer = () => false;
    me.setServer("connected");
    for (; sent.length < MESSAGES / 2; ) {
      const text = `${me.name} ${sent.length}`;
      me.send(other, text);
      sent.push(text);
    }
  }
  wantLinks();
  await world.advance(CALM_MS);
  return { world, both, day, seen };
};

test(
  "thousands of messages over an hour with restarts, cuts and outages: none lost, none doubled, all in order",
  async () => {
    for (let seed = 1; seed <= counted(1, 10); seed += 1) await check(await liveAnHour(seed));
  },
  counted(240_000, 2_400_000),
);

const check = async ({ world, both, day, seen }: Awaited<ReturnType<typeof liveAnHour>>): Promise<void> => {
  try {
    for (const { me, other, sent } of both) {
      expect(sent.length).toBe(MESSAGES / 2);
      expect(other.texts(me, me)).toEqual(sent);
      expect(me.texts(other, me)).toEqual(sent);
      const states = new Set(me.shown(other).flatMap(({ senderId, state }) => (senderId === me.userId ? [state] : [])));
      expect([...states].filter((state) => state !== "delivered" && state !== "read")).toEqual([]);
      expect(me.notices).toEqual([]);
      expect(day.managers.get(me)?.view(other.userId).state).toBe("connected");
    }
    process.stdout.write(
      `an hour: ${seen.kills} kills, ${seen.cuts} cuts, ${seen.outages} outages of the server, ${seen.links.size} ends of links, ${day.signals} signals\n`,
    );
    // Otherwise the hour was too calm to say anything.
    expect(seen.kills).toBeGreaterThan(20);
    expect(seen.links.size).toBeGreaterThan(40);
  } finally {
    await world.dispose();
  }
};
