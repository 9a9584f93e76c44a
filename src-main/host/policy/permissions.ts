import { isUiUrl, type UiOrigin } from "./url-policy.ts";

/** Electron approves every permission by default. Ours: two harmless ones, for our own page, and nothing else. */
const ALLOWED: ReadonlySet<string> = new Set(["clipboard-sanitized-write", "notifications"]);

/** For the request handler and the check handler alike; `requestingUrl` is the page or origin that asks. */
export const permissionAllowed = (
  permission: string,
  request: { readonly requestingUrl: string | null | undefined; readonly isMainFrame: boolean },
  ui: UiOrigin,
): boolean => {
  if (!ALLOWED.has(permission) || !request.isMainFrame) return false;
  return typeof request.requestingUrl === "string" && isUiUrl(request.requestingUrl, ui);
};
