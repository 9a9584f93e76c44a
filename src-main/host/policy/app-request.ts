import { contentSecurityPolicy, securityHeaders } from "./csp.ts";
import { readStatic } from "./static-files.ts";
import { APP_ORIGIN, isUiUrl } from "./url-policy.ts";

/** The answer to one request of the window for `app://weir/...`: GET of a file of the built renderer, or a refusal. */
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
