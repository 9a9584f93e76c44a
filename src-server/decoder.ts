import * as parser from "socket.io-parser";
import { SERVER_MESSAGE_ATTACHMENTS_MAX, SERVER_MESSAGE_BYTES_MAX } from "#shared/base/limits.ts";

/**
 * socket.io sends each binary field as a websocket message of its own, so the size limit of a message is none for the
 * whole. This decoder bounds the whole, and allows as many fields as a key upload has (socket.io's default is 10).
 */
class BoundedDecoder extends parser.Decoder {
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

export const boundedParser = { Encoder: parser.Encoder, Decoder: BoundedDecoder };
