import { describe, expect, test } from "vitest";
import type { FileId } from "#shared/base/ids.ts";
import { type ChunkClaim, evictionsFor, sumsOf } from "../../src-main/transfer/chunk-quota.ts";
import { freshFileId } from "../support/files.ts";

const claim = (changes: Partial<ChunkClaim>): ChunkClaim => ({
  ...{ fileId: freshFileId(), storedBytes: 0, expectedBytes: 0, isFailed: false, startedAtMs: 0 },
  ...changes,
});
const failed = (storedBytes: number, startedAtMs: number) => claim({ storedBytes, startedAtMs, isFailed: true });
const idsOf = (claims: readonly ChunkClaim[] | null): FileId[] | null => claims?.map(({ fileId }) => fileId) ?? null;

describe("the limit on chunks", () => {
  const running = claim({ storedBytes: 10, expectedBytes: 30 });
  const paused = claim({ storedBytes: 20 });
  const [older, newer] = [failed(15, 1), failed(25, 2)];
  const claims = [newer, running, older, paused];

  test("counts what is stored and what is still to come", () => {
    expect(sumsOf(claims)).toEqual({ usedBytes: 70, expectedBytes: 30, evictableBytes: 40 });
  });

  test("evicts as few failed ones as it takes, the one begun first first, and nothing else", () => {
    expect(idsOf(evictionsFor(claims, 50, 150))).toEqual([]);
    expect(idsOf(evictionsFor(claims, 51, 150))).toEqual([older.fileId]);
    expect(idsOf(evictionsFor(claims, 65, 150))).toEqual([older.fileId]);
    expect(idsOf(evictionsFor(claims, 66, 150))).toEqual([older.fileId, newer.fileId]);
    expect(idsOf(evictionsFor(claims, 90, 150))).toEqual([older.fileId, newer.fileId]);
  });

  test("refuses what does not fit even then, and nothing without a limit", () => {
    expect(evictionsFor(claims, 91, 150)).toBeNull();
    expect(evictionsFor(claims, 1e15, null)).toEqual([]);
    // One that has nothing is not worth the trouble.
    expect(evictionsFor([failed(0, 1)], 2, 1)).toBeNull();
  });
});
