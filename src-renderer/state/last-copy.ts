import type { FileView, TransferView } from "#shared/ipc/views.ts";

/** Whether we have this file and nobody else is known to: what we delete of it then may be gone for everybody. */
export const isLastKnownCopy = (file: FileView, transfer: TransferView | undefined, ownUserId: string): boolean =>
  transfer?.phase === "complete" && file.seeders.every((userId) => userId === ownUserId);
