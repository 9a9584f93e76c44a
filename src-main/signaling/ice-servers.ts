import type { Clock } from "#shared/base/env.ts";
import { ICE_SERVERS_KEPT_MS, TURN_REFRESH_BEFORE_MS } from "#shared/base/limits.ts";
import { ok, type Result } from "#shared/base/result.ts";
import type { RequestOutput } from "#shared/rendezvous/protocol.ts";

type Fetched = RequestOutput<"turn">;

/**
 * The STUN and TURN servers of the rendezvous server in use, as a link takes them. They are kept until shortly before the
 * credentials end. When new ones cannot be had the old ones do for as long as they hold; after that it is an error, which
 * leaves a link without these servers and does nothing worse.
 */
export class IceServers {
  readonly #clock: Clock;
  readonly #fetch: () => Promise<Result<Fetched>>;
  #known: { readonly urls: readonly string[]; readonly refreshAtMs: number; readonly endsAtMs: number } | null = null;
  #fetching: Promise<Result<readonly string[]>> | null = null;

  constructor(clock: Clock, fetch: () => Promise<Result<Fetched>>) {
    this.#clock = clock;
    this.#fetch = fetch;
  }

  get(): Promise<Result<readonly string[]>> {
    const { urls, refreshAtMs = 0 } = this.#known ?? {};
    if (urls !== undefined && this.#clock.monotonicMs() < refreshAtMs) return Promise.resolve(ok(urls));
    // Links that start together share one request.
    this.#fetching ??= this.#startFetch();
    return this.#fetching;
  }

  /** Another rendezvous server names other ones. */
  forget(): void {
    this.#known = null;
    this.#fetching = null;
  }

  #startFetch(): Promise<Result<readonly string[]>> {
    const askedAtMs = this.#clock.monotonicMs();
    const fetching = this.#fetch().then((fetched): Result<readonly string[]> => {
      const isCurrent = this.#fetching === fetching;
      if (isCurrent) this.#fetching = null;
      if (fetched.ok) {
        const urls = urlsOf(fetched.value);
        if (isCurrent) this.#keep(urls, askedAtMs, fetched.value.turn?.expiresInMs ?? ICE_SERVERS_KEPT_MS);
        return ok(urls);
      }
      const known = this.#known;
      return known !== null && this.#clock.monotonicMs() < known.endsAtMs ? ok(known.urls) : fetched;
    });
    return fetching;
  }

  #keep(urls: readonly string[], askedAtMs: number, expiresInMs: number): void {
    const endsAtMs = askedAtMs + expiresInMs;
    // A server may give shorter ones than ours does.
    this.#known = {
      urls,
      endsAtMs,
      refreshAtMs: Math.max(endsAtMs - TURN_REFRESH_BEFORE_MS, askedAtMs + expiresInMs / 2),
    };
  }
}

/** `stun:host:port` and `turn:user:password@host:port`; both parts are encoded, because a user name has a colon in it. */
const urlsOf = ({ stunUrls, turn }: Fetched): readonly string[] => {
  if (turn === null) return stunUrls;
  const login = `${encodeURIComponent(turn.username)}:${encodeURIComponent(turn.password)}`;
  return [...stunUrls, ...turn.urls.map((url) => url.replace(/^turn:/, `turn:${login}@`))];
};
