import type { Socket } from "socket.io";

interface Waiting {
  readonly relay: object;
  readonly frame: Uint8Array;
  handedOver(): void;
}

/**
 * Relayed frames on their way to one reader. A frame is given to the socket only when that has nothing else to write, so
 * that pushes and answers never wait behind more than one of them, and so that what waits is counted here, not in the
 * buffers of the libraries below. It is the window of each relay that bounds it.
 */
export class RelayOutbox {
  readonly #socket: Socket;
  #waiting: Waiting[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    // Our listener comes after engine.io's own, which hands on what it has buffered and is not writable then.
    socket.conn.transport.on("ready", () => this.#pump());
  }

  push(relay: object, frame: Uint8Array, handedOver: () => void): void {
    this.#waiting.push({ relay, frame, handedOver });
    this.#pump();
  }

  /** Forgets the frames of a relay that has ended. */
  drop(relay: object): void {
    this.#waiting = this.#waiting.filter((waiting) => waiting.relay !== relay);
  }

  #pump(): void {
    while (this.#socket.connected && this.#socket.conn.transport.writable) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#socket.emit("relay", next.frame);
      next.handedOver();
    }
  }
}
