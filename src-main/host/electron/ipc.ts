import { type BrowserWindow, type IpcMainInvokeEvent, ipcMain } from "electron";
import type { Disposable } from "#shared/base/disposable.ts";
import { DisposableStore, toDisposable } from "#shared/base/disposable.ts";
import type { Log } from "#shared/base/env.ts";
import { PATH_LENGTH_MAX } from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { ipcChannels } from "#shared/ipc/channels.ts";
import type { EventSource, PublishedEvent } from "../../ipc/handlers.ts";
import type { IpcServer } from "../../ipc/server.ts";
import type { PathGrants } from "../policy/path-grants.ts";
import { isTrustedSender, type Sender } from "../policy/sender.ts";
import type { UiOrigin } from "../policy/url-policy.ts";

/** Carries the contract between the one window and the contract server. */
export interface ElectronIpc extends Disposable {
  /** Sends now, or as soon as the page has asked for something, which shows that it listens. */
  sendWhenListening(published: PublishedEvent): void;
}

export const serveElectronIpc = (options: {
  readonly window: () => BrowserWindow | null;
  readonly ui: UiOrigin;
  readonly server: IpcServer;
  readonly events: EventSource;
  readonly grants: PathGrants;
  readonly log: Log;
}): ElectronIpc => {
  const { ui, server, grants, log } = options;
  const owned = new DisposableStore();
  /** The page that has called, and so has its listeners in place; another page starts anew. */
  let listeningContents: number | null = null;
  let waiting: PublishedEvent | null = null;

  const trusted = (event: IpcMainInvokeEvent): boolean => {
    const contents = options.window()?.webContents;
    const ours = isTrustedSender(senderOf(event), contents?.id ?? null, ui);
    if (!ours) log.warn("a call from a page that is not Weir's own was refused");
    return ours;
  };

  const send = (published: PublishedEvent): void => {
    const contents = options.window()?.webContents;
    if (contents === undefined || contents.isDestroyed()) return;
    contents.send(ipcChannels.event, published.event, published.payload);
  };

  const handle = (
    channel: string,
    answer: (...args: unknown[]) => Result<unknown> | Promise<Result<unknown>>,
  ): void => {
    ipcMain.handle(channel, (event, ...args: unknown[]) => (trusted(event) ? answer(...args) : forbidden));
    owned.add(toDisposable(() => ipcMain.removeHandler(channel)));
  };

  handle(ipcChannels.call, async (name, input) => {
    const result = await server.call(name, input);
    listeningContents = options.window()?.webContents.id ?? null;
    if (waiting !== null) send(waiting);
    waiting = null;
    return result;
  });
  handle(ipcChannels.grant, (path) => {
    // An empty path is a File that a script made up.
    if (typeof path !== "string" || path === "" || path.length > PATH_LENGTH_MAX) return notOnDisk;
    return ok(grants.grant(path));
  });
  owned.add(options.events(send));

  return {
    sendWhenListening(published) {
      const contents = options.window()?.webContents.id ?? null;
      // Only the newest waits: a second link that is opened meanwhile takes the place of the first.
      if (contents === null || contents !== listeningContents) waiting = published;
      else send(published);
    },
    dispose: () => owned.dispose(),
  };
};

const senderOf = ({ sender, senderFrame }: IpcMainInvokeEvent): Sender => ({
  webContentsId: sender.id,
  frame: senderFrame === null ? null : { url: senderFrame.url, isMain: senderFrame === sender.mainFrame },
});

const forbidden = fail("forbidden", "Only Weir's own window may ask this.");
const notOnDisk = fail("file_not_readable", "This file does not lie on this computer's disk. Save it first.");
