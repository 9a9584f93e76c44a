import { setImmediate as nextTurn } from "node:timers/promises";
import { defined } from "#shared/base/assert.ts";
import { toHex } from "#shared/base/bytes.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { chatIdOfGroup, type FileId, type GroupId, type MessageId, type UserId } from "#shared/base/ids.ts";
import {
  ENVELOPE_BYTES_MAX,
  GROUP_ARRIVALS_MAX,
  GROUP_POSTED_PER_TURN,
  GROUP_REPAIRS_MAX,
  GROUP_TOLD_PER_TURN,
  OUTBOX_PER_PEER_MAX,
  OUTBOX_RETRY_MAX_MS,
  SEAL_OVERHEAD_BYTES_MAX,
} from "#shared/base/limits.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import { headsOf } from "#shared/groups/group-log.ts";
import { type ContentOf, decodeGroupBody, encodeGroupBody, type GroupBody } from "#shared/wire/content.ts";
import { distributionIdOf } from "../crypto/group-sessions.ts";
import type { GroupOpenError, GroupSealed, Sessions } from "../crypto/sessions.ts";
import type { Database } from "../store/database.ts";
import { type ArrivalRecord, GroupMailTable, type OutgoingRecord, type SealedRecord } from "../store/group-mail.ts";
import { GroupsTable } from "../store/groups.ts";
import { MessagesTable, OutboxTable } from "../store/messages.ts";
import { Changes } from "./changes.ts";
import type { Groups } from "./groups.ts";
import type { FilesPort } from "./inbox.ts";

interface GroupMailDeps {
  readonly env: Env;
  readonly db: Database;
  readonly self: UserId;
  readonly sessions: Pick<Sessions, "groupSeal" | "groupTake" | "groupOpen">;
  readonly groups: Groups;
  readonly files: Pick<FilesPort, "record">;
  readonly tell: (changes: Changes) => void;
  /** A member is to be told that messages arrived. */
  readonly receiptsDue: (peer: UserId) => void;
}

/** What a message grows by in its envelope, besides base64: heads, ids, and libsignal's header and signature. */
const WRAPPING_BYTES = 2048;
const KEY_BYTES = 16;

/** The group, or its key, is not what it was when the message was sealed: the step of the chain must not count. */
class Outdated extends Error {
  override readonly name = "Outdated";
}

/**
 * Messages to groups. An own one is sealed once, with our sender key, and stored in one transaction with the step of the key
 * and with who is to get it. From there it comes into the outbox of every member, for some of them in each turn of the event
 * loop, before the next message is sealed; a member who does not have the key gets it first. Whenever somebody has gone, the
 * next message takes a new key. What arrives waits until everything that its sender knew of the group is known here, is
 * opened in its sender's order, and stored in one transaction with the step of the sender's key.
 */
export class GroupMail {
  readonly #deps: GroupMailDeps;
  readonly #table: GroupMailTable;
  readonly #people: GroupsTable;
  readonly #messages: MessagesTable;
  readonly #outbox: OutboxTable;
  /** One at a time for each group, and for each of its senders. */
  readonly #running = new Map<string, Promise<void>>();
  readonly #again = new Set<string>();
  /** Own messages that we asked for a second time, and how often each member asked us. */
  readonly #unread = new Set<MessageId>();
  readonly #repairs = new Map<UserId, number>();
  #retry: Disposable | null = null;
  #disposed = false;

  constructor(deps: GroupMailDeps) {
    this.#deps = deps;
    this.#table = new GroupMailTable(deps.db);
    this.#people = new GroupsTable(deps.db);
    this.#messages = new MessagesTable(deps.db);
    this.#outbox = new OutboxTable(deps.db);
  }

  /** Takes up what an earlier run left. */
  start(): void {
    const { groups } = this.#deps;
    const waiting = [...groups.groupsWithNews(), ...this.#table.groupsWithPosts(), ...this.#table.unsealedGroups()];
    for (const groupId of new Set(waiting)) this.seal(groupId);
    for (const { groupId, sender } of this.#table.arrivals()) this.open(groupId, sender);
  }

  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.values());
  }

