import { join } from "node:path";
import { app, type Session, type WebContents } from "electron";
import type { Log } from "#shared/base/env.ts";
import { downloadAllowed } from "../policy/downloads.ts";
import { permissionAllowed } from "../policy/permissions.ts";
import { isUiUrl, requestAllowed, type UiOrigin } from "../policy/url-policy.ts";

/** Applies the policies of host/policy to Electron. Each handler only asks the policy and does what it says. */
export interface Hardening {
  readonly ui: UiOrigin;
  readonly dev: boolean;
  readonly log: Log;
  /** A link that the page wanted to open; parsed and confirmed elsewhere. */
  openLink(url: string): void;
}

/** Every web contents that will ever exist, whoever makes it. Call before the first window. */
export const hardenAllWebContents = (hardening: Hardening): void => {
  app.on("web-contents-created", (_event, contents) => hardenWebContents(contents, hardening));
};

const hardenWebContents = (contents: WebContents, { ui, log, openLink }: Hardening): void => {
  const stay = (event: { preventDefault(): void }, url: string): void => {
    if (isUiUrl(url, ui)) return;
    event.preventDefault();
    log.warn("a navigation away from the window's page was stopped");
  };
  contents.on("will-navigate", (event) => stay(event, event.url));
  contents.on("will-frame-navigate", (event) => stay(event, event.url));
  contents.on("will-redirect", (event) => stay(event, event.url));
  contents.on("will-attach-webview", (event) => event.preventDefault());
  contents.setWindowOpenHandler(({ url }) => {
    openLink(url);
    return { action: "deny" };
  });
  contents.setWebRTCIPHandlingPolicy("disable_non_proxied_udp");
};

export const hardenSession = (session: Session, { ui, dev, log }: Hardening): void => {
  session.setPermissionRequestHandler((contents, permission, callback, details) => {
    const requestingUrl = details.requestingUrl ?? contents.getURL();
    callback(permissionAllowed(permission, { requestingUrl, isMainFrame: details.isMainFrame }, ui));
  });
  session.setPermissionCheckHandler((_contents, permission, requestingOrigin, details) =>
    permissionAllowed(
      permission,
      { requestingUrl: details.requestingUrl ?? requestingOrigin, isMainFrame: details.isMainFrame },
      ui,
    ),
  );
  session.setDevicePermissionHandler(() => false);
  session.webRequest.onBeforeRequest((details, callback) => {
    callback({ cancel: !requestAllowed(details.url, ui, dev) });
  });
  session.on("will-download", (event, item) => {
    const filename = item.getFilename();
    if (!downloadAllowed({ url: item.getURL(), filename }, ui)) {
      event.preventDefault();
      log.warn("a download by the page was stopped");
      return;
    }
    // Without a path of ours Electron asks for one: the person says where, or that it shall not be.
    item.setSaveDialogOptions({
      defaultPath: join(app.getPath("downloads"), filename),
      filters: [{ name: "JSON", extensions: ["json"] }],
    });
  });
};
