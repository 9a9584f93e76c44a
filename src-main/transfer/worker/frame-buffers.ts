import { FRAME_BUFFERS_KEPT } from "#shared/base/limits.ts";

/**
 * Buffers of frames that were sent come back from the main thread and are filled again: a megabyte of fresh memory for
 * every batch made the garbage collector the second largest user of the processor.
 */
export class FrameBuffers {
  #spare: ArrayBuffer[] = [];

  /** At least `bytes` long; what is in it is old. */
  take(bytes: number): ArrayBuffer {
    const at = this.#spare.findIndex((buffer) => buffer.byteLength >= bytes);
    const [found] = at < 0 ? [] : this.#spare.splice(at, 1);
    return found ?? Buffer.allocUnsafeSlow(bytes).buffer;
  }

  give(buffer: ArrayBuffer): void {
    this.#spare = [...this.#spare, buffer].slice(-FRAME_BUFFERS_KEPT);
  }
}
