import type { Server, Socket } from "socket.io";
import {
  SERVER_CONNECTIONS_MAX,
  SERVER_PENDING_LOGINS_MAX,
  SERVER_PENDING_LOGINS_PER_ADDRESS_MAX,
} from "#shared/base/limits.ts";

/** The connection of engine.io below one of socket.io. */
export type EngineSocket = Socket["conn"];

/**
 * Connections that have not logged in. They have bounds of their own, in all and for one address, so that a flood of them
 * leaves everybody who is logged in, and every other address, alone.
 */
export class HalfOpen {
  readonly #byAddress = new Map<string, Set<EngineSocket>>();
  #count = 0;

  /** May one more connection come from here? */
  hasRoom(engine: Server["engine"], address: string): boolean {
    return (
      engine.clientsCount < SERVER_CONNECTIONS_MAX &&
      this.#count < SERVER_PENDING_LOGINS_MAX &&
      (this.#byAddress.get(address)?.size ?? 0) < SERVER_PENDING_LOGINS_PER_ADDRESS_MAX
    );
  }

  opened(connection: EngineSocket, address: string): void {
    const here = this.#byAddress.get(address) ?? new Set();
    if (here.has(connection)) return;
    here.add(connection);
    this.#byAddress.set(address, here);
    this.#count++;
  }

  /** It logged in or is gone; the second time changes nothing. */
  ended(connection: EngineSocket, address: string): void {
    const here = this.#byAddress.get(address);
    if (here?.delete(connection) !== true) return;
    this.#count--;
    if (here.size === 0) this.#byAddress.delete(address);
  }
}
