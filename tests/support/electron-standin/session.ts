import { EventEmitter } from "node:events";
import { protocol } from "./protocol.ts";
import { recorded } from "./recorded.ts";

/** One session. Request filters are obeyed by the windows; permission handlers are kept for a test to ask. */
type RequestFilter = (details: { url: string }, callback: (response: { cancel?: boolean }) => void) => void;

class Session extends EventEmitter {
  readonly protocol = protocol;
  readonly cookies = recorded("cookies", ["get", "set", "remove"]);
  permissionRequestHandler: unknown = null;
  permissionCheckHandler: unknown = null;
  devicePermissionHandler: unknown = null;
  #filter: RequestFilter | null = null;

  readonly webRequest = {
    onBeforeRequest: (filter: RequestFilter | null): void => {
      this.#filter = filter;
    },
  };
  isCancelled(url: string): Promise<boolean> {
    const filter = this.#filter;
    if (filter === null) return Promise.resolve(false);
    return new Promise((resolve) => filter({ url }, ({ cancel }) => resolve(cancel === true)));
  }
  setPermissionRequestHandler(handler: unknown): void {
    this.permissionRequestHandler = handler;
  }
  setPermissionCheckHandler(handler: unknown): void {
    this.permissionCheckHandler = handler;
  }
  setDevicePermissionHandler(handler: unknown): void {
    this.devicePermissionHandler = handler;
  }
}

const defaultSession = new Session();
export const session = { defaultSession, fromPartition: () => defaultSession };
