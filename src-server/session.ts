import type { Socket } from "socket.io";
import type { Bytes } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { SERVER_SEND_QUEUE_MAX, SIGNAL_ACK_TIMEOUT_MS, SIGNALS_UNACKNOWLEDGED_MAX } from "#shared/base/limits.ts";
import type { Push } from "#shared/rendezvous/protocol.ts";
import { RelayOutbox } from "./relay-outbox.ts";

/** One device that is logged in, over one socket. It ends with the socket and is never reused. */
export class Session {
  readonly userId: UserId;
  readonly deviceId: number;
  readonly accountKey: Bytes;
  /** See `addressKey`. */
  readonly address: string;
  /** Relayed frames for this device. */
  readonly relayed: RelayOutbox;
  readonly #socket: Socket;
  readonly #queue: SendQueue;
  readonly #unacknowledged = new Set<(delivered: boolean) => void>();

  constructor(
    socket: Socket,
    queue: SendQueue,
    account: { userId: UserId; deviceId: number; accountKey: Bytes },
    address: string,
  ) {
    this.#socket = socket;
    this.#queue = queue;
    this.relayed = new RelayOutbox(socket);
    this.userId = account.userId;
    this.deviceId = account.deviceId;
    this.accountKey = account.accountKey;
    this.address = address;
  }

  get open(): boolean {
    return this.#socket.connected;
  }

  push(push: Push): void {
    if (!this.#queue.accepts) return;
    this.#socket.emit("push", push);
  }

  /** True once the client's program has the signal. False when it is gone, busy or silent. */
  async deliverSignal(push: Extract<Push, { name: "signal" }>): Promise<boolean> {
    if (!this.#queue.accepts || this.#unacknowledged.size >= SIGNALS_UNACKNOWLEDGED_MAX) return false;
    return new Promise((resolve) => {
      const settle = (delivered: boolean): void => {
        this.#unacknowledged.delete(settle);
        resolve(delivered);
      };
      this.#unacknowledged.add(settle);
      this.#socket
        .timeout(SIGNAL_ACK_TIMEOUT_MS)
        .emit("push", push, (timedOut: Error | null) => settle(timedOut === null));
    });
  }

  /** Call when the socket is gone: nobody waits for an acknowledgement that cannot come any more. */
  ended(): void {
    for (const settle of [...this.#unacknowledged]) settle(false);
  }

  close(): void {
    this.#socket.disconnect(true);
  }
}

/** Counts what waits for a client that does not read, and disconnects it before that fills the memory. */
export class SendQueue {
  readonly #socket: Socket;
  #waiting = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    // Packets wait in engine.io until the transport has handed over everything before them.
    socket.conn.on("packetCreate", () => this.#waiting++);
    socket.conn.on("flush", () => {
      this.#waiting = 0;
    });
  }

  /** False when the socket is closed, also because it was just found too slow. */
  get accepts(): boolean {
    if (!this.#socket.connected) return false;
    if (this.#waiting <= SERVER_SEND_QUEUE_MAX) return true;
    this.#socket.disconnect(true);
    // Nothing can be said to somebody who does not read: without this, what waits would stay until a timeout.
    this.#socket.request.socket.destroy();
    return false;
  }
}

/** Who is logged in now: at most one session per device. */
export class Online {
  readonly #byUser = new Map<string, Map<number, Session>>();
  #sessions = 0;

  get sessions(): number {
    return this.#sessions;
  }

  get users(): number {
    return this.#byUser.size;
  }

  of(userId: string): readonly Session[] {
    return [...(this.#byUser.get(userId)?.values() ?? [])];
  }

  /** Returns the session of the same device that this one replaces. */
  add(session: Session): Session | undefined {
    const devices = this.#byUser.get(session.userId) ?? new Map<number, Session>();
    const replaced = devices.get(session.deviceId);
    devices.set(session.deviceId, session);
    this.#byUser.set(session.userId, devices);
    if (replaced === undefined) this.#sessions++;
    return replaced;
  }

  /** False when another session has taken its place already. */
  remove(session: Session): boolean {
    const devices = this.#byUser.get(session.userId);
    if (devices?.get(session.deviceId) !== session) return false;
    devices.delete(session.deviceId);
    if (devices.size === 0) this.#byUser.delete(session.userId);
    this.#sessions--;
    return true;
  }
}
