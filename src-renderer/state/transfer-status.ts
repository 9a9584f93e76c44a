import { assertNever } from "#shared/base/assert.ts";
import type { ErrorView, FileClosed, FileView, TransferView } from "#shared/ipc/views.ts";

/**
 * What a file is doing from this person's point of view: one state with exactly its data, derived from the two
 * snapshots. Every view switches on it, so that no phase can be forgotten anywhere.
 */
export type TransferStatus =
  | { kind: "shared"; copies: number }
  /** Ours, and not on the disk any more as it was shared. */
  | { kind: "moved" }
  | { kind: "revoked"; byOwner: boolean }
  /** Nobody but its owner gets it any more. */
  | { kind: "closed"; why: FileClosed; mine: boolean; begun: boolean }
  | { kind: "available" }
  | { kind: "downloading"; transfer: TransferView }
  | { kind: "waiting"; transfer: TransferView }
  | { kind: "paused"; transfer: TransferView }
  | { kind: "draining"; transfer: TransferView; remaining: number }
  | { kind: "assembling"; transfer: TransferView }
  | { kind: "verifying"; transfer: TransferView }
  | { kind: "complete"; transfer: TransferView }
  | { kind: "cancelled"; transfer: TransferView }
  | { kind: "failed"; transfer: TransferView; error: ErrorView };

export const statusOfTransfer = (transfer: TransferView): TransferStatus => {
  switch (transfer.phase) {
    case "complete":
      return { kind: "complete", transfer };
    case "failed": {
      const error = transfer.error ?? { type: "unknown", message: "The download stopped. Try again." };
      return error.type === "cancelled" ? { kind: "cancelled", transfer } : { kind: "failed", transfer, error };
    }
    case "downloading":
      if (transfer.paused) return { kind: "paused", transfer };
      return transfer.waitingForSeeders ? { kind: "waiting", transfer } : { kind: "downloading", transfer };
    case "draining":
      if (transfer.paused) return { kind: "paused", transfer };
      return { kind: "draining", transfer, remaining: transfer.drain?.remaining ?? transfer.inFlight };
    case "assembling":
      return { kind: "assembling", transfer };
    case "verifying":
      return { kind: "verifying", transfer };
    default:
      return assertNever(transfer.phase, "transfer phase");
  }
};

/** `file` is null for a transfer whose file is not known (any more). */
export const statusOf = (
  file: FileView | null,
  transfer: TransferView | undefined,
  ownUserId: string,
): TransferStatus => {
  if (file !== null && file.ownerId === ownUserId) {
    if (file.closed !== undefined) return { kind: "closed", why: file.closed, mine: true, begun: false };
    if (!file.seeders.includes(ownUserId)) return { kind: "moved" };
    return { kind: "shared", copies: file.seeders.length - 1 };
  }
  // What is complete stays usable after access was revoked: the file is on this person's disk.
  if (file?.closed !== undefined && transfer?.phase !== "complete")
    return { kind: "closed", why: file.closed, mine: false, begun: transfer !== undefined };
  if (file?.access === "revoked" && transfer?.phase !== "complete")
    return { kind: "revoked", byOwner: file.hasLeft !== true };
  return transfer === undefined ? { kind: "available" } : statusOfTransfer(transfer);
};

/** Cancelling it deletes something that would have to be fetched again. The list of a folder alone is nothing. */
export const deletesOnCancel = ({ phase, error, bytesStored, folder }: TransferView): boolean =>
  phase !== "complete" && error?.type !== "cancelled" && bytesStored > 0 && folder?.choosing !== true;

export type TransferAction =
  | "download"
  /** Of a folder: to look into it and take a part. */
  | "choose"
  | "pause"
  | "resume"
  | "cancel"
  | "retry"
  | "open"
  | "showInFolder"
  | "copyPath";

const OPENING = ["open", "showInFolder"] as const;
const COPYING = ["copyPath"] as const;

/** A part of a folder: the rest can still be taken. */
const isPart = ({ folder }: TransferView): boolean => folder !== undefined && folder.selection !== null;

/** What can be done now; the first is the main one. */
export const actionsOf = (status: TransferStatus, canOpen: boolean, isFolder = false): TransferAction[] => {
  switch (status.kind) {
    case "shared":
    case "moved":
    case "revoked":
    case "verifying":
      return [];
    case "closed":
      return status.begun ? ["cancel"] : [];
    case "available":
    case "cancelled":
      return isFolder ? ["download", "choose"] : ["download"];
    case "downloading":
    case "waiting":
      return ["pause", "cancel"];
    case "draining":
    case "assembling":
      return ["cancel"];
    case "paused":
      return status.transfer.folder?.choosing ? ["choose", "cancel"] : ["resume", "cancel"];
    case "complete":
      return [...(isPart(status.transfer) ? (["choose"] as const) : []), ...(canOpen ? OPENING : COPYING)];
    case "failed":
      return ["retry", "cancel"];
    default:
      return assertNever(status, "transfer status");
  }
};

/** How far each of the four steps is, 0 to 1: receive, in flight, assemble, verify. */
export type StepFill = readonly [receive: number, inFlight: number, assemble: number, verify: number];

const ratio = (done: number, total: number): number => (total === 0 ? 1 : Math.min(1, done / total));

export const stepFillOf = (status: TransferStatus): StepFill => {
  switch (status.kind) {
    case "shared":
    case "moved":
    case "revoked":
    case "closed":
    case "available":
    case "cancelled":
      return [0, 0, 0, 0];
    case "downloading":
    case "waiting":
    case "paused":
    case "failed":
      return [ratio(status.transfer.chunksStored, status.transfer.chunkCount), 0, 0, 0];
    case "draining":
      return [1, 0.5, 0, 0];
    case "assembling":
      return [1, 1, ratio(status.transfer.assembledChunks, status.transfer.chunkCount), 0];
    case "verifying":
      return [1, 1, 1, 0.5];
    case "complete":
      return [1, 1, 1, 1];
    default:
      return assertNever(status, "transfer status");
  }
};

/** One number for `aria-valuenow`: receiving is most of the work. */
export const percentOf = (status: TransferStatus): number => {
  const [receive, inFlight, assemble, verify] = stepFillOf(status);
  return Math.round(receive * 80 + inFlight * 2 + assemble * 13 + verify * 5);
};

const isOver = ({ kind }: TransferStatus): boolean => kind === "revoked" || kind === "closed";

export type TransferFilter = "all" | "active" | "done" | "failed";

export const matchesFilter = (status: TransferStatus, filter: TransferFilter): boolean => {
  switch (filter) {
    case "all":
      return true;
    case "done":
      return status.kind === "complete";
    case "failed":
      return status.kind === "failed" || status.kind === "cancelled" || isOver(status);
    case "active":
      return !matchesFilter(status, "done") && !matchesFilter(status, "failed");
    default:
      return assertNever(filter, "transfer filter");
  }
};
