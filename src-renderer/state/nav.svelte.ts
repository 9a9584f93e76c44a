/** Where the person is. One value each, so that two pages or two dialogs cannot be open at once. */
export type Page =
  | { kind: "chats"; chatId: string | null }
  | { kind: "transfers" }
  | { kind: "links" }
  | { kind: "settings" };

export type OpenDialog =
  | { kind: "none" }
  | { kind: "pair"; tab: "invite" | "accept"; invite?: string }
  | { kind: "verify"; userId: string }
  | { kind: "remove"; userId: string }
  | { kind: "block"; userId: string }
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
    this.page = kind === "chats" ? { kind, chatId: this.#lastChatId } : { kind };
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
