import type { TimeMs } from "#shared/base/env.ts";
import {
  ENDGAME_COPIES_MAX,
  ENDGAME_SPEEDUP,
  LEAF_REQUESTS_MAX,
  LEAVES_PER_PAGE,
  RAREST_SCAN_CHUNKS,
  SCATTER_STRETCH_CHUNKS,
} from "#shared/base/limits.ts";
import type { PieceMap } from "./piece-map.ts";
import { patienceMs, timeFor, windowOf } from "./seeder-flow.ts";
import { type Session, type Swarm, servesChunk } from "./seeder-sessions.ts";

/**
 * Which chunks a download asks which seeder for next. Pure: it chooses, the transfer machine does it and keeps the books.
 *
 *   rarest first   of what a seeder has and nobody owes, the chunks that the fewest other seeders have come first
 *   sequential     among equally rare ones in file order
 *   scattered      while others may be fetching the file too, in stretches from places of our own: two receivers who went
 *                  through it side by side would both take everything from the owner, and have nothing to exchange
 *   window         as much under way as a seeder delivers in its round trip and some (see seeder-flow)
 *   no tail        a seeder so slow that the others will be done before it delivers is not asked any more
 *   endgame        once every missing chunk is owed, idle seeders are asked for what much slower or silent ones owe;
 *                  the copy that comes first cancels the other
 */

/** What of the file is there, on its way to the disk, or not needed from this seeder. */
export interface Wanted {
  readonly stored: PieceMap;
  /** With the session that each came from. */
  readonly storing: ReadonlyMap<number, number>;
  readonly pages: PieceMap;
  readonly pagesStoring: ReadonlySet<number>;
}

export interface Bounds {
  /** Chunks under way from one seeder. */
  readonly windowChunks: number;
  /** The same while nothing is known of its speed. */
  readonly startChunks: number;
  /** Chunks asked for and not stored, over all seeders. */
  readonly backlogChunks: number;
  /** Where this downloader's stretches begin follows from it: 32 random bits. */
  readonly seed: number;
}

export interface Picked {
  readonly indices: number[];
  readonly pages: number[];
  /** Where the session's search goes on. */
  readonly searchFrom: number;
}

const NOTHING: Omit<Picked, "searchFrom"> = { indices: [], pages: [] };

/**
 * The next chunks to ask this session for, at most `most`, and the pages of leaves that must come first. Empty unless
 * there is room for a worthwhile batch.
 */
export const pick = (
  swarm: Swarm,
  id: number,
  wanted: Wanted,
  bounds: Bounds,
  { now, most }: { now: TimeMs; most: number },
): Picked => {
  const session = swarm.sessions.get(id);
  if (session?.stage.kind !== "serving") return { ...NOTHING, searchFrom: 0 };
  const window = windowOf(session.flow, { first: bounds.startChunks, most: bounds.windowChunks });
  const room = Math.min(window - session.owed.size - storingOf(wanted, id), most, backlogRoom(swarm, wanted, bounds));
  // A quarter of the window at a time: few messages, and the seeder never runs dry.
  const isWorthwhile = room >= Math.ceil(window / 4) || (session.owed.size === 0 && room > 0);
  if (!isWorthwhile) return { ...NOTHING, searchFrom: session.searchFrom };
  const search = new Search(swarm, id, session, wanted, now);
  const picked = search.unclaimed(room, bounds.seed);
  if (picked.indices.length > 0 || !search.isEndgame) return picked;
  return { ...picked, indices: search.endgame(room) };
};

/** Chunks of this session that the disk has not confirmed: they count as under way, so that a slow disk slows the seeder. */
const storingOf = ({ storing }: Wanted, id: number): number => {
  let count = 0;
  for (const from of storing.values()) if (from === id) count += 1;
  return count;
};

const backlogRoom = (swarm: Swarm, { storing }: Wanted, { backlogChunks }: Bounds): number => {
  let room = backlogChunks - storing.size;
  for (const { owed } of swarm.sessions.values()) room -= owed.size;
  return room;
};

/** When a session that owes something counts as silent; null while it owes nothing. */
export const silentFrom = (session: Session): TimeMs | null => {
  if (session.owed.size + session.owedPages.size === 0) return null;
  return session.stage.kind === "serving" ? session.quietSinceMs + patienceMs(session.flow) : session.quietSinceMs;
};

