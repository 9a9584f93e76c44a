import { expect, test } from "vitest";
import {
  DIAL_GRACE_MS,
  EARLY_CANDIDATES_MAX,
  LINK_CONNECT_TIMEOUT_MS,
  LINK_OFFLINE_RETRY_MAX_MS,
  RECONNECT_BASE_MS,
} from "#shared/base/limits.ts";
import type { LinkState } from "#shared/ipc/views.ts";
import { stepLink } from "../../src-main/links/link-machine.ts";
import {
  backoffMs,
  currentAttempt,
  initialLink,
  isLegalTransition,
  type LinkEffect,
  type LinkEvent,
  type LinkMachineState,
  type LinkRole,
} from "../../src-main/links/link-state.ts";

/** WebRTC alone, as with a server that has no relay. */
const allowed = { rtc: true, relay: false };

/** Feeds events one after the other and keeps what came out. */
const play = (role: LinkRole, events: readonly LinkEvent[], start = initialLink(role, 100)) => {
  let state: LinkMachineState = start;
  const effects: LinkEffect[] = [];
  for (const [index, event] of events.entries()) {
    const [next, out] = stepLink(state, { atMs: 1000 + index, random: 0.5, allowed, event });
    state = next;
    effects.push(...out);
  }
  return {
    state,
    effects,
    last: stateNames(effects),
    of: <T extends LinkEffect["type"]>(type: T) => ofType(effects, type),
  };
};
const ofType = <T extends LinkEffect["type"]>(effects: readonly LinkEffect[], type: T) =>
  effects.filter((effect): effect is Extract<LinkEffect, { type: T }> => effect.type === type);
const stateNames = (effects: readonly LinkEffect[]): LinkState[] => ofType(effects, "changed").map(({ to }) => to);

const candidate = (generation: number, name: string): LinkEvent => ({
  type: "signal",
  signal: { type: "candidate", generation, candidate: name, mid: "0" },
});
const offer = (generation: number): LinkEvent => ({
  type: "signal",
  signal: { type: "offer", generation, sdp: "offer" },
});
const answer = (generation: number): LinkEvent => ({
  type: "signal",
  signal: { type: "answer", generation, sdp: "answer" },
});
const dial = (generation: number): LinkEvent => ({ type: "signal", signal: { type: "dial", generation } });
const close = (generation: number, reason = "x"): LinkEvent => ({
  type: "signal",
  signal: { type: "close", generation, reason },
});
const delivered: LinkEvent = { type: "announced", token: 1, outcome: "delivered" };

const dialerTo: Record<"offering" | "connecting" | "handshaking" | "connected", readonly LinkEvent[]> = {
  offering: [{ type: "connect" }],
  connecting: [{ type: "connect" }, { type: "localDescription", generation: 101, sdp: "o" }, delivered],
  handshaking: [{ type: "connect" }, delivered, answer(101), { type: "channelsOpen", generation: 101, path: "lan" }],
  connected: [
    { type: "connect" },
    delivered,
    answer(101),
    { type: "channelsOpen", generation: 101, path: "lan" },
    { type: "proven", generation: 101, path: "lan" },
  ],
};

test("the dialer walks the whole road, and the answerer too", () => {
  const dialer = play("dialer", dialerTo.connected);
  expect(dialer.last).toEqual(["discovering", "connecting", "handshaking", "connected"]);
  const answerer = play("answerer", [
    { type: "connect" },
    offer(7),
    { type: "localDescription", generation: 101, sdp: "a" },
    { type: "channelsOpen", generation: 101, path: "lan" },
    { type: "proven", generation: 101, path: "lan" },
  ]);
  expect(answerer.state.phase.name).toBe("connected");
  expect(answerer.of("sendSignal").map(({ signal }) => signal)).toEqual([
    { type: "dial", generation: 0 },
    { type: "answer", generation: 7, sdp: "a" },
  ]);
});

