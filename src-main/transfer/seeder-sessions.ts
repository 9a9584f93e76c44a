import { assert } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import {
  FALSE_CLAIMS_MAX,
  REQUEST_TIMEOUT_MAX_MS,
  REQUEST_TIMEOUT_MS,
  UNASKED_FRAMES_MAX,
} from "#shared/base/limits.ts";
import { PieceMap } from "./piece-map.ts";
import { chunkCame, type Flow, freshFlow } from "./seeder-flow.ts";

/**
 * The seeders of one download, as data: who is linked, which sessions are open with them, what each still owes us. Pure;
 * the transfer machine decides, these functions keep the books.
 *
 * A session is one `open` at one seeder over one link. Its number is never used twice, so whatever arrives for a session
 * that is gone is known as late, whatever the link or the tag.
 */
export interface Session {
  readonly peer: UserId;
  readonly generation: Generation;
  readonly stage:
    | { readonly kind: "opening" }
    | {
        readonly kind: "serving";
        /** Null means every chunk. */
        readonly available: PieceMap | null;
        /** It holds the whole hash tree, so it can prove pages. */
        readonly leaves: boolean;
        /** It lacked what it had claimed: what it really has is asked again, by a new session. */
        readonly shrunk: boolean;
      }
    /** `stop` was sent; `framesSent` is the seeder's answer, `available` what it had. */
    | { readonly kind: "stopping"; readonly framesSent: number | null; readonly available: PieceMap | null };
  /** Chunks requested and not yet answered, in the order of the requests. */
  readonly owed: ReadonlySet<number>;
  /** Chunks given up here after a timeout or a cancel; they may still come. */
  readonly overdue: ReadonlySet<number>;
  readonly owedPages: ReadonlySet<number>;
  /** Frames asked for in all; it cannot have sent more. */
  readonly framesAsked: number;
  readonly framesReceived: number;
  /** Requests that were repeated to the same seeder: as many chunks may come twice. */
  readonly repeats: number;
  /** Chunks that came without being asked for. */
  readonly unasked: number;
  /** Chunks that it claimed to have and lacked. */
  readonly falseClaims: number;
  /** Timeouts since it last sent something. */
  readonly timeouts: number;
  readonly chunksStored: number;
  readonly flow: Flow;
  /** Where the search for rare chunks goes on. */
  readonly searchFrom: number;
  /** When it last sent something, or was last asked after it owed nothing. */
  readonly quietSinceMs: TimeMs;
  readonly timeoutMs: number;
}

/**
 * Why a seeder is not asked any more for this file: a chunk or page that its hash refutes, chunks that nobody asked for,
 * chunks that it claimed and lacked, or numbers that cannot be.
 */
export type Fault = "bad_data" | "unasked_data" | "false_claims";

/** A linked seeder and how it stands with this download. */
export interface Peer {
  readonly generation: Generation;
  readonly standing:
    | { readonly kind: "ready" }
    | { readonly kind: "session"; readonly session: number }
    /** Asked again at that time. */
    | { readonly kind: "resting"; readonly untilMs: TimeMs; readonly silent: boolean }
    /** It will not serve; asked again over a new link, when it shows interest in the file, or when the user retries. */
    | { readonly kind: "refused"; readonly reason: string }
    /** It did what no honest seeder does; asked again only when the user retries. */
    | { readonly kind: "banned" };
}

/** Whom a download may ask, linked or not. */
export interface Members {
  /** Null until the shell has told. */
  readonly owner: UserId | null;
  readonly others: readonly UserId[];
}

export interface Swarm {
  readonly members: Members;
  /** Linked ones only. */
  readonly peers: ReadonlyMap<UserId, Peer>;
  /** Bans outlive links. */
  readonly banned: ReadonlyMap<UserId, Fault>;
  readonly sessions: ReadonlyMap<number, Session>;
  readonly nextSession: number;
  /** Chunks that seeders claimed and lacked, in sessions that are over. */
  readonly falseClaims: ReadonlyMap<UserId, number>;
  /** Requests of sessions that were removed, until the machine counts them. */
  readonly unanswered: number;
}

export const emptySwarm: Swarm = {
  members: { owner: null, others: [] },
  peers: new Map(),
  banned: new Map(),
  sessions: new Map(),
  nextSession: 1,
  falseClaims: new Map(),
  unanswered: 0,
};

const withEntry = <K, V>(map: ReadonlyMap<K, V>, key: K, value: V): ReadonlyMap<K, V> => new Map(map).set(key, value);
const withoutEntry = <K, V>(map: ReadonlyMap<K, V>, key: K): ReadonlyMap<K, V> => {
  const copy = new Map(map);
  copy.delete(key);
  return copy;
};
export const adding = (set: ReadonlySet<number>, items: Iterable<number>): ReadonlySet<number> =>
  new Set([...set, ...items]);
