import { runEngine } from "../../engine/engine.ts";

/** Electron ends it together with the main process. */
const { parentPort } = process;
runEngine({
  post: (messages) => parentPort.postMessage(messages),
  onMessages(receive) {
    parentPort.on("message", ({ data }) => receive(data));
  },
});
