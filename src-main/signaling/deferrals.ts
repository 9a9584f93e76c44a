import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { ENVELOPE_RETRY_BASE_MS, ENVELOPE_RETRY_MAX_MS, MAILBOX_DEFERRED_MAX } from "#shared/base/limits.ts";

/**
 * Where a deferred sender is:
 *
 *   told by `defer` -> deferring --the server knows--> resting --time, or askAgain--> gone: the server pushes again
 *                          | askAgain
 *                          '--> wanted ------the server knows--> gone
 *
 * A sender stays here until the server knows of it: what it pushed until then was dropped and must be pushed again.
 */
type Deferral =
  | { readonly kind: "deferring" }
  | { readonly kind: "wanted" }
  | { readonly kind: "resting"; readonly timer: Disposable };

/**
 * Senders whose envelopes could not be taken in. The server is asked to keep theirs back, because every envelope that is
 * not acknowledged takes a place in the push window, and to push it again some time later or when something changed.
 */
export class Deferrals implements Disposable {
  readonly #env: Env;
  /** Tells the server the whole set; false when that failed. */
  readonly #tell: (senders: UserId[]) => Promise<boolean>;
  readonly #senders = new Map<UserId, Deferral>();
  /** Failures in a row, for the length of the rest. */
  readonly #attempts = new Map<UserId, number>();
  #state: "current" | "telling" | "again" = "current";
  /** One object per connection, null without one: the server knows nothing of what an earlier one was told. */
  #connection: object | null = null;
  #retry: Disposable | null = null;

  constructor(env: Env, tell: (senders: UserId[]) => Promise<boolean>) {
    this.#env = env;
    this.#tell = tell;
  }

  has(sender: UserId): boolean {
    return this.#senders.has(sender);
  }

  connected(): void {
    this.#clear();
    this.#connection = {};
    // A request of the last connection may still reach the server, over this one.
    if (this.#state !== "current") this.#update();
  }

  /** The next connection gets everything pushed anyway. */
  lost(): void {
    this.#connection = null;
    this.#clear();
  }

  defer(sender: UserId): void {
    if (this.#connection === null) return;
    if (this.#senders.has(sender) || this.#senders.size >= MAILBOX_DEFERRED_MAX) return;
    this.#senders.set(sender, { kind: "deferring" });
    this.#update();
  }

  takenIn(sender: UserId): void {
    this.#attempts.delete(sender);
  }

  /** What stood in the way of this sender's mail may be gone. */
  askAgain(sender: UserId): void {
    const deferral = this.#senders.get(sender);
    this.#attempts.delete(sender);
    if (deferral?.kind === "deferring") this.#senders.set(sender, { kind: "wanted" });
    if (deferral?.kind === "resting") this.#release(sender);
  }

  dispose(): void {
    this.lost();
  }

  #clear(): void {
    for (const deferral of this.#senders.values()) if (deferral.kind === "resting") deferral.timer.dispose();
    this.#senders.clear();
    this.#attempts.clear();
    this.#retry?.dispose();
    this.#retry = null;
  }

  #release(sender: UserId): void {
    const deferral = this.#senders.get(sender);
    if (deferral?.kind === "resting") deferral.timer.dispose();
    this.#senders.delete(sender);
    this.#update();
  }

  #update(): void {
    if (this.#state === "current") {
      this.#state = "telling";
      void this.#tellAll();
    } else this.#state = "again";
  }

  /** One request at a time, so that the last word is the newest. `tell` never rejects. */
  async #tellAll(): Promise<void> {
    const connection = this.#connection;
    const senders = [...this.#senders.keys()];
    const known = await this.#tell(senders);
    const changed = this.#state === "again";
    this.#state = "current";
    if (connection === null || connection !== this.#connection) {
      if (changed && this.#connection !== null) this.#update();
    } else if (known) {
      for (const sender of senders) this.#known(sender);
      if (changed) this.#update();
    } else {
      this.#retry?.dispose();
      this.#retry = this.#env.clock.setTimer(ENVELOPE_RETRY_BASE_MS, () => this.#update());
    }
  }

  #known(sender: UserId): void {
    const deferral = this.#senders.get(sender);
    if (deferral?.kind === "wanted") this.#release(sender);
    if (deferral?.kind !== "deferring") return;
    const attempts = this.#attempts.get(sender) ?? 0;
    this.#attempts.set(sender, attempts + 1);
    const restMs = Math.min(ENVELOPE_RETRY_MAX_MS, ENVELOPE_RETRY_BASE_MS * 2 ** Math.min(attempts, 20));
    const timer = this.#env.clock.setTimer(restMs, () => this.#release(sender));
    this.#senders.set(sender, { kind: "resting", timer });
  }
}
