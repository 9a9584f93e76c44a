import type { Bytes } from "#shared/base/bytes.ts";
import type { TimeMs } from "#shared/base/env.ts";
import type { GroupId, MessageId, UserId } from "#shared/base/ids.ts";
import type { MessageState } from "#shared/ipc/views.ts";
import type { Database } from "./database.ts";
import { RECEIPT_TIMES_SET, type ReceiptTimes } from "./messages.ts";

export interface OutgoingRecord {
  readonly position: number;
  readonly messageId: MessageId;
  /** Null: for everybody. */
  readonly repairFor: UserId | null;
  readonly body: Bytes;
}

/** The hash of an operation. */
const HEAD_BYTES = 32;

/** A message of ours that was sealed, on its way into the outboxes of the members. */
export interface SealedRecord {
  /** That of its {@link OutgoingRecord}. */
  readonly position: number;
  readonly groupId: GroupId;
  readonly messageId: MessageId;
  /** The distribution id of the key. */
  readonly key: string;
  readonly heads: Bytes[];
  readonly distribution: Bytes;
  readonly body: Bytes;
}

export interface ArrivalRecord {
  readonly position: number;
  readonly messageId: MessageId | null;
  readonly heads: readonly string[];
  readonly admitted: boolean;
  readonly body: Bytes;
}

type OutgoingRow = { position: number; message_id: MessageId; repair_for: UserId | null; body: Uint8Array };
type SealedRow = Omit<SealedRecord, "heads" | "distribution" | "body"> & {
  heads: Uint8Array;
  distribution: Uint8Array;
  body: Uint8Array;
};
type ArrivalRow = {
  position: number;
  message_id: MessageId | null;
  heads: string;
  admitted: number;
  body: Uint8Array;
};
interface GroupReceipt extends ReceiptTimes {
  readonly peer: UserId;
  readonly state: Exclude<MessageState, "failed">;
}

const prepareTraffic = ({ sql }: Database) => ({
  addOutgoing: sql.prepare<[string, string, string | null, Uint8Array]>(
    "INSERT INTO group_outgoing (group_id, message_id, repair_for, body) VALUES (?, ?, ?, ?)",
  ),
  unsealed: sql.prepare<[string], OutgoingRow>(
    "SELECT * FROM group_outgoing WHERE group_id = ? AND sealed = 0 ORDER BY position LIMIT 1",
  ),
  unsealedCount: sql
    .prepare<[string], number>("SELECT count(*) FROM group_outgoing WHERE group_id = ? AND sealed = 0")
    .pluck(),
  unsealedGroups: sql.prepare<[], GroupId>("SELECT DISTINCT group_id FROM group_outgoing WHERE sealed = 0").pluck(),
  setSealed: sql.prepare<[number]>("UPDATE group_outgoing SET sealed = 1 WHERE position = ?"),
  removeOutgoing: sql.prepare<[number]>("DELETE FROM group_outgoing WHERE position = ?"),
  bodyOf: sql
    .prepare<[string, string], Uint8Array>(
      "SELECT body FROM group_outgoing WHERE group_id = ? AND message_id = ? AND repair_for IS NULL",
    )
    .pluck(),
  removeBody: sql.prepare<[string]>("DELETE FROM group_outgoing WHERE message_id = ? AND sealed = 1"),
  addArrival: sql.prepare<[string, string, string | null, string, number, Uint8Array]>(
    "INSERT INTO group_arrivals (group_id, sender, message_id, heads, admitted, body) VALUES (?, ?, ?, ?, ?, ?)",
  ),
  arrival: sql.prepare<[string, string], ArrivalRow>(
    "SELECT * FROM group_arrivals WHERE group_id = ? AND sender = ? ORDER BY position LIMIT 1",
  ),
  arrivalCount: sql
    .prepare<[string, string], number>("SELECT count(*) FROM group_arrivals WHERE group_id = ? AND sender = ?")
    .pluck(),
  strayCount: sql
    .prepare<[string], number>(
      "SELECT count(*) FROM group_arrivals WHERE sender = ? AND group_id NOT IN (SELECT group_id FROM groups)",
    )
    .pluck(),
  arrivalSenders: sql.prepare<[], { group_id: GroupId; sender: UserId }>(
    "SELECT DISTINCT group_id, sender FROM group_arrivals",
  ),
  sendersOf: sql.prepare<[string], UserId>("SELECT DISTINCT sender FROM group_arrivals WHERE group_id = ?").pluck(),
  removeArrival: sql.prepare<[number]>("DELETE FROM group_arrivals WHERE position = ?"),
});

