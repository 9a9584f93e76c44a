import type { FileId } from "#shared/base/ids.ts";

/**
 * The largest space that chunks of unfinished downloads may take. Pure.
 *
 * What counts: the chunks that every unfinished download has stored, and those that the running and waiting ones are still
 * going to store. What may be evicted: the chunks of downloads that have failed, since nothing goes on with them unless
 * somebody says so; the one that was begun first goes first, and no more of them than it takes. Whatever runs, waits or is
 * paused is never evicted: what does not fit beside it is refused before it begins.
 */
export interface ChunkClaim {
  readonly fileId: FileId;
  readonly storedBytes: number;
  readonly expectedBytes: number;
  readonly isFailed: boolean;
  readonly startedAtMs: number;
}

export interface QuotaSums {
  /** Stored by now, and still expected. */
  readonly usedBytes: number;
  readonly expectedBytes: number;
  /** Of what is stored: what may be evicted. */
  readonly evictableBytes: number;
}

export const sumsOf = (claims: readonly ChunkClaim[]): QuotaSums => ({
  usedBytes: claims.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
  expectedBytes: claims.reduce((sum, { expectedBytes }) => sum + expectedBytes, 0),
  evictableBytes: claims.filter(({ isFailed }) => isFailed).reduce((sum, { storedBytes }) => sum + storedBytes, 0),
});

/** What has to be evicted so that `wanted` more bytes fit, in order; null when they do not fit even then. */
export const evictionsFor = (
  claims: readonly ChunkClaim[],
  wantedBytes: number,
  limitBytes: number | null,
): readonly ChunkClaim[] | null => {
  if (limitBytes === null) return [];
  const { usedBytes, expectedBytes } = sumsOf(claims);
  let excess = usedBytes + expectedBytes + wantedBytes - limitBytes;
  const evicted: ChunkClaim[] = [];
  const candidates = claims
    .filter(({ isFailed, storedBytes }) => isFailed && storedBytes > 0)
    .sort((a, b) => a.startedAtMs - b.startedAtMs);
  for (const claim of candidates) {
    if (excess <= 0) break;
    evicted.push(claim);
    excess -= claim.storedBytes;
  }
  return excess <= 0 ? evicted : null;
};
