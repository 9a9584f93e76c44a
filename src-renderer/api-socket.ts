import { IPC_CALLS_PENDING_MAX, SERVER_RECONNECT_MAX_MS } from "#shared/base/limits.ts";
import { type AppError, fail, ok, type Result } from "#shared/base/result.ts";
import { type CommandName, type EventName, isEventName } from "#shared/ipc/contract.ts";
import type { Api, HostLink } from "./api.ts";
import type { DroppedFolder } from "./state/dropped-folders.ts";

/**
 * The contract over the headless host's WebSocket.
 *
 *   out  {"id":1,"call":"messages.send","input":{...}}
 *   in   {"id":1,"ok":true,"value":...} | {"id":1,"ok":false,"error":{type,message}} | {"event":"...","payload":...}
 *
 * A lost connection fails every call that was under way (nobody knows whether it ran) and is opened again with
 * backoff. Events that happened meanwhile are not sent again: whoever listens fetches its lists anew.
 */

const TOKEN_KEY = "weir.token";
const RECONNECT_BASE_MS = 250;
/** The host closes with this code when the token is wrong: trying again cannot help. */
const CLOSE_POLICY = 1008;
/** A refused handshake shows only as a close without an open. This page came from the host, so it does run. */
const REFUSED_AFTER = 2;

/**
 * The token comes in the fragment of the address that the host printed. It leaves the address bar at once, so that
 * it does not end up in the history or in a copied address, and is kept for reloads of this tab only.
 */
