import { BurstyRateLimiter, type RateLimiterAbstract, RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import {
  RATE_BUNDLE_FETCHES,
  RATE_BUNDLE_WINDOW_MS,
  RATE_CODE_TRIES,
  RATE_CODE_TRIES_PER_ADDRESS,
  RATE_CODE_WINDOW_MS,
  RATE_LOGINS_PER_ADDRESS,
  RATE_LOGINS_WINDOW_MS,
  RATE_REQUESTS_BURST,
  RATE_REQUESTS_PER_SECOND,
  RATE_TURN_FETCHES,
  RATE_TURN_WINDOW_MS,
} from "#shared/base/limits.ts";

/** Bounds of one server; the defaults are the limits of src-shared, tests and busy installations set others. */
export interface RateOptions {
  readonly requestsBurst: number;
  readonly requestsPerSecond: number;
  readonly loginsPerAddress: number;
  readonly codeTries: number;
  readonly codeTriesPerAddress: number;
  readonly bundleFetches: number;
  readonly turnFetches: number;
}

export const defaultRates: RateOptions = {
  requestsBurst: RATE_REQUESTS_BURST,
  requestsPerSecond: RATE_REQUESTS_PER_SECOND,
  loginsPerAddress: RATE_LOGINS_PER_ADDRESS,
  codeTries: RATE_CODE_TRIES,
  codeTriesPerAddress: RATE_CODE_TRIES_PER_ADDRESS,
  bundleFetches: RATE_BUNDLE_FETCHES,
  turnFetches: RATE_TURN_FETCHES,
};

/** The part of every limiter of rate-limiter-flexible that is used here. */
interface Limiter {
  consume(key: string, points: number): Promise<unknown>;
}

/** Milliseconds after which a refused request may be tried again; null when it is allowed now and was counted. */
type Wait = number | null;

const take = async (limiter: Limiter, key: string, points = 1): Promise<Wait> => {
  try {
    await limiter.consume(key, points);
    return null;
  } catch (refused) {
    if (refused instanceof RateLimiterRes) return Math.max(1, Math.ceil(refused.msBeforeNext));
    throw refused;
  }
};

/** Allows so many `points` of one key in a time. */
export type MakeLimiter = (keyPrefix: string, points: number, durationMs: number) => RateLimiterAbstract;

export const memoryLimiter = (keyPrefix: string, points: number, durationMs: number): RateLimiterMemory =>
  new RateLimiterMemory({ keyPrefix, points, duration: durationMs / 1000 });

/**
 * In memory on purpose: a restart forgives, and a refused client only waits. What bounds guesses, or what one account takes
 * from others, several nodes count together with `limiter`. The general rate stays with each node: a device is at one, and
 * a question to Redis before every request would cost more than most requests.
 */
export class Rates {
  readonly #requests: BurstyRateLimiter;
  readonly #logins: RateLimiterAbstract;
  readonly #codesByUser: RateLimiterAbstract;
  readonly #codesByAddress: RateLimiterAbstract;
  readonly #bundles: RateLimiterAbstract;
  readonly #turn: RateLimiterAbstract;

  constructor(options: RateOptions, limiter: MakeLimiter) {
    const refillMs = (options.requestsBurst / options.requestsPerSecond) * 1000;
    this.#requests = new BurstyRateLimiter(
      memoryLimiter("steady", options.requestsPerSecond, 1000),
      memoryLimiter("burst", options.requestsBurst, refillMs),
    );
    this.#logins = limiter("login", options.loginsPerAddress, RATE_LOGINS_WINDOW_MS);
    this.#codesByUser = limiter("code", options.codeTries, RATE_CODE_WINDOW_MS);
    this.#codesByAddress = limiter("codeAddress", options.codeTriesPerAddress, RATE_CODE_WINDOW_MS);
    this.#bundles = limiter("bundle", options.bundleFetches, RATE_BUNDLE_WINDOW_MS);
    this.#turn = limiter("turn", options.turnFetches, RATE_TURN_WINDOW_MS);
  }

  request(userId: string, cost: number): Promise<Wait> {
    return take(this.#requests, userId, cost);
  }

  login(address: string): Promise<Wait> {
    return take(this.#logins, address);
  }

  bundle(fetcher: string, owner: string): Promise<Wait> {
    return take(this.#bundles, `${fetcher}/${owner}`);
  }

  turn(userId: string): Promise<Wait> {
    return take(this.#turn, userId);
  }

  /**
   * One try to resolve a code. It counts before it is known to be wrong, so that many at once are as many tries;
   * {@link rightCode} takes it back.
   */
  async codeTry(userId: string, address: string): Promise<Wait> {
    const ofUser = await take(this.#codesByUser, userId);
    if (ofUser !== null) return ofUser;
    const ofAddress = await take(this.#codesByAddress, address);
    if (ofAddress !== null) await this.#codesByUser.reward(userId);
    return ofAddress;
  }

  async rightCode(userId: string, address: string): Promise<void> {
    await Promise.all([this.#codesByUser.reward(userId), this.#codesByAddress.reward(address)]);
  }
}

/**
 * What counts as one remote address: an IPv4 address, or the /64 of an IPv6 address, because one household or machine
 * has a whole /64 to itself.
 */
export const addressKey = (address: string): string => {
  const plain = address.toLowerCase().replace(/^::ffff:(?=\d+\.)/, "");
  if (!plain.includes(":")) return plain;
  const [head = "", tail] = plain.replace(/%.*$/, "").split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const missing = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length);
  const groups = [...left, ...new Array<string>(missing).fill("0"), ...right];
  return groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":");
};
