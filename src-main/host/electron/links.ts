import { type BrowserWindow, dialog, shell } from "electron";
import type { Log } from "#shared/base/env.ts";
import { describeThrown } from "../../ipc/server.ts";
import { externalUrl } from "../policy/url-policy.ts";

const OPEN = 1;

/**
 * Opens links in the system's browser after the person has seen where they really lead. One question at a time: a page
 * that asks a thousand times gets one.
 */
export const createLinkOpener = (window: () => BrowserWindow | null, log: Log): ((raw: string) => void) => {
  let asking = false;
  return (raw) => {
    const url = externalUrl(raw);
    if (!url.ok) {
      log.warn("a link was refused", { reason: url.error.message });
      return;
    }
    if (asking) return;
    asking = true;
    confirmAndOpen(url.value, window())
      .catch((thrown: unknown) => log.warn("the system could not open a link", describeThrown(thrown)))
      .finally(() => {
        asking = false;
      });
  };
};

const confirmAndOpen = async (url: string, window: BrowserWindow | null): Promise<void> => {
  const question = {
    type: "question" as const,
    message: url.startsWith("mailto:") ? "Write an e-mail to this address?" : "Open this link in the browser?",
    detail: url,
    buttons: ["Cancel", "Open"],
    defaultId: 0,
    cancelId: 0,
    noLink: true,
  };
  const { response } = await (window === null
    ? dialog.showMessageBox(question)
    : dialog.showMessageBox(window, question));
  if (response === OPEN) await shell.openExternal(url);
};
