import type { FileView, TransferView } from "#shared/ipc/views.ts";

/** Whether we have this file and nobody else is known to: what we delete of it then may be gone for everybody. */
export const isLastKnownCopy = (file: FileView, transfer: TransferView | undefined, ownUserId: string): boolean =>
  transfer?.phase === "complete" && file.seeders.every((userId) => userId === ownUserId);

/** Files of a person that only we are known to have. */
export const lastKnownCopiesOf = (
  ownerId: string,
  files: readonly FileView[],
  transferOf: (fileId: string) => TransferView | undefined,
  ownUserId: string,
): FileView[] =>
  files.filter((file) => file.ownerId === ownerId && isLastKnownCopy(file, transferOf(file.fileId), ownUserId));