const preparePosts = ({ sql }: Database) => ({
  add: sql.prepare<SealedRow>(
    "INSERT INTO group_sealed VALUES (@position, @groupId, @messageId, @key, @heads, @distribution, @body)",
  ),
  addPeople: sql.prepare<[number, string]>("INSERT INTO group_posts SELECT ?, value FROM json_each(?)"),
  first: sql.prepare<[string], SealedRow>(
    `SELECT position, group_id AS groupId, message_id AS messageId, key, heads, distribution, body
     FROM group_sealed WHERE group_id = ? ORDER BY position LIMIT 1`,
  ),
  take: sql
    .prepare<[number, number], UserId>(
      `DELETE FROM group_posts WHERE (position, user_id) IN
         (SELECT position, user_id FROM group_posts WHERE position = ? ORDER BY user_id LIMIT ?) RETURNING user_id`,
    )
    .pluck(),
  remove: sql.prepare<[number]>("DELETE FROM group_sealed WHERE position = ?"),
  groups: sql.prepare<[], GroupId>("SELECT DISTINCT group_id FROM group_sealed").pluck(),
});

const prepareReceipts = ({ sql }: Database) => ({
  remove: sql.prepare<[string, string]>("DELETE FROM group_receipts WHERE message_id = ? AND peer = ?"),
  add: sql.prepare<[string, string, string]>(
    "INSERT OR IGNORE INTO group_receipts (message_id, peer, group_id, state) VALUES (?, ?, ?, 'queued')",
  ),
  groupOf: sql
    .prepare<[string, string], GroupId>("SELECT group_id FROM group_receipts WHERE message_id = ? AND peer = ?")
    .pluck(),
  raise: sql.prepare<{ message: string; peer: string; state: string; at: number }>(`
    UPDATE group_receipts SET state = @state, ${RECEIPT_TIMES_SET} WHERE message_id = @message AND peer = @peer AND
      instr('queued sent delivered read', state) < instr('queued sent delivered read', @state)`),
  of: sql.prepare<[string], GroupReceipt>(
    "SELECT peer, state, delivered_at AS deliveredAtMs, read_at AS readAtMs FROM group_receipts " +
      "WHERE message_id = ? ORDER BY peer",
  ),
  drop: sql
    .prepare<[string, string], MessageId>(
      "DELETE FROM group_receipts WHERE group_id = ? AND peer = ? AND state IN ('queued', 'sent') RETURNING message_id",
    )
    .pluck(),
});

/** Messages to and from groups as rows: what is sealed and given out, what came, and whom own ones have reached. */
export class GroupMailTable {
  readonly #traffic;
  readonly #posts;
  readonly #receipts;

  constructor(db: Database) {
    this.#traffic = prepareTraffic(db);
    this.#posts = preparePosts(db);
    this.#receipts = prepareReceipts(db);
  }

  // ---- Own messages ----

  addOutgoing(groupId: GroupId, messageId: MessageId, body: Uint8Array, repairFor: UserId | null = null): void {
    this.#traffic.addOutgoing.run(groupId, messageId, repairFor, body);
  }

  firstUnsealed(groupId: GroupId): OutgoingRecord | null {
    const row = this.#traffic.unsealed.get(groupId);
    if (row === undefined) return null;
    const { position, message_id, repair_for, body } = row;
    return { position, messageId: message_id, repairFor: repair_for, body: new Uint8Array(body) };
  }

  unsealedCount(groupId: GroupId): number {
    return this.#traffic.unsealedCount.get(groupId) ?? 0;
  }

  unsealedGroups(): GroupId[] {
    return this.#traffic.unsealedGroups.all();
  }

  setSealed(position: number): void {
    this.#traffic.setSealed.run(position);
  }

  removeOutgoing(position: number): void {
    this.#traffic.removeOutgoing.run(position);
  }

