import { type ChatId, chatIdOfGroup, type GroupId, type MessageId, type UserId } from "#shared/base/ids.ts";
import type { NoticeView } from "#shared/ipc/views.ts";

/** What a transaction changed; told only after it has been committed. */
export class Changes {
  readonly messages: { chatId: ChatId; messageId: MessageId }[] = [];
  readonly chats = new Set<ChatId>();
  readonly notices: Omit<NoticeView, "atMs">[] = [];
  /** Peers for whom the outbox has to be sent from its start. */
  readonly resealed = new Set<UserId>();
  /** Peers for whom something was put into the outbox. */
  readonly posted = new Set<UserId>();
  /** Groups whose logs have grown. */
  readonly groups = new Set<GroupId>();
  readonly receipts: { groupId: GroupId; messageId: MessageId }[] = [];
  /** Members of groups of whom something arrived. */
  readonly arrived: { groupId: GroupId; sender: UserId }[] = [];

  message(chatId: ChatId, messageId: MessageId): void {
    this.messages.push({ chatId, messageId });
    this.chats.add(chatId);
  }

  group(groupId: GroupId): void {
    this.groups.add(groupId);
    this.chats.add(chatIdOfGroup(groupId));
  }

  /** How far an own message has come with the members of a group. */
  receipted(groupId: GroupId, messageId: MessageId): void {
    this.receipts.push({ groupId, messageId });
  }

  notice(level: NoticeView["level"], type: string, message: string): void {
    this.notices.push({ level, type, message });
  }
}
