import type { GroupEventView } from "#shared/ipc/views.ts";
import type { Api } from "../api.ts";

/** What became of the group that is on screen. */
export class GroupHistory {
  events = $state.raw<readonly GroupEventView[]>([]);
  readonly #api: Api;
  readonly #chatId: string;
  #asked = 0;

  constructor(api: Api, chatId: string) {
    this.#api = api;
    this.#chatId = chatId;
  }

  /** After every change of the group. An answer to an older question never replaces a newer one. */
  async refresh(): Promise<void> {
    this.#asked += 1;
    const asked = this.#asked;
    const history = await this.#api.call("chats.history", { chatId: this.#chatId });
    if (history.ok && asked === this.#asked) this.events = history.value;
  }
}
