import { connect, type Socket } from "node:net";
import WebSocket from "ws";

export interface FloodCounts {
  readonly halfOpen: number;
  readonly fragments: number;
  readonly oversize: number;
  readonly oversizeBytes: number;
}

/** Somebody who never logs in, and takes what a server gives to those: the half-open connections stay until `end`. */
export class Flood {
  readonly #url: string;
  readonly #sockets: (Socket | WebSocket)[] = [];

  constructor(url: string) {
    this.#url = url;
  }

  async run({ halfOpen, fragments, oversize, oversizeBytes }: FloodCounts): Promise<void> {
    await Promise.all(Array.from({ length: halfOpen }, () => this.#halfOpen()));
    await this.#fragments(fragments);
    const message = Buffer.alloc(oversizeBytes);
    for (let i = 0; i < oversize; i++) await this.#oversize(message);
  }

  end(): void {
    for (const socket of this.#sockets) socket instanceof WebSocket ? socket.terminate() : socket.destroy();
  }

  /** Half a request: neither refused nor answered until the server has waited long enough. */
  #halfOpen(): Promise<void> {
    return new Promise((resolve) => {
      const { hostname, port } = new URL(this.#url);
      const socket = connect(Number(port), hostname, () => {
        socket.write("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nX-Half: ");
        resolve();
      });
      socket.on("error", () => resolve());
      this.#sockets.push(socket);
    });
  }

  #websocket(): Promise<WebSocket> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(`${this.#url}/socket.io/?EIO=4&transport=websocket`);
      socket.on("error", reject);
      socket.once("open", () => resolve(socket));
      this.#sockets.push(socket);
    });
  }

  /** One message that never ends, in pieces of one byte. */
  async #fragments(count: number): Promise<void> {
    const socket = await this.#websocket();
    const end = closed(socket);
    for (let sent = 0; sent < count && socket.readyState === WebSocket.OPEN; sent++) {
      await new Promise<void>((resolve) => socket.send("4", { fin: false }, () => resolve()));
    }
    // It is cut off for the pieces or, at the latest, for not logging in.
    await end;
  }

  async #oversize(message: Buffer): Promise<void> {
    const socket = await this.#websocket();
    const end = closed(socket);
    socket.send(message, () => undefined);
    await end;
  }
}

const closed = (socket: WebSocket): Promise<void> =>
  new Promise((resolve) => {
    socket.removeAllListeners("error");
    socket.on("error", () => undefined);
    if (socket.readyState === WebSocket.CLOSED) resolve();
    socket.once("close", () => resolve());
  });
