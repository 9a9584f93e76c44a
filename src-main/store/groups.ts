import { assert } from "#shared/base/assert.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { GroupId, MessageId, UserId } from "#shared/base/ids.ts";
import { decodeOperation, encodeOperation, type GroupNode, type GroupOperation } from "#shared/groups/group-log.ts";
import type { Database } from "./database.ts";

/** Somebody who came into a group or went. */
export interface AccessDue {
  readonly position: number;
  readonly groupId: GroupId;
  readonly userId: UserId;
}

/** A member to be told of own operations. */
interface NewsRecord {
  readonly position: number;
  readonly userId: UserId;
  /** Of the first and the last operation in the log. */
  readonly first: number;
  readonly last: number;
}

const prepareLog = ({ sql }: Database) => ({
  ids: sql.prepare<[], GroupId>("SELECT group_id FROM groups ORDER BY rowid").pluck(),
  add: sql.prepare<[string]>("INSERT OR IGNORE INTO groups (group_id) VALUES (?)"),
  remove: sql.prepare<[string]>("DELETE FROM groups WHERE group_id = ?"),
  removeArrivals: sql.prepare<[string]>("DELETE FROM group_arrivals WHERE group_id = ?"),
  removeReceipts: sql.prepare<[string]>("DELETE FROM group_receipts WHERE group_id = ?"),
  removeKeys: sql.prepare<[string]>("DELETE FROM signal_sender_keys WHERE group_id = ?"),
  ownKey: sql.prepare<[string], string | null>("SELECT own_key FROM groups WHERE group_id = ?").pluck(),
  setOwnKey: sql.prepare<[string | null, string]>("UPDATE groups SET own_key = ? WHERE group_id = ?"),
  size: sql.prepare<[string], number>("SELECT count(*) FROM group_operations WHERE group_id = ?").pluck(),
  operations: sql.prepare<[string], { hash: string; operation: Uint8Array }>(
    "SELECT hash, operation FROM group_operations WHERE group_id = ? ORDER BY position",
  ),
  addOperation: sql.prepare<{ group: string; position: number; hash: string; operation: Uint8Array }>(`
    INSERT INTO group_operations (group_id, position, hash, operation, after_message) VALUES
      (@group, @position, @hash, @operation, coalesce((SELECT max(position) FROM messages WHERE chat_id = @group), 0))`),
  // Never before the one that came first, whatever the clocks said that an older profile was sorted by.
  places: sql
    .prepare<{ group: string }, MessageId | null>(`
      SELECT (SELECT message_id FROM messages WHERE chat_id = @group AND messages.position <= after
              ORDER BY messages.position DESC LIMIT 1)
      FROM (SELECT position, max(after_message) OVER (ORDER BY position) AS after FROM group_operations
            WHERE group_id = @group) AS placed
      ORDER BY placed.position`)
    .pluck(),
});

const prepareNews = ({ sql }: Database) => {
  const columns = "position, user_id AS userId, first, last";
  return {
    add: sql.prepare<[string, string, number, number]>(
      "INSERT INTO group_news (group_id, user_id, first, last) VALUES (?, ?, ?, ?)",
    ),
    next: sql.prepare<[string, number], NewsRecord>(
      `SELECT ${columns} FROM group_news WHERE group_id = ? ORDER BY position LIMIT ?`,
    ),
    for: sql.prepare<[string, string], NewsRecord>(
      `SELECT ${columns} FROM group_news WHERE group_id = ? AND user_id = ? ORDER BY position`,
    ),
    groups: sql.prepare<[], GroupId>("SELECT DISTINCT group_id FROM group_news").pluck(),
    remove: sql.prepare<[number]>("DELETE FROM group_news WHERE position = ?"),
  };
};

const preparePeople = ({ sql }: Database) => ({
  isFellow: sql.prepare<[string]>("SELECT 1 FROM group_people WHERE user_id = ? LIMIT 1"),
  isLeft: sql.prepare<[string]>("SELECT 1 FROM group_goodbyes WHERE user_id = ?"),
  sayGoodbye: sql.prepare<[number, string]>(`
    INSERT OR REPLACE INTO group_goodbyes
    SELECT user_id, ? FROM group_people WHERE group_id = ? AND user_id IN (SELECT peer FROM outbox)`),
  endGoodbyes: sql
    .prepare<[number], UserId>(`
      DELETE FROM group_goodbyes WHERE since <= ? OR user_id NOT IN (SELECT peer FROM outbox) RETURNING user_id`)
    .pluck(),
  add: sql.prepare<[string, string]>("INSERT OR IGNORE INTO group_people (group_id, user_id) VALUES (?, ?)"),
  get: sql.prepare<[string, string], { keyed: string | null; greeted: number }>(
    "SELECT keyed, greeted FROM group_people WHERE group_id = ? AND user_id = ?",
  ),
  setKeyed: sql.prepare<[string, string, string]>(
    "UPDATE group_people SET keyed = ? WHERE group_id = ? AND user_id = ?",
  ),
  setGreeted: sql.prepare<[string, string]>("UPDATE group_people SET greeted = 1 WHERE group_id = ? AND user_id = ?"),
});

