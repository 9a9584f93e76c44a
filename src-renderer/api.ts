import { fail, messageOf, type Result } from "#shared/base/result.ts";
import type { CommandInput, CommandName, CommandOutput, ContractEvents, EventName } from "#shared/ipc/contract.ts";
import { connectSocket } from "./api-socket.ts";
import type { DroppedFolder } from "./state/dropped-folders.ts";

/** Whether the program behind this window answers. In Electron it always does: it owns the window. */
export type HostLink = "connecting" | "connected" | "lost" | "refused";

/** The contract as the window sees it, whatever carries it. Nothing here throws or rejects. */
export interface Api {
  call<Name extends CommandName>(name: Name, input: CommandInput<Name>): Promise<Result<CommandOutput<Name>>>;
  /** Subscribes; the returned function ends the subscription. */
  on<Name extends EventName>(event: Name, listener: (payload: ContractEvents[Name]) => void): () => void;
  /**
   * What `files.share` takes as `path` for a file that was dropped, pasted or picked in the page: an opaque handle
   * in Electron; in headless mode the file is uploaded first, `onProgress` hears the bytes sent so far, and `signal` ends
   * it with the error `cancelled`.
   */
  pathOf(file: File, onProgress: (sentBytes: number) => void, signal: AbortSignal): Promise<Result<string>>;
  /** The same for a folder; what is in it is uploaded file by file in headless mode. */
  pathOfFolder(
    folder: DroppedFolder,
    onProgress: (sentBytes: number) => void,
    signal: AbortSignal,
  ): Promise<Result<string>>;
  /** Calls at once with the present state, then on every change. After "connected" all lists must be fetched anew. */
  onHostLink(listener: (state: HostLink) => void): () => void;
}

/** What the preload script exposes. */
export interface PreloadApi {
  call<Name extends CommandName>(name: Name, input: CommandInput<Name>): Promise<Result<CommandOutput<Name>>>;
  on<Name extends EventName>(event: Name, listener: (payload: ContractEvents[Name]) => void): () => void;
  pathOf(file: File): Promise<string>;
}

declare global {
  interface Window {
    readonly weir?: PreloadApi;
  }
}

const electronApi = (weir: PreloadApi): Api => ({
  async call(name, input) {
    try {
      return await weir.call(name, input);
    } catch (thrown) {
      return fail("internal", `Weir could not run ${name}: ${messageOf(thrown)}`);
    }
  },
  on: (event, listener) => weir.on(event, listener),
  async pathOf(file) {
    try {
      return { ok: true, value: await weir.pathOf(file) };
    } catch (thrown) {
      return fail("file_not_readable", `This file cannot be read: ${messageOf(thrown)}`);
    }
  },
  async pathOfFolder({ entry }) {
    if (entry === null) return fail("file_not_readable", "This folder cannot be read. Drop it here, or attach it.");
    try {
      return { ok: true, value: await weir.pathOf(entry) };
    } catch (thrown) {
      return fail("file_not_readable", `This folder cannot be read: ${messageOf(thrown)}`);
    }
  },
  onHostLink(listener) {
    listener("connected");
    return () => {};
  },
});

export const openApi = (): Api => (window.weir ? electronApi(window.weir) : connectSocket());
