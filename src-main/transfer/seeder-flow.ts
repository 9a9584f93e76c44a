import type { TimeMs } from "#shared/base/env.ts";
import {
  FLOW_SAMPLE_MS,
  REQUEST_WINDOW_MIN_CHUNKS,
  REQUEST_WINDOW_TIME_MS,
  SEEDER_PATIENCE_MS,
} from "#shared/base/limits.ts";

/**
 * How fast one session delivers: its bandwidth, its delay, and from both the number of chunks that should be under way.
 * Pure; in chunks and monotonic milliseconds.
 */
export interface Flow {
  /** From a request to an idle seeder until its first frame, at best; null before the first one. */
  readonly delayMs: number | null;
  /** Null until a sample is complete. */
  readonly chunksPerMs: number | null;
  readonly received: number;
  readonly sampleStartMs: TimeMs;
  readonly sampleChunks: number;
  /** When it was asked while it owed nothing; null once something came. */
  readonly askedIdleAtMs: TimeMs | null;
  /** What came since then, as long as no sample is complete; null after one. */
  readonly round: Round | null;
}
interface Round {
  readonly askedAtMs: TimeMs;
  readonly chunks: number;
  readonly lastCameMs: TimeMs;
}

export const freshFlow = (now: TimeMs): Flow => ({
  delayMs: null,
  chunksPerMs: null,
  received: 0,
  sampleStartMs: now,
  sampleChunks: 0,
  askedIdleAtMs: null,
  round: null,
});

/**
 * It was asked for chunks while it owed none: the time before says nothing about its speed. All that it owed came before a
 * sample was complete, so the window was what bounded it. What it delivered since it was asked is the least that it can; without
 * that a window that is too small would never be measured, and stay.
 */
export const askedIdle = (flow: Flow, now: TimeMs): Flow => {
  const { round, chunksPerMs } = flow;
  const elapsedMs = round === null ? 0 : round.lastCameMs - round.askedAtMs;
  const atLeast = round === null || elapsedMs === 0 ? 0 : round.chunks / elapsedMs;
  return {
    ...flow,
    chunksPerMs: chunksPerMs === null ? null : Math.max(chunksPerMs, atLeast),
    sampleStartMs: now,
    sampleChunks: 0,
    askedIdleAtMs: now,
    round: { askedAtMs: now, chunks: 0, lastCameMs: now },
  };
};

export const chunkCame = (flow: Flow, now: TimeMs): Flow => {
  const waited = flow.askedIdleAtMs === null ? null : now - flow.askedIdleAtMs;
  const delayMs = waited === null ? flow.delayMs : Math.min(waited, flow.delayMs ?? waited);
  const round = flow.round === null ? null : { ...flow.round, chunks: flow.round.chunks + 1, lastCameMs: now };
  const came = { ...flow, delayMs, askedIdleAtMs: null, received: flow.received + 1, round };
  // The first chunk after a pause ends the delay; the speed is that of those behind it.
  if (waited !== null) return { ...came, sampleStartMs: now, sampleChunks: 0 };
  const sampleChunks = flow.sampleChunks + 1;
  const elapsedMs = now - flow.sampleStartMs;
  if (elapsedMs < FLOW_SAMPLE_MS) return { ...came, sampleChunks };
  const sample = sampleChunks / elapsedMs;
  const chunksPerMs = flow.chunksPerMs === null ? sample : (flow.chunksPerMs + sample) / 2;
  return { ...came, chunksPerMs, sampleStartMs: now, sampleChunks: 0, round: null };
};

/**
 * Chunks that should be under way: what it delivers in REQUEST_WINDOW_TIME_MS or in two round trips, whichever is more, so
 * that a window that was the bound grows. Before its speed is known it is `first`, and grows with every chunk.
 */
export const windowOf = (
  { chunksPerMs, delayMs, received }: Flow,
  { first, most }: { first: number; most: number },
): number => {
  if (chunksPerMs === null) return Math.min(most, first + received);
  const wanted = Math.ceil(chunksPerMs * Math.max(REQUEST_WINDOW_TIME_MS, 2 * (delayMs ?? 0)));
  return Math.min(most, Math.max(REQUEST_WINDOW_MIN_CHUNKS, wanted));
};

/** Milliseconds until a chunk is here that `ahead` others of the same session come before; null while nobody knows. */
export const timeFor = ({ chunksPerMs, delayMs }: Flow, ahead: number): number | null =>
  chunksPerMs === null ? null : (delayMs ?? 0) + (ahead + 1) / chunksPerMs;

/** After this much silence while it owes something, a session is slower than it was: others may take over what it owes. */
export const patienceMs = (flow: Flow): number => Math.max(SEEDER_PATIENCE_MS, 3 * (timeFor(flow, 0) ?? 0));
