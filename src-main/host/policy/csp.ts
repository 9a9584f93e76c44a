/**
 * What a window may load. Everything comes from the built renderer itself; nothing inline, no eval, no remote host, no
 * frames, and only Svelte's own policy may turn strings into markup (Trusted Types).
 *
 * `connectSources` are the WebSocket origins of the headless bridge; under Electron there are none, since IPC is no fetch.
 */
export const contentSecurityPolicy = (connectSources: readonly string[] = []): string =>
  [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "font-src 'self'",
    "media-src 'self' blob:",
    `connect-src ${["'self'", ...connectSources].join(" ")}`,
    "worker-src 'self'",
    "object-src 'none'",
    "frame-src 'none'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types svelte-trusted-html",
  ].join("; ");

/** Sent with every response of either host, pages and errors alike. */
export const securityHeaders = (csp: string): Readonly<Record<string, string>> => ({
  "content-security-policy": csp,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "x-frame-options": "DENY",
  "permissions-policy":
    "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), microphone=(), midi=(), payment=(), serial=(), usb=()",
});
