import { SvelteMap, SvelteSet } from "svelte/reactivity";
import type { Result } from "#shared/base/result.ts";
import type { ErrorView, MessageView } from "#shared/ipc/views.ts";
import type { Api } from "../api.ts";
import { emptyLog, type MessageLog, withChange, withNewestPage, withOlderPage } from "./message-log.ts";

const PAGE_MESSAGES = 60;
/** Conversations kept in memory; reopening another one costs one page. */
const LOGS_MAX = 12;
/** Messages kept of a conversation that is not on screen. */
const IDLE_LOG_MESSAGES_MAX = 200;

export class Messages {
  readonly #api: Api;
  readonly #logByChat = new SvelteMap<string, MessageLog>();
  readonly #errorByChat = new SvelteMap<string, ErrorView>();
  readonly #loadingOlder = new SvelteSet<string>();
  /** Changes that arrive while a page is under way: they may be newer than it and are applied after it. */
  readonly #changesByLoadingChat = new Map<string, MessageView[]>();
  readonly drafts = new SvelteMap<string, string>();

  constructor(api: Api) {
    this.#api = api;
  }

  /** Undefined until the first page is there. */
  log(chatId: string): MessageLog | undefined {
    return this.#logByChat.get(chatId);
  }

  error(chatId: string): ErrorView | undefined {
    return this.#errorByChat.get(chatId);
  }

  isLoadingOlder(chatId: string): boolean {
    return this.#loadingOlder.has(chatId);
  }

  has(message: MessageView): boolean {
    const log = this.#logByChat.get(message.chatId);
    return log?.messages.some((known) => known.messageId === message.messageId) ?? false;
  }

  /** Makes a conversation ready for the screen. */
  async open(chatId: string): Promise<void> {
    const known = this.#logByChat.get(chatId);
    if (known !== undefined) {
      // Moves it to the end of the map, which is the order in which logs are dropped.
      this.#logByChat.delete(chatId);
      const messages = known.messages.slice(-IDLE_LOG_MESSAGES_MAX);
      const hasOlder = known.hasOlder || messages.length < known.messages.length;
      this.#logByChat.set(chatId, { messages, hasOlder });
      return;
    }
    await this.#loadNewest(chatId);
    const oldest = this.#logByChat.keys().next();
    if (this.#logByChat.size > LOGS_MAX && !oldest.done) this.#logByChat.delete(oldest.value);
  }

  /** Fetches the newest page of every conversation in memory anew. */
  async refresh(): Promise<void> {
    await Promise.all([...this.#logByChat.keys()].map((chatId) => this.#loadNewest(chatId)));
  }

  async #loadNewest(chatId: string): Promise<void> {
    this.#changesByLoadingChat.set(chatId, []);
    const page = await this.#api.call("messages.list", { chatId, limit: PAGE_MESSAGES });
    const changes = this.#changesByLoadingChat.get(chatId) ?? [];
    this.#changesByLoadingChat.delete(chatId);
    if (!page.ok) {
      this.#errorByChat.set(chatId, page.error);
      return;
    }
    this.#errorByChat.delete(chatId);
    const log = withNewestPage(this.#logByChat.get(chatId) ?? emptyLog, page.value, PAGE_MESSAGES);
    this.#logByChat.set(chatId, changes.reduce(withChange, log));
  }

  async loadOlder(chatId: string): Promise<void> {
    const log = this.#logByChat.get(chatId);
    const first = log?.messages[0];
    if (log === undefined || first === undefined || !log.hasOlder || this.#loadingOlder.has(chatId)) return;
    this.#loadingOlder.add(chatId);
    const page = await this.#api.call("messages.list", { chatId, limit: PAGE_MESSAGES, beforeId: first.messageId });
    this.#loadingOlder.delete(chatId);
    const current = this.#logByChat.get(chatId);
    // The log may have been replaced meanwhile; the page then belongs to another place.
    if (!page.ok || current?.messages[0]?.messageId !== first.messageId) return;
    this.#logByChat.set(chatId, withOlderPage(current, page.value, PAGE_MESSAGES));
  }

  /** A conversation that is not in memory needs no change: it is loaded when it is opened. */
  change(message: MessageView): void {
    this.#changesByLoadingChat.get(message.chatId)?.push(message);
    const log = this.#logByChat.get(message.chatId);
    if (log !== undefined) this.#logByChat.set(message.chatId, withChange(log, message));
  }

  async send(chatId: string, text: string): Promise<Result<MessageView>> {
    const sent = await this.#api.call("messages.send", { chatId, text });
    if (sent.ok) this.change(sent.value);
    return sent;
  }

  forget(chatId: string): void {
    this.#logByChat.delete(chatId);
    this.#errorByChat.delete(chatId);
    this.drafts.delete(chatId);
  }
}
