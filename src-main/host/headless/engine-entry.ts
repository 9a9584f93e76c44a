import { runEngine } from "../../engine/engine.ts";
import type { ToEngine } from "../../engine/engine-protocol.ts";
import { withOwnBytes } from "./own-bytes.ts";

runEngine({
  post: (messages) => void process.send?.(messages, undefined, {}, () => undefined),
  onMessages(receive) {
    // Both ends are the same build.
    process.on("message", (messages) => receive(withOwnBytes(messages) as ToEngine[]));
  },
});
// The main process is gone. There is nothing to save, and the next one may want chunks.db.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
