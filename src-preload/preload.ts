import { contextBridge, ipcRenderer, webUtils } from "electron";
import { fail, type Result } from "#shared/base/result.ts";
import { ipcChannels } from "#shared/ipc/channels.ts";
import { type EventName, isCommandName, isEventName } from "#shared/ipc/contract.ts";

/**
 * All that the page gets from the program: `window.weir`, frozen by the context bridge. Names that are not in the
 * contract go nowhere, and no object of Electron is ever handed over.
 */
type Listener = (payload: unknown) => void;
const listenersByEvent = new Map<EventName, Set<Listener>>();

ipcRenderer.on(ipcChannels.event, (_event, name: unknown, payload: unknown) => {
  if (typeof name !== "string" || !isEventName(name)) return;
  for (const listener of [...(listenersByEvent.get(name) ?? [])]) listener(payload);
});

const call = async (name: unknown, input: unknown): Promise<Result<unknown>> => {
  if (typeof name !== "string" || !isCommandName(name)) {
    return fail(
      "unknown_command",
      "Weir does not know this command. The window and the program may differ in version.",
    );
  }
  return ipcRenderer.invoke(ipcChannels.call, name, input);
};

/** @throws TypeError for a name that is not in the contract or a listener that is no function. */
const on = (name: unknown, listener: unknown): (() => void) => {
  if (typeof name !== "string" || !isEventName(name) || typeof listener !== "function") {
    throw new TypeError("window.weir.on takes the name of an event and a function");
  }
  const entry: Listener = (payload) => listener(payload);
  const listeners = listenersByEvent.get(name) ?? new Set();
  listenersByEvent.set(name, listeners.add(entry));
  return () => {
    listeners.delete(entry);
  };
};

/** An opaque handle for a file that the person dropped or picked. @throws Error when it does not lie on the disk. */
const pathOf = async (file: File): Promise<string> => {
  const granted: Result<string> = await ipcRenderer.invoke(ipcChannels.grant, webUtils.getPathForFile(file));
  if (!granted.ok) throw new Error(granted.error.message);
  return granted.value;
};

contextBridge.exposeInMainWorld("weir", { call, on, pathOf });
