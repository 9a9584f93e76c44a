import { assertNever } from "#shared/base/assert.ts";

/** Where the person is. One value each, so that two pages or two dialogs cannot be open at once. */
export type Page =
  | { kind: "chats"; chatId: string | null }
  | { kind: "transfers" }
  /** `peerId`: the connection to one contact, opened from its chat or from the list of connections. */
  | { kind: "links"; peerId: string | null; from: "links" | "chat" }
  /** `fileId`: how one download went, opened from the list of transfers or from the page itself. */
  | { kind: "activity"; fileId: string | null; from: "activity" | "transfers" }
  | { kind: "settings" };

export type OpenDialog =
  | { kind: "none" }
  | { kind: "pair"; tab: "invite" | "accept"; invite?: string }
  | { kind: "verify"; userId: string }
  | { kind: "remove"; userId: string }
  | { kind: "block"; userId: string }
  | { kind: "access"; fileId: string }
  /** Of the files that are sent next. */
  | { kind: "limits" }
  | { kind: "folder"; fileId: string }
  | { kind: "cancelDownload"; fileId: string }
  | { kind: "createGroup" }
  | { kind: "group"; chatId: string }
  /** Of an own message. */
  | { kind: "receipts"; chatId: string; messageId: string }
  | { kind: "switcher" };

export class Nav {
  page = $state.raw<Page>({ kind: "chats", chatId: null });
  dialog = $state.raw<OpenDialog>({ kind: "none" });
  windowFocused = $state.raw(document.hasFocus());
  /** The chat that was open last, so that going back to the chats page returns to it. */
  #lastChatId: string | null = null;

  get chatId(): string | null {
    return this.page.kind === "chats" ? this.page.chatId : null;
  }

  show(kind: Page["kind"]): void {
    switch (kind) {
      case "chats":
        this.page = { kind, chatId: this.#lastChatId };
        return;
      case "links":
        this.page = { kind, peerId: null, from: "links" };
        return;
      case "activity":
        this.page = { kind, fileId: null, from: "activity" };
        return;
      case "transfers":
      case "settings":
        this.page = { kind };
        return;
      default:
        assertNever(kind, "page");
    }
  }

  openLink(peerId: string): void {
    this.page = { kind: "links", peerId, from: this.chatId === peerId ? "chat" : "links" };
  }

  /** Back to where the connection to one contact was opened. */
  closeLink(): void {
    const { page } = this;
    if (page.kind !== "links") return;
    if (page.from === "chat" && page.peerId !== null) this.openChat(page.peerId);
    else this.show("links");
  }

  openTransfer(fileId: string): void {
    this.page = { kind: "activity", fileId, from: this.page.kind === "transfers" ? "transfers" : "activity" };
  }

  /** Back to where one download was opened. */
  closeTransfer(): void {
    if (this.page.kind === "activity") this.show(this.page.from);
  }

  openChat(chatId: string): void {
    this.#lastChatId = chatId;
    this.page = { kind: "chats", chatId };
  }

  closeChat(): void {
    this.#lastChatId = null;
    this.page = { kind: "chats", chatId: null };
  }

  open(dialog: OpenDialog): void {
    this.dialog = dialog;
  }

  closeDialog(): void {
    this.dialog = { kind: "none" };
  }
}
