import type { UserId } from "#shared/base/ids.ts";
import type { AccessView, FileView } from "#shared/ipc/views.ts";
import { provenPeople, type Receipt } from "#shared/shares/receipt.ts";
import type { ShareList, ShareOperation } from "#shared/shares/share-log.ts";

export interface AccessRecords {
  readonly list: ShareList;
  readonly operations: readonly ShareOperation[];
  readonly receipts: readonly Receipt[];
}

export const accessViewOf = (file: FileView, records: AccessRecords, self: UserId): AccessView => {
  const { list, operations, receipts } = records;
  const isOwner = file.ownerId === self;
  const { membersMayAdd, expiresAtMs, downloadLimit } = list.terms;
  const closed = file.closed ?? null;
  const isShown = new Set(file.sharedWith);
  const proven = provenPeople(list, operations, receipts);
  const provenOf = new Map(proven.map((person) => [person.userId, person]));
  const members = [...list.members].flatMap(([userId, { sinceMs, addedBy }]) => {
    if (!isShown.has(userId)) return [];
    const { offeredAtMs = null, completedAtMs = null } = provenOf.get(userId) ?? {};
    return [{ userId, sinceMs, addedBy, holds: file.seeders.includes(userId), offeredAtMs, completedAtMs }];
  });
  return {
    ...{ fileId: file.fileId, ownerId: file.ownerId, version: list.version, members },
    formerHolders: proven.flatMap(({ userId, completedAtMs }) =>
      completedAtMs === null || isShown.has(userId) ? [] : [{ userId, completedAtMs }],
    ),
    mayAdd: !list.withdrawn && (isOwner || (membersMayAdd && file.access === "granted" && list.members.has(self))),
    mayRevoke: isOwner,
    ...{ membersMayAdd, expiresAtMs, downloadLimit, closed },
    downloads: receipts.filter(({ kind }) => kind === "completed").length,
  };
};
