import { isUiUrl, type UiOrigin } from "./url-policy.ts";

/** What an IPC event says about where it came from, without Electron's types. */
export interface Sender {
  readonly webContentsId: number;
  /** Null when the frame was navigated away or destroyed meanwhile. */
  readonly frame: { readonly url: string; readonly isMain: boolean } | null;
}

/** Only the main frame of our own window, showing our own page, may call. */
export const isTrustedSender = (sender: Sender, windowWebContentsId: number | null, ui: UiOrigin): boolean => {
  if (windowWebContentsId === null || sender.webContentsId !== windowWebContentsId) return false;
  return sender.frame?.isMain === true && isUiUrl(sender.frame.url, ui);
};
