import type { Log } from "#shared/base/env.ts";
import type { EnvelopeId, Generation, UserId } from "#shared/base/ids.ts";
import { MAILBOX_PUSH_WINDOW } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { Deferrals } from "./deferrals.ts";
import type { EnvelopePush } from "./signaling.ts";

type EnvelopeHandler = (envelope: EnvelopePush) => Promise<"ack" | "retry">;

/**
 * Hands envelopes to their one consumer, one at a time and in order, and acknowledges what it made durable. What waits
 * here when the connection breaks is dropped: the server pushes everything that was not acknowledged again, in order. After
 * an envelope that cannot be taken in, what else its sender sent is left to the server for a while: see {@link Deferrals}.
 */
export class EnvelopeInbox {
  readonly #log: Log;
  /** True when the server deleted them. Waits for a connection by itself. */
  readonly #acknowledge: (ids: EnvelopeId[]) => Promise<boolean>;
  readonly #deferrals: Deferrals;
  readonly #countStale: () => void;
  #handler: EnvelopeHandler | null = null;
  #queue: EnvelopePush[] = [];
  #generation: Generation = 0;
  #handling = false;
  readonly #done = new Set<EnvelopeId>();
  #acknowledging = false;

  constructor(
    log: Log,
    acknowledge: (ids: EnvelopeId[]) => Promise<boolean>,
    deferrals: Deferrals,
    countStale: () => void,
  ) {
    this.#log = log;
    this.#acknowledge = acknowledge;
    this.#deferrals = deferrals;
    this.#countStale = countStale;
  }

  setHandler(handler: EnvelopeHandler): void {
    this.#handler = handler;
    this.#handleAll();
  }

  connected(generation: Generation): void {
    this.#generation = generation;
    this.#queue = [];
    this.#deferrals.connected();
  }

  lost(): void {
    this.#queue = [];
    this.#deferrals.lost();
  }

  received(envelope: EnvelopePush): void {
    // Sent before the server knew.
    if (this.#deferrals.has(envelope.from)) return;
    // An honest server never has more than its window unacknowledged.
    if (this.#queue.length >= MAILBOX_PUSH_WINDOW) {
      this.#countStale();
      return;
    }
    this.#queue.push(envelope);
    this.#handleAll();
  }

  #handleAll(): void {
    if (this.#handling) return;
    this.#handling = true;
    this.#run()
      .catch((error: unknown) => this.#log.error("envelopes stopped", { error: messageOf(error) }))
      .finally(() => {
        this.#handling = false;
        if (this.#queue.length > 0 && this.#handler !== null) this.#handleAll();
      });
  }

  async #run(): Promise<void> {
    while (this.#handler !== null) {
      const envelope = this.#queue.shift();
      if (envelope === undefined) return;
      const generation = this.#generation;
      const verdict = await this.#handle(this.#handler, envelope);
      // Durable is durable, whichever connection brought it: the acknowledgement goes over the current one.
      if (generation !== this.#generation) this.#countStale();
      if (verdict === "ack") {
        this.#deferrals.takenIn(envelope.from);
        this.#acknowledgeLater(envelope.id);
      } else if (generation === this.#generation) this.#defer(envelope.from);
    }
  }

  #defer(sender: UserId): void {
    this.#queue = this.#queue.filter((envelope) => envelope.from !== sender);
    this.#deferrals.defer(sender);
  }

  async #handle(handler: EnvelopeHandler, envelope: EnvelopePush): Promise<"ack" | "retry"> {
    try {
      return await handler(envelope);
    } catch (error) {
      this.#log.error("an envelope could not be handled and stays at the server", { error: messageOf(error) });
      return "retry";
    }
  }

  #acknowledgeLater(id: EnvelopeId): void {
    this.#done.add(id);
    this.#startAcknowledging();
  }

  #startAcknowledging(): void {
    if (this.#acknowledging || this.#done.size === 0) return;
    this.#acknowledging = true;
    this.#acknowledgeAll()
      .catch((error: unknown) => this.#log.error("acknowledging stopped", { error: messageOf(error) }))
      .finally(() => {
        this.#acknowledging = false;
        this.#startAcknowledging();
      });
  }

  /** One request at a time; what is done meanwhile goes together with the next. */
  async #acknowledgeAll(): Promise<void> {
    while (this.#done.size > 0) {
      const ids = [...this.#done].slice(0, MAILBOX_PUSH_WINDOW);
      for (const id of ids) this.#done.delete(id);
      // When this fails, the envelopes come again and are recognised above.
      if (!(await this.#acknowledge(ids))) this.#log.warn("envelopes were not acknowledged", { count: ids.length });
    }
  }
}