const prepareAccess = ({ sql }: Database) => ({
  add: sql.prepare<[string, string]>("INSERT OR REPLACE INTO group_access_due (group_id, user_id) VALUES (?, ?)"),
  all: sql.prepare<[], { position: number; group_id: GroupId; user_id: UserId }>(
    "SELECT * FROM group_access_due ORDER BY position",
  ),
  remove: sql.prepare<[number]>("DELETE FROM group_access_due WHERE position = ?"),
});

/** Groups as rows: their logs, their people, and who is still to be told or given access. Their messages: group-mail. */
export class GroupsTable {
  readonly #log;
  readonly #news;
  readonly #people;
  readonly #access;

  constructor(db: Database) {
    this.#log = prepareLog(db);
    this.#news = prepareNews(db);
    this.#people = preparePeople(db);
    this.#access = prepareAccess(db);
  }

  // ---- Logs ----

  ids(): GroupId[] {
    return this.#log.ids.all();
  }

  add(groupId: GroupId): void {
    this.#log.add.run(groupId);
  }

  /** With everything that belongs to it but its messages, and what waits for its people. */
  remove(groupId: GroupId): void {
    this.#log.remove.run(groupId);
    this.#log.removeArrivals.run(groupId);
    this.#log.removeReceipts.run(groupId);
    this.#log.removeKeys.run(groupId);
  }

  /** Null also when the group is not known. */
  ownKey(groupId: GroupId): string | null {
    return this.#log.ownKey.get(groupId) ?? null;
  }

  setOwnKey(groupId: GroupId, distributionId: string | null): void {
    this.#log.setOwnKey.run(distributionId, groupId);
  }

  /** Operations that are kept. */
  size(groupId: GroupId): number {
    return this.#log.size.get(groupId) ?? 0;
  }

  operations(groupId: GroupId): { hash: string; operation: GroupOperation }[] {
    return this.#log.operations.all(groupId).map(({ hash, operation }) => {
      const decoded = decodeOperation(operation);
      assert(decoded.ok, "a stored operation can be read");
      return { hash, operation: decoded.value };
    });
  }

  /** Of each operation, in order: the newest message of the chat when it came; null before the first one. */
  places(groupId: GroupId): (MessageId | null)[] {
    return this.#log.places.all({ group: groupId });
  }

  append(groupId: GroupId, { index, hash, operation }: GroupNode): void {
    this.#log.addOperation.run({ group: groupId, position: index, hash, operation: encodeOperation(operation) });
    for (const userId of [operation.actor, ...operation.people.map((person) => person.userId)])
      this.#people.add.run(groupId, userId);
  }

  // ---- News ----

  addNews(groupId: GroupId, userId: UserId, first: number, last: number): void {
    this.#news.add.run(groupId, userId, first, last);
  }

  /** The oldest. */
  nextNews(groupId: GroupId, limit: number): NewsRecord[] {
    return this.#news.next.all(groupId, limit);
  }

  newsFor(groupId: GroupId, userId: UserId): NewsRecord[] {
    return this.#news.for.all(groupId, userId);
  }

  groupsWithNews(): GroupId[] {
    return this.#news.groups.all();
  }

  removeNews(position: number): void {
    this.#news.remove.run(position);
  }

  // ---- People ----

  /** Named by the log of one of our groups, now or once. */
  isFellow(userId: UserId): boolean {
    return this.#people.isFellow.get(userId) !== undefined;
  }

  /** Once in a group that was forgotten here, while something of it waits for them. */
  isLeft(userId: UserId): boolean {
    return this.#people.isLeft.get(userId) !== undefined;
  }

  /** Before the group is removed: people of it for whom something waits go on to get it. */
  sayGoodbye(groupId: GroupId, atMs: TimeMs): void {
    this.#people.sayGoodbye.run(atMs, groupId);
  }

  /** Those for whom nothing waits any more, and those of `beforeMs` and earlier, are strangers from now on. */
  endGoodbyes(beforeMs: TimeMs): UserId[] {
    return this.#people.endGoodbyes.all(beforeMs);
  }

  /** The sender key of ours that they have; null for none. */
  keyOf(groupId: GroupId, userId: UserId): string | null {
    return this.#people.get.get(groupId, userId)?.keyed ?? null;
  }

  setKeyOf(groupId: GroupId, userId: UserId, distributionId: string): void {
    this.#people.setKeyed.run(distributionId, groupId, userId);
  }

  isGreeted(groupId: GroupId, userId: UserId): boolean {
    return this.#people.get.get(groupId, userId)?.greeted === 1;
  }

  setGreeted(groupId: GroupId, userId: UserId): void {
    this.#people.setGreeted.run(groupId, userId);
  }

  // ---- Access to files ----

  /** Somebody came or went; again, if they did before. */
  addAccessDue(groupId: GroupId, userId: UserId): void {
    this.#access.add.run(groupId, userId);
  }

  accessDue(): AccessDue[] {
    return this.#access.all
      .all()
      .map(({ position, group_id, user_id }) => ({ position, groupId: group_id, userId: user_id }));
  }

  accessSettled(position: number): void {
    this.#access.remove.run(position);
  }
}
