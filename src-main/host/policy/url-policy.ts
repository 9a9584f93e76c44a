import { fail, ok, type Result } from "#shared/base/result.ts";

/**
 * Which addresses may leave the window, and how. Links come from messages of other people, so each is hostile until it
 * has been parsed and written out anew: the program that opens it sees our spelling, never theirs.
 */
export type ExternalUrlError = { type: "link_refused"; message: string };

const URL_LENGTH_MAX = 2048;
/** Space, controls, quotes, backslash, bidi overrides: what other parsers read differently from the one used here. */
const AMBIGUOUS = /[\s\\"'`<>^{}|\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}]/u;
const MAIL_ADDRESS = /^[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$/;

/** The address to hand to the system's browser or mail program: http, https and plain mailto only. */
export const externalUrl = (raw: string): Result<string, ExternalUrlError> => {
  if (raw.length > URL_LENGTH_MAX) return refused("it is too long");
  if (AMBIGUOUS.test(raw)) return refused("it holds characters that a link may not hold");
  // The parser forgives "https:host" and "https:///host"; people and other programs may read those differently.
  if (!/^(https?:\/\/[^/]|mailto:[^/])/i.test(raw)) return refused("only web and e-mail links can be opened");
  const url = URL.parse(raw);
  if (url === null) return refused("it is malformed");
  switch (url.protocol) {
    case "http:":
    case "https:":
      // Seen in the raw text, because the parser drops empty ones: "https://:@host" looks like something else.
      if (/^https?:\/\/[^/?#]*@/i.test(raw)) return refused("it carries a user name or a password");
      if (url.hostname === "") return refused("it names no host");
      return ok(url.href);
    case "mailto:":
      // Only the address: parameters could attach files or add recipients in some mail programs.
      return MAIL_ADDRESS.test(url.pathname) ? ok(`mailto:${url.pathname}`) : refused("it is not an e-mail address");
    default:
      return refused("only web and e-mail links can be opened");
  }
};

const refused = (why: string) => fail("link_refused", `This link was not opened because ${why}.`);

/** Where the window's own pages come from: the app protocol, or in development the server of electron-vite. */
export interface UiOrigin {
  readonly protocol: string;
  readonly host: string;
}
export const APP_SCHEME = "app";
export const APP_ORIGIN: UiOrigin = { protocol: `${APP_SCHEME}:`, host: "weir" };

/** The development server is honoured only in an unpackaged program, and only on this machine. */
export const uiOrigin = (devServerUrl: string | undefined, packaged: boolean): UiOrigin => {
  const dev = devServerUrl === undefined || packaged ? null : URL.parse(devServerUrl);
  const local = dev !== null && dev.protocol === "http:" && ["localhost", "127.0.0.1"].includes(dev.hostname);
  return local ? { protocol: dev.protocol, host: dev.host } : APP_ORIGIN;
};

/** Compares scheme and host, because `origin` is "null" for schemes that the URL standard does not know. */
export const isUiUrl = (raw: string, ui: UiOrigin): boolean => {
  const url = URL.parse(raw);
  return (
    url !== null && url.protocol === ui.protocol && url.host === ui.host && url.username === "" && url.password === ""
  );
};

/** Everything else the window asks the network for is cancelled: there is no reason for it to ask. */
export const requestAllowed = (raw: string, ui: UiOrigin, dev: boolean): boolean => {
  if (isUiUrl(raw, ui)) return true;
  const url = URL.parse(raw);
  if (url === null) return false;
  if (url.protocol === "blob:") return isUiUrl(raw.slice("blob:".length), ui);
  if (!dev) return false;
  return url.protocol === "devtools:" || (url.protocol === "ws:" && url.host === ui.host);
};