test("the legal transitions are exactly these", () => {
  const states: LinkState[] = ["disconnected", "discovering", "connecting", "handshaking", "connected", "failed"];
  const legal = states.flatMap((from) =>
    states.filter((to) => isLegalTransition(from, to)).map((to) => `${from} ${to}`),
  );
  const down = states.flatMap((from) => [`${from} disconnected`, `${from} failed`]);
  expect(new Set(legal)).toEqual(
    new Set([
      ...down,
      "disconnected discovering",
      "discovering connecting",
      "connecting handshaking",
      "handshaking connected",
    ]),
  );
});

test.each(Object.keys(dialerTo) as (keyof typeof dialerTo)[])(
  "events of an older generation change nothing in %s",
  (name) => {
    const { state } = play("dialer", dialerTo[name]);
    const old: LinkEvent[] = [
      { type: "localDescription", generation: 100, sdp: "x" },
      { type: "localCandidate", generation: 100, candidate: "c", mid: "0" },
      { type: "channelsOpen", generation: 100, path: "lan" },
      { type: "proven", generation: 100, path: "lan" },
      { type: "peerFin", generation: 100 },
      { type: "lost", generation: 100, reason: "x" },
      { type: "timer", token: state.timer - 1 },
      { type: "announced", token: state.timer - 1, outcome: "offline" },
      answer(100),
      candidate(100, "c"),
      close(100),
    ];
    for (const event of old) {
      const [next, effects] = stepLink(state, { atMs: 5000, random: 0, allowed, event });
      expect(effects).toEqual([]);
      expect(next).toEqual({ ...state, staleEvents: state.staleEvents + 1 });
    }
  },
);

test("a peer that asks for an offer after it got ours has a short time to answer, then gets a new one", () => {
  // It refused the first: it has accepted us as a contact only since.
  for (const events of [
    [...dialerTo.connecting, dial(0)],
    [...dialerTo.offering, dial(0), delivered],
  ]) {
    const { state, of } = play("dialer", events);
    expect(of("setTimer").at(-1)).toMatchObject({ token: state.timer, delayMs: DIAL_GRACE_MS });
    const again = play("dialer", [{ type: "timer", token: state.timer }], state);
    const anew = play("dialer", [{ type: "timer", token: again.state.timer }], again.state);
    expect(anew.last).toEqual(["disconnected", "discovering"]);
    expect(anew.of("openDialing")).toHaveLength(1);
    // Once it has answered, its network may take its time.
    expect(play("dialer", [answer(101)], state).of("setTimer")).toMatchObject([{ delayMs: LINK_CONNECT_TIMEOUT_MS }]);
  }
});

test("a hint while an announcement is on its way makes the next one follow soon", () => {
  const begun = play("answerer", [{ type: "connect" }]);
  const tired = { ...begun.state, tries: 9 };
  const offline: LinkEvent = { type: "announced", token: tired.timer, outcome: "offline" };
  const delayOf = (events: LinkEvent[]) => play("answerer", events, tired).of("setTimer").at(-1)?.delayMs;
  expect(delayOf([{ type: "hint" }, offline])).toBe(backoffMs(0, LINK_OFFLINE_RETRY_MAX_MS, 0.5));
  expect(delayOf([offline])).toBe(backoffMs(9, LINK_OFFLINE_RETRY_MAX_MS, 0.5));
});

test("an offline peer leaves the dialer waiting without a connection, and a hint makes it try again", () => {
  const offline = play("dialer", [{ type: "connect" }, { type: "announced", token: 1, outcome: "offline" }]);
  expect(offline.state.phase).toEqual({ name: "discovering", activity: { kind: "waiting" } });
  expect(offline.of("abandon")).toEqual([{ type: "abandon", generation: 101 }]);
  const again = play("dialer", [{ type: "hint" }], offline.state);
  expect(currentAttempt(again.state.phase)?.generation).toBe(102);
});

