import { assertNever, defined } from "#shared/base/assert.ts";
import { utf8 } from "#shared/base/bytes.ts";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import {
  type ChatId,
  chatIdOf,
  type FileId,
  type GroupId,
  groupOfChat,
  type MessageId,
  peerOfChat,
  type UserId,
} from "#shared/base/ids.ts";
import { MESSAGE_TEXT_BYTES_MAX, SEEN_ENVELOPE_TTL_MS } from "#shared/base/limits.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";
import type { ChatView, ErrorView, MessageReceiptView, MessageView, NoticeView } from "#shared/ipc/views.ts";
import type { ShareOperation } from "#shared/shares/share-log.ts";
import type { ContentDraft } from "#shared/wire/content.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import type { Contacts } from "../contacts/contacts.ts";
import type { Account } from "../crypto/identity.ts";
import type { Sessions } from "../crypto/sessions.ts";
import type { AppMessage, Links } from "../links/links.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { Database } from "../store/database.ts";
import { InboxTable, type MessageRecord, MessagesTable, OutboxTable } from "../store/messages.ts";
import { Changes } from "./changes.ts";
import { type Correspondents, correspondentsOf } from "./correspondents.ts";
import { GroupChats } from "./group-chats.ts";
import { GroupMail } from "./group-mail.ts";
import { Groups } from "./groups.ts";
import {
  type FilesPort,
  Inbox,
  type InboxCounters,
  type ReceiptsPort,
  type ReceivePoint,
  type SharesPort,
} from "./inbox.ts";
import { newMessageId } from "./new-id.ts";
import { Outbox } from "./outbox.ts";
import { Resets } from "./resets.ts";
import { Typing } from "./typing.ts";

export interface MessagesDeps {
  readonly env: Env;
  readonly db: Database;
  readonly account: Pick<Account, "userId" | "accountKey" | "sign">;
  readonly sessions: Sessions;
  readonly signaling: Signaling;
  readonly links: Links;
  readonly contacts: Contacts;
  readonly files: FilesPort;
  readonly shares: SharesPort;
  readonly fileReceipts: ReceiptsPort;
  readonly profileName: () => string;
  readonly preferences: () => { readReceipts: boolean; typingIndicators: boolean };
  /** Called at the points of receiving at which a crash must lose nothing; for tests. */
  readonly checkpoint?: (point: ReceivePoint) => void;
}

/**
 * Chats, direct ones and groups. Everything is in the database before it is told or sent; a message that was acknowledged to its sender
 * is shown exactly once, in the sender's order.
 */
export interface Messages extends Disposable {
  readonly onMessageChanged: Event<MessageView>;
  readonly onChatChanged: Event<ChatView>;
  readonly onNotice: Event<NoticeView>;

  /**
   * Errors: `unknown_chat`, `waiting_for_contact`, `contact_not_accepted`, `contact_blocked`, `not_in_group`,
   * `message_too_long`, `outbox_full`.
   */
  sendText(chatId: ChatId, text: string): Result<MessageView>;
  /** `start`: the first operation of the file's share list, for people who do not know its owner. */
  sendFile(chatId: ChatId, offer: FileOffer, start?: ShareOperation): Result<MessageView>;
  /** Sends something that is no chat message to an accepted contact, or to somebody in a group with us; to nobody else. */
  post(peer: UserId, draft: ContentDraft): void;
  mayPost(peer: UserId): boolean;
  /** Sends a file's key to somebody who may have it now: where it was shared in groups with them, or in the direct chat. */
  sendFileKey(peer: UserId, offer: FileOffer, start: ShareOperation): Result<void>;
  /** Whether `sendText` and `sendFile` would take a message for this chat now; the same errors, but those of its size. */
  mayReceive(chatId: ChatId): Result<void>;
  /** Newest first. Errors: `unknown_chat`, `unknown_message` (for `beforeId`). */
  list(chatId: ChatId, limit: number, beforeId?: MessageId): Result<MessageView[]>;
  chats(): ChatView[];
  /** What is done with groups; `chat` shows what came of it. */
  readonly groups: GroupChats;
  chat(chatId: ChatId): Result<ChatView>;
  /**
   * How far an own message has come with each person who was to get it; nobody for a message of others, and for one that was
   * never sent. Errors: `unknown_chat`, `unknown_message`.
   */
  receipts(chatId: ChatId, messageId: MessageId): Result<MessageReceiptView[]>;
  /** Everybody in the chat but ourselves. */
  membersOf(chatId: ChatId): readonly UserId[];
  markRead(chatId: ChatId): Result<ChatView>;
  typing(chatId: ChatId, typing: boolean): Result<{ sent: boolean }>;
  /** Tells every accepted contact the new name. */
  broadcastProfile(name: string): void;
  /** The view of a file has changed: tells about the messages that show it. */
  fileChanged(fileId: FileId): void;
  counters(): InboxCounters;
  /** A link signal of the peer could not be decrypted, or none can be sealed for them (`lost`): the session is repaired. */
  unreadable(peer: UserId, lost: boolean): void;
  /** Resolves when nothing is being sealed, sent or opened any more; before the database is closed. */
  settled(): Promise<void>;
}