const isSilent = (session: Session, now: TimeMs): boolean => {
  const from = silentFrom(session);
  return from !== null && now >= from;
};

/** 32 bits that look random and follow from the number (the finalizer of MurmurHash3). */
const scattered = (n: number): number => {
  let bits = Math.imul(n, 0x9e3779b1);
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
};

class Search {
  /** No chunk is left that nobody owes, as far as this seeder has them. */
  isEndgame = false;
  readonly #id: number;
  readonly #session: Session;
  readonly #wanted: Wanted;
  readonly #available: PieceMap | null;
  readonly #others: readonly Session[];
  /** Linked, with no session that serves everything: they may be fetching the file too. */
  readonly #isAmongReceivers: boolean;
  readonly #now: TimeMs;
  readonly #pages: number[] = [];

  constructor({ sessions, peers }: Swarm, id: number, session: Session, wanted: Wanted, now: TimeMs) {
    this.#id = id;
    this.#session = session;
    this.#wanted = wanted;
    this.#now = now;
    this.#available = session.stage.kind === "serving" ? session.stage.available : null;
    this.#others = [...sessions].filter(([other]) => other !== this.#id).map(([, other]) => other);
    this.#isAmongReceivers = [...peers.values()].some(({ standing }) => {
      const stage = standing.kind === "session" ? sessions.get(standing.session)?.stage : null;
      return standing.kind !== "banned" && (stage?.kind !== "serving" || stage.available !== null);
    });
  }

  unclaimed(room: number, seed: number): Picked {
    const serving = this.#others.filter(({ stage }) => stage.kind === "serving");
    const whole = serving.filter((other) => other.stage.kind === "serving" && other.stage.available === null).length;
    const isShared = whole < serving.length || this.#available !== null;
    const size = Math.max(1, this.#wanted.stored.size);
    const stretch = Math.floor(this.#session.framesAsked / SCATTER_STRETCH_CHUNKS);
    const startAt = this.#isAmongReceivers ? scattered(seed + stretch) % size : 0;
    const from = (startAt + this.#session.searchFrom) % size;
    const faster = this.#fasterOnes(serving);
    // By rarity: as many others as have it.
    const found: number[][] = [];
    let isSatisfied = false;
    let looked = 0;
    let last = from;
    for (const index of this.#missing(from)) {
      last = index;
      looked += 1;
      if (this.#isClaimed(index) || faster.some((other) => servesChunk(other, index))) {
        if (looked >= RAREST_SCAN_CHUNKS) break;
        continue;
      }
      const rarity = isShared ? serving.filter((other) => servesChunk(other, index)).length : whole;
      const same = found[rarity] ?? [];
      found[rarity] = same;
      if (same.length < room) same.push(index);
      isSatisfied = rarity === whole && same.length >= room;
      if (isSatisfied || looked >= RAREST_SCAN_CHUNKS) break;
    }
    const indices = found.flat().slice(0, room);
    this.isEndgame = indices.length === 0 && looked < RAREST_SCAN_CHUNKS;
    // Nothing rare in all that was looked at: further on next time.
    const isFruitless = isShared && !isSatisfied && looked >= RAREST_SCAN_CHUNKS;
    const searchFrom = isFruitless ? last + 1 - startAt + size : this.#session.searchFrom;
    this.#askAhead(indices);
    return { indices, pages: this.#pages, searchFrom: searchFrom % size };
  }

  /**
   * What others owe and would deliver much later than this one: from the slowest and from the end of its queue, because
   * what it sends next is on its way already.
   */
  endgame(room: number): number[] {
    const picked: number[] = [];
    const candidates = this.#others.flatMap((other) => {
      const silent = isSilent(other, this.#now);
      return [...other.owed].map((index, ahead) => ({
        index,
        dueMs: silent ? Number.POSITIVE_INFINITY : (timeFor(other.flow, ahead) ?? 0),
      }));
    });
    candidates.sort((a, b) => b.dueMs - a.dueMs || a.index - b.index);
    for (const { index, dueMs } of candidates) {
      if (picked.length >= room) break;
      if (picked.includes(index) || !this.#mayCopy(index)) continue;
      const mine = timeFor(this.#session.flow, this.#session.owed.size + picked.length);
      // Whoever has not been measured yet is only asked for what somebody is silent about.
      const isWorthwhile = dueMs === Number.POSITIVE_INFINITY || (mine !== null && dueMs > mine * ENDGAME_SPEEDUP);
      if (isWorthwhile) picked.push(index);
    }
    return picked;
  }

  #mayCopy(index: number): boolean {
    if (!servesChunk(this.#session, index) || this.#wanted.storing.has(index)) return false;
    // A stopped session may still owe what has come from another.
    if (this.#wanted.stored.has(index)) return false;
    if (this.#session.owed.has(index) || this.#session.overdue.has(index)) return false;
    const owing = this.#others.filter((other) => other.owed.has(index) && !isSilent(other, this.#now));
    return owing.length < ENDGAME_COPIES_MAX;
  }

  /** Missing chunks that this seeder has and whose hashes are proven, once around from `from`. */
  *#missing(from: number): Generator<number> {
    const { stored, pages } = this.#wanted;
    for (const [start, end] of [
      [from, stored.size],
      [0, from],
    ] as const) {
      let next = stored.nextMissing(start, this.#available);
      while (next !== null && next < end) {
        const page = Math.floor(next / LEAVES_PER_PAGE);
        if (pages.has(page)) {
          yield next;
          next = stored.nextMissing(next + 1, this.#available);
        } else {
          this.#askForPage(page);
          next = stored.nextMissing((page + 1) * LEAVES_PER_PAGE, this.#available);
        }
      }
    }
  }

  #isClaimed(index: number): boolean {
    if (this.#wanted.storing.has(index) || this.#session.owed.has(index)) return true;
    if (this.#others.some(({ owed }) => owed.has(index))) return true;
    // Somebody who was silent about it is asked again only if nobody else can be.
    return (
      this.#session.overdue.has(index) &&
      this.#others.some((other) => servesChunk(other, index) && !other.overdue.has(index))
    );
  }

  /** Those that will have fetched all the rest before this one delivers one more chunk. */
  #fasterOnes(serving: readonly Session[]): readonly Session[] {
    const mine = timeFor(this.#session.flow, this.#session.owed.size);
    if (mine === null) return [];
    const perMs = serving.reduce((sum, { flow }) => sum + (flow.chunksPerMs ?? 0), 0);
    const missing = this.#wanted.stored.size - this.#wanted.stored.count - this.#wanted.storing.size;
    if (perMs === 0 || missing / perMs > mine) return [];
    return serving.filter((other) => {
      const theirs = timeFor(other.flow, other.owed.size);
      return theirs !== null && theirs * ENDGAME_SPEEDUP < mine && other.timeouts === 0 && !isSilent(other, this.#now);
    });
  }

  #askForPage(page: number): void {
    const { stage, owedPages } = this.#session;
    if (stage.kind !== "serving" || !stage.leaves || owedPages.has(page)) return;
    if (LEAF_REQUESTS_MAX - owedPages.size - this.#pages.length <= 0) return;
    const isComing =
      this.#wanted.pagesStoring.has(page) ||
      this.#pages.includes(page) ||
      this.#others.some((other) => other.owedPages.has(page) && !isSilent(other, this.#now));
    if (!isComing) this.#pages.push(page);
  }

  /**
   * The pages after those in use, so that their round trip is not waited for. In time all of them: who holds the whole
   * tree can prove pages to others.
   */
  #askAhead(indices: readonly number[]): void {
    const last = indices.at(-1);
    if (last === undefined) return;
    const { pages } = this.#wanted;
    const from = Math.floor(last / LEAVES_PER_PAGE) + 1;
    for (const start of [from, 0]) {
      for (let page = pages.nextMissing(start, null); page !== null; page = pages.nextMissing(page + 1, null)) {
        if (this.#pages.length + this.#session.owedPages.size >= LEAF_REQUESTS_MAX) return;
        this.#askForPage(page);
        // Only the next one is worth a search; all others come in their turn.
        if (page > from + LEAF_REQUESTS_MAX) break;
      }
    }
  }
}