  dispose(): void {
    this.#disposed = true;
    this.#retry?.dispose();
  }

  #startAgain(): void {
    this.#retry = null;
    this.start();
  }

  // ---- Own messages ---------------------------------------------------------------------------------------------------

  /** An error when the message does not fit, or too many wait to be sealed. */
  admit(groupId: GroupId, body: GroupBody): Result<void> {
    const size = Math.ceil((encodeGroupBody(body).length * 4) / 3) + WRAPPING_BYTES;
    if (size + SEAL_OVERHEAD_BYTES_MAX > ENVELOPE_BYTES_MAX)
      return fail("message_too_long", "The message is too long. Shorten it, or send it as a file.");
    if (this.#table.unsealedCount(groupId) >= OUTBOX_PER_PEER_MAX)
      return fail("outbox_full", "Too many messages wait for this group. Send more when some have arrived.");
    return ok(undefined);
  }

  /** Inside the transaction that stores the message; {@link seal} follows after the commit. */
  enqueue(body: GroupBody): void {
    this.#table.addOutgoing(body.groupId, body.messageId, encodeGroupBody(body));
  }

  /** The same for one member, who has not had the message. */
  enqueueFor(peer: UserId, body: GroupBody): void {
    this.#table.addOutgoing(body.groupId, body.messageId, encodeGroupBody(body), peer);
  }

  /**
   * Gives out what is sealed and tells of what we did to the group, some members in each turn; then seals what waits, in
   * order. Each message is in all outboxes before the next one is sealed.
   */
  seal(groupId: GroupId): void {
    const { db, groups } = this.#deps;
    this.#run(`out ${groupId}`, async () => {
      while (!this.#disposed) {
        const changes = new Changes();
        const sealed = this.#table.firstSealed(groupId);
        if (sealed !== null) db.transaction(() => this.#postSome(sealed, changes));
        else if (groups.hasNews(groupId)) db.transaction(() => groups.tellNews(groupId, GROUP_TOLD_PER_TURN, changes));
        else {
          const row = this.#table.firstUnsealed(groupId);
          if (row === null) return;
          await this.#sealRow(groupId, row, changes);
        }
        this.#deps.tell(changes);
        await nextTurn();
      }
    });
  }

  /** Inside a transaction, before we leave: nobody takes what comes from somebody who has left. */
  postAll(groupId: GroupId, changes: Changes): void {
    for (let sealed = this.#table.firstSealed(groupId); sealed !== null; sealed = this.#table.firstSealed(groupId))
      this.#postSome(sealed, changes);
  }

  async #sealRow(groupId: GroupId, row: OutgoingRecord, changes: Changes): Promise<void> {
    const { groups, self, sessions, env, db } = this.#deps;
    const version = groups.log(groupId)?.nodes.length;
    if (!groups.isMember(groupId, self)) {
      db.transaction(() => {
        this.#table.removeOutgoing(row.position);
        if (this.#messages.fail(chatIdOfGroup(groupId), row.messageId))
          changes.message(chatIdOfGroup(groupId), row.messageId);
      });
      return;
    }
    const current = this.#people.ownKey(groupId);
    const key = current ?? distributionIdOf(env.random.bytes(KEY_BYTES));
    try {
      const sealed = await sessions.groupSeal(groupId, key, row.body, (message) => {
        if (groups.log(groupId)?.nodes.length !== version || this.#people.ownKey(groupId) !== current)
          throw new Outdated();
        this.#people.setOwnKey(groupId, key);
        this.#distribute(groupId, row, key, message, changes);
      });
      if (!sealed.ok) throw new Error(sealed.error.type);
    } catch (error) {
      // Somebody was added or removed meanwhile: once more, for the group as it is now.
      if (!(error instanceof Outdated)) throw error;
    }
  }

  /** In the transaction with the step of the key: as many get it at once as may in one turn, the others in later ones. */
  #distribute(groupId: GroupId, row: OutgoingRecord, key: string, message: GroupSealed, changes: Changes): void {
    const { groups } = this.#deps;
    const { position, messageId, repairFor } = row;
    const heads = headsOf(defined(groups.log(groupId), "the log of a group that we are in"));
    const sealed: SealedRecord = { position, groupId, messageId, key, heads, ...message };
    const others = groups.others(groupId);
    if (repairFor !== null) {
      this.#post(sealed, others.includes(repairFor) ? [repairFor] : [], changes);
      this.#table.removeOutgoing(position);
      return;
    }
    for (const peer of others) this.#table.expectReceipt(groupId, messageId, peer);
    this.#post(sealed, others.slice(0, GROUP_POSTED_PER_TURN), changes);
    const later = others.slice(GROUP_POSTED_PER_TURN);
    if (later.length > 0) this.#table.addSealed(sealed, later);
    this.#table.setSealed(position);
    this.#refresh(groupId, messageId, changes);
  }

  #postSome(sealed: SealedRecord, changes: Changes): void {
    const { groups } = this.#deps;
    const peers = this.#table.takePosts(sealed.position, GROUP_POSTED_PER_TURN);
    // Who has gone meanwhile is not waited for any more.
    const present = peers.filter((peer) => groups.isMember(sealed.groupId, peer));
    if (!this.#post(sealed, present, changes)) this.#refresh(sealed.groupId, sealed.messageId, changes);
    if (peers.length < GROUP_POSTED_PER_TURN) this.#table.removeSealed(sealed.position);
  }

  /** Into the outboxes of these. False when it is not sent to some of them. */
  #post(sealed: SealedRecord, peers: readonly UserId[], changes: Changes): boolean {
    const { messageId } = sealed;
    let isForAll = true;
    for (const peer of peers) {
      if (this.#postTo(peer, sealed, changes)) continue;
      this.#table.dropReceipt(messageId, peer);
      isForAll = false;
    }
    return isForAll;
  }

  #postTo(
    peer: UserId,
    { groupId, messageId, key, heads, distribution, body }: SealedRecord,
    changes: Changes,
  ): boolean {
    const { groups } = this.#deps;
    // One who never comes must not hold up the group; when the outbox has emptied, later messages go again.
    if (this.#outbox.count(peer) >= OUTBOX_PER_PEER_MAX) return false;
    if (this.#people.keyOf(groupId, peer) !== key) {
      if (!groups.send(groupId, peer, { kind: "groupKey", groupId, heads, distribution }, changes)) return false;
      this.#people.setKeyOf(groupId, peer, key);
    }
    return groups.send(groupId, peer, { kind: "groupMessage", groupId, heads, messageId, body }, changes);
  }

  /** Inside a transaction: a member could not read these. What follows, and they, are sealed with a fresh key. */
  repair(groupId: GroupId, from: UserId, messageIds: readonly MessageId[]): void {
    const asked = this.#repairs.get(from) ?? 0;
    if (messageIds.length === 0 || asked >= GROUP_REPAIRS_MAX || !this.#deps.groups.isMember(groupId, from)) return;
    this.#repairs.set(from, asked + 1);
    this.#people.setOwnKey(groupId, null);
    for (const messageId of messageIds) {
      const body = this.#table.bodyOf(groupId, messageId);
      if (body !== null && this.#table.groupOfReceipt(messageId, from) === groupId)
        this.#table.addOutgoing(groupId, messageId, body, from);
    }
  }

  /** Inside a transaction: how far an own message has come with one member. False for an id that is none of a group's. */
  raise(peer: UserId, messageId: MessageId, state: "sent" | "delivered" | "read", changes: Changes): boolean {
    const groupId = this.#table.groupOfReceipt(messageId, peer);
    if (groupId === null) return false;
    const nowMs = this.#deps.env.clock.now();
    if (this.#table.raiseReceipt(messageId, peer, state, nowMs)) this.#refresh(groupId, messageId, changes);
    return true;
  }

  /** The state of a message is what it has reached with everybody. */
  #refresh(groupId: GroupId, messageId: MessageId, changes: Changes): void {
    const states = this.#table.receiptsOf(messageId).map(({ state }) => state);
    const reached = (["read", "delivered", "sent"] as const).find((state) =>
      states.every((other) => ORDER.indexOf(other) >= ORDER.indexOf(state)),
    );
    const chatId = chatIdOfGroup(groupId);
    // Alone in the group: there is nobody who could receive it.
    const state = states.length === 0 ? "sent" : reached;
    const { self, env } = this.#deps;
    if (state !== undefined) this.#messages.raiseState(chatId, messageId, self, state, env.clock.now());
    if (state === "delivered" || state === "read") this.#table.removeBody(messageId);
    changes.message(chatId, messageId);
  }

  /** Inside a transaction: members are gone, and nobody waits for them any more. */
  receiptsChanged(changes: Changes): void {
    for (const { groupId, messageId } of changes.receipts.splice(0)) this.#refresh(groupId, messageId, changes);
  }

  // ---- What arrives ---------------------------------------------------------------------------------------------------

  /** Inside the transaction that takes it in; {@link open} follows after the commit. False: it is of no use. */
  arrive(from: UserId, content: ContentOf<"groupKey" | "groupMessage">, changes: Changes): boolean {
    const { groups } = this.#deps;
    const { groupId } = content;
    const heads = content.heads.map(toHex);
    const isMember = groups.isMember(groupId, from);
    if (!isMember && groups.isUpTo(groupId, heads)) return false;
    // Of groups that are not known, or were forgotten, a person could name any number.
    const isKnown = groups.log(groupId) !== null;
    const waiting = isKnown ? this.#table.arrivalCount(groupId, from) : this.#table.strayCount(from);
    if (waiting >= GROUP_ARRIVALS_MAX) {
      changes.notice("warning", "message_missing", "Too much of a group waits to be read; a message was dropped.");
      return false;
    }
    const messageId = content.kind === "groupMessage" ? content.messageId : null;
    const body = content.kind === "groupMessage" ? content.body : content.distribution;
    this.#table.addArrival(groupId, from, { messageId, heads, admitted: isMember, body });
    changes.arrived.push({ groupId, sender: from });
    return true;
  }

  /** The log has grown: what waited for it may be opened now. */
  logChanged(groupId: GroupId): void {
    for (const sender of this.#table.sendersOf(groupId)) this.open(groupId, sender);
    if (this.#deps.groups.hasNews(groupId) || this.#table.firstUnsealed(groupId) !== null) this.seal(groupId);
  }

  /** Opens what came of one member, in order, as far as the log is known. */
  open(groupId: GroupId, sender: UserId): void {
    this.#run(`in ${groupId} ${sender}`, async () => {
      for (;;) {
        const arrival = this.#disposed ? null : this.#table.firstArrival(groupId, sender);
        if (arrival === null) return;
        const changes = new Changes();
        const goesOn = await this.#openOne(groupId, sender, arrival, changes);
        this.#deps.tell(changes);
        if (changes.messages.length > 0) this.#deps.receiptsDue(sender);
        if (!goesOn) return;
      }
    });
  }

  /** False when it has to wait for the log. */
  async #openOne(groupId: GroupId, sender: UserId, arrival: ArrivalRecord, changes: Changes): Promise<boolean> {
    const { groups, sessions, db } = this.#deps;
    if (!groups.isUpTo(groupId, arrival.heads)) {
      db.transaction(() => groups.ask(groupId, sender, [], changes));
      return false;
    }
    const { messageId, body } = arrival;
    const remove = (): void => this.#table.removeArrival(arrival.position);
    if (!arrival.admitted && !groups.isMember(groupId, sender)) {
      remove();
      return true;
    }
    if (messageId === null) {
      const taken = await sessions.groupTake(groupId, sender, body, remove);
      if (!taken.ok) this.#refused(taken.error, remove);
      return true;
    }
    if (this.#messages.get(chatIdOfGroup(groupId), messageId) !== null) {
      db.transaction(() => {
        remove();
        this.#outbox.addReceipt(sender, messageId, "delivered");
      });
      this.#deps.receiptsDue(sender);
      return true;
    }
    const opened = await sessions.groupOpen(sender, body, (plaintext) => {
      remove();
      this.#store(groupId, sender, messageId, plaintext, changes);
    });
    if (!opened.ok) {
      this.#refused(opened.error, () => {
        remove();
        this.#unreadable(groupId, sender, messageId, changes);
      });
    }
    return true;
  }

  #refused(error: GroupOpenError, giveUp: () => void): void {
    this.#deps.env.log.warn("something of a group could not be opened", { type: error.type });
    if (error.type === "queue_full") throw new Error("too much waits for this member");
    this.#deps.db.transaction(giveUp);
  }

  /** Once it is asked for again; then the person is told. */
  #unreadable(groupId: GroupId, sender: UserId, messageId: MessageId, changes: Changes): void {
    const { groups } = this.#deps;
    if (this.#unread.has(messageId) || this.#unread.size >= GROUP_ARRIVALS_MAX) {
      const name = groups.nameOf(groupId, sender);
      changes.notice("warning", "message_missing", `A message from ${name} to a group could not be read.`);
      return;
    }
    this.#unread.add(messageId);
    groups.ask(groupId, sender, [messageId], changes);
  }

  #store(groupId: GroupId, sender: UserId, messageId: MessageId, plaintext: Uint8Array, changes: Changes): void {
    const { groups, files, env } = this.#deps;
    const body = decodeGroupBody(plaintext);
    if (!body.ok || body.value.groupId !== groupId || body.value.messageId !== messageId) {
      changes.notice(
        "warning",
        "bad_message",
        `${groups.nameOf(groupId, sender)} sent something to a group that this version cannot read.`,
      );
      return;
    }
    const content = body.value;
    let fileId: FileId | null = null;
    if (content.kind === "file") {
      if (!files.record(content.offer, sender, content.start).ok) {
        const name = groups.nameOf(groupId, sender);
        changes.notice("warning", "file_refused", `A file from ${name} was refused: it is not genuine.`);
        return;
      }
      fileId = content.offer.signed.manifest.fileId;
    }
    const chatId = chatIdOfGroup(groupId);
    const sentAtMs = Math.min(content.sentAtMs, env.clock.now());
    const text = content.kind === "text" ? content.text : "";
    this.#messages.insert({ chatId, messageId, senderId: sender, sentAtMs, text, fileId, state: "delivered" });
    this.#outbox.addReceipt(sender, messageId, "delivered");
    changes.message(chatId, messageId);
  }

  // ---- One at a time --------------------------------------------------------------------------------------------------

  /** Runs the task, and once more for whoever asked meanwhile. */
  #run(key: string, task: () => Promise<void>): void {
    if (this.#running.has(key)) {
      this.#again.add(key);
      return;
    }
    const run = Promise.resolve()
      .then(task)
      .catch((error: unknown) => {
        const { env } = this.#deps;
        env.log.error("messages of a group could not be handled", { error: messageOf(error) });
        // The disk was full, say: what waits is in the database.
        if (!this.#disposed) this.#retry ??= env.clock.setTimer(OUTBOX_RETRY_MAX_MS, () => this.#startAgain());
      })
      .finally(() => {
        this.#running.delete(key);
        if (this.#again.delete(key) && !this.#disposed) this.#run(key, task);
      });
    this.#running.set(key, run);
  }
}

const ORDER = ["queued", "sent", "delivered", "read"] as const;