test("candidates before the description wait for it; those of another offer do not", () => {
  const answerer = play("answerer", [{ type: "connect" }, candidate(7, "a"), candidate(7, "b"), offer(7)]);
  expect(answerer.of("addCandidate").map((effect) => effect.candidate)).toEqual(["a", "b"]);
  const newer = play("answerer", [{ type: "connect" }, candidate(7, "a"), candidate(8, "b"), offer(8)]);
  expect(newer.of("addCandidate").map((effect) => effect.candidate)).toEqual(["b"]);
  const dialer = play("dialer", [...dialerTo.connecting, candidate(101, "a"), answer(101), candidate(101, "b")]);
  expect(dialer.of("addCandidate").map((effect) => effect.candidate)).toEqual(["a", "b"]);
});

test("early candidates are bounded", () => {
  const many = Array.from({ length: EARLY_CANDIDATES_MAX + 5 }, (_, i) => candidate(7, `c${i}`));
  const { state, of } = play("answerer", [{ type: "connect" }, ...many]);
  expect(state.early[0]?.candidates.length).toBe(EARLY_CANDIDATES_MAX);
  expect(of("fault").length).toBe(5);
});

test("the dialer keeps the addresses of its interfaces until the answer is here, and tells others at once", () => {
  const lines = {
    host: "candidate:1 1 UDP 2114977791 192.168.1.2 40000 typ host",
    mapped: "candidate:2 1 UDP 1678769919 203.0.113.7 40000 typ srflx raddr 0.0.0.0 rport 0",
    relayed: "candidate:3 1 UDP 8331263 198.51.100.3 50000 typ relay raddr 0.0.0.0 rport 0",
  };
  const mine = (name: keyof typeof lines): LinkEvent => ({
    type: "localCandidate",
    generation: 101,
    candidate: lines[name],
    mid: "0",
  });
  const told = (effects: readonly LinkEffect[]) =>
    effects.flatMap((effect) =>
      effect.type === "sendSignal" && effect.signal.type === "candidate" ? [effect.signal.candidate] : [],
    );
  // Nothing leaves before the offer was delivered.
  const offering = play("dialer", [{ type: "connect" }, mine("host"), mine("mapped")]);
  expect(told(offering.effects)).toEqual([]);
  const awaiting = play("dialer", [delivered, mine("host"), mine("relayed")], offering.state);
  expect(told(awaiting.effects)).toEqual([lines.mapped, lines.relayed]);
  const after = play("dialer", [answer(101), mine("host")], awaiting.state);
  expect(told(after.effects)).toEqual([lines.host, lines.host, lines.host]);
});

test("an answer that overtakes the server's word for the offer is taken", () => {
  const { state, of } = play("dialer", [{ type: "connect" }, answer(101)]);
  expect(state.phase.name).toBe("connecting");
  expect(of("acceptAnswer").length).toBe(1);
});

test("a second answer is stale", () => {
  const { state, of } = play("dialer", [...dialerTo.connecting, answer(101), answer(101)]);
  expect(of("acceptAnswer").length).toBe(1);
  expect(state.staleEvents).toBe(1);
});

test("a newer offer replaces the attempt, an older one does not", () => {
  const { state, of, last } = play("answerer", [{ type: "connect" }, offer(7), offer(9), offer(8)]);
  expect(of("openAnswering").map(({ offerGeneration }) => offerGeneration)).toEqual([7, 9]);
  expect(of("abandon")).toEqual([{ type: "abandon", generation: 101 }]);
  expect(state.staleEvents).toBe(1);
  expect(last.slice(-3)).toEqual(["disconnected", "discovering", "connecting"]);
});

test("nobody who does not want a link gives anything away", () => {
  const answerer = play("answerer", [offer(7)]);
  expect(answerer.state.phase.name).toBe("disconnected");
  expect(answerer.effects).toEqual([
    { type: "sendSignal", signal: { type: "close", generation: 7, reason: "not_wanted" }, token: null },
  ]);
  expect(play("dialer", [dial(3)]).effects).toEqual([
    { type: "sendSignal", signal: { type: "close", generation: 3, reason: "not_wanted" }, token: null },
  ]);
});

