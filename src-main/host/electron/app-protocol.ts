import { protocol } from "electron";
import { answerAppRequest } from "../policy/app-request.ts";
import { APP_ORIGIN, APP_SCHEME } from "../policy/url-policy.ts";

/**
 * `app://weir/...`: the built renderer, and nothing but it. A scheme of our own instead of file:, which could read the
 * whole disk and has no origin.
 */
export const APP_URL = `${APP_ORIGIN.protocol}//${APP_ORIGIN.host}/index.html`;

/** Must run before Electron is ready. */
export const registerAppScheme = (): void =>
  protocol.registerSchemesAsPrivileged([
    { scheme: APP_SCHEME, privileges: { standard: true, secure: true, supportFetchAPI: true } },
  ]);

export const serveApp = (rendererDir: string): void =>
  protocol.handle(APP_SCHEME, (request) => answerAppRequest(request, rendererDir));
