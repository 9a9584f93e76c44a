import type { UserId } from "#shared/base/ids.ts";
import type { AccessView, FileView } from "#shared/ipc/views.ts";
import type { ShareList } from "#shared/shares/share-log.ts";

export const accessViewOf = (file: FileView, list: ShareList, self: UserId): AccessView => {
  const isOwner = file.ownerId === self;
  const { membersMayAdd, expiresAtMs } = list.terms;
  const isShown = new Set(file.sharedWith);
  const members = [...list.members].flatMap(([userId, { sinceMs, addedBy }]) =>
    isShown.has(userId) ? [{ userId, sinceMs, addedBy, holds: file.seeders.includes(userId) }] : [],
  );
  return {
    ...{ fileId: file.fileId, ownerId: file.ownerId, version: list.version, members },
    mayAdd: isOwner || (membersMayAdd && file.access === "granted" && list.members.has(self)),
    mayRevoke: isOwner,
    ...{ membersMayAdd, expiresAtMs },
  };
};
