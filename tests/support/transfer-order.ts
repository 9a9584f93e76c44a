import { expect } from "vitest";
import type { TransferView } from "#shared/ipc/views.ts";

const PHASES: readonly string[] = ["downloading", "draining", "assembling", "verifying", "complete"];
/** Of which none ever gets less. */
const GROWING = [
  ...(["chunksStored", "bytesStored", "assembledChunks", "requestedChunks"] as const),
  ...(["duplicateChunks", "lateChunks", "rejectedChunks", "cancelledChunks"] as const),
];

const endedOf = (view: TransferView): number =>
  view.chunksStored + view.duplicateChunks + view.rejectedChunks + view.cancelledChunks;

/** What a window may rely on, in all snapshots of one download that was never interrupted. */
export const expectInOrder = (views: readonly TransferView[]): void => {
  const phases = views.map(({ phase }) => PHASES.indexOf(phase));
  expect(phases).toEqual(phases.toSorted((a, b) => a - b));
  for (const name of GROWING) {
    const values = views.map((view) => view[name]);
    expect(values, name).toEqual(values.toSorted((a, b) => a - b));
  }
  for (const view of views) {
    // Every request ends once; besides those under way some were given up, and may still be answered.
    expect(endedOf(view) + view.inFlight, JSON.stringify(view)).toBeLessThanOrEqual(view.requestedChunks);
    expect(view.chunksStored).toBeLessThanOrEqual(view.chunkCount);
    expect(view.bytesStored).toBeLessThanOrEqual(view.sizeBytes);
  }
  const last = views.at(-1);
  expect(last?.phase).toBe("complete");
  if (last !== undefined) expect(last.requestedChunks).toBe(endedOf(last));
};
