import { channel } from "node:diagnostics_channel";
import type { FileId, UserId } from "#shared/base/ids.ts";

/**
 * Named moments in the life of a transfer, so that a test can end a process at exactly one of them. Whoever starts the
 * program for a test subscribes to the channel before it (tests/support/stepped.ts). Nothing of Weir does, and no setting
 * makes it: .dependency-cruiser.cjs keeps the channel in this file. Without a subscriber a moment costs one comparison.
 *
 *   owner       announcing  hashed and signed, nothing written down      announced   file and message are committed
 *               registering the server is about to be told               registered  it has answered, which is not yet noted
 *   seeder      opened      a session is accepted                        requested   chunks are queued for it
 *               chunksRead  read and encrypted, in the worker            chunkSent   handed to the link
 *               stopped     the session has ended with an answer
 *   downloader  offered     the offer is in a transaction under way      leavesStored a page of the hash tree is committed
 *               asked       a request was handed to the link             arrived     a chunk is here, undecided
 *               committed   chunks are in chunks.db, nobody knows it     stopSent    a seeder was told to stop
 *               and every state of transfer-machine.ts when it is entered
 *               assembleStart, assembleMiddle, assembleEnd               the temporary file is made, half written, written
 *               synced      it is on the disk                            nameNoted   chunks.db knows the name to come
 *               renamed     it has that name                             nameSynced  the folder is on the disk
 *               finished    the main process knows it                    completed   app.db says so
 *               chunksDropped the rows of its chunks are gone
 */
export type Step =
  | ("announcing" | "announced" | "registering" | "registered")
  | ("opened" | "requested" | "chunksRead" | "chunkSent" | "stopped")
  | ("offered" | "leavesStored" | "asked" | "arrived" | "committed" | "stopSent")
  | ("opening" | "downloading" | "draining" | "assembling" | "verifying" | "complete")
  | ("idle" | "pausing" | "failed" | "cancelled")
  | ("assembleStart" | "assembleMiddle" | "assembleEnd" | "synced" | "nameNoted" | "renamed" | "nameSynced")
  | ("finished" | "completed" | "chunksDropped");

export interface Reached {
  readonly step: Step;
  readonly fileId: FileId;
  /** Of chunks, or of a page of leaves. */
  readonly indices: readonly number[];
  /** To whom a chunk was sent. */
  readonly peer?: UserId;
}

const NONE: readonly number[] = [];
const steps = channel("weir:step");

export const reached = (step: Step, fileId: FileId, of: number | readonly number[] = NONE, peer?: UserId): void => {
  if (!steps.hasSubscribers) return;
  const indices = typeof of === "number" ? [of] : of;
  steps.publish({ step, fileId, indices, ...(peer === undefined ? {} : { peer }) } satisfies Reached);
};
