import { expect, test } from "vitest";
import {
  EARLY_OFFERS_MAX,
  LARGE_PACKET_TRIES_MAX,
  LINK_CONNECT_TIMEOUT_MS,
  LINK_UPGRADE_FIRST_MS,
  LOCAL_MTU_BYTES,
  RELAY_AFTER_MS,
} from "#shared/base/limits.ts";
import { stepLink } from "../../src-main/links/link-machine.ts";
import {
  type AllowedVias,
  currentAttempt,
  initialLink,
  type LinkEffect,
  type LinkEvent,
  type LinkMachineState,
  type LinkRole,
  shownGeneration,
} from "../../src-main/links/link-state.ts";
import { RELAY_MARK } from "../../src-main/links/transport.ts";

/** The second attempt of a link: when it begins, and when it takes over. */
const play = (
  role: LinkRole,
  events: readonly LinkEvent[],
  start = initialLink(role, 100),
  allowed: AllowedVias = { rtc: true, relay: true },
) => {
  let state: LinkMachineState = start;
  const effects: LinkEffect[] = [];
  for (const event of events) {
    const [next, out] = stepLink(state, { atMs: 1000, random: 0.5, allowed, event });
    state = next;
    effects.push(...out);
  }
  const kinds = effects.map((effect) => ("generation" in effect ? `${effect.type} ${effect.generation}` : effect.type));
  const steps = effects.flatMap((effect) => (effect.type === "changed" ? [effect.to] : []));
  return { state, effects, kinds, steps };
};

const answer = (generation: number): LinkEvent => ({
  type: "signal",
  signal: { type: "answer", generation, sdp: "v=0" },
});
const offer = (generation: number, sdp = "v=0"): LinkEvent => ({
  type: "signal",
  signal: { type: "offer", generation, sdp },
});
const close = (generation: number, reason: string): LinkEvent => ({
  type: "signal",
  signal: { type: "close", generation, reason },
});
const dial = (generation: number): LinkEvent => ({ type: "signal", signal: { type: "dial", generation } });
const relayOffer = (generation: number): LinkEvent => offer(generation, `v=0\r\n${RELAY_MARK}\r\n`);
const open = (generation: number, path: "lan" | "relay" = "lan"): LinkEvent => ({
  type: "channelsOpen",
  generation,
  path,
});
const proven = (generation: number, path: "lan" | "relay" = "lan"): LinkEvent => ({ type: "proven", generation, path });
const confirmed = (generation: number): LinkEvent => ({ type: "confirmed", generation });
const lost = (generation: number): LinkEvent => ({ type: "lost", generation, reason: "peer_silent" });
const fin = (generation: number): LinkEvent => ({ type: "peerFin", generation });

const connected: Record<LinkRole, readonly LinkEvent[]> = {
  dialer: [{ type: "connect" }, answer(101), open(101), proven(101)],
  answerer: [{ type: "connect" }, offer(7), open(101), proven(101)],
};
const second: Record<LinkRole, readonly LinkEvent[]> = {
  dialer: [...connected.dialer, { type: "networkChanged" }, answer(102), open(102), proven(102)],
  answerer: [...connected.answerer, offer(8), open(102), proven(102)],
};
const better = (state: LinkMachineState): LinkEvent => ({ type: "timer", token: state.betterTimer ?? -1 });

test.each<LinkRole>(["dialer", "answerer"])(
  "the %s goes over when the peer stands there too, and ends the first in order",
  (role) => {
    const before = play(role, second[role]);
    expect([shownGeneration(before.state), before.state.next?.stage.name]).toEqual([101, "proven"]);
    const after = play(role, [confirmed(102)], before.state);
    expect(after.kinds).toContain("finish 101");
    expect(after.kinds).not.toContain("abandon 101");
    expect(after.steps).toEqual(["connected"]);
    expect([shownGeneration(after.state), after.state.next]).toEqual([102, null]);
  },
);

test.each<LinkRole>(["dialer", "answerer"])(
  "FIN on the first says the same to the %s, which has nothing to end then",
  (role) => {
    const after = play(role, [fin(101)], play(role, second[role]).state);
    expect(shownGeneration(after.state)).toBe(102);
    expect(after.kinds.filter((kind) => kind.startsWith("finish") || kind.startsWith("abandon"))).toEqual([]);
  },
);

