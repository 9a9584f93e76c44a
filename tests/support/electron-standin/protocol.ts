/**
 * `protocol.handle`. Chromium knows no `app:` scheme here, so `app://host/x` is loaded as `https://host.app.standin/x`
 * and translated wherever the app or its handlers see an address.
 */
type Handler = (request: Request) => Response | Promise<Response>;

const handlerByScheme = new Map<string, Handler>();

export const protocol = {
  registerSchemesAsPrivileged(): void {},
  handle(scheme: string, handler: Handler): void {
    handlerByScheme.set(scheme, handler);
  },
  unhandle(scheme: string): void {
    handlerByScheme.delete(scheme);
  },
  isProtocolHandled: (scheme: string): boolean => handlerByScheme.has(scheme),
};

export const handlerOf = (url: string): Handler | null => handlerByScheme.get(url.slice(0, url.indexOf(":"))) ?? null;

export const toHttps = (url: string): string =>
  url.replace(/^([a-z][\w+.-]*):\/\/([^/?#]*)/i, (whole, scheme: string, host: string) =>
    handlerByScheme.has(scheme) ? `https://${host === "" ? "-" : host}.${scheme}.standin` : whole,
  );

export const fromHttps = (url: string): string =>
  url.replace(
    /^(blob:)?https:\/\/([^/?#]*)\.([\w+-]+)\.standin(?=[/?#]|$)/,
    (_whole, blob: string | undefined, host: string, scheme: string) =>
      `${blob ?? ""}${scheme}://${host === "-" ? "" : host}`,
  );