  /** With those who are to be given it. */
  addSealed(sealed: SealedRecord, peers: readonly UserId[]): void {
    this.#posts.add.run({ ...sealed, heads: Buffer.concat(sealed.heads) });
    this.#posts.addPeople.run(sealed.position, JSON.stringify(peers));
  }

  /** The oldest that not everybody was given. */
  firstSealed(groupId: GroupId): SealedRecord | null {
    const row = this.#posts.first.get(groupId);
    if (row === undefined) return null;
    const { heads, distribution, body, ...rest } = row;
    return {
      ...rest,
      heads: Array.from({ length: heads.length / HEAD_BYTES }, (_, i) => {
        return new Uint8Array(heads.subarray(i * HEAD_BYTES, (i + 1) * HEAD_BYTES));
      }),
      ...{ distribution: new Uint8Array(distribution), body: new Uint8Array(body) },
    };
  }

  /** Removes up to `limit` of those who are still to be given it, and returns them. */
  takePosts(position: number, limit: number): UserId[] {
    return this.#posts.take.all(position, limit);
  }

  removeSealed(position: number): void {
    this.#posts.remove.run(position);
  }

  groupsWithPosts(): GroupId[] {
    return this.#posts.groups.all();
  }

  /** Null when everybody has it, and for what is no message of ours to that group. */
  bodyOf(groupId: GroupId, messageId: MessageId): Bytes | null {
    const body = this.#traffic.bodyOf.get(groupId, messageId);
    return body === undefined ? null : new Uint8Array(body);
  }

  /** Everybody has it: nobody will ask for it again. */
  removeBody(messageId: MessageId): void {
    this.#traffic.removeBody.run(messageId);
  }

  // ---- What came ----

  addArrival(
    groupId: GroupId,
    sender: UserId,
    arrival: Omit<ArrivalRecord, "position" | "body"> & { readonly body: Uint8Array },
  ): void {
    const { messageId, heads, admitted, body } = arrival;
    this.#traffic.addArrival.run(groupId, sender, messageId, heads.join(" "), admitted ? 1 : 0, body);
  }

  firstArrival(groupId: GroupId, sender: UserId): ArrivalRecord | null {
    const row = this.#traffic.arrival.get(groupId, sender);
    if (row === undefined) return null;
    const { position, message_id, heads, admitted, body } = row;
    return {
      ...{ position, messageId: message_id, heads: heads.split(" "), admitted: admitted === 1 },
      body: new Uint8Array(body),
    };
  }

  arrivalCount(groupId: GroupId, sender: UserId): number {
    return this.#traffic.arrivalCount.get(groupId, sender) ?? 0;
  }

  /** What waits of one person for groups that are not known, all together. */
  strayCount(sender: UserId): number {
    return this.#traffic.strayCount.get(sender) ?? 0;
  }

  arrivals(): { groupId: GroupId; sender: UserId }[] {
    return this.#traffic.arrivalSenders.all().map(({ group_id, sender }) => ({ groupId: group_id, sender }));
  }

  sendersOf(groupId: GroupId): UserId[] {
    return this.#traffic.sendersOf.all(groupId);
  }

  removeArrival(position: number): void {
    this.#traffic.removeArrival.run(position);
  }

  // ---- Receipts ----

  expectReceipt(groupId: GroupId, messageId: MessageId, peer: UserId): void {
    this.#receipts.add.run(messageId, peer, groupId);
  }

  /** It was not sent to them after all. */
  dropReceipt(messageId: MessageId, peer: UserId): void {
    this.#receipts.remove.run(messageId, peer);
  }

  /** The group of an own message that went to that person; null for any other id. */
  groupOfReceipt(messageId: MessageId, peer: UserId): GroupId | null {
    return this.#receipts.groupOf.get(messageId, peer) ?? null;
  }

  /** False when the state was reached before. */
  raiseReceipt(messageId: MessageId, peer: UserId, state: "sent" | "delivered" | "read", atMs: TimeMs): boolean {
    return this.#receipts.raise.run({ message: messageId, peer, state, at: atMs }).changes === 1;
  }

  receiptsOf(messageId: MessageId): GroupReceipt[] {
    return this.#receipts.of.all(messageId);
  }

  /** Nobody waits for somebody who is gone: the messages that did. */
  dropReceipts(groupId: GroupId, peer: UserId): MessageId[] {
    return this.#receipts.drop.all(groupId, peer);
  }
}
