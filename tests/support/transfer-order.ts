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

/**
 * What a window may rely on, in all snapshots of one download that was never interrupted. `drainMayTimeOut`: its timeout is so
 * short that a busy disk alone may exceed it; then what is not stored is fetched again, and that is all that goes back.
 */
export const expectInOrder = (views: readonly TransferView[], { drainMayTimeOut = false } = {}): void => {
  const steps = views.slice(1).map((view, i) => [views[i], view] as const);
  const back = steps.filter(([before, { phase }]) => PHASES.indexOf(phase) < PHASES.indexOf(before?.phase ?? ""));
  const isAllowed = (before: TransferView | undefined, view: TransferView): boolean =>
    drainMayTimeOut &&
    before?.phase === "draining" &&
    view.phase === "downloading" &&
    view.drain?.endedBy === "timeout" &&
    view.chunksStored < view.chunkCount;
  expect(back.filter(([before, view]) => !isAllowed(before, view))).toEqual([]);
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
