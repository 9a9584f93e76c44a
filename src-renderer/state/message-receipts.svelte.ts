import { type Disposable, toDisposable } from "#shared/base/disposable.ts";
import type { ErrorView, MessageReceiptView } from "#shared/ipc/views.ts";
import type { Api } from "../api.ts";

/** How far one own message has come with everybody who was to get it; up to date as long as it is not disposed. */
export class MessageReceipts implements Disposable {
  /** Null until the first answer. */
  receipts = $state.raw<readonly MessageReceiptView[] | null>(null);
  error = $state.raw<ErrorView | null>(null);
  readonly #api: Api;
  readonly #message: { readonly chatId: string; readonly messageId: string };
  readonly #subscription: Disposable;
  #asking = false;
  #again = false;
  #disposed = false;

  constructor(api: Api, chatId: string, messageId: string) {
    this.#api = api;
    this.#message = { chatId, messageId };
    this.#subscription = toDisposable(
      api.on("message.changed", (changed) => {
        if (changed.messageId === messageId && changed.chatId === chatId) void this.refresh();
      }),
    );
  }

  dispose(): void {
    this.#disposed = true;
    this.#subscription.dispose();
  }

  /** One question at a time, and one more for whatever changed meanwhile: two hundred receipts may come at once. */
  async refresh(): Promise<void> {
    this.#again = true;
    if (this.#asking) return;
    this.#asking = true;
    while (this.#again && !this.#disposed) {
      this.#again = false;
      const answer = await this.#api.call("messages.receipts", this.#message);
      if (answer.ok) this.receipts = answer.value;
      this.error = answer.ok ? null : answer.error;
    }
    this.#asking = false;
  }
}