/** Old ids of envelopes are thrown away this often. */
const PRUNE_INTERVAL_MS = 24 * 60 * 60 * 1000;

class AllMessages implements Messages {
  readonly #deps: MessagesDeps;
  readonly #messages: MessagesTable;
  readonly #receipts: OutboxTable;
  readonly #seen: InboxTable;
  readonly #outbox: Outbox;
  readonly #inbox: Inbox;
  readonly #resets: Resets;
  readonly #typing: Typing;
  readonly #groupMail: GroupMail;
  readonly #logs: Groups;
  readonly #correspondents: Correspondents;
  readonly #membersChanged: Emitter<GroupId>;
  readonly groups: GroupChats;
  readonly #owned = new DisposableStore();
  readonly #messageChanged: Emitter<MessageView>;
  readonly #chatChanged: Emitter<ChatView>;
  readonly #notices: Emitter<NoticeView>;
  readonly #checkpoint: (point: ReceivePoint) => void;
  #pruneTimer: Disposable | null = null;

  constructor(deps: MessagesDeps) {
    this.#deps = deps;
    const { env, db, account, sessions, signaling, links, files } = deps;
    const self = account.userId;
    this.#checkpoint = deps.checkpoint ?? (() => undefined);
    this.#messages = new MessagesTable(db);
    this.#receipts = new OutboxTable(db);
    this.#seen = new InboxTable(db);
    const onError = (error: unknown): void =>
      env.log.error("a listener of messages failed", { error: messageOf(error) });
    this.#messageChanged = this.#owned.add(new Emitter(onError));
    this.#chatChanged = this.#owned.add(new Emitter(onError));
    this.#notices = this.#owned.add(new Emitter(onError));
    const tell = (changes: Changes): void => this.#tell(changes);
    const enqueue = (peer: UserId, draft: ContentDraft): void => this.#outbox.enqueue(peer, draft);
    const receiptsDue = (peer: UserId): void => this.#outbox.receiptsDue(peer);
    const groups = new Groups({ env, db, account, contacts: deps.contacts, enqueue, profileName: deps.profileName });
    const contacts = correspondentsOf(deps.contacts, groups);
    this.#logs = groups;
    this.#correspondents = contacts;
    const groupMail = new GroupMail({ env, db, self, sessions, groups, files, tell, receiptsDue });
    this.#groupMail = this.#owned.add(groupMail);
    this.#membersChanged = this.#owned.add(new Emitter<GroupId>(onError));
    const onMembersChanged = this.#membersChanged.event;
    this.groups = new GroupChats({
      ...{ env, db, self, contacts: deps.contacts, groups, mail: groupMail, tell, onMembersChanged },
    });
    this.#resets = this.#owned.add(
      new Resets({
        ...{ env, db, signaling, links, contacts, tell },
        enqueue,
        added: (peer) => this.#outbox.added(peer),
      }),
    );
    this.#outbox = this.#owned.add(
      new Outbox({ env, db, self, sessions, signaling, links, contacts, groupMail, tell, resets: this.#resets }),
    );
    this.#inbox = this.#owned.add(
      new Inbox({
        env,
        db,
        self,
        sessions,
        contacts,
        groups,
        groupMail,
        files,
        shares: deps.shares,
        fileReceipts: deps.fileReceipts,
        tell,
        receiptsDue,
        outbox: this.#outbox,
        resets: this.#resets,
        checkpoint: this.#checkpoint,
      }),
    );
    this.#typing = this.#owned.add(new Typing({ env, links, onChanged: (peer) => this.#tellChat(chatIdOf(peer)) }));
    this.#owned.add(deps.contacts.attachOutbox(this.#forContacts()));
    this.#owned.add(links.onMessage(({ peer, generation, message }) => this.#onLinkMessage(peer, generation, message)));
    this.#owned.add({ dispose: () => this.#pruneTimer?.dispose() });
    signaling.setEnvelopeHandler(async ({ id, from, sealed, receivedAtMs }) => {
      const arrivedAtMs = Math.min(receivedAtMs, env.clock.now());
      const answer = await this.#inbox.receive(from, { id, kind: sealed.kind, body: sealed.body, arrivedAtMs });
      this.#checkpoint("ack");
      // The mailbox need not keep what nobody can read.
      return answer === "retry" ? "retry" : "ack";
    });
    this.#prune();
    this.#inbox.start();
    this.#outbox.start();
    this.#resets.start();
    groupMail.start();
  }

  get onMessageChanged(): Messages["onMessageChanged"] {
    return this.#messageChanged.event;
  }

  get onChatChanged(): Messages["onChatChanged"] {
    return this.#chatChanged.event;
  }

  get onNotice(): Messages["onNotice"] {
    return this.#notices.event;
  }

  sendText(chatId: ChatId, text: string): Result<MessageView> {
    if (text === "") return fail("empty_message", "Write something before you send.");
    if (utf8(text).length > MESSAGE_TEXT_BYTES_MAX)
      return fail("message_too_long", "The message is too long. Shorten it, or send it as a file.");
    const { env } = this.#deps;
    const messageId = newMessageId(env.random);
    const draft = { kind: "text", messageId, sentAtMs: env.clock.now(), text } as const;
    if (groupOfChat(chatId) !== null) return this.#sent(chatId, this.groups.send(chatId, draft, text, null));
    return this.#send(chatId, draft, text, null);
  }

  sendFile(chatId: ChatId, offer: FileOffer, start?: ShareOperation): Result<MessageView> {
    const { env } = this.#deps;
    const messageId = newMessageId(env.random);
    const { fileId } = offer.signed.manifest;
    const draft = { kind: "file", messageId, sentAtMs: env.clock.now(), offer } as const;
    if (groupOfChat(chatId) === null) return this.#send(chatId, { ...draft, start }, "", fileId);
    // Members of a group need not know the owner: there it never goes without.
    if (start === undefined) return fail("bad_manifest", "A file for a group needs the beginning of its share list.");
    return this.#sent(chatId, this.groups.send(chatId, { ...draft, start }, "", fileId));
  }

  post(peer: UserId, draft: ContentDraft): void {
    if (!this.mayPost(peer)) return;
    this.#deps.db.transaction(() => this.#outbox.enqueue(peer, draft));
    this.#outbox.added(peer);
  }

  mayPost(peer: UserId): boolean {
    const { contacts } = this.#deps;
    return contacts.isAccepted(peer) || (contacts.relationOf(peer) === null && this.groups.isFellow(peer));
  }

  sendFileKey(peer: UserId, offer: FileOffer, start: ShareOperation): Result<void> {
    if (!this.groups.showFile(peer, offer, start)) {
      const sent = this.sendFile(chatIdOf(peer), offer, start);
      return sent.ok ? ok(undefined) : sent;
    }
    // Whoever had the file before has the message, and lost the key.
    this.post(peer, { kind: "fileKey", offer, start });
    return ok(undefined);
  }

  mayReceive(chatId: ChatId): Result<void> {
    if (groupOfChat(chatId) !== null) {
      const error = this.groups.refusal(chatId);
      return error === null ? ok(undefined) : { ok: false, error };
    }
    const peer = peerOfChat(chatId);
    return this.#refusal(peer) ?? this.#outbox.hasRoom(peer);
  }

  list(chatId: ChatId, limit: number, beforeId?: MessageId): Result<MessageView[]> {
    if (!this.#isKnown(chatId)) return unknownChat();
    const before = beforeId === undefined ? null : this.#messages.get(chatId, beforeId);
    if (beforeId !== undefined && before === null) return unknownMessage();
    return ok(this.#messages.page(chatId, limit, before?.position ?? null).map((record) => this.#view(record)));
  }

  chats(): ChatView[] {
    const direct = this.#deps.contacts.userIds().map((peer) => this.#chat(chatIdOf(peer)));
    const groups = this.groups.chatIds().map((chatId) => this.#chat(chatId));
    return [...direct, ...groups].filter((chat) => chat !== null);
  }

  chat(chatId: ChatId): Result<ChatView> {
    const view = this.#chat(chatId);
    return view === null ? unknownChat() : ok(view);
  }

  membersOf(chatId: ChatId): readonly UserId[] {
    return groupOfChat(chatId) === null ? [peerOfChat(chatId)] : this.groups.others(chatId);
  }

  receipts(chatId: ChatId, messageId: MessageId): Result<MessageReceiptView[]> {
    if (!this.#isKnown(chatId)) return unknownChat();
    const message = this.#messages.get(chatId, messageId);
    if (message === null) return unknownMessage();
    if (message.senderId !== this.#self || message.state === "failed") return ok([]);
    const groupId = groupOfChat(chatId);
    if (groupId !== null) return ok(this.groups.receipts(groupId, message));
    const name = defined(this.#nameOf(chatId), "the name of a contact");
    const times = this.#messages.receiptTimes(chatId, messageId);
    return ok([{ userId: peerOfChat(chatId), name, state: message.state, ...times }]);
  }

  markRead(chatId: ChatId): Result<ChatView> {
    if (!this.#isKnown(chatId)) return unknownChat();
    const unread = this.#messages.unread(chatId, this.#self);
    const newest = unread.at(-1);
    if (newest !== undefined) {
      const tellPeer = this.#deps.preferences().readReceipts;
      this.#deps.db.transaction(() => {
        this.#messages.setReadUpTo(chatId, newest.position);
        if (tellPeer)
          for (const { messageId, senderId } of unread) this.#receipts.addReceipt(senderId, messageId, "read");
      });
      if (tellPeer)
        for (const sender of new Set(unread.map(({ senderId }) => senderId))) this.#outbox.receiptsDue(sender);
      this.#tellChat(chatId);
    }
    return ok(this.#chatView(chatId, defined(this.#nameOf(chatId), "a name")));
  }

  typing(chatId: ChatId, typing: boolean): Result<{ sent: boolean }> {
    const peer = peerOfChat(chatId);
    const { preferences } = this.#deps;
    if (!this.#isKnown(chatId)) return unknownChat();
    // So many would have to be told, so often, of so little.
    if (groupOfChat(chatId) !== null) return ok({ sent: false });
    const allowed = preferences().typingIndicators && this.#sendBlocked(peer) === null;
    return ok({ sent: allowed && this.#typing.tell(peer, typing) });
  }

  broadcastProfile(name: string): void {
    const { contacts, db } = this.#deps;
    const peers = contacts.userIds().filter((peer) => contacts.isAccepted(peer));
    db.transaction(() => {
      for (const peer of peers) this.#outbox.enqueue(peer, { kind: "profile", name });
    });
    for (const peer of peers) this.#outbox.added(peer);
  }

  fileChanged(fileId: FileId): void {
    for (const record of this.#messages.byFile(fileId)) this.#messageChanged.emit(this.#view(record));
  }

  counters(): InboxCounters {
    return { ...this.#inbox.counters };
  }

  unreadable(peer: UserId, lost: boolean): void {
    this.#resets.unreadable(peer, lost);
  }

  async settled(): Promise<void> {
    await this.#inbox.settled();
    await this.#resets.settled();
    await this.#groupMail.settled();
    await this.#outbox.settled();
  }

  dispose(): void {
    this.#owned.dispose();
  }

  #forContacts(): Parameters<Contacts["attachOutbox"]>[0] {
    return {
      enqueue: (peer, draft) => this.#outbox.enqueue(peer, draft),
      restartStream: (peer) => this.#inbox.restart(peer),
      sealAgain: (peer) => this.#outbox.sealAgain(peer),
      removed: (peer) => {
        this.#messages.removeChat(chatIdOf(peer));
        this.#outbox.clear(peer);
        this.#inbox.clear(peer);
        this.#resets.clear(peer);
      },
      wake: (peer) => {
        this.#outbox.wake(peer);
        this.#resets.wake(peer);
        this.#inbox.wake(peer);
        if (!this.#deps.contacts.isKeyChanged(peer)) this.#deps.signaling.askAgain(peer);
        this.#tellChat(chatIdOf(peer));
      },
    };
  }

  #onLinkMessage(peer: UserId, generation: number, message: AppMessage): void {
    switch (message.type) {
      case "envelope": {
        const { id, kind, body } = message;
        const envelope = { id, kind, body, arrivedAtMs: this.#deps.env.clock.now() };
        void this.#inbox.receive(peer, envelope).then((answer) => {
          if (answer === "ack") this.#deps.links.send(peer, generation, { type: "envelopeAck", id });
          this.#checkpoint("ack");
        });
        return;
      }
      case "envelopeAck":
        this.#outbox.acked(peer, message.id);
        return;
      case "typing":
        if (this.#deps.contacts.isAccepted(peer)) this.#typing.received(peer, message.typing);
        return;
      default:
        // The other messages are those of transfers.
        return;
    }
  }

  #send(
    chatId: ChatId,
    draft: Extract<ContentDraft, { kind: "text" | "file" }>,
    text: string,
    fileId: FileId | null,
  ): Result<MessageView> {
    const peer = peerOfChat(chatId);
    const refused = this.#refusal(peer);
    if (refused !== null) return refused;
    const admitted = this.#outbox.admit(peer, draft);
    if (!admitted.ok) return admitted;
    const { messageId, sentAtMs } = draft;
    this.#deps.db.transaction(() => {
      const record = { chatId, messageId, senderId: this.#self, sentAtMs, text, fileId, state: "queued" } as const;
      this.#messages.insert(record);
      this.#outbox.enqueue(peer, draft);
    });
    const changes = new Changes();
    changes.message(chatId, messageId);
    this.#tell(changes);
    this.#outbox.added(peer);
    return ok(this.#view(defined(this.#messages.get(chatId, messageId), "the message just stored")));
  }

  get #self(): UserId {
    return this.#deps.account.userId;
  }

  #isKnown(chatId: ChatId): boolean {
    return groupOfChat(chatId) === null
      ? this.#deps.contacts.relationOf(peerOfChat(chatId)) !== null
      : this.groups.isKnown(chatId);
  }

  #nameOf(chatId: ChatId): string | null {
    if (groupOfChat(chatId) === null) return this.#deps.contacts.nameOf(peerOfChat(chatId));
    return this.groups.isKnown(chatId) ? this.groups.name(chatId) : null;
  }

  #sent(chatId: ChatId, sent: Result<MessageId>): Result<MessageView> {
    return sent.ok ? ok(this.#view(defined(this.#messages.get(chatId, sent.value), "the message just stored"))) : sent;
  }

  /** A changed key is no refusal: the message waits until the user has accepted it. */
  #refusal(peer: UserId): ReturnType<typeof fail> | null {
    const relation = this.#deps.contacts.relationOf(peer);
    switch (relation?.kind) {
      case undefined:
        return unknownChat();
      case "accepted":
        return null;
      case "outgoing":
        return fail("waiting_for_contact", "Your request was not accepted yet. Messages can be sent afterwards.");
      case "incoming":
        return fail("contact_not_accepted", "Accept the contact request before you write.");
      case "blocked":
        return fail("contact_blocked", "You blocked this contact. Unblock it before you write.");
      default:
        return assertNever(relation);
    }
  }

  #sendBlocked(peer: UserId): ErrorView | null {
    const refused = this.#refusal(peer);
    if (refused !== null) return refused.error;
    if (!this.#deps.contacts.isKeyChanged(peer)) return null;
    return {
      type: "key_changed",
      message: "The contact's key has changed. Compare the safety number and accept it; messages wait until then.",
    };
  }

  #tell(changes: Changes): void {
    for (const { chatId, messageId } of changes.messages) {
      const record = this.#messages.get(chatId, messageId);
      if (record === null) continue;
      if (record.senderId !== this.#self) this.#typing.received(record.senderId, false);
      this.#messageChanged.emit(this.#view(record));
    }
    for (const chatId of changes.chats) this.#tellChat(chatId);
    for (const peer of changes.resealed) {
      this.#outbox.resealed(peer);
      this.#resets.resent(peer);
    }
    for (const peer of changes.posted) this.#outbox.added(peer);
    for (const groupId of changes.groups) {
      this.#groupMail.logChanged(groupId);
      this.#membersChanged.emit(groupId);
    }
    for (const { groupId, sender } of changes.arrived) this.#groupMail.open(groupId, sender);
    for (const notice of changes.notices) this.#notices.emit({ ...notice, atMs: this.#deps.env.clock.now() });
  }

  #tellChat(chatId: ChatId): void {
    const chat = this.#chat(chatId);
    if (chat !== null) this.#chatChanged.emit(chat);
  }

  /** Null without a contact, and for one that is not accepted and with whom nothing was ever written. */
  #chat(chatId: ChatId): ChatView | null {
    const name = this.#nameOf(chatId);
    if (name === null) return null;
    const view = this.#chatView(chatId, name);
    const isOpen = view.group !== undefined || this.#deps.contacts.isAccepted(peerOfChat(chatId));
    return isOpen || view.lastMessage !== null ? view : null;
  }

  #chatView(chatId: ChatId, name: string): ChatView {
    const last = this.#messages.page(chatId, 1, null)[0];
    const isGroup = groupOfChat(chatId) !== null;
    return {
      chatId,
      name,
      lastMessage: last === undefined ? null : this.#view(last),
      unreadCount: this.#messages.unreadCount(chatId, this.#self),
      typing: !isGroup && this.#typing.isTyping(peerOfChat(chatId)),
      sendBlocked: isGroup ? this.groups.refusal(chatId) : this.#sendBlocked(peerOfChat(chatId)),
      ...(isGroup ? { group: this.groups.view(chatId) } : {}),
    };
  }

  #view(record: MessageRecord): MessageView {
    const { messageId, chatId, senderId, sentAtMs, text, state, fileId } = record;
    const file = fileId === null ? null : this.#deps.files.view(fileId);
    return { messageId, chatId, senderId, sentAtMs, text, state, file, ...this.groups.details(record) };
  }

  /** What strangers were not given in time nobody gets any more. */
  #endGoodbyes(): void {
    const ended = this.#deps.db.transaction(() => {
      const peers = this.#logs.endGoodbyes().filter((peer) => this.#correspondents.relationOf(peer) === null);
      for (const peer of peers) {
        this.#outbox.clear(peer);
        this.#inbox.clear(peer);
        this.#resets.clear(peer);
      }
      return peers;
    });
    for (const peer of ended) this.#outbox.wake(peer);
  }

  #prune(): void {
    const { clock } = this.#deps.env;
    this.#seen.pruneSeen(clock.now() - SEEN_ENVELOPE_TTL_MS);
    this.#endGoodbyes();
    this.#pruneTimer = clock.setTimer(PRUNE_INTERVAL_MS, () => this.#prune());
  }
}

const unknownChat = () => fail("unknown_chat", "There is no such chat. It may have been removed with its contact.");

const unknownMessage = () => fail("unknown_message", "This message is not in the chat. Open the chat again.");

export const createMessages = (deps: MessagesDeps): Messages => new AllMessages(deps);
