import * as parser from "socket.io-parser";
import { SERVER_MESSAGE_ATTACHMENTS_MAX, SERVER_MESSAGE_BYTES_MAX } from "#shared/base/limits.ts";

/**
 * socket.io sends each binary field as a websocket message of its own, and takes 10 of them in one packet: a share list
 * of four operations would end the connection. This decoder takes as many as the server may send, and bounds the whole.
 */
class BoundedDecoder extends parser.Decoder {
  #bytes = 0;

  constructor() {
    super({ maxAttachments: SERVER_MESSAGE_ATTACHMENTS_MAX });
    this.on("decoded", () => {
      this.#bytes = 0;
    });
  }

  /** @throws Error when the packet is malformed or too large; the connection ends then. */
  override add(part: unknown): void {
    this.#bytes += typeof part === "string" ? part.length : part instanceof Uint8Array ? part.length : 0;
    if (this.#bytes > SERVER_MESSAGE_BYTES_MAX) throw new Error("the packet is too large");
    super.add(part);
  }
}

export const boundedParser = { Encoder: parser.Encoder, Decoder: BoundedDecoder };
