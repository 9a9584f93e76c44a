import { assertNever } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import {
  LAN_ANNOUNCE_INTERVAL_MS,
  LAN_ANSWER_DELAY_MAX_MS,
  LAN_ANSWER_DELAY_MIN_MS,
  LAN_EPOCH_MS,
  LAN_HEARD_MAX,
  LAN_HINTS_PER_PEER_MAX,
  LAN_QUERY_BASE_MS,
  LAN_QUERY_MAX_MS,
  LAN_TTL_MAX_MS,
} from "#shared/base/limits.ts";

/**
 * When Weir speaks on the local network, and whom it has heard there, without any I/O.
 *
 *   state  event                 does
 *   off    start                 asks, and announces itself under a fresh name, twice
 *   on     asked                 announces itself after a short pause by chance, at most once a second
 *          heard (a contact)     keeps the address while its lifetime lasts: `found`
 *          heard (a stranger)    keeps it too, so that it is not compared again
 *          gone, time            takes an address back: `lost`
 *          renew, time           takes the old name back and begins again under another (also when contacts changed)
 *          stop                  takes the name back, everything is lost
 */
export interface LanHint {
  readonly peer: UserId;
  readonly address: string;
  /** 0 when none is always open. */
  readonly port: number;
}

interface Entry {
  readonly instance: string;
  readonly address: string;
  readonly port: number;
  /** Null for a stranger. */
  readonly peer: UserId | null;
  readonly endsAtMs: TimeMs;
}

export type LanState =
  | { readonly name: "off" }
  | {
      readonly name: "on";
      readonly instance: string;
      /** Times of announcements to come, in order. */
      readonly announceAtMs: readonly TimeMs[];
      readonly announcedAtMs: TimeMs;
      readonly queryAtMs: TimeMs;
      readonly queryPauseMs: number;
      readonly renewAtMs: TimeMs;
      /** In the order in which they were first heard. */
      readonly entries: readonly Entry[];
    };

export type LanEvent =
  | { readonly type: "start" }
  | { readonly type: "stop" }
  | { readonly type: "renew" }
  | { readonly type: "time" }
  | { readonly type: "asked" }
  | {
      readonly type: "heard";
      readonly instance: string;
      readonly address: string;
      readonly port: number;
      readonly peer: UserId | null;
      readonly ttlMs: number;
    }
  | { readonly type: "gone"; readonly instance: string; readonly address: string };

/** Time and chance are inputs: `random` is uniform in [0, 1), `fresh` a name that was never used. */
export interface LanInput {
  readonly atMs: TimeMs;
  readonly random: number;
  readonly fresh: string;
  readonly event: LanEvent;
}

export type LanEffect =
  | { readonly type: "query" }
  | { readonly type: "announce"; readonly instance: string }
  | { readonly type: "takeBack"; readonly instance: string }
  | { readonly type: "found"; readonly hint: LanHint }
  | { readonly type: "lost"; readonly hint: LanHint }
  /** Replaces the one before: `time` is wanted then; null for none. */
  | { readonly type: "wake"; readonly atMs: TimeMs | null };

type On = Extract<LanState, { name: "on" }>;

export const initialLan: LanState = { name: "off" };

export const stepLan = (state: LanState, input: LanInput): readonly [LanState, readonly LanEffect[]] => {
  const effects: LanEffect[] = [];
  const next = handle(state, input, effects);
  // Also when a timer came a moment too early and nothing was due: it was the only one.
  if (next !== state || input.event.type === "time")
    effects.push({ type: "wake", atMs: next.name === "off" ? null : wakeAt(next) });
  return [next, effects];
};

const handle = (state: LanState, input: LanInput, effects: LanEffect[]): LanState => {
  const { event, atMs } = input;
  if (state.name === "off") return event.type === "start" ? begin([], input) : state;
  switch (event.type) {
    case "start":
      return state;
    case "stop":
      effects.push({ type: "takeBack", instance: state.instance });
      for (const entry of state.entries) lose(entry, effects);
      return { name: "off" };
    case "renew":
      return renew(state, input, effects);
    case "time":
      return onTime(state, input, effects);
    case "asked":
      return { ...state, announceAtMs: answerAt(state, input) };
    case "heard":
      return heard(state, event, atMs, effects);
    case "gone": {
      const isIt = (entry: Entry): boolean => entry.instance === event.instance && entry.address === event.address;
      return drop(state, isIt, effects);
    }
    default:
      return assertNever(event, "LAN event");
  }
};

const begin = (entries: readonly Entry[], { atMs, random, fresh }: LanInput): On => ({
  name: "on",
  instance: fresh,
  announceAtMs: [atMs + pause(random), atMs + pause(random) + LAN_ANNOUNCE_INTERVAL_MS],
  announcedAtMs: 0,
  queryAtMs: atMs,
  queryPauseMs: LAN_QUERY_BASE_MS,
  // Never in step with others, and before a reader that is one epoch behind would refuse the tags.
  renewAtMs: atMs + LAN_EPOCH_MS * (0.75 + 0.25 * random),
  entries,
});

