import { type Codec, createCodec } from "./codec.ts";

/**
 * What runs inside the page, before its own scripts: the preload script in an isolated world, with `ipcRenderer`,
 * `contextBridge` and `webUtils`, and the other end of the context bridge in the main world. The functions below are
 * sent as source text, so they use only their parameters and the page's globals, which are named here.
 */
interface PageEvent {
  readonly detail: PageMessage;
}
// biome-ignore lint/suspicious/noExplicitAny: messages between the two worlds hold any value
type Any = any;
type PageMessage = Any;
declare const window: { readonly top: unknown };
declare const CustomEvent: new (name: string, init: { detail: PageMessage }) => unknown;
declare const addEventListener: (
  name: string,
  listener: (event: PageEvent) => void,
  options?: { once: boolean },
) => void;
declare const removeEventListener: (name: string, listener: (event: PageEvent) => void) => void;
declare const dispatchEvent: (event: unknown) => void;

type Side = "main" | "isolated";
interface ContextBridge {
  exposeInMainWorld(key: string, value: unknown): void;
}

/**
 * A synchronous bridge between two worlds of one frame: a CustomEvent is dispatched at once, and its detail is cloned
 * on the way. Functions and promises cross as ids of what the other side keeps.
 */
const createBridge = (side: Side, channel: string): ContextBridge => {
  const other = side === "isolated" ? "main" : "isolated";
  const kept = new Map<number, Any>();
  let lastId = 0;
  const keep = (value: Any): number => {
    lastId += 1;
    kept.set(lastId, value);
    return lastId;
  };
  const isPlain = (value: object): boolean => {
    const prototype = Object.getPrototypeOf(value);
    return prototype === null || prototype === Object.prototype;
  };
  const wrap = (value: Any): Any => {
    if (typeof value === "function") return { $bridge: "function", id: keep(value) };
    if (value instanceof Promise) return { $bridge: "promise", id: keep(value) };
    if (value instanceof Error) return { $bridge: "error", message: value.message };
    if (Array.isArray(value)) return value.map(wrap);
    if (value === null || typeof value !== "object" || !isPlain(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, wrap(item)]));
  };
  const unwrap = (value: Any): Any => {
    if (Array.isArray(value)) return value.map(unwrap);
    if (value === null || typeof value !== "object" || !isPlain(value)) return value;
    switch (value.$bridge) {
      case "function":
        return (...args: Any[]) => request({ kind: "call", id: value.id, args: wrap(args) });
      case "promise":
        return new Promise((resolve, reject) => request({ kind: "then", id: value.id, args: wrap([resolve, reject]) }));
      case "error":
        return new Error(value.message);
      default:
        return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unwrap(item)]));
    }
  };
  const request = (message: Any): Any => {
    const replyTo = `${side}${keep(null)}`;
    let reply: Any = null;
    const onReply = (event: PageEvent): void => {
      reply = event.detail;
    };
    addEventListener(channel + replyTo, onReply, { once: true });
    dispatchEvent(new CustomEvent(channel + other, { detail: structuredClone({ ...message, replyTo }) }));
    removeEventListener(channel + replyTo, onReply);
    if (reply === null) throw new Error("An object could not be cloned.");
    if ("error" in reply) throw unwrap(reply.error);
    return unwrap(reply.value);
  };
  const freeze = (value: Any): Any => {
    if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
    for (const item of Object.values(value)) freeze(item);
    return Object.freeze(value);
  };
  const expose = (key: string, value: Any): void => {
    if (key in window) throw new Error("Cannot bind an API on top of an existing property on the window object");
    Object.defineProperty(window, key, { value: freeze(value), enumerable: true });
  };
  const answer = (message: Any): Any => {
    const args = unwrap(message.args);
    switch (message.kind) {
      case "call":
        return wrap(kept.get(message.id)(...args));
      case "then":
        return void kept.get(message.id).then(...args);
      default:
        return void expose(message.key, args[0]);
    }
  };
  addEventListener(channel + side, ({ detail }) => {
    let reply: Any;
    try {
      reply = structuredClone({ value: answer(detail) });
    } catch (error) {
      reply = { error: wrap(error instanceof Error ? error : new Error(String(error))) };
    }
    dispatchEvent(new CustomEvent(channel + detail.replyTo, { detail: reply }));
  });
  return { exposeInMainWorld: (key, value) => request({ kind: "expose", key, args: wrap([value]) }) };
};

