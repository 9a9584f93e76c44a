import { networkInterfaces } from "node:os";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { NETWORK_POLL_MS, SLEEP_NOTICED_MS } from "#shared/base/limits.ts";

/** The addresses that others could reach this machine at, in an order that says nothing. */
export const ownAddresses = (): string =>
  Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal }) => !internal)
    .map(({ address, netmask }) => `${address} ${netmask}`)
    .sort()
    .join("\n");

/**
 * Tells when paths may have gone from under the links: another set of addresses, or a machine that slept. Nothing in Node
 * announces either, so both are looked for every NETWORK_POLL_MS; sleep shows as a poll that comes far too late.
 */
export class NetworkWatch implements Disposable {
  readonly #env: Pick<Env, "clock" | "log">;
  readonly #addresses: () => string;
  readonly #onChanged: (why: "interfaces" | "woke") => void;
  #seen: string;
  #dueWallMs = 0;
  #dueMs = 0;
  #timer: Disposable | null = null;

  constructor(
    env: Pick<Env, "clock" | "log">,
    onChanged: (why: "interfaces" | "woke") => void,
    addresses: () => string = ownAddresses,
  ) {
    this.#env = env;
    this.#onChanged = onChanged;
    this.#addresses = addresses;
    this.#seen = addresses();
    this.#schedule();
  }

  #schedule(): void {
    const { clock } = this.#env;
    this.#dueMs = clock.monotonicMs() + NETWORK_POLL_MS;
    this.#dueWallMs = clock.now() + NETWORK_POLL_MS;
    this.#timer = clock.setTimer(NETWORK_POLL_MS, () => this.#poll());
  }

  #poll(): void {
    const { clock } = this.#env;
    // The monotonic clock stands still during sleep on some systems, the wall clock jumps when it is set.
    const lateMs = Math.max(clock.monotonicMs() - this.#dueMs, clock.now() - this.#dueWallMs);
    this.#schedule();
    this.look();
    if (lateMs > SLEEP_NOTICED_MS) this.#tell("woke");
  }

  /** Compares now; the host calls it when it knows of something. */
  look(): void {
    const addresses = this.#addresses();
    if (addresses === this.#seen) return;
    this.#seen = addresses;
    this.#tell("interfaces");
  }

  #tell(why: "interfaces" | "woke"): void {
    this.#env.log.info("network changed", { why });
    this.#onChanged(why);
  }

  dispose(): void {
    this.#timer?.dispose();
    this.#timer = null;
  }
}
