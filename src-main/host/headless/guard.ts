import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";

/**
 * Who may talk to the bridge. It listens on 127.0.0.1 only, but every web page that the person opens can reach that
 * address, and so can other users of the machine. Three independent locks:
 *
 * - Host must be our address: a foreign name that resolves to 127.0.0.1 (DNS rebinding) is refused.
 * - Origin, when a browser sends one, must be our own page.
 * - A 256-bit token, new with every start, for everything but the static files of the window.
 */
export class Guard {
  readonly #tokenHash: Buffer;
  readonly #hosts: ReadonlySet<string>;

  constructor(token: string, port: number) {
    this.#tokenHash = sha256(token);
    this.#hosts = new Set([`127.0.0.1:${port}`, `localhost:${port}`]);
  }

  hostAllowed(headers: IncomingHttpHeaders): boolean {
    return headers.host !== undefined && this.#hosts.has(headers.host.toLowerCase());
  }

  /** No Origin means no browser page asked: programs, and navigation. */
  originAllowed(headers: IncomingHttpHeaders): boolean {
    const { origin } = headers;
    if (origin === undefined) return true;
    return origin.startsWith("http://") && this.#hosts.has(origin.slice("http://".length));
  }

  /** Compares hashes in constant time, so neither the length nor a prefix of the token leaks. */
  tokenAllowed(token: string | null): boolean {
    return token !== null && timingSafeEqual(sha256(token), this.#tokenHash);
  }

  /** `Authorization: Bearer TOKEN`. */
  bearerAllowed(headers: IncomingHttpHeaders): boolean {
    const match = /^Bearer ([A-Za-z0-9_-]+)$/i.exec(headers.authorization ?? "");
    return this.tokenAllowed(match?.[1] ?? null);
  }
}

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();