test("FIN on the first while the second is not proven is a goodbye to both", () => {
  const after = play("dialer", [fin(101)], play("dialer", second.dialer.slice(0, -1)).state);
  expect(after.state.phase).toEqual({ name: "discovering", activity: { kind: "waiting" } });
  expect(after.kinds).toContain("abandon 102");
});

test.each([
  [1, ["disconnected", "discovering", "connecting"]],
  [3, ["disconnected", "discovering", "connecting", "handshaking"]],
  [4, ["disconnected", "discovering", "connecting", "handshaking", "connected"]],
] as const)("when the first breaks the second takes its place, %i steps on its way", (steps, states) => {
  const before = play("dialer", second.dialer.slice(0, connected.dialer.length + steps));
  const after = play("dialer", [lost(101)], before.state);
  expect(after.steps).toEqual(states);
  expect(currentAttempt(after.state.phase)?.generation).toBe(102);
  expect(after.state.next).toBeNull();
  expect(after.kinds).toContain("abandon 101");
  expect(after.kinds).not.toContain("abandon 102");
});

test("a second attempt that breaks, takes too long or is refused changes nothing for the first", () => {
  const before = play("dialer", second.dialer.slice(0, -1)).state;
  const ends: LinkEvent[] = [
    lost(102),
    { type: "timer", token: before.next?.timer ?? -1 },
    close(102, "busy"),
    fin(102),
  ];
  for (const end of ends) {
    const after = play("dialer", [end], before);
    expect([shownGeneration(after.state), after.state.phase.name, after.state.next]).toEqual([101, "connected", null]);
    expect(after.steps).toEqual([]);
  }
});

test("the relay is tried beside a slow first attempt, and the dialer alone gives up what it does not need", () => {
  const slow = play("dialer", [{ type: "connect" }]);
  expect(slow.effects).toContainEqual({
    type: "setTimer",
    slot: "better",
    token: slow.state.betterTimer,
    delayMs: RELAY_AFTER_MS,
  });
  const both = play("dialer", [better(slow.state), answer(101), open(101)], slow.state);
  expect(both.kinds).toContain("openDialing 102");
  const direct = play("dialer", [proven(101)], both.state);
  expect(direct.kinds).toContain("abandon 102");
  expect(direct.effects).toContainEqual({
    type: "sendSignal",
    signal: { type: "close", generation: 102, reason: "not_needed" },
    token: null,
  });
  const relayed = play("dialer", [answer(102), open(102, "relay"), proven(102, "relay")], both.state);
  expect(relayed.kinds).toContain("abandon 101");
  expect([shownGeneration(relayed.state), relayed.state.phase.name]).toEqual([102, "connected"]);

  const atAnswerer = play("answerer", [{ type: "connect" }, offer(7), relayOffer(8), open(102, "relay"), proven(102)]);
  // It may be the dialer's choice or not: the first word on it tells.
  expect(atAnswerer.state.phase.name).toBe("connecting");
  const first = play("answerer", [open(101), proven(101)], atAnswerer.state);
  expect([shownGeneration(first.state), first.state.next?.attempt.generation]).toEqual([101, 102]);
  expect(play("answerer", [confirmed(102)], atAnswerer.state).state.phase).toMatchObject({ name: "connected" });
});

test("a peer that wants only the relay is not offered anything else again, until something changes", () => {
  const refused = play("dialer", [{ type: "connect" }, close(101, "relay_only")]);
  expect(refused.effects).toContainEqual({ type: "openDialing", generation: 102, via: "relay" });
  const linked = play("dialer", [answer(102), open(102, "relay"), proven(102, "relay")], refused.state);
  expect(linked.state).toMatchObject({ phase: { name: "connected" }, betterTimer: null, peerWantsRelay: true });
  const changed = play("dialer", [{ type: "networkChanged" }], linked.state);
  expect(changed.effects).toContainEqual({ type: "openDialing", generation: 103, via: "rtc" });
});

/** Over the relay, because the peer wanted nothing else. */
const relayed = (): LinkMachineState =>
  play("dialer", [
    ...[{ type: "connect" } as const, close(101, "relay_only"), answer(102)],
    ...[open(102, "relay"), proven(102, "relay")],
  ]).state;

