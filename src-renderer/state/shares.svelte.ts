import type { Result } from "#shared/base/result.ts";
import type { ErrorView, FileView, PickedFileView, ShareProgressView } from "#shared/ipc/views.ts";
import type { Api } from "../api.ts";
import type { DroppedFolder } from "./dropped-folders.ts";
import { type FileLimits, noLimits } from "./limits.ts";

/** A file on its way into a conversation: it is handed over (headless mode), then hashed by the main process. */
export interface Share {
  shareId: number;
  chatId: string;
  name: string;
  sizeBytes: number;
  step:
    | { kind: "waiting" }
    | { kind: "uploading"; sentBytes: number }
    /** `fileId`: once the main process has begun; it names the share there. */
    | { kind: "preparing"; hashedBytes: number; fileId: string | null }
    | { kind: "failed"; error: ErrorView };
}

/** Files on their way at once; whoever needs more packs them, which is also faster for everyone. */
export const SHARES_MAX = 50;

export const canCancel = ({ step }: Share): boolean =>
  step.kind === "waiting" || step.kind === "uploading" || (step.kind === "preparing" && step.fileId !== null);

type Source = {
  name: string;
  sizeBytes: number;
  path: (onProgress: (sentBytes: number) => void, signal: AbortSignal) => Promise<Result<string>>;
};

export class Shares {
  readonly #api: Api;
  readonly #onShared: (file: FileView) => void;
  readonly #warn: (text: string) => void;
  readonly #cancels = new Map<number, AbortController>();
  /** For what is sent next; kept for this run of the window only. */
  limits = $state.raw<FileLimits>(noLimits);
  #items = $state.raw<readonly Share[]>([]);
  #lastId = 0;
  /** One after the other: they keep their order, and the disk is read once at a time. */
  #queue: Promise<void> = Promise.resolve();

  constructor(api: Api, onShared: (file: FileView) => void, warn: (text: string) => void) {
    this.#api = api;
    this.#onShared = onShared;
    this.#warn = warn;
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
        path: (onProgress, signal) => this.#api.pathOf(file, onProgress, signal),
      })),
    );
  }

  addFolders(chatId: string, folders: readonly DroppedFolder[]): void {
    this.#add(
      chatId,
      folders.map((folder) => ({
        name: folder.name,
        sizeBytes: 0,
        path: (onProgress, signal) => this.#api.pathOfFolder(folder, onProgress, signal),
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
  progress({ chatId, fileId, bytesHashed, sizeBytes }: ShareProgressView): void {
    const share = this.#items.find((item) => item.chatId === chatId && item.step.kind === "preparing");
    if (share === undefined) return;
    this.#step(share.shareId, { kind: "preparing", hashedBytes: bytesHashed, fileId });
    // How large a folder is, only the main process knows.
    if (share.sizeBytes === 0 && sizeBytes > 0)
      this.#items = this.#items.map((item) => (item.shareId === share.shareId ? { ...item, sizeBytes } : item));
  }

  dismiss(shareId: number): void {
    this.#items = this.#items.filter((share) => share.shareId !== shareId);
    this.#cancels.delete(shareId);
  }

  /** Takes a file back that is not sent yet. */
  cancel(shareId: number): void {
    const share = this.#items.find((item) => item.shareId === shareId);
    if (share === undefined || !canCancel(share)) return;
    if (share.step.kind === "preparing" && share.step.fileId !== null) {
      // It goes from the list with the answer to `files.share`; if it comes too late, the file was sent.
      void this.#api.call("files.cancelShare", { fileId: share.step.fileId });
      return;
    }
    this.#cancels.get(shareId)?.abort();
    this.dismiss(shareId);
  }

  #add(chatId: string, sources: readonly Source[]): void {
    const room = Math.max(0, SHARES_MAX - this.#items.length);
    if (sources.length > room) this.#warn(tooManyWords(room));
    for (const source of sources.slice(0, room)) {
      this.#lastId += 1;
      const { name, sizeBytes } = source;
      const share: Share = { shareId: this.#lastId, chatId, name, sizeBytes, step: { kind: "waiting" } };
      const cancel = new AbortController();
      this.#cancels.set(share.shareId, cancel);
      this.#items = [...this.#items, share];
      const { limits } = this;
      this.#queue = this.#queue.then(() => this.#run(share, source, limits, cancel.signal));
    }
  }

  async #run({ shareId, chatId }: Share, source: Source, limits: FileLimits, cancelled: AbortSignal): Promise<void> {
    if (cancelled.aborted) return;
    this.#step(shareId, { kind: "preparing", hashedBytes: 0, fileId: null });
    const path = await source.path((sentBytes) => this.#step(shareId, { kind: "uploading", sentBytes }), cancelled);
    if (cancelled.aborted) return;
    if (!path.ok) return this.#step(shareId, { kind: "failed", error: path.error });
    this.#step(shareId, { kind: "preparing", hashedBytes: 0, fileId: null });
    const file = await this.#api.call("files.share", { chatId, path: path.value, ...setOf(limits) });
    if (!file.ok && file.error.type !== "cancelled") return this.#step(shareId, { kind: "failed", error: file.error });
    this.dismiss(shareId);
    if (!file.ok) return;
    this.#onShared(file.value);
  }

  #step(shareId: number, step: Share["step"]): void {
    this.#items = this.#items.map((share) => (share.shareId === shareId ? { ...share, step } : share));
  }
}

const setOf = ({ expiresAtMs, downloadLimit }: FileLimits): Partial<FileLimits> => ({
  ...(expiresAtMs === null ? {} : { expiresAtMs }),
  ...(downloadLimit === null ? {} : { downloadLimit }),
});

const tooManyWords = (room: number): string =>
  room === 0
    ? `${SHARES_MAX} files are on their way already. Send the others when these are done.`
    : `Only the first ${room} files are sent. Send the others when these are done, or pack them into one.`;
