import { LINKS_LEAVING_MAX } from "#shared/base/limits.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import { isLegalTransition } from "../../src-main/links/link-state.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import { FakeRtc, ManualClock } from "./links-fake-rtc.ts";
import { LinksWorld } from "./links-world.ts";
import { seededNumbers } from "./seeded.ts";

/**
 * Two to four people with real connection managers, whose signals are lost, repeated, delayed and reordered, whose
 * connections open late or not at all, whose cable is pulled, who restart, and who change their mind all the time. Then it
 * is quiet, and everybody wants a link to everybody. One seed is one world: the same seed, the same run.
 */
const ROUGH_MS = 40_000;
const QUIET_MS = 150_000;

interface Person {
  readonly member: ReturnType<LinksWorld["add"]>;
  readonly addresses: { now: string };
  links: LinkManager;
}

export interface SimOutcome {
  /** What must never be and was, in words; empty when the run was good. */
  readonly wrongs: readonly string[];
  readonly staleEvents: number;
  readonly restarts: number;
  /** Everything that was shown, in order: two runs of one seed must be alike. */
  readonly trace: string;
}

export const simulateManagers = async (seed: number): Promise<SimOutcome> => {
  const chance = seededNumbers(seed);
  const upTo = (bound: number): number => Math.floor(chance() * bound);
  const clock = new ManualClock();
  const net = new LinksWorld(clock, chance);
  const rtc = new FakeRtc();
  const { wrongs } = rtc;
  let rough = true;
  let staleEvents = 0;
  let restarts = 0;
  let tag = 0;
  const trace: string[] = [];
  rtc.delay = { clock, ms: () => (rough ? upTo(400) : 2) };
  rtc.candidatesOf = (name) => [`candidate:1 1 UDP 1 ${name}.example 9 typ host`];
  net.fate = () => {
    if (!rough) return [5];
    if (chance() < 0.15) return [];
    return Array.from({ length: chance() < 0.2 ? 2 : 1 }, () => upTo(3000));
  };

  /** Shown generations only grow, over restarts too; states change as the table says. */
  const newest = new Map<string, number>();
  const start = (person: Omit<Person, "links">): LinkManager => {
    const { member, addresses } = person;
    const links = net.links(member, {
      driver: rtc.driver(),
      relay: rtc.relay(),
      addresses: () => addresses.now,
      account: { sign: () => new Uint8Array(64) },
      verifyAccountSignature: () => true,
    });
    const states = new Map<string, LinkView["state"]>();
    /** What was last shown as connected: only its messages, and those of what it replaced, may come. */
    const usable = new Map<string, number>();
    links.onChanged((view) => {
      const pair = `${member.userId.slice(0, 1)}${view.peerId.slice(0, 1)}`;
      trace.push(`${clock.now()} ${pair} ${view.state} ${view.generation} ${view.reason}`);
      const from = states.get(pair) ?? "disconnected";
      if (from !== view.state && !isLegalTransition(from, view.state)) wrongs.push(`${pair}: ${from} -> ${view.state}`);
      if (view.generation < (newest.get(pair) ?? 0)) wrongs.push(`${pair}: generation ${view.generation} came back`);
      newest.set(pair, Math.max(view.generation, newest.get(pair) ?? 0));
      states.set(pair, view.state);
      if (view.state === "connected") usable.set(pair, view.generation);
    });
    const heard = new Map<string, number>();
    links.onMessage(({ peer, generation, message }) => {
      const pair = `${member.userId.slice(0, 1)}${peer.slice(0, 1)}`;
      if (message.type !== "stop") return;
      if (generation > (usable.get(pair) ?? 0)) wrongs.push(`${pair}: a message of a link that was not shown`);
      const key = `${pair} ${generation}`;
      if (message.tag <= (heard.get(key) ?? -1)) wrongs.push(`${pair}: message ${message.tag} twice or late`);
      heard.set(key, message.tag);
    });
    links.enable();
    return links;
  };

  const people: Person[] = Array.from({ length: 2 + upTo(3) }, (_, order) => {
    const person = { member: net.add(order), addresses: { now: "a" } };
    return { ...person, links: start(person) };
  });
  const anybody = (): Person => people[upTo(people.length)] as Person;
  const pairs = people.flatMap((me) => people.filter((other) => other !== me).map((other) => [me, other] as const));

  const act = (): void => {
    const me = anybody();
    const { userId: peer } = anybody().member;
    if (peer === me.member.userId) return;
    const view = me.links.view(peer);
    const actions: (() => void)[] = [
      () => me.links.connect(peer),
      () => me.links.connect(peer),
      () => void me.links.disconnect(peer),
      () => me.links.reconnect(peer),
      () => me.links.presenceHint(peer, true),
      () => void me.links.disable(),
      () => me.links.enable(),
      () => me.links.enable(),
      () => {
        me.addresses.now += "x";
      },
      () => {
        rtc.blocked = !rtc.blocked;
      },
      () => {
        rtc.silent = chance() < 0.3;
      },
      () => {
        restarts += 1;
        for (const [, other] of pairs.filter(([who]) => who === me))
          staleEvents += me.links.view(other.member.userId).staleEvents;
        me.links.dispose();
        me.links = start(me);
      },
      () => void me.links.send(peer, view.generation, { type: "stop", tag: tag++ }),
      () => void me.links.send(peer, view.generation, { type: "stop", tag: tag++ }),
    ];
    actions[upTo(actions.length)]?.();
    // The link, an attempt, and two goodbyes on each side.
    const most = pairs.length * (2 + LINKS_LEAVING_MAX);
    if (rtc.live.size > most * 2) wrongs.push(`${rtc.live.size} connections are open`);
  };

  const actions = 10 + upTo(60);
  for (let i = 0; i < actions; i += 1) clock.setTimer(upTo(ROUGH_MS), act);
  await clock.advance(ROUGH_MS);

  rough = false;
  rtc.silent = false;
  rtc.blocked = chance() < 0.3;
  for (const { links } of people) links.enable();
  for (const [me, other] of pairs) me.links.connect(other.member.userId);
  for (let part = 0; part < 3; part += 1) {
    await clock.advance(QUIET_MS / 3);
    for (const [me, other] of pairs) me.links.presenceHint(other.member.userId, true);
  }
  await clock.advance(1000);
  for (const [me, other] of pairs) {
    const view = me.links.view(other.member.userId);
    staleEvents += view.staleEvents;
    const pair = `${me.member.userId.slice(0, 1)}${other.member.userId.slice(0, 1)}`;
    if (view.state !== "connected") wrongs.push(`${pair} is ${view.state} (${view.reason}) in the end`);
  }
  // A second attempt, an upgrade that finds nothing, may be under way on both sides.
  if (rtc.live.size < pairs.length || rtc.live.size > 2 * pairs.length)
    wrongs.push(`${rtc.live.size} connections for ${pairs.length} ends of links`);
  for (const connection of rtc.live)
    if (connection.remoteCandidates.some((candidate) => !candidate.includes(` ${connection.peer?.name}.example `)))
      wrongs.push(`${connection.name} has a candidate of another connection`);
  for (const line of net.log.lines) if (line.includes("failed {")) wrongs.push(line);
  for (const { links } of people) links.dispose();
  await clock.advance(5000);
  if (rtc.live.size > 0) wrongs.push(`${rtc.live.size} connections outlive their owners`);
  if (clock.timers > 0) wrongs.push(`${clock.timers} timers outlive their owners`);
  return { wrongs, staleEvents, restarts, trace: trace.join("\n") };
};
