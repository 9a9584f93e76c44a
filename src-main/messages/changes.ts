import type { ChatId, MessageId, UserId } from "#shared/base/ids.ts";
import type { NoticeView } from "#shared/ipc/views.ts";

/** What a transaction changed; told only after it has been committed. */
export class Changes {
  readonly messages: { chatId: ChatId; messageId: MessageId }[] = [];
  readonly chats = new Set<ChatId>();
  readonly notices: Omit<NoticeView, "atMs">[] = [];
  /** Peers for whom the outbox has to be sent from its start. */
  readonly resealed = new Set<UserId>();

  message(chatId: ChatId, messageId: MessageId): void {
    this.messages.push({ chatId, messageId });
    this.chats.add(chatId);
  }

  notice(level: NoticeView["level"], type: string, message: string): void {
    this.notices.push({ level, type, message });
  }
}