interface PreloadConfig {
  readonly file: string;
  readonly versions: Record<string, string | undefined>;
}
type Preload = (require: (name: string) => unknown, module: object, exports: object, process: object) => void;

const runPreload = (codec: Codec, contextBridge: ContextBridge, config: PreloadConfig, preload: Preload): void => {
  if (window !== window.top) return;
  const page: Any = globalThis;
  const pending = new Map<number, [(value: Any) => void, (error: Error) => void]>();
  const listeners = new Map<string, ((...args: Any[]) => void)[]>();
  let lastId = 0;

  const post = (message: object): void => page.__standinIpc(JSON.stringify(message));
  page.__standinReceive = (message: Any): void => {
    if (message.kind === "event") {
      const args = codec.decode(message.args);
      for (const listener of [...(listeners.get(message.channel) ?? [])]) {
        listener.call(ipcRenderer, { sender: ipcRenderer, ports: [] }, ...args);
      }
      return;
    }
    const [resolve, reject] = pending.get(message.id) ?? [];
    pending.delete(message.id);
    if (message.ok) resolve?.(codec.decode(message.value));
    else reject?.(new Error(message.value));
  };
  const ipcRenderer = {
    invoke: (channel: string, ...args: Any[]) =>
      new Promise((resolve, reject) => {
        lastId += 1;
        const encoded = codec.encode(args);
        pending.set(lastId, [resolve, reject]);
        post({ kind: "invoke", id: lastId, channel, args: encoded });
      }),
    send: (channel: string, ...args: Any[]) => post({ kind: "send", channel, args: codec.encode(args) }),
    on(channel: string, listener: (...args: Any[]) => void) {
      listeners.set(channel, [...(listeners.get(channel) ?? []), listener]);
      return ipcRenderer;
    },
    off(channel: string, listener: (...args: Any[]) => void) {
      listeners.set(
        channel,
        (listeners.get(channel) ?? []).filter((each) => each !== listener),
      );
      return ipcRenderer;
    },
  };
  // The path is known to the browser only; the main side asks it for the file kept here, before a handler sees it.
  page.__standinFiles = [];
  const webUtils = {
    getPathForFile: (file: Any): string => `standin-file:${page.__standinFiles.push(file) - 1}`,
  };
  const electron = { ipcRenderer, contextBridge, webUtils };
  const require = (name: string): unknown => {
    if (/^(node:)?electron(\/renderer|\/common)?$/.test(name)) return electron;
    throw new Error(`module not found: ${name}`);
  };
  const process = {
    platform: "linux",
    arch: "x64",
    type: "renderer",
    sandboxed: true,
    contextIsolated: true,
    versions: config.versions,
    env: {},
    argv: [],
  };
  const module = { exports: {} };
  preload(require, module, module.exports, process);
};

/** One name for both worlds of all pages of this run; nobody guesses it. */
const channel = `__standin_${crypto.randomUUID()}`;

export const mainWorldSource = `(${createBridge})("main", ${JSON.stringify(channel)});`;

export const isolatedWorldSource = (preload: string, config: PreloadConfig): string =>
  `(() => {
    const codec = (${createCodec})();
    const bridge = (${createBridge})("isolated", ${JSON.stringify(channel)});
    (${runPreload})(codec, bridge, ${JSON.stringify(config)}, function (require, module, exports, process) {
${preload}
    });
  })()
//# sourceURL=file://${config.file}`;
