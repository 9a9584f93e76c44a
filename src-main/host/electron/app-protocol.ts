import { protocol } from "electron";
import { contentSecurityPolicy, securityHeaders } from "../policy/csp.ts";
import { readStatic } from "../policy/static-files.ts";
import { APP_ORIGIN, APP_SCHEME, isUiUrl } from "../policy/url-policy.ts";

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

export const answerAppRequest = async (request: Request, rendererDir: string): Promise<Response> => {
  const headers = securityHeaders(contentSecurityPolicy());
  const refuse = (status: number, message: string): Response =>
    new Response(`${message}\n`, { status, headers: { ...headers, "content-type": "text/plain; charset=utf-8" } });
  if (request.method !== "GET") return refuse(405, "Only GET is answered here.");
  const url = URL.parse(request.url);
  if (url === null || !isUiUrl(request.url, APP_ORIGIN)) return refuse(404, "There is no such page.");
  const file = await readStatic(rendererDir, url.pathname);
  if (!file.ok) return refuse(file.error.type === "not_built" ? 503 : 404, file.error.message);
  const { body, contentType, cacheControl } = file.value;
  return new Response(body, { headers: { ...headers, "content-type": contentType, "cache-control": cacheControl } });
};
