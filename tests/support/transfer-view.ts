import type { TransferView } from "#shared/ipc/views.ts";

/** A download of which nothing has arrived yet; tests change what they are about. */
export const freshTransferView = (
  file: Pick<TransferView, "fileId" | "name" | "chunkCount" | "sizeBytes">,
  changes: Partial<TransferView> = {},
): TransferView => ({
  fileId: file.fileId,
  name: file.name,
  phase: "downloading",
  priority: "normal",
  paused: false,
  waitingForSeeders: false,
  chunksStored: 0,
  chunkCount: file.chunkCount,
  bytesStored: 0,
  sizeBytes: file.sizeBytes,
  assembledChunks: 0,
  bytesPerSecond: 0,
  etaMs: null,
  inFlight: 0,
  seeders: [],
  dropped: [],
  drain: null,
  requestedChunks: 0,
  duplicateChunks: 0,
  lateChunks: 0,
  rejectedChunks: 0,
  cancelledChunks: 0,
  error: null,
  seeding: "none",
  savedPath: null,
  ...changes,
});
