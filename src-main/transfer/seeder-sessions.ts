import { assert } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import { LEAF_REQUESTS_MAX, LEAVES_PER_PAGE, REQUEST_TIMEOUT_MAX_MS, REQUEST_TIMEOUT_MS } from "#shared/base/limits.ts";
import type { PieceMap } from "./piece-map.ts";

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
    /** `available`: null means every chunk. */
    | { readonly kind: "serving"; readonly available: PieceMap | null }
    /** `stop` was sent; `framesSent` is the seeder's answer. */
    | { readonly kind: "stopping"; readonly framesSent: number | null };
  /** Chunks requested and not yet answered. */
  readonly owed: ReadonlySet<number>;
  /** Chunks given up here after a timeout or a cancel; they may still come. */
  readonly overdue: ReadonlySet<number>;
  readonly owedPages: ReadonlySet<number>;
  readonly framesReceived: number;
  readonly chunksStored: number;
  /** When it last sent something, or was last asked after it owed nothing. */
  readonly quietSinceMs: TimeMs;
  readonly timeoutMs: number;
}

/** A linked seeder and how it stands with this download. */
export interface Peer {
  readonly generation: Generation;
  readonly standing:
    | { readonly kind: "ready" }
    | { readonly kind: "session"; readonly session: number }
    /** Asked again at that time. */
    | { readonly kind: "resting"; readonly untilMs: TimeMs }
    /** It will not serve; asked again over a new link or when the user retries. */
    | { readonly kind: "refused"; readonly reason: string }
    /** It sent a chunk that does not belong to the file; asked again only when the user retries. */
    | { readonly kind: "banned" };
}

export interface Swarm {
  /** Linked ones only. */
  readonly peers: ReadonlyMap<UserId, Peer>;
  /** Bans outlive links. */
  readonly banned: ReadonlySet<UserId>;
  readonly sessions: ReadonlyMap<number, Session>;
  readonly nextSession: number;
}

export const emptySwarm: Swarm = { peers: new Map(), banned: new Set(), sessions: new Map(), nextSession: 1 };

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
    framesReceived: 0,
    chunksStored: 0,
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

/** Ends every session with this seeder and opens none until it is forgiven. */
export const banPeer = (swarm: Swarm, peer: UserId): Swarm => {
  const cleared = { ...dropSessionsOf(swarm, peer), banned: new Set([...swarm.banned, peer]) };
  const entry = swarm.peers.get(peer);
  return entry === undefined ? cleared : withPeer(cleared, peer, { ...entry, standing: { kind: "banned" } });
};

const dropSessionsOf = (swarm: Swarm, peer: UserId): Swarm => {
  const kept = [...swarm.sessions].filter(([, session]) => session.peer !== peer);
  return kept.length === swarm.sessions.size ? swarm : { ...swarm, sessions: new Map(kept) };
};

/** Seeders that refused or were banned are asked again: the user wants it. */
export const forgive = (swarm: Swarm): Swarm => ({
  ...swarm,
  banned: new Set(),
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
  return withSession(swarm, id, {
    framesReceived: session.framesReceived + 1,
    quietSinceMs: now,
    timeoutMs: REQUEST_TIMEOUT_MS,
    ...(index === undefined ? {} : { owed: removing(session.owed, index), overdue: removing(session.overdue, index) }),
    ...(page === undefined ? {} : { owedPages: removing(session.owedPages, page) }),
  });
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
  quietSinceMs: now,
  timeoutMs: Math.min(session.timeoutMs * 2, REQUEST_TIMEOUT_MAX_MS),
});

const servesChunk = (session: Session, index: number): boolean =>
  session.stage.kind === "serving" && (session.stage.available?.has(index) ?? true);

/** What of the file is there, on its way to the disk, or not needed from this seeder. */
export interface Wanted {
  readonly stored: PieceMap;
  readonly storing: ReadonlyMap<number, unknown>;
  readonly pages: PieceMap;
  readonly pagesStoring: ReadonlySet<number>;
}
export interface Picked {
  readonly indices: number[];
  readonly pages: number[];
}

/**
 * The next chunks to ask this session for, in file order, at most `room`; and the pages of leaves that must come first.
 * The page after the last one in use is asked for ahead, so that its round trip is not waited for.
 */
export const pickRequests = (swarm: Swarm, id: number, wanted: Wanted, room: number): Picked => {
  const session = swarm.sessions.get(id);
  const picked: Picked = { indices: [], pages: [] };
  if (session?.stage.kind !== "serving") return picked;
  const others = [...swarm.sessions].filter(([other]) => other !== id).map(([, other]) => other);
  const { available } = session.stage;

  const pageIsComing = (page: number): boolean =>
    wanted.pagesStoring.has(page) ||
    picked.pages.includes(page) ||
    session.owedPages.has(page) ||
    others.some((other) => other.owedPages.has(page));
  const askForPage = (page: number): void => {
    const room = LEAF_REQUESTS_MAX - session.owedPages.size - picked.pages.length;
    if (room > 0 && !pageIsComing(page)) picked.pages.push(page);
  };

  let next = wanted.stored.nextMissing(0, available);
  while (next !== null && picked.indices.length < room) {
    const index = next;
    const page = Math.floor(index / LEAVES_PER_PAGE);
    if (!wanted.pages.has(page)) {
      askForPage(page);
      // Further pages are worth a look only while one of them could be there already.
      if (picked.pages.length + session.owedPages.size >= LEAF_REQUESTS_MAX) break;
      next = wanted.stored.nextMissing((page + 1) * LEAVES_PER_PAGE, available);
      continue;
    }
    const claimed = wanted.storing.has(index) || session.owed.has(index) || others.some((o) => o.owed.has(index));
    // Somebody who was silent about it is asked again only if nobody else can be.
    const leftToOthers =
      session.overdue.has(index) && others.some((o) => servesChunk(o, index) && !o.overdue.has(index));
    if (!claimed && !leftToOthers) picked.indices.push(index);
    next = wanted.stored.nextMissing(index + 1, available);
  }
  const last = picked.indices.at(-1);
  if (last !== undefined) {
    const ahead = Math.floor(last / LEAVES_PER_PAGE) + 1;
    if (ahead < wanted.pages.size && !wanted.pages.has(ahead)) askForPage(ahead);
  }
  return picked;
};

/** Seeders that rested long enough are ready again. */
export const endRests = (swarm: Swarm, now: TimeMs): Swarm => {
  let next = swarm;
  for (const [peer, entry] of swarm.peers)
    if (entry.standing.kind === "resting" && entry.standing.untilMs <= now)
      next = withPeer(next, peer, { ...entry, standing: { kind: "ready" } });
  return next;
};
