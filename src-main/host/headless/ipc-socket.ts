import type { WebSocket } from "ws";
import type { Log } from "#shared/base/env.ts";
import { IPC_SEND_QUEUED_BYTES_MAX } from "#shared/base/limits.ts";
import type { EventSource } from "../../ipc/handlers.ts";
import type { IpcServer } from "../../ipc/server.ts";
import { decodeCall, encodeAnswer, encodeEvent, tooLarge } from "./frames.ts";

/**
 * One window (or program) on the bridge. Its calls run side by side and are answered as they finish. A socket that
 * does not read is cut off before its queue grows past the limit: whoever comes back asks for the lists, so a lost
 * snapshot does no harm. Messages above the size limit are refused by `ws` itself, with close code 1009.
 */
export const serveIpcSocket = (socket: WebSocket, server: IpcServer, events: EventSource, log: Log): void => {
  const send = (text: string): void => {
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount + text.length > IPC_SEND_QUEUED_BYTES_MAX) {
      log.warn("a window does not read what it is sent; its connection is closed", { queued: socket.bufferedAmount });
      socket.terminate();
      return;
    }
    socket.send(text);
  };

  const answer = async (text: string): Promise<void> => {
    const frame = decodeCall(text);
    if (!frame.ok) return send(encodeAnswer(frame.error.id, { ok: false, error: frame.error.error }));
    const { id, call, input } = frame.value;
    const reply = encodeAnswer(id, await server.call(call, input));
    send(reply.length > IPC_SEND_QUEUED_BYTES_MAX ? encodeAnswer(id, tooLarge) : reply);
  };

  const subscription = events((published) => send(encodeEvent(published)));
  socket.on("message", (data, isBinary) => {
    if (isBinary) return send(encodeAnswer(null, { ok: false, error: notText }));
    // `server.call` answers every failure as a value, so this promise cannot reject.
    void answer(data.toString());
  });
  socket.on("error", (error) => log.info("a window's connection was refused", { error: error.name }));
  socket.on("close", () => subscription.dispose());
};

const notText = { type: "bad_frame", message: "Calls are sent as JSON text, not as binary messages." };
