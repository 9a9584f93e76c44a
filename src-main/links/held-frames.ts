import type { Bytes } from "#shared/base/bytes.ts";
import type { HeldFrame } from "#shared/wire/frame.ts";

/** What a frame costs besides its bytes. */
const ENTRY_BYTES = 128;

/**
 * Frames that stay in this process while the other one decides about them by number. Each is taken once: sent, stored
 * or dropped. One that a connection received ends with it at the latest.
 */
export class HeldFrames {
  readonly #frames = new Map<number, { readonly bytes: Bytes; readonly receivedBy: number | null }>();
  readonly #costs = new Map<number, number>();
  #next: number;

  /** `first`: numbers start here. Another process's must not pass for ours. */
  constructor(first: number) {
    this.#next = first;
  }

  get size(): number {
    return this.#frames.size;
  }

  /** `receivedBy`: the connection; null for a frame that was read to be sent. */
  hold(bytes: Bytes, receivedBy: number | null): HeldFrame {
    const frame = this.#next++;
    this.#frames.set(frame, { bytes, receivedBy });
    if (receivedBy !== null) this.#costs.set(receivedBy, this.costOf(receivedBy) + bytes.length + ENTRY_BYTES);
    return { frame, byteLength: bytes.length };
  }

  /** Null for one that is gone with its connection. */
  take(frame: number): Bytes | null {
    const found = this.#frames.get(frame);
    if (found === undefined) return null;
    const { bytes, receivedBy } = found;
    this.#frames.delete(frame);
    if (receivedBy !== null) this.#costs.set(receivedBy, this.costOf(receivedBy) - bytes.length - ENTRY_BYTES);
    return bytes;
  }

  /** Memory of the frames that this connection received. */
  costOf(connection: number): number {
    return this.#costs.get(connection) ?? 0;
  }

  closed(connection: number): void {
    for (const [frame, { receivedBy }] of this.#frames) if (receivedBy === connection) this.#frames.delete(frame);
    this.#costs.delete(connection);
  }
}
