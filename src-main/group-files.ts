import type { Disposable } from "#shared/base/disposable.ts";
import { DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { FileId, GroupId, UserId } from "#shared/base/ids.ts";
import { messageOf, type Result } from "#shared/base/result.ts";
import type { Messages } from "./messages/messages.ts";
import type { Shares } from "./shares/shares.ts";
import type { Signaling } from "./signaling/signaling.ts";
import type { Database } from "./store/database.ts";
import { type AccessDue, GroupsTable } from "./store/groups.ts";

interface GroupFilesDeps {
  readonly env: Env;
  readonly db: Database;
  readonly messages: Pick<Messages, "groups">;
  readonly shares: Pick<Shares, "members" | "grant" | "revoke">;
  readonly signaling: Pick<Signaling, "onConnected">;
  readonly isOwn: (fileId: FileId) => boolean;
}

/**
 * Own files that were shared in a group follow its members: who comes gets access, and who goes loses it, unless the file
 * was shared with them elsewhere too. Who came or went is kept until it is settled, because access is given through the
 * server. What the owner did by hand meanwhile stays: only comings and goings change anything.
 */
export const followGroupMembers = (deps: GroupFilesDeps): Disposable => {
  const { env, db, messages, shares, signaling, isOwn } = deps;
  const table = new GroupsTable(db);
  const owned = new DisposableStore();
  let running: Promise<void> | null = null;
  let again = false;

  /** False when the server has to be reached first. */
  const isSettled = (done: Result<void>): boolean => {
    if (!done.ok) env.log.warn("access to a file did not follow its group", { type: done.error.type });
    return done.ok || done.error.type !== "server_unreachable";
  };

  const settle = async (groupId: GroupId, due: readonly AccessDue[]): Promise<void> => {
    const isMember = ({ userId }: AccessDue): boolean => messages.groups.isMember(groupId, userId);
    const came = due.filter(isMember).map(({ userId }) => userId);
    const gone = due.filter((one) => !isMember(one)).map(({ userId }) => userId);
    for (const fileId of messages.groups.ownFilesIn(groupId)) {
      if (!isOwn(fileId)) continue;
      const listed = shares.members(fileId);
      const toAdd = came.filter((userId) => !listed.includes(userId));
      const toRevoke = gone.filter(
        (userId: UserId) => listed.includes(userId) && !messages.groups.isSharedElsewhere(fileId, userId, groupId),
      );
      if (toAdd.length > 0 && !isSettled(await shares.grant(fileId, toAdd))) return;
      if (toRevoke.length > 0 && !isSettled(await shares.revoke(fileId, toRevoke))) return;
    }
    for (const { position } of due) table.accessSettled(position);
  };

  const run = (): void => {
    if (owned.disposed) return;
    again = running !== null;
    running ??= (async () => {
      const byGroup = Map.groupBy(table.accessDue(), ({ groupId }) => groupId);
      for (const [groupId, due] of byGroup) if (!owned.disposed) await settle(groupId, due);
    })()
      .catch((error: unknown) => {
        if (!owned.disposed) env.log.error("files could not follow a group", { error: messageOf(error) });
      })
      .finally(() => {
        running = null;
        if (again) run();
      });
  };

  owned.add(messages.groups.onMembersChanged(run));
  owned.add(signaling.onConnected(run));
  run();
  return owned;
};
