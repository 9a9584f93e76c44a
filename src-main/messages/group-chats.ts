import { defined } from "#shared/base/assert.ts";
import type { Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import {
  type ChatId,
  chatIdOf,
  chatIdOfGroup,
  type FileId,
  type GroupId,
  groupOfChat,
  type MessageId,
  type UserId,
} from "#shared/base/ids.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { type GroupLog, type GroupWish, ownerOf, roleOf } from "#shared/groups/group-log.ts";
import type { ErrorView, GroupEventView, GroupView, MessageReceiptView, MessageView } from "#shared/ipc/views.ts";
import type { ShareOperation } from "#shared/shares/share-log.ts";
import type { GroupBody } from "#shared/wire/content.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import type { Contacts } from "../contacts/contacts.ts";
import type { Database } from "../store/database.ts";
import { GroupMailTable } from "../store/group-mail.ts";
import { type MessageRecord, MessagesTable } from "../store/messages.ts";
import { Changes } from "./changes.ts";
import type { GroupMail } from "./group-mail.ts";
import type { Groups } from "./groups.ts";

interface GroupChatsDeps {
  readonly env: Env;
  readonly db: Database;
  readonly self: UserId;
  readonly contacts: Pick<Contacts, "isAccepted" | "nameOf">;
  readonly groups: Groups;
  readonly mail: GroupMail;
  readonly tell: (changes: Changes) => void;
  /** Somebody came into a group or went, or its name is another. */
  readonly onMembersChanged: Event<GroupId>;
}

/** Leaves out what a group takes from elsewhere. */
type Draft<B> = B extends unknown ? Omit<B, "groupId"> : never;

const unknownChat = () => fail("unknown_chat", "There is no such group. It may have been removed.");
const NOT_YET = { state: "queued", deliveredAtMs: null, readAtMs: null } as const;
const notInGroup: ErrorView = { type: "not_in_group", message: "You are not in this group any more." };

/** What a person does with groups, and what is shown of them. */
export class GroupChats {
  readonly #deps: GroupChatsDeps;
  readonly #table: GroupMailTable;
  readonly #messages: MessagesTable;

  constructor(deps: GroupChatsDeps) {
    this.#deps = deps;
    this.#table = new GroupMailTable(deps.db);
    this.#messages = new MessagesTable(deps.db);
  }

  get onMembersChanged(): Event<GroupId> {
    return this.#deps.onMembersChanged;
  }

  isMember(groupId: GroupId, userId: UserId): boolean {
    return this.#deps.groups.isMember(groupId, userId);
  }

  /** In a group with us, now or once: somebody to whom something about a file can be said. */
  isFellow(userId: UserId): boolean {
    return this.#deps.groups.isFellow(userId);
  }

  /** Files that we shared there, our own and others'. */
  ownFilesIn(groupId: GroupId): FileId[] {
    return this.#messages.filesBy(chatIdOfGroup(groupId), this.#deps.self);
  }

  /** Whether we shared the file with that person in another chat than this group. */
  isSharedElsewhere(fileId: FileId, userId: UserId, groupId: GroupId): boolean {
    const { self, groups } = this.#deps;
    return this.#messages.byFile(fileId).some(({ chatId, senderId }) => {
      if (senderId !== self || chatId === chatIdOfGroup(groupId)) return false;
      const other = groupOfChat(chatId);
      return other === null ? chatId === chatIdOf(userId) : groups.isMember(other, userId);
    });
  }

  /** Shows a file that we shared in groups to somebody who came into them later. False when there is no such group. */
  showFile(userId: UserId, offer: FileOffer, start: ShareOperation): boolean {
    const { db, mail, groups, self } = this.#deps;
    const shown = this.#messages
      .byFile(offer.signed.manifest.fileId)
      .flatMap(({ chatId, senderId, messageId, sentAtMs }) => {
        const groupId = senderId === self ? groupOfChat(chatId) : null;
        if (groupId === null || !groups.isMember(groupId, userId)) return [];
        return [{ kind: "file", groupId, messageId, sentAtMs, offer, start } as const];
      });
    db.transaction(() => {
      for (const body of shown) mail.enqueueFor(userId, body);
    });
    for (const { groupId } of shown) mail.seal(groupId);
    return shown.length > 0;
  }

  chatIds(): ChatId[] {
    return this.#deps.groups
      .ids()
      .map(chatIdOfGroup)
      .filter((chatId) => this.isKnown(chatId));
  }

  /** We are in it, or were. Of one that we were told of, it is not known yet. */
  isKnown(chatId: ChatId): boolean {
    const { self } = this.#deps;
    const nodes = this.#logOf(chatId)?.nodes ?? [];
    return nodes.some(
      ({ operation: { actor, people } }) => actor === self || people.some(({ userId }) => userId === self),
    );
  }

  create(name: string, userIds: readonly UserId[]): Result<ChatId> {
    const people = this.#people(userIds);
    if (!people.ok) return people;
    const made = this.#change((changes) => this.#deps.groups.create(name, people.value, changes));
    return made.ok ? ok(chatIdOfGroup(made.value)) : made;
  }

  add(chatId: ChatId, userIds: readonly UserId[]): Result<void> {
    const people = this.#people(userIds);
    return people.ok ? this.wish(chatId, { kind: "add", people: people.value }) : people;
  }

  wish(chatId: ChatId, wish: GroupWish): Result<void> {
    const groupId = groupOfChat(chatId);
    if (groupId === null) return unknownChat();
    const { groups, mail } = this.#deps;
    const made = this.#change((changes) => {
      if (wish.kind === "leave") mail.postAll(groupId, changes);
      return groups.change(groupId, wish, changes);
    });
    return made.ok ? ok(undefined) : made;
  }

  /** Leaves the group; one that we are not in any more is forgotten with all that was written there. */
  leave(chatId: ChatId): Result<{ removed: boolean }> {
    const log = this.#logOf(chatId);
    if (log === null) return unknownChat();
    if (roleOf(log, this.#deps.self) !== null) {
      const left = this.wish(chatId, { kind: "leave" });
      return left.ok ? ok({ removed: false }) : left;
    }
    const changes = new Changes();
    this.#deps.db.transaction(() => {
      this.#messages.removeChat(chatId);
      this.#deps.groups.forget(log.groupId, changes);
    });
    this.#deps.tell(changes);
    return ok({ removed: true });
  }

  /** Null when a message can be sent. */
  refusal(chatId: ChatId): ErrorView | null {
    const log = this.#logOf(chatId);
    if (log === null) return unknownChat().error;
    return roleOf(log, this.#deps.self) === null ? notInGroup : null;
  }

  send(chatId: ChatId, draft: Draft<GroupBody>, text: string, fileId: FileId | null): Result<MessageId> {
    const { db, mail, self, tell } = this.#deps;
    const groupId = groupOfChat(chatId);
    const refused = this.refusal(chatId);
    if (groupId === null || refused !== null) return { ok: false, error: refused ?? unknownChat().error };
    const body: GroupBody = { ...draft, groupId };
    const admitted = mail.admit(groupId, body);
    if (!admitted.ok) return admitted;
    const { messageId, sentAtMs } = draft;
    const changes = new Changes();
    db.transaction(() => {
      this.#messages.insert({ chatId, messageId, senderId: self, sentAtMs, text, fileId, state: "queued" });
      mail.enqueue(body);
      changes.message(chatId, messageId);
    });
    tell(changes);
    mail.seal(groupId);
    return ok(messageId);
  }

  /** Everybody in the group but ourselves. */
  others(chatId: ChatId): UserId[] {
    const groupId = groupOfChat(chatId);
    return groupId === null ? [] : this.#deps.groups.others(groupId);
  }

  name(chatId: ChatId): string {
    return this.#logOf(chatId)?.view.name ?? "";
  }

  view(chatId: ChatId): GroupView {
    const log = defined(this.#logOf(chatId), "a group that is shown");
    const members = [...log.view.members].map(([userId, { role, sinceMs }]) => {
      const name = userId === this.#deps.self ? "" : this.#deps.groups.nameOf(log.groupId, userId);
      return { userId, name, role, sinceMs };
    });
    const ownerId = ownerOf(log) ?? "";
    return { ownerId, role: roleOf(log, this.#deps.self), members, changes: log.nodes.length };
  }

  /** What a message in a group shows besides what every message does. */
  details({ chatId, senderId, messageId }: MessageRecord): Pick<MessageView, "senderName" | "received"> {
    const groupId = groupOfChat(chatId);
    if (groupId === null) return {};
    if (senderId !== this.#deps.self) return { senderName: this.#deps.groups.nameOf(groupId, senderId) };
    const states = this.#table.receiptsOf(messageId).map(({ state }) => state);
    const read = states.filter((state) => state === "read").length;
    const delivered = read + states.filter((state) => state === "delivered").length;
    return { received: { delivered, read, of: states.length } };
  }

  /** Of an own message. */
  receipts(groupId: GroupId, { messageId, state }: MessageRecord): MessageReceiptView[] {
    const { groups } = this.#deps;
    const reached = this.#table.receiptsOf(messageId);
    // It was written just now, and is not sealed yet.
    const isWaiting = reached.length === 0 && state === "queued";
    const expected = isWaiting ? groups.others(groupId).map((peer) => ({ peer, ...NOT_YET })) : reached;
    return expected.map(({ peer, ...receipt }) => ({
      userId: peer,
      name: groups.nameOf(groupId, peer),
      ...receipt,
    }));
  }

  /** What became of the group, in words for the chat; ourselves with an empty name. */
  history(chatId: ChatId): Result<GroupEventView[]> {
    const { groups, env, self } = this.#deps;
    const groupId = groupOfChat(chatId);
    if (groupId === null || !this.isKnown(chatId)) return unknownChat();
    const names = new Map<UserId, string>([[self, ""]]);
    const nameOf = (userId: UserId): string => {
      const name = names.get(userId) ?? groups.nameOf(groupId, userId);
      names.set(userId, name);
      return name;
    };
    const nowMs = env.clock.now();
    return ok(
      groups.history(groupId).map(({ node: { hash, operation }, kind, people, name, afterId }) => ({
        eventId: `${hash} ${kind}`,
        afterId,
        atMs: Math.min(operation.atMs, nowMs),
        kind,
        actor: { userId: operation.actor, name: nameOf(operation.actor) },
        people: people.map(({ userId }) => ({ userId, name: nameOf(userId) })),
        name,
      })),
    );
  }

  #logOf(chatId: ChatId): GroupLog | null {
    const groupId = groupOfChat(chatId);
    return groupId === null ? null : this.#deps.groups.log(groupId);
  }

  #people(userIds: readonly UserId[]): Result<{ userId: UserId; name: string }[]> {
    const { contacts } = this.#deps;
    if (!userIds.every((userId) => contacts.isAccepted(userId)))
      return fail("unknown_contact", "Only people whom you are in contact with can be added to a group.");
    return ok(userIds.map((userId) => ({ userId, name: contacts.nameOf(userId) ?? userId })));
  }

  #change(make: (changes: Changes) => Result<GroupId>): Result<GroupId> {
    const { db, mail, tell } = this.#deps;
    const changes = new Changes();
    const made = db.transaction(() => {
      const result = make(changes);
      mail.receiptsChanged(changes);
      return result;
    });
    if (made.ok) tell(changes);
    return made;
  }
}