test("a dial that is older than our offer is ignored at first, and later asks whether the peer is alive", () => {
  const connected = play("dialer", dialerTo.connected).state;
  const soon = stepLink(connected, { atMs: 2000, random: 0, allowed, event: dial(5) });
  expect(soon[1]).toEqual([]);
  const late = stepLink(connected, { atMs: 60_000, random: 0, allowed, event: dial(5) });
  expect(late[1]).toEqual([{ type: "probe", generation: 101 }]);
});

test("a dial that names our newest offer gets another one, beyond every generation seen", () => {
  expect(currentAttempt(play("dialer", [...dialerTo.connecting, dial(101)]).state.phase)?.generation).toBe(102);
  expect(currentAttempt(play("dialer", [...dialerTo.offering, dial(5000)]).state.phase)?.generation).toBe(5001);
});

test("an answerer tells a dialer that lost its count where to go on", () => {
  const waiting = play("answerer", [{ type: "connect" }, offer(500), { type: "lost", generation: 101, reason: "x" }]);
  const told = play("answerer", [offer(3)], waiting.state);
  expect(told.of("sendSignal").map(({ signal }) => signal)).toEqual([{ type: "dial", generation: 500 }]);
});

test("roles are fixed: an offer to the dialer and an answer to the answerer are faults", () => {
  expect(play("dialer", [...dialerTo.connecting, offer(5)]).of("fault").length).toBe(1);
  expect(play("answerer", [{ type: "connect" }, answer(5), dial(5)]).of("fault").length).toBe(2);
});

test("a generation that would leave the safe integers is a fault", () => {
  const { state, of } = play("dialer", [...dialerTo.offering, dial(Number.MAX_SAFE_INTEGER)]);
  expect(of("fault").length).toBe(1);
  expect(state.generation).toBe(101);
});

test("disconnecting a connected link ends in order, any other at once and with a word to the peer", () => {
  const connected = play("dialer", [...dialerTo.connected, { type: "disconnect", reason: "closed" }]);
  expect(connected.of("finish")).toEqual([{ type: "finish", generation: 101, reason: "closed" }]);
  expect(connected.of("abandon")).toEqual([]);
  const connecting = play("dialer", [...dialerTo.connecting, { type: "disconnect", reason: "closed" }]);
  expect(connecting.of("abandon").length).toBe(1);
  expect(connecting.of("sendSignal").at(-1)?.signal).toEqual({ type: "close", generation: 101, reason: "closed" });
});

test("a proven link is not closed by a signal", () => {
  expect(play("dialer", [...dialerTo.connected, close(101)]).state.phase.name).toBe("connected");
  expect(play("dialer", [...dialerTo.handshaking, close(101, "busy")]).state).toMatchObject({
    phase: { name: "failed" },
    reason: "peer_busy",
  });
});

test("timeouts fail the attempt and the backoff starts a new one", () => {
  for (const [name, reason] of [
    ["offering", "no_answer"],
    ["connecting", "connect_timeout"],
    ["handshaking", "handshake_timeout"],
  ] as const) {
    const before = play("dialer", dialerTo[name]).state;
    const failed = play("dialer", [{ type: "timer", token: before.timer }], before);
    expect(failed.state).toMatchObject({ phase: { name: "failed" }, reason });
    const again = play("dialer", [{ type: "timer", token: failed.state.timer }], failed.state);
    expect(again.last).toEqual(["disconnected", "discovering"]);
  }
});

test("backoff grows to its bound and never leaves its half", () => {
  expect(backoffMs(0, LINK_OFFLINE_RETRY_MAX_MS, 0)).toBe(RECONNECT_BASE_MS / 2);
  expect(backoffMs(1, LINK_OFFLINE_RETRY_MAX_MS, 0.9)).toBe(RECONNECT_BASE_MS * 1.9);
  expect(backoffMs(99, LINK_OFFLINE_RETRY_MAX_MS, 1)).toBe(LINK_OFFLINE_RETRY_MAX_MS);
});