export const removing = (set: ReadonlySet<number>, item: number): ReadonlySet<number> => {
  if (!set.has(item)) return set;
  const copy = new Set(set);
  copy.delete(item);
  return copy;
};

export const withoutAll = (set: ReadonlySet<number>, items: readonly number[]): ReadonlySet<number> =>
  new Set([...set].filter((item) => !items.includes(item)));

export const withSession = (swarm: Swarm, id: number, change: Partial<Session>): Swarm => {
  const session = swarm.sessions.get(id);
  assert(session !== undefined, "only an open session changes");
  return { ...swarm, sessions: withEntry(swarm.sessions, id, { ...session, ...change }) };
};

export const withPeer = (swarm: Swarm, peer: UserId, entry: Peer): Swarm => ({
  ...swarm,
  peers: withEntry(swarm.peers, peer, entry),
});

/** Opens a session with a seeder that is ready for it. */
export const addSession = (swarm: Swarm, peer: UserId, now: TimeMs): { swarm: Swarm; session: number } => {
  const entry = swarm.peers.get(peer);
  assert(entry !== undefined && entry.standing.kind === "ready", "only a ready seeder gets a session");
  const session = swarm.nextSession;
  const fresh: Session = {
    peer,
    generation: entry.generation,
    stage: { kind: "opening" },
    owed: new Set(),
    overdue: new Set(),
    owedPages: new Set(),
    framesAsked: 0,
    framesReceived: 0,
    repeats: 0,
    unasked: 0,
    falseClaims: swarm.falseClaims.get(peer) ?? 0,
    timeouts: 0,
    chunksStored: 0,
    flow: freshFlow(now),
    searchFrom: 0,
    quietSinceMs: now,
    timeoutMs: REQUEST_TIMEOUT_MS,
  };
  return {
    session,
    swarm: {
      ...swarm,
      peers: withEntry(swarm.peers, peer, { ...entry, standing: { kind: "session", session } }),
      sessions: withEntry(swarm.sessions, session, fresh),
      nextSession: session + 1,
    },
  };
};

/** Removes a session; its seeder, if still linked in the same way, then stands as told. */
export const removeSession = (swarm: Swarm, id: number, standing: Peer["standing"]): Swarm => {
  const session = swarm.sessions.get(id);
  if (session === undefined) return swarm;
  const sessions = withoutEntry(swarm.sessions, id);
  const entry = swarm.peers.get(session.peer);
  const isItsOwn = entry?.standing.kind === "session" && entry.standing.session === id;
  return {
    ...swarm,
    sessions,
    unanswered: swarm.unanswered + outstandingRequestsOf(session),
    falseClaims:
      session.falseClaims > 0 ? withEntry(swarm.falseClaims, session.peer, session.falseClaims) : swarm.falseClaims,
    peers: isItsOwn ? withEntry(swarm.peers, session.peer, { ...entry, standing }) : swarm.peers,
  };
};

/** A new link replaces the old one and everything that was open on it; a ban outlives links, a refusal does not. */
export const joinPeer = (swarm: Swarm, peer: UserId, generation: Generation): Swarm => {
  const before = swarm.peers.get(peer);
  if (before !== undefined && before.generation >= generation) return swarm;
  const kind = swarm.banned.has(peer) ? "banned" : "ready";
  return withPeer(dropSessionsOf(swarm, peer), peer, { generation, standing: { kind } });
};

export const leavePeer = (swarm: Swarm, peer: UserId, generation: Generation): Swarm => {
  if (swarm.peers.get(peer)?.generation !== generation) return swarm;
  const cleared = dropSessionsOf(swarm, peer);
  return { ...cleared, peers: withoutEntry(cleared.peers, peer) };
};

/** A link is given up that had been replaced: all but the `sessions` of its successor goes with it. */
export const movePeer = (
  swarm: Swarm,
  peer: UserId,
  { from, to, sessions }: { from: Generation; to: Generation; sessions: readonly number[] },
): Swarm => {
  const before = swarm.peers.get(peer);
  if (before?.generation !== from || swarm.banned.has(peer)) return joinPeer(swarm, peer, to);
  const cleared = dropSessionsOf(swarm, peer, sessions);
  const { standing } = before;
  const goesOn = standing.kind === "session" && sessions.includes(standing.session);
  const kept = sessions.reduce(
    (rest, id) => (rest.sessions.has(id) ? withSession(rest, id, { generation: to }) : rest),
    cleared,
  );
  return withPeer(kept, peer, { generation: to, standing: goesOn ? standing : { kind: "ready" } });
};

/** Those who may have the file and are not linked now. */
export const absentOf = ({ members: { owner, others }, peers }: Swarm): UserId[] =>
  [...(owner === null ? [] : [owner]), ...others].filter((peer) => !peers.has(peer));

