import { BULK_HEADER_BYTES, writeBulkHeader } from "#shared/wire/frame.ts";
import { linksOver, type Wire } from "./links-peer-process.ts";

/**
 * A person who, once linked, says a lot at once and ends in the same moment: messages and as much bulk as the link takes.
 * Tells its parent how much that was, before it begins to end.
 */
export interface LastWords {
  readonly messages: number;
  readonly bulkBytes: number;
}
const MESSAGES = 20;
const FRAME_BYTES = 64 * 1024;

if (process.argv[1] === import.meta.filename) {
  const { links, heard, peer } = linksOver(1, (wire) => process.send?.(wire));
  process.on("message", (wire: Wire) => heard(wire));
  const frame = new Uint8Array(FRAME_BYTES);
  writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence: 0, index: 0 }, FRAME_BYTES - BULK_HEADER_BYTES);

  const speakAndLeave = async (generation: number): Promise<void> => {
    let [messages, bulkBytes] = [0, 0];
    for (let tag = 0; tag < MESSAGES; tag += 1) if (links.send(peer, generation, { type: "stop", tag })) messages += 1;
    while (links.sendBulk(peer, generation, frame) === "sent") bulkBytes += FRAME_BYTES;
    const words: LastWords = { messages, bulkBytes };
    process.send?.({ words });
    await links.disable();
    links.dispose();
    process.disconnect();
  };
  // The first credit comes with the peer's side of the handshake: nothing of bulk passes before.
  links.onDrained(({ generation }) => void speakAndLeave(generation));
  links.onChanged(({ state, generation }) => {
    if (state === "connected" && links.sendBulk(peer, generation, frame) !== "full") process.exit(1);
  });
  links.enable();
  links.connect(peer);
}
