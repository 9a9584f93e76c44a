import type { ChatView, ServerView, TransferView } from "#shared/ipc/views.ts";

/**
 * What the person is told outside the window. A notification names the sender only: it may appear on a locked screen,
 * so it holds no text and no file name.
 */
export interface Notification {
  readonly chatId: string;
  readonly title: string;
  readonly body: string;
}

/** Follows the chats and says when one has something new. The first snapshot of a chat is history, not news. */
export class UnreadWatch {
  readonly #unreadByChat = new Map<string, number>();

  /** Chats as they are at the start. */
  constructor(chats: readonly ChatView[]) {
    for (const chat of chats) this.#unreadByChat.set(chat.chatId, chat.unreadCount);
  }

  observe(chat: ChatView, windowFocused: boolean): Notification | null {
    const before = this.#unreadByChat.get(chat.chatId) ?? 0;
    this.#unreadByChat.set(chat.chatId, chat.unreadCount);
    if (chat.unreadCount <= before || windowFocused) return null;
    const count = chat.unreadCount - before;
    const body = count === 1 ? "New message" : `${count} new messages`;
    return { chatId: chat.chatId, title: chat.name, body };
  }

  get total(): number {
    return [...this.#unreadByChat.values()].reduce((sum, count) => sum + count, 0);
  }
}

export type TrayState = "online" | "offline" | "busy";

/** The tray's picture of the program: connected or not, and what moves. Finished transfers are forgotten. */
export class TrayWatch {
  readonly #activeByFile = new Map<string, TransferView>();
  #server: ServerView["state"];

  constructor(server: ServerView["state"], transfers: readonly TransferView[]) {
    this.#server = server;
    for (const transfer of transfers) this.observeTransfer(transfer);
  }

  observeServer(server: ServerView): void {
    this.#server = server.state;
  }

  observeTransfer(transfer: TransferView): void {
    const ended = transfer.phase === "complete" || transfer.phase === "failed" || transfer.paused;
    if (ended) this.#activeByFile.delete(transfer.fileId);
    else this.#activeByFile.set(transfer.fileId, transfer);
  }

  get state(): TrayState {
    if (this.#activeByFile.size > 0) return "busy";
    return this.#server === "connected" ? "online" : "offline";
  }

  /** One line for the tooltip; no names. */
  tooltip(unread: number): string {
    const parts = [this.#server === "connected" ? "connected" : "not connected"];
    const active = [...this.#activeByFile.values()];
    if (active.length > 0) {
      const stored = active.reduce((sum, transfer) => sum + transfer.bytesStored, 0);
      const size = active.reduce((sum, transfer) => sum + transfer.sizeBytes, 0);
      const percent = size === 0 ? 100 : Math.floor((stored / size) * 100);
      parts.push(`${active.length} ${active.length === 1 ? "download" : "downloads"}, ${percent} %`);
    }
    if (unread > 0) parts.push(`${unread} unread`);
    return `Weir: ${parts.join(", ")}`;
  }
}