test("a peer that asks for an offer may want a direct path again, and what failed before is no reason any more", () => {
  const tired = { ...relayed(), upgradeTries: 9 };
  const asked = play("dialer", [dial(102)], tired);
  expect(asked.effects).toContainEqual({ type: "openDialing", generation: 103, via: "rtc" });
  expect(asked.state).toMatchObject({ peerWantsRelay: false, upgradeTries: 0 });
  // It crossed the offer of the relay: the link goes on, and looks for a direct path at once.
  const crossed = play("dialer", [dial(101)], tired);
  expect(crossed.kinds).not.toContain("openDialing 103");
  expect(crossed.effects).toContainEqual({
    type: "setTimer",
    slot: "better",
    token: crossed.state.betterTimer,
    delayMs: LINK_UPGRADE_FIRST_MS,
  });
  const late = stepLink(tired, { atMs: 60_000, random: 0.5, allowed: { rtc: true, relay: true }, event: dial(101) });
  expect(late[1].map(({ type }) => type)).toEqual(["probe", "setTimer"]);
  expect(late[0]).toMatchObject({ peerWantsRelay: false, betterTimer: late[0].tokens });
  const offering = play("dialer", [{ type: "connect" }, close(101, "relay_only"), dial(101)]).state;
  const linked = play("dialer", [answer(102), open(102, "relay"), proven(102, "relay")], offering);
  expect(linked.effects).toContainEqual({
    type: "setTimer",
    slot: "better",
    token: linked.state.betterTimer,
    delayMs: LINK_UPGRADE_FIRST_MS,
  });
});

test("a peer that was killed and asks for an offer gets one at once, whatever was on its way to it", () => {
  const anew = play("dialer", [dial(0)], play("dialer", connected.dialer).state);
  expect(anew.kinds).toEqual(expect.arrayContaining(["probe 101", "openDialing 102"]));
  // The offer of a second attempt went to the process that is dead.
  const changed = play("dialer", [...connected.dialer, { type: "networkChanged" }]).state;
  const again = play("dialer", [dial(0)], changed);
  expect(again.kinds).toEqual(expect.arrayContaining(["abandon 102", "openDialing 103"]));
  const linked = play("dialer", [answer(103), open(103), proven(103), confirmed(103)], again.state);
  expect(linked.kinds).toContain("finish 101");
  expect([shownGeneration(linked.state), linked.state.phase.name]).toEqual([103, "connected"]);
});

test("a dial that crosses the offer of a second attempt is kept in mind for the next one", () => {
  const over = play("dialer", [{ type: "networkChanged" }, close(103, "relay_only")], relayed());
  expect(over.effects).toContainEqual({ type: "openDialing", generation: 104, via: "relay" });
  const asked = play("dialer", [dial(103), answer(104), open(104, "relay")], over.state);
  const replaced = play("dialer", [proven(104, "relay"), confirmed(104)], asked.state);
  expect(replaced.effects).toContainEqual({
    type: "setTimer",
    slot: "better",
    token: replaced.state.betterTimer,
    delayMs: LINK_UPGRADE_FIRST_MS,
  });
});

test("a changed network gets a fresh connection over the relay where the peer refuses every other, and asks only once", () => {
  const changed = play("dialer", [{ type: "networkChanged" }], relayed());
  const refused = play("dialer", [close(103, "relay_only")], changed.state);
  expect(refused.effects).toContainEqual({ type: "openDialing", generation: 104, via: "relay" });
  expect(refused.state).toMatchObject({ next: { purpose: "refresh" }, peerWantsRelay: true });
  const again = play("dialer", [close(104, "relay_only")], refused.state);
  expect([again.kinds.filter((kind) => kind.startsWith("open")), again.state.next]).toEqual([[], null]);
  // A search for something better has found that there is nothing: the relay that it has is as good as another.
  const searching = play("dialer", [dial(102), close(103, "busy")], relayed());
  const looking = play("dialer", [better(searching.state), close(104, "relay_only")], searching.state);
  expect(looking.kinds).toContain("openDialing 104");
  expect(looking.kinds).not.toContain("openDialing 105");
});

test("a peer that comes back while the link is relayed is looked for directly soon, however rarely it was before", () => {
  const tired = { ...relayed(), upgradeTries: 9 };
  const { state, effects } = play("dialer", [{ type: "hint" }], tired);
  const timer = { type: "setTimer", slot: "better", token: state.betterTimer, delayMs: LINK_UPGRADE_FIRST_MS };
  expect(effects).toContainEqual(timer);
  // Many hints do not put it off.
  expect(play("dialer", [{ type: "hint" }, { type: "hint" }], state).effects).toEqual([]);
  // The peer wanted only the relay when it left, and may want something else now.
  const refused = play("dialer", [{ type: "hint" }], relayed());
  expect(refused.state).toMatchObject({ peerWantsRelay: false, betterTimer: refused.state.tokens });
  const direct = play("dialer", connected.dialer).state;
  expect(play("dialer", [{ type: "hint" }], direct).effects).toEqual([]);
});