const pause = (random: number): number =>
  LAN_ANSWER_DELAY_MIN_MS + random * (LAN_ANSWER_DELAY_MAX_MS - LAN_ANSWER_DELAY_MIN_MS);

/** Contacts that we know of stay; strangers may be contacts by now and are compared again. */
const renew = (state: On, input: LanInput, effects: LanEffect[]): On => {
  effects.push({ type: "takeBack", instance: state.instance });
  return begin(
    state.entries.filter((entry) => entry.peer !== null),
    input,
  );
};

const onTime = (state: On, input: LanInput, effects: LanEffect[]): On => {
  const { atMs } = input;
  if (atMs >= state.renewAtMs) return renew(state, input, effects);
  let next = drop(state, (entry) => entry.endsAtMs <= atMs, effects);
  if (next.queryAtMs <= atMs) {
    effects.push({ type: "query" });
    const queryPauseMs = Math.min(LAN_QUERY_MAX_MS, next.queryPauseMs * 2);
    next = { ...next, queryAtMs: atMs + next.queryPauseMs, queryPauseMs };
  }
  const later = next.announceAtMs.filter((dueAtMs) => dueAtMs > atMs);
  if (later.length < next.announceAtMs.length) {
    effects.push({ type: "announce", instance: next.instance });
    next = { ...next, announceAtMs: later, announcedAtMs: atMs };
  }
  return next;
};

/** One that is due already answers this question too. */
const answerAt = (state: On, { atMs, random }: LanInput): readonly TimeMs[] => {
  const soonAtMs = Math.max(atMs, state.announcedAtMs + LAN_ANNOUNCE_INTERVAL_MS) + pause(random);
  const isCovered = state.announceAtMs.some((dueAtMs) => dueAtMs <= soonAtMs);
  return isCovered ? state.announceAtMs : [soonAtMs, ...state.announceAtMs];
};

const heard = (state: On, event: Extract<LanEvent, { type: "heard" }>, atMs: TimeMs, effects: LanEffect[]): On => {
  const { instance, address, port, peer, ttlMs } = event;
  if (instance === state.instance) return state;
  const entry: Entry = { instance, address, port, peer, endsAtMs: atMs + Math.min(ttlMs, LAN_TTL_MAX_MS) };
  const at = state.entries.findIndex((known) => known.instance === instance && known.address === address);
  const known = state.entries[at];
  if (known !== undefined) {
    // Whose name it is was settled when it was first heard.
    const same = { ...entry, peer: known.peer };
    if (same.port !== known.port) tell("found", same, effects);
    return { ...state, entries: state.entries.with(at, same) };
  }
  if (peer !== null && state.entries.filter((other) => other.peer === peer).length >= LAN_HINTS_PER_PEER_MAX)
    return state;
  const entries = withRoom(state.entries);
  if (entries === null) return state;
  tell("found", entry, effects);
  return { ...state, entries: [...entries, entry] };
};

const withRoom = (entries: readonly Entry[]): readonly Entry[] | null => {
  if (entries.length < LAN_HEARD_MAX) return entries;
  const stranger = entries.findIndex((entry) => entry.peer === null);
  return stranger === -1 ? null : entries.toSpliced(stranger, 1);
};

const drop = (state: On, isIt: (entry: Entry) => boolean, effects: LanEffect[]): On => {
  const entries = state.entries.filter((entry) => !isIt(entry));
  if (entries.length === state.entries.length) return state;
  for (const entry of state.entries) if (isIt(entry)) lose(entry, effects);
  return { ...state, entries };
};

const lose = (entry: Entry, effects: LanEffect[]): void => tell("lost", entry, effects);

const tell = (type: "found" | "lost", { peer, address, port }: Entry, effects: LanEffect[]): void => {
  if (peer !== null) effects.push({ type, hint: { peer, address, port } });
};

const wakeAt = (state: On): TimeMs =>
  Math.min(
    state.queryAtMs,
    state.renewAtMs,
    ...state.announceAtMs.slice(0, 1),
    ...state.entries.map((entry) => entry.endsAtMs),
  );

/** What is known of where contacts are. */
export const lanHints = (state: LanState): LanHint[] =>
  state.name === "off"
    ? []
    : state.entries.flatMap(({ peer, address, port }) => (peer === null ? [] : [{ peer, address, port }]));

/** Whether a name of that address was compared with the contacts before. */
export const isKnownToLan = (state: LanState, instance: string, address: string): boolean =>
  state.name === "on" &&
  (state.instance === instance ||
    state.entries.some((entry) => entry.instance === instance && entry.address === address));