/** Ends every session with this seeder and opens none until it is forgiven. */
export const banPeer = (swarm: Swarm, peer: UserId, fault: Fault): Swarm => {
  const cleared = { ...dropSessionsOf(swarm, peer), banned: withEntry(swarm.banned, peer, fault) };
  const entry = swarm.peers.get(peer);
  return entry === undefined ? cleared : withPeer(cleared, peer, { ...entry, standing: { kind: "banned" } });
};

const dropSessionsOf = (swarm: Swarm, peer: UserId, except: readonly number[] = []): Swarm => {
  const gone = [...swarm.sessions].filter(([id, session]) => session.peer === peer && !except.includes(id));
  return gone.reduce((rest, [id]) => removeSession(rest, id, { kind: "ready" }), swarm);
};

/** Seeders that refused or were banned are asked again: the user wants it. */
export const forgive = (swarm: Swarm): Swarm => ({
  ...swarm,
  banned: new Map(),
  falseClaims: new Map(),
  peers: new Map(
    [...swarm.peers].map(([peer, entry]) => [
      peer,
      entry.standing.kind === "session" ? entry : { ...entry, standing: { kind: "ready" } },
    ]),
  ),
});

/** Frames that may still come from this session. */
export const outstandingOf = (session: Session): number =>
  session.owed.size + session.overdue.size + session.owedPages.size;

export const outstandingRequestsOf = ({ owed, overdue }: Session): number => owed.size + overdue.size;

/** Nothing more can come: everything was answered, or as many frames arrived as the seeder says it sent. */
export const isSettled = (session: Session): boolean =>
  outstandingOf(session) === 0 ||
  (session.stage.kind === "stopping" &&
    session.stage.framesSent !== null &&
    session.framesReceived >= session.stage.framesSent);

/** A frame came: the seeder lives, and the chunk or page is no longer owed. */
export const receivedFrame = (
  swarm: Swarm,
  id: number,
  now: TimeMs,
  frame: { index?: number; page?: number },
): Swarm => {
  const session = swarm.sessions.get(id);
  if (session === undefined) return swarm;
  const { index, page } = frame;
  const isOwed = index !== undefined && session.owed.has(index);
  const isRepeat = index !== undefined && !isOwed && !session.overdue.has(index) && session.repeats > 0;
  const isAsked = index === undefined || isOwed || isRepeat || session.overdue.has(index);
  return withSession(swarm, id, {
    framesReceived: session.framesReceived + 1,
    // What nobody asked for is no sign of life: it must not put off the timeout.
    ...(isAsked ? { quietSinceMs: now, timeoutMs: REQUEST_TIMEOUT_MS, timeouts: 0 } : { unasked: session.unasked + 1 }),
    ...(isRepeat ? { repeats: session.repeats - 1 } : {}),
    ...(index === undefined ? {} : { owed: removing(session.owed, index), overdue: removing(session.overdue, index) }),
    ...(isOwed ? { flow: chunkCame(session.flow, now) } : {}),
    ...(page === undefined ? {} : { owedPages: removing(session.owedPages, page) }),
  });
};

/** What this session did that no honest seeder does. */
export const faultOf = ({ unasked, falseClaims }: Session): Fault | null => {
  if (unasked > UNASKED_FRAMES_MAX) return "unasked_data";
  return falseClaims > FALSE_CLAIMS_MAX ? "false_claims" : null;
};

/** When this session counts as silent; null while nothing is expected of it. */
export const deadlineOf = (session: Session): TimeMs | null => {
  const expects = session.stage.kind !== "serving" || session.owed.size + session.owedPages.size > 0;
  return expects ? session.quietSinceMs + session.timeoutMs : null;
};

/** Gives up what a silent session owes, so that it is asked for again; it has longer to answer from now on. */
export const expireRequests = (session: Session, now: TimeMs): Session => ({
  ...session,
  owed: new Set(),
  overdue: adding(session.overdue, session.owed),
  owedPages: new Set(),
  timeouts: session.timeouts + 1,
  quietSinceMs: now,
  timeoutMs: Math.min(session.timeoutMs * 2, REQUEST_TIMEOUT_MAX_MS),
});

/** What it has, or had when it was stopped; null means every chunk. */
export const availableOf = ({ stage }: Session): PieceMap | null =>
  stage.kind === "opening" ? PieceMap.empty(0) : stage.available;

export const servesChunk = (session: Session, index: number): boolean =>
  session.stage.kind === "serving" && (session.stage.available?.has(index) ?? true);

/** Seeders that rested long enough are ready again. */
export const endRests = (swarm: Swarm, now: TimeMs): Swarm => {
  let next = swarm;
  for (const [peer, entry] of swarm.peers)
    if (entry.standing.kind === "resting" && entry.standing.untilMs <= now)
      next = withPeer(next, peer, { ...entry, standing: { kind: "ready" } });
  return next;
};
