import type { UserId } from "#shared/base/ids.ts";
import { ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import type { Answer, Context } from "./handler.ts";
import type { Online, Session } from "./session.ts";

/**
 * Who is online, told only to people who watch each other: to watch somebody who does not watch back shows nothing.
 * A watch belongs to its connection and ends with it.
 */
export class Presence {
  readonly #online: Online;
  readonly #watchedBy = new Map<Session, ReadonlySet<UserId>>();

  constructor(online: Online) {
    this.#online = online;
  }

  /** Replaces what the session watches. Returns who of them is online and watches back. */
  watch(session: Session, userIds: readonly UserId[]): UserId[] {
    const before = this.#seenBy(session.userId);
    const watched = new Set(userIds);
    watched.delete(session.userId);
    this.#watchedBy.set(session, watched);
    this.#tell(session.userId, before);
    return [...watched].filter((userId) => this.#mutual(session.userId, userId));
  }

  /** Call after the session has left `Online`. */
  close(session: Session): void {
    const watched = this.#watchedBy.get(session);
    if (watched === undefined) return;
    const before = [...watched].filter((userId) => this.#mutual(userId, session.userId, session));
    this.#watchedBy.delete(session);
    this.#tell(session.userId, new Set(before));
  }

  /** Everybody to whom this user shows as online now. */
  #seenBy(userId: UserId): Set<UserId> {
    const seen = new Set<UserId>();
    for (const session of this.#online.of(userId)) {
      for (const other of this.#watchedBy.get(session) ?? []) if (this.#mutual(userId, other)) seen.add(other);
    }
    return seen;
  }

  #tell(userId: UserId, before: ReadonlySet<UserId>): void {
    const after = this.#seenBy(userId);
    const changed = [...[...before].filter((u) => !after.has(u)), ...[...after].filter((u) => !before.has(u))];
    for (const other of changed) {
      for (const session of this.#online.of(other)) {
        if (!this.#watchedBy.get(session)?.has(userId)) continue;
        session.push({ name: "presence", value: { userId, online: after.has(other) } });
      }
    }
  }

  /** Do these two watch each other, from any of their devices? */
  mutual(a: UserId, b: UserId): boolean {
    return this.#mutual(a, b);
  }

  /** `leaving`: a session that counts for its user although it is no longer in `Online`. */
  #mutual(a: UserId, b: UserId, leaving?: Session): boolean {
    return this.#watches(a, b, leaving) && this.#watches(b, a, leaving);
  }

  #watches(watcher: UserId, watched: UserId, leaving?: Session): boolean {
    const sessions = this.#online.of(watcher);
    const all = leaving?.userId === watcher ? [...sessions, leaving] : sessions;
    return all.some((session) => this.#watchedBy.get(session)?.has(watched));
  }
}

export const watchPresence = async (
  { presence, relays, session }: Context,
  { userIds }: RequestValue<"presence.watch">,
): Promise<Answer<RequestOutput<"presence.watch">>> => {
  const online = presence.watch(session, userIds);
  relays.recheck(session.userId);
  return ok({ online });
};
