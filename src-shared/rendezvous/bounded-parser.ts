import { SERVER_MESSAGE_ATTACHMENTS_MAX, SERVER_MESSAGE_BYTES_MAX } from "../base/limits.ts";

/** What is used of the package socket.io-parser, which each side brings. */
interface PartDecoder {
  add(part: unknown): void;
  on(event: "decoded", listener: () => void): unknown;
}
interface Parser<Encoder> {
  readonly Encoder: Encoder;
  readonly Decoder: new (options: { maxAttachments: number }) => PartDecoder;
}

/**
 * socket.io sends each binary field as a websocket message of its own, so the size limit of a message is none for the
 * whole, and takes 10 of them in one packet: a share list of four operations would end the connection. The decoder of this
 * parser takes as many as a packet may have, and bounds the whole.
 */
export const boundedParser = <Encoder>({ Encoder, Decoder }: Parser<Encoder>) => {
  class BoundedDecoder extends Decoder {
    #bytes = 0;

    constructor() {
      super({ maxAttachments: SERVER_MESSAGE_ATTACHMENTS_MAX });
      this.on("decoded", () => {
        this.#bytes = 0;
      });
    }

    /** @throws Error when the packet is malformed or too large; socket.io then closes the connection. */
    override add(part: unknown): void {
      this.#bytes += typeof part === "string" ? part.length : part instanceof Uint8Array ? part.length : 0;
      if (this.#bytes > SERVER_MESSAGE_BYTES_MAX) throw new Error("the packet is too large");
      super.add(part);
    }
  }
  return { Encoder, Decoder: BoundedDecoder };
};