const takeToken = (): string => {
  const fromAddress = location.hash.slice(1);
  if (fromAddress !== "") {
    sessionStorage.setItem(TOKEN_KEY, fromAddress);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(TOKEN_KEY) ?? "";
};

type Incoming =
  | { kind: "answer"; id: number; result: Result<unknown> }
  | { kind: "event"; event: EventName; payload: unknown }
  | { kind: "unknown" };

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

const isAppError = (value: unknown): value is AppError =>
  isRecord(value) && typeof value["type"] === "string" && typeof value["message"] === "string";

/** One message of the host; anything that is not in the table above is `unknown` and ignored. */
export const decodeIncoming = (text: unknown): Incoming => {
  if (typeof text !== "string") return { kind: "unknown" };
  let message: unknown;
  try {
    message = JSON.parse(text);
  } catch {
    return { kind: "unknown" };
  }
  if (!isRecord(message)) return { kind: "unknown" };
  const { id, event } = message;
  if (typeof event === "string" && isEventName(event)) return { kind: "event", event, payload: message["payload"] };
  if (typeof id !== "number") return { kind: "unknown" };
  if (message["ok"] === true) return { kind: "answer", id, result: ok(message["value"]) };
  const error = message["error"];
  return {
    kind: "answer",
    id,
    result: isAppError(error) ? { ok: false, error } : fail("internal", "Weir answered in an unknown form."),
  };
};

/** Half of an exponential delay is fixed and half random, so that many windows do not return in step. */
export const backoffMs = (attempt: number, random: number): number => {
  const full = Math.min(SERVER_RECONNECT_MAX_MS, RECONNECT_BASE_MS * 2 ** Math.min(attempt, 16));
  return full / 2 + (random * full) / 2;
};

type Settle = (result: Result<unknown>) => void;

export const connectSocket = (): Api => {
  const token = takeToken();
  const pendingById = new Map<number, Settle>();
  const listenersByEvent = new Map<EventName, Set<(payload: unknown) => void>>();
  const linkListeners = new Set<(state: HostLink) => void>();
  let link: HostLink = "connecting";
  let socket: WebSocket | null = null;
  let lastId = 0;
  let failures = 0;
  let everOpened = false;

  const setLink = (next: HostLink): void => {
    if (link === next) return;
    link = next;
    for (const listener of [...linkListeners]) listener(next);
  };

  const failPending = (): void => {
    const settles = [...pendingById.values()];
    pendingById.clear();
    for (const settle of settles) {
      settle(fail("host_lost", "The connection to Weir was lost before it answered. It is being restored."));
    }
  };

  const receive = (text: unknown): void => {
    const incoming = decodeIncoming(text);
    if (incoming.kind === "answer") {
      const settle = pendingById.get(incoming.id);
      pendingById.delete(incoming.id);
      settle?.(incoming.result);
    } else if (incoming.kind === "event") {
      for (const listener of [...(listenersByEvent.get(incoming.event) ?? [])]) listener(incoming.payload);
    }
  };

  const open = (): void => {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const opening = new WebSocket(`${scheme}://${location.host}/ipc?token=${encodeURIComponent(token)}`);
    socket = opening;
    let opened = false;
    opening.onopen = () => {
      opened = true;
      everOpened = true;
      failures = 0;
      setLink("connected");
    };
    opening.onmessage = (message: MessageEvent<unknown>) => receive(message.data);
    opening.onclose = (close) => {
      socket = null;
      failPending();
      failures = opened ? 1 : failures + 1;
      const hopeless = token === "" || close.code === CLOSE_POLICY;
      setLink(hopeless || (!everOpened && failures >= REFUSED_AFTER) ? "refused" : "lost");
      if (!hopeless) setTimeout(open, backoffMs(failures, Math.random()));
    };
  };

  const call = (name: CommandName, input: unknown): Promise<Result<unknown>> => {
    const current = socket;
    if (current === null || current.readyState !== WebSocket.OPEN) {
      return Promise.resolve(fail("host_lost", "Weir is not running, or this page lost its connection to it."));
    }
    if (pendingById.size >= IPC_CALLS_PENDING_MAX) {
      return Promise.resolve(fail("busy", "Weir is busy. Wait a moment and try again."));
    }
    lastId += 1;
    const id = lastId;
    return new Promise((resolve) => {
      pendingById.set(id, resolve);
      current.send(JSON.stringify({ id, call: name, input }));
    });
  };

  open();
  return {
    // The answer's type follows from the command's name; the host is our own process and is not validated here.
    call: (name, input) => call(name, input) as Promise<never>,
    on(event, listener) {
      const entry = (payload: unknown): void => listener(payload as never);
      const listeners = listenersByEvent.get(event) ?? new Set();
      listenersByEvent.set(event, listeners.add(entry));
      return () => listeners.delete(entry);
    },
    pathOf: (file, onProgress, signal) =>
      upload(file, `name=${encodeURIComponent(file.name)}`, { token, onProgress, signal }),
    pathOfFolder: (folder, onProgress, signal) => uploadFolder(folder, { token, onProgress, signal }),
    onHostLink(listener) {
      linkListeners.add(listener);
      listener(link);
      return () => linkListeners.delete(listener);
    },
  };
};

const parsedPath = (text: string): string | null => {
  try {
    const answer: unknown = JSON.parse(text);
    return isRecord(answer) && typeof answer["path"] === "string" ? answer["path"] : null;
  } catch {
    return null;
  }
};

const uploadError = (text: string): AppError => {
  try {
    const answer: unknown = JSON.parse(text);
    const error = isRecord(answer) ? (answer["error"] ?? answer) : null;
    if (isAppError(error)) return error;
  } catch {
    // Not JSON: the general sentence below says all we know.
  }
  return { type: "upload_failed", message: "The file could not be handed to Weir. Try again." };
};

interface UploadOptions {
  readonly token: string;
  readonly onProgress: (sentBytes: number) => void;
  readonly signal: AbortSignal;
}

/** Files of a folder that are handed over at once. */
const FOLDER_UPLOADS = 4;

/** An empty folder first, then its files, several at a time; the first that fails ends it. */
const uploadFolder = async (folder: DroppedFolder, options: UploadOptions): Promise<Result<string>> => {
  const files = await folder.files().catch(() => null);
  if (files === null) return fail("file_not_readable", "Something in this folder cannot be read.");
  const made = await upload(new Blob(), `folder=${encodeURIComponent(folder.name)}`, {
    ...options,
    onProgress: () => undefined,
  });
  if (!made.ok) return made;
  let next = 0;
  let sentBytes = 0;
  let failure: Result<string> | null = null;
  const lane = async (): Promise<void> => {
    for (let item = files[next++]; item !== undefined && failure === null; item = files[next++]) {
      const { size } = item.file;
      const query = `into=${encodeURIComponent(made.value)}&name=${encodeURIComponent(item.path)}`;
      const onProgress = (bytes: number): void => options.onProgress(sentBytes + Math.min(bytes, size));
      const sent = await upload(item.file, query, { ...options, onProgress });
      sentBytes += size;
      if (!sent.ok) failure = sent;
    }
  };
  await Promise.all(Array.from({ length: FOLDER_UPLOADS }, lane));
  return failure ?? made;
};

/** `fetch` reports no upload progress, so this is an XMLHttpRequest. The body is streamed from disk by the browser. */
const upload = (file: Blob, query: string, { token, onProgress, signal }: UploadOptions): Promise<Result<string>> =>
  new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const abort = (): void => request.abort();
    request.open("POST", `/upload?${query}`);
    request.setRequestHeader("authorization", `Bearer ${token}`);
    request.upload.onprogress = (progress) => onProgress(progress.loaded);
    request.onload = () => {
      const path = request.status < 300 ? parsedPath(request.responseText) : null;
      resolve(path === null ? { ok: false, error: uploadError(request.responseText) } : ok(path));
    };
    request.onerror = () =>
      resolve(fail("host_lost", "The connection to Weir was lost while the file was handed over. Try again."));
    // The host notices the end of the connection and removes what had arrived.
    request.onabort = () => resolve(fail("cancelled", "The file was not sent."));
    request.onloadend = () => signal.removeEventListener("abort", abort);
    signal.addEventListener("abort", abort);
    if (signal.aborted) resolve(fail("cancelled", "The file was not sent."));
    else request.send(file);
  });