test("an answerer whose policy changes asks for an offer where the link could do better, and only there", () => {
  const dials = (events: readonly LinkEvent[], start?: LinkMachineState) =>
    play("answerer", events, start).effects.flatMap((effect) =>
      effect.type === "sendSignal" && effect.signal.type === "dial" ? [effect.signal.generation] : [],
    );
  const changed: LinkEvent = { type: "policyChanged" };
  const asking = play("answerer", [{ type: "connect" }]).state;
  for (const stage of [[], [open(101, "relay")], [open(101, "relay"), proven(101, "relay")]])
    expect(dials([changed], play("answerer", [relayOffer(7), ...stage], asking).state)).toEqual([7]);
  // Over a TURN server.
  expect(dials([changed], play("answerer", [offer(7), open(101), proven(101, "relay")], asking).state)).toEqual([7]);
  expect(dials([changed], play("answerer", connected.answerer).state)).toEqual([]);
  expect(dials([changed], play("answerer", [offer(7)], asking).state)).toEqual([]);
  // It has asked already, but for an offer that it refused since.
  expect(dials([changed], asking)).toEqual([]);
  const relayOnly = { atMs: 1000, random: 0, allowed: { rtc: false, relay: true } };
  const [refused] = stepLink(asking, { ...relayOnly, event: offer(7) });
  expect(dials([changed], refused)).toEqual([7]);
  // Nothing that it allows now is better.
  const standing = play("answerer", [relayOffer(7), open(101, "relay"), proven(101, "relay")], asking).state;
  expect(stepLink(standing, { ...relayOnly, event: changed })[1]).toEqual([]);
});

test("an answerer refuses what its policy forbids, and opens nothing for it", () => {
  const asking = play("answerer", [{ type: "connect" }]).state;
  const input = { atMs: 1000, random: 0, allowed: { rtc: false, relay: true }, event: offer(7) };
  const [state, effects] = stepLink(asking, input);
  expect(effects).toEqual([
    { type: "sendSignal", signal: { type: "close", generation: 7, reason: "relay_only" }, token: null },
  ]);
  expect(state.phase).toEqual(asking.phase);
});

test("a network that changes while nothing stands starts anew at once", () => {
  const failed = play("dialer", [{ type: "connect" }, answer(101), lost(101)]);
  const anew = play("dialer", [{ type: "networkChanged" }], failed.state);
  expect(anew.kinds).toContain(`openDialing ${failed.state.generation + 1}`);
  expect(anew.state.tries).toBe(0);
});

test("candidates wait for a bounded number of offers, the newest ones", () => {
  const events = Array.from(
    { length: EARLY_OFFERS_MAX + 3 },
    (_, index): LinkEvent => ({
      type: "signal",
      signal: { type: "candidate", generation: 20 + index, candidate: "c", mid: "0" },
    }),
  );
  const { state } = play("answerer", [{ type: "connect" }, ...events]);
  const kept = state.early.map(({ offerGeneration }) => offerGeneration);
  expect(kept).toEqual(Array.from({ length: EARLY_OFFERS_MAX }, (_, index) => 23 + index));
});

test("the first attempt keeps its own time, whatever the second one does", () => {
  const slow = play("dialer", [{ type: "connect" }]);
  const both = play("dialer", [better(slow.state)], slow.state);
  expect(both.state.timer).toBe(slow.state.timer);
  expect(both.effects).toContainEqual({
    type: "setTimer",
    slot: "next",
    token: both.state.next?.timer,
    delayMs: LINK_CONNECT_TIMEOUT_MS,
  });
});

// ---- Larger packets on one machine -----------------------------------------------------------------------------------

const localMtu = LOCAL_MTU_BYTES;
/** As `play`, where larger packets are wanted. */
const playLocal = (role: LinkRole, events: readonly LinkEvent[], start = initialLink(role, 100)) =>
  play(role, events, start, { rtc: true, relay: true, localMtu });
