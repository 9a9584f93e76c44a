import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type RawData, WebSocket, WebSocketServer } from "ws";

/**
 * A hostile man in the middle who only listens: passes every WebSocket message on and keeps a copy, without the masking
 * that RFC 6455 puts over what clients send (which would hide any text from a plain capture).
 */
export interface RecordingProxy extends AsyncDisposable {
  readonly url: string;
  /** Everything that passed, both ways. */
  recorded(): Buffer;
  messages(): number;
}

const bytesOf = (data: RawData): Buffer =>
  Buffer.isBuffer(data) ? data : Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);

export const createRecordingProxy = async (targetUrl: string): Promise<RecordingProxy> => {
  const http = createServer((_, response) => response.writeHead(404).end());
  const sockets = new WebSocketServer({ server: http });
  const seen: Buffer[] = [];
  const open = new Set<WebSocket>();
  sockets.on("connection", (client, request) => {
    seen.push(Buffer.from(`${request.url}\n${JSON.stringify(request.headers)}\n`));
    // The server compares the Host header with what the client signed, so it has to be the client's own.
    const server = new WebSocket(new URL(request.url ?? "/", targetUrl), {
      headers: { host: request.headers.host ?? "" },
    });
    const early: [RawData, boolean][] = [];
    for (const socket of [client, server]) open.add(socket);
    const pass = (from: WebSocket, to: WebSocket): void => {
      from.on("message", (data, binary) => {
        seen.push(bytesOf(data));
        if (to.readyState === WebSocket.OPEN) to.send(data, { binary });
        else early.push([data, binary]);
      });
      from.on("close", () => to.close());
      from.on("error", () => to.terminate());
    };
    pass(client, server);
    pass(server, client);
    server.on("open", () => {
      for (const [data, binary] of early.splice(0)) server.send(data, { binary });
    });
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  return {
    url: `ws://127.0.0.1:${(http.address() as AddressInfo).port}`,
    recorded: () => Buffer.concat(seen),
    messages: () => seen.length,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.terminate();
      sockets.close();
      await new Promise((resolve) => http.close(resolve));
    },
  };
};
