import type { Result } from "#shared/base/result.ts";
import type { ErrorView, FileView, PickedFileView, ShareProgressView } from "#shared/ipc/views.ts";
import type { Api } from "../api.ts";

/** A file on its way into a conversation: it is handed over (headless mode), then hashed by the main process. */
export interface Share {
  shareId: number;
  chatId: string;
  name: string;
  sizeBytes: number;
  step:
    | { kind: "waiting" }
    | { kind: "uploading"; sentBytes: number }
    | { kind: "preparing"; hashedBytes: number }
    | { kind: "failed"; error: ErrorView };
}

/** Files in one go; whoever needs more packs them, which is also faster for everyone. */
export const SHARES_MAX = 50;

type Source = {
  name: string;
  sizeBytes: number;
  path: (onProgress: (sentBytes: number) => void) => Promise<Result<string>>;
};

export class Shares {
  readonly #api: Api;
  readonly #onShared: (file: FileView) => void;
  #items = $state.raw<readonly Share[]>([]);
  #lastId = 0;
  /** One after the other: they keep their order, and the disk is read once at a time. */
  #queue: Promise<void> = Promise.resolve();

  constructor(api: Api, onShared: (file: FileView) => void) {
    this.#api = api;
    this.#onShared = onShared;
  }

  ofChat(chatId: string): Share[] {
    return this.#items.filter((share) => share.chatId === chatId);
  }

  addFiles(chatId: string, files: readonly File[]): void {
    this.#add(
      chatId,
      files.map((file) => ({
        name: file.name,
        sizeBytes: file.size,
        path: (onProgress) => this.#api.pathOf(file, onProgress),
      })),
    );
  }

  addPicked(chatId: string, files: readonly PickedFileView[]): void {
    this.#add(
      chatId,
      files.map(({ name, sizeBytes, path }) => ({
        name,
        sizeBytes,
        path: () => Promise.resolve({ ok: true, value: path }),
      })),
    );
  }

  /** Only one share runs at a time, so a chat's report belongs to its one that is being prepared. */
  progress({ chatId, bytesHashed }: ShareProgressView): void {
    const share = this.#items.find((item) => item.chatId === chatId && item.step.kind === "preparing");
    if (share) this.#step(share.shareId, { kind: "preparing", hashedBytes: bytesHashed });
  }

  dismiss(shareId: number): void {
    this.#items = this.#items.filter((share) => share.shareId !== shareId);
  }

  #add(chatId: string, sources: readonly Source[]): void {
    for (const source of sources.slice(0, Math.max(0, SHARES_MAX - this.#items.length))) {
      this.#lastId += 1;
      const { name, sizeBytes } = source;
      const share: Share = { shareId: this.#lastId, chatId, name, sizeBytes, step: { kind: "waiting" } };
      this.#items = [...this.#items, share];
      this.#queue = this.#queue.then(() => this.#run(share, source));
    }
  }

  async #run({ shareId, chatId }: Share, source: Source): Promise<void> {
    this.#step(shareId, { kind: "preparing", hashedBytes: 0 });
    const path = await source.path((sentBytes) => this.#step(shareId, { kind: "uploading", sentBytes }));
    if (!path.ok) return this.#step(shareId, { kind: "failed", error: path.error });
    this.#step(shareId, { kind: "preparing", hashedBytes: 0 });
    const file = await this.#api.call("files.share", { chatId, path: path.value });
    if (!file.ok) return this.#step(shareId, { kind: "failed", error: file.error });
    this.dismiss(shareId);
    this.#onShared(file.value);
  }

  #step(shareId: number, step: Share["step"]): void {
    this.#items = this.#items.map((share) => (share.shareId === shareId ? { ...share, step } : share));
  }
}