const here = (generation: number): LinkEvent[] => [
  { type: "channelsOpen", generation, path: "machine" },
  { type: "proven", generation, path: "machine" },
];
const onMachine: Record<LinkRole, readonly LinkEvent[]> = {
  dialer: [{ type: "connect" }, answer(101), ...here(101)],
  answerer: [{ type: "connect" }, offer(7), ...here(101)],
};
const localOffer = (generation: number): LinkEvent => ({
  type: "signal",
  signal: { type: "offer", generation, sdp: "v=0", local: true },
});

test("a link to this very machine gets larger packets, beside the one that works, and both sides know what for", () => {
  const linked = playLocal("dialer", onMachine.dialer);
  expect(linked.effects.filter(({ type }) => type === "openDialing")).toEqual([
    { type: "openDialing", generation: 101, via: "rtc" },
  ]);
  const begun = playLocal(
    "dialer",
    [better(linked.state), { type: "localDescription", generation: 102, sdp: "v=0" }],
    linked.state,
  );
  expect(begun.effects).toContainEqual({ type: "openDialing", generation: 102, via: "rtc", mtu: localMtu });
  expect(begun.effects).toContainEqual({
    type: "sendSignal",
    signal: { type: "offer", generation: 102, sdp: "v=0", local: true },
    token: null,
  });
  expect(shownGeneration(begun.state)).toBe(101);
  const done = playLocal("dialer", [answer(102), ...here(102), confirmed(102)], begun.state);
  expect(shownGeneration(done.state)).toBe(102);
  // It has all there is.
  expect(done.state.betterTimer).toBeNull();

  const answered = playLocal("answerer", [...onMachine.answerer, localOffer(8)]);
  expect(answered.effects).toContainEqual({
    type: "openAnswering",
    generation: 102,
    offerGeneration: 8,
    via: "rtc",
    mtu: localMtu,
    sdp: "v=0",
  });
});

test("no packet is larger than passes everywhere where the link does not lead to this machine, whatever the peer says", () => {
  for (const events of [connected.answerer, [{ type: "connect" } as const]]) {
    const { effects } = playLocal("answerer", [...events, localOffer(8)]);
    expect(effects.filter(({ type }) => type === "openAnswering").at(-1)).not.toHaveProperty("mtu", localMtu);
  }
  // Nor where it is not wanted.
  const { state } = play("dialer", onMachine.dialer);
  expect(state.betterTimer).toBeNull();
  expect(playLocal("dialer", connected.dialer).state.betterTimer).toBeNull();
});

test("an attempt at larger packets that ends up elsewhere is given up before its handshake", () => {
  const linked = playLocal("dialer", onMachine.dialer);
  const after = playLocal("dialer", [better(linked.state), answer(102), open(102)], linked.state);
  expect(after.kinds).toContain("abandon 102");
  expect(after.kinds).not.toContain("startHandshake 102");
  expect([shownGeneration(after.state), after.state.next]).toEqual([101, null]);
});

test("larger packets that are lost, or break the link, are left alone until something changes", () => {
  let { state } = playLocal("dialer", onMachine.dialer);
  const fail = (): void => {
    state = playLocal("dialer", [better(state)], state).state;
    const generation = state.next?.attempt.generation ?? 0;
    state = playLocal("dialer", [answer(generation), here(generation)[0] as LinkEvent], state).state;
    state = playLocal("dialer", [{ type: "timer", token: state.next?.timer ?? -1 }], state).state;
    expect([shownGeneration(state), state.phase.name, state.next]).toEqual([101, "connected", null]);
  };
  for (let tries = 0; tries < LARGE_PACKET_TRIES_MAX; tries += 1) {
    expect(state.betterTimer).not.toBeNull();
    fail();
  }
  expect(state.betterTimer).toBeNull();
  expect(playLocal("dialer", [{ type: "hint" }], state).state.betterTimer).not.toBeNull();

  // One that worked and broke counts too.
  let broken = playLocal("dialer", onMachine.dialer).state;
  for (let tries = 0; tries < LARGE_PACKET_TRIES_MAX; tries += 1) {
    broken = playLocal("dialer", [better(broken)], broken).state;
    const large = broken.generation;
    broken = playLocal("dialer", [answer(large), ...here(large), confirmed(large), lost(large)], broken).state;
    broken = playLocal("dialer", [{ type: "timer", token: broken.timer }], broken).state;
    const plain = currentAttempt(broken.phase);
    expect(plain?.mtu).toBeUndefined();
    broken = playLocal("dialer", [answer(broken.generation), ...here(broken.generation)], broken).state;
  }
  expect([broken.phase.name, broken.betterTimer]).toEqual(["connected", null]);
});
