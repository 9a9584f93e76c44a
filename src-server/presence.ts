import type { UserId } from "#shared/base/ids.ts";
import { ok } from "#shared/base/result.ts";
import type { Push, RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import type { Answer, Context } from "./handler.ts";

/** A connection; one of another node is told by that node. */
interface Watcher {
  readonly userId: UserId;
  push?(push: Push): void;
}

/**
 * Who is online, told only to people who watch each other: to watch somebody who does not watch back shows nothing.
 * A watch belongs to its connection and ends with it.
 */
export class Presence {
  readonly #watches = new Map<Watcher, ReadonlySet<UserId>>();
  readonly #watchersOf = new Map<UserId, Set<Watcher>>();

  /** Replaces what the connection watches. Returns who of them is online and watches back. */
  watch(watcher: Watcher, userIds: readonly UserId[]): UserId[] {
    const before = this.#seenBy(watcher.userId);
    const watches = new Set(userIds);
    watches.delete(watcher.userId);
    this.#watches.set(watcher, watches);
    this.#watchersOf.set(watcher.userId, (this.#watchersOf.get(watcher.userId) ?? new Set()).add(watcher));
    this.#tell(watcher.userId, before);
    return [...watches].filter((userId) => this.mutual(watcher.userId, userId));
  }

  /** The connection is gone. */
  close(watcher: Watcher): void {
    if (!this.#watches.has(watcher)) return;
    const before = this.#seenBy(watcher.userId);
    this.#watches.delete(watcher);
    const left = this.#watchersOf.get(watcher.userId);
    left?.delete(watcher);
    if (left?.size === 0) this.#watchersOf.delete(watcher.userId);
    this.#tell(watcher.userId, before);
  }

  /** Do these two watch each other, from any of their devices? */
  mutual(a: UserId, b: UserId): boolean {
    return this.#watchesUser(a, b) && this.#watchesUser(b, a);
  }

  /** Everybody to whom this user shows as online now. */
  #seenBy(userId: UserId): Set<UserId> {
    const seen = new Set<UserId>();
    for (const watcher of this.#of(userId)) {
      for (const other of this.#watches.get(watcher) ?? []) if (this.mutual(userId, other)) seen.add(other);
    }
    return seen;
  }

  #tell(userId: UserId, before: ReadonlySet<UserId>): void {
    const after = this.#seenBy(userId);
    const changed = [...[...before].filter((u) => !after.has(u)), ...[...after].filter((u) => !before.has(u))];
    for (const other of changed) {
      for (const watcher of this.#of(other)) {
        if (!this.#watches.get(watcher)?.has(userId)) continue;
        watcher.push?.({ name: "presence", value: { userId, online: after.has(other) } });
      }
    }
  }

  #watchesUser(userId: UserId, watched: UserId): boolean {
    for (const watcher of this.#of(userId)) if (this.#watches.get(watcher)?.has(watched)) return true;
    return false;
  }

  #of(userId: UserId): ReadonlySet<Watcher> {
    return this.#watchersOf.get(userId) ?? new Set();
  }
}

export const watchPresence = async (
  { cluster, presence, relays, session }: Context,
  { userIds }: RequestValue<"presence.watch">,
): Promise<Answer<RequestOutput<"presence.watch">>> => {
  // A connection that has ended meanwhile must leave nothing behind.
  if (!session.open) return ok({ online: [] });
  const online = presence.watch(session, userIds);
  relays.recheck(session.userId);
  // Whoever hears the answer can be reached by the people that it names, whatever node they are at.
  await cluster.watched(session, userIds);
  return ok({ online });
};
