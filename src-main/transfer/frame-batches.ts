import type { Payload } from "#shared/wire/frame.ts";

/** Counts how many frames of a batch are not sent yet, by the buffer that they share. A batch of which one was dropped stays. */
export class FrameBatches {
  readonly #unsent = new WeakMap<ArrayBuffer, number>();

  add(frames: readonly { readonly bytes: Payload }[]): void {
    const first = frames[0]?.bytes;
    if (!(first instanceof Uint8Array)) return;
    if (frames.every(({ bytes }) => bytes instanceof Uint8Array && bytes.buffer === first.buffer))
      this.#unsent.set(first.buffer, frames.length);
  }

  /** The buffer, when this was the last frame of its batch: it can be filled again. */
  sent(frame: Payload): ArrayBuffer | null {
    if (!(frame instanceof Uint8Array)) return null;
    const { buffer } = frame;
    const unsent = this.#unsent.get(buffer);
    if (unsent === undefined) return null;
    this.#unsent.set(buffer, unsent - 1);
    return unsent === 1 ? buffer : null;
  }
}
