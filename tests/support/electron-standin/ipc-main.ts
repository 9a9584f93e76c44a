import { EventEmitter } from "node:events";

type Handler = (event: unknown, ...args: unknown[]) => unknown;

class IpcMain extends EventEmitter {
  readonly #handlerByChannel = new Map<string, Handler>();

  handle(channel: string, handler: Handler): void {
    if (this.#handlerByChannel.has(channel)) {
      throw new Error(`Attempted to register a second handler for '${channel}'`);
    }
    this.#handlerByChannel.set(channel, handler);
  }
  removeHandler(channel: string): void {
    this.#handlerByChannel.delete(channel);
  }
  async invoke(channel: string, event: unknown, args: unknown[]): Promise<unknown> {
    const handler = this.#handlerByChannel.get(channel);
    if (handler === undefined) throw new Error(`No handler registered for '${channel}'`);
    return handler(event, ...args);
  }
}

export const ipcMain = new IpcMain();
