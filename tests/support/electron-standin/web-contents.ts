import { EventEmitter } from "node:events";
import { readFile } from "node:fs/promises";
import { cdp } from "./browser.ts";
import type { BrowserWindow } from "./browser-window.ts";
import type { CdpEvent } from "./cdp.ts";
import { createCodec } from "./codec.ts";
import { ipcMain } from "./ipc-main.ts";
import { isolatedWorldSource, mainWorldSource } from "./page-runtime.ts";
import { fromHttps, handlerOf, toHttps } from "./protocol.ts";
import { PreventableEvent, record } from "./recorded.ts";
import { session } from "./session.ts";

/**
 * One page. The preload script runs at document start in an isolated world; IPC goes through a binding that only that
 * world has. Every request of the page is paused and answered by the app's protocol handler, its request filter, or
 * the network; a navigation that the page starts asks `will-navigate` first.
 */
const codec = createCodec();
const WORLD = "electron-preload";
const BINDING = "__standinIpc";
const FILE_PREFIX = "standin-file:";

class NavigationEvent extends PreventableEvent {
  readonly url: string;
  readonly isMainFrame: boolean;
  constructor(url: string, isMainFrame: boolean) {
    super();
    this.url = url;
    this.isMainFrame = isMainFrame;
  }
}

export interface WindowOptions {
  readonly width?: number;
  readonly height?: number;
  readonly title?: string;
  readonly show?: boolean;
  readonly webPreferences?: { readonly preload?: string };
}
type OpenHandler = (details: { url: string }) => { action: string };

export class WebContents extends EventEmitter {
  readonly id: number;
  readonly session = session.defaultSession;
  readonly mainFrame: { readonly url: string; readonly origin: string };
  readonly created: Promise<void>;
  targetId: string | null = null;
  readonly #window: BrowserWindow;
  #sessionId = "";
  #frameId = "";
  #url = "";
  /** The address that the app itself asked for, which needs no `will-navigate`. */
  #expectedUrl: string | null = null;
  #preloadContext: string | null = null;
  #openHandler: OpenHandler | null = null;
  #shown = false;

  constructor(window: BrowserWindow, id: number, options: WindowOptions, ready: Promise<void>) {
    super();
    this.#window = window;
    this.id = id;
    const url = (): string => this.#url;
    this.mainFrame = {
      get url() {
        return url();
      },
      get origin() {
        const parsed = URL.parse(url());
        return parsed === null ? "null" : `${parsed.protocol}//${parsed.host}`;
      },
    };
    this.created = ready.then(() => this.#create(options));
    this.created.catch(() => undefined);
  }

  #send(method: string, params: Record<string, unknown> = {}): Promise<CdpEvent> {
    return cdp().send(method, params, this.#sessionId);
  }

  async #create(options: WindowOptions): Promise<void> {
    const size = { width: options.width ?? 800, height: options.height ?? 600 };
    const made = await cdp().send("Target.createTarget", { url: "about:blank", newWindow: true, ...size });
    this.targetId = made.targetId;
    const attached = await cdp().send("Target.attachToTarget", { targetId: made.targetId, flatten: true });
    this.#sessionId = attached.sessionId;
    cdp().listen(this.#sessionId, (method, params) => {
      this.#onEvent(method, params).catch((error: unknown) => record("stand-in error", String(error)));
    });
    await this.#send("Page.enable");
    await this.#send("Runtime.enable");
    await this.#send("DOM.enable");
    await this.#send("Fetch.enable", { patterns: [{ urlPattern: "*" }] });
    await this.#send("Runtime.addBinding", { name: BINDING, executionContextName: WORLD });
    this.#frameId = (await this.#send("Page.getFrameTree")).frameTree.frame.id;
    await this.#send("Page.addScriptToEvaluateOnNewDocument", { source: mainWorldSource });
    const file = options.webPreferences?.preload;
    if (file === undefined) return;
    const { electron, chrome, node } = process.versions;
    const source = isolatedWorldSource(await readFile(file, "utf8"), { file, versions: { electron, chrome, node } });
    await this.#send("Page.addScriptToEvaluateOnNewDocument", { worldName: WORLD, source });
  }

  async #onEvent(method: string, params: CdpEvent): Promise<void> {
    switch (method) {
      case "Runtime.executionContextCreated": {
        const { name, auxData, uniqueId } = params.context;
        if (name === WORLD && auxData.frameId === this.#frameId) this.#preloadContext = uniqueId;
        return;
      }
      case "Runtime.executionContextDestroyed":
        if (params.executionContextUniqueId === this.#preloadContext) this.#preloadContext = null;
        return;
      case "Runtime.bindingCalled":
        if (params.name === BINDING) await this.#onIpc(JSON.parse(params.payload));
        return;
      case "Runtime.consoleAPICalled": {
        const message = params.args.map((arg: CdpEvent) => arg.value ?? arg.description).join(" ");
        this.emit("console-message", { level: params.type, message });
        return;
      }
      case "Page.frameNavigated":
        if (params.frame.parentId !== undefined) return;
        this.#url = fromHttps(params.frame.url);
        this.emit("did-navigate", {}, this.#url);
        return;
      case "Page.navigatedWithinDocument":
        if (params.frameId === this.#frameId) this.#url = fromHttps(params.url);
        return;
      case "Page.domContentEventFired":
        this.emit("dom-ready", {});
        return;
      case "Page.loadEventFired":
        this.emit("did-finish-load", {});
        if (!this.#shown) this.#window.emit("ready-to-show", {});
        this.#shown = true;
        return;
      case "Page.windowOpen":
        record("window.open", params.url);
        this.#openHandler?.({ url: fromHttps(params.url) });
        return;
      case "Inspector.targetCrashed":
        this.emit("render-process-gone", {}, { reason: "crashed" });
        return;
      case "Fetch.requestPaused":
        return this.#onRequest(params);
      default:
    }
  }

  async #onRequest(params: CdpEvent): Promise<void> {
    const { requestId, request } = params;
    const answer = (method: string, more: Record<string, unknown>): Promise<CdpEvent> =>
      // The page may be gone by now.
      this.#send(method, { requestId, ...more }).catch(() => undefined);
    const url = fromHttps(request.url);
    const isMainFrame = params.frameId === this.#frameId;
    if (params.resourceType === "Document" && !this.#mayNavigate(url, isMainFrame)) {
      return answer("Fetch.failRequest", { errorReason: "Aborted" });
    }
    if (await this.session.isCancelled(url)) return answer("Fetch.failRequest", { errorReason: "BlockedByClient" });
    const handler = handlerOf(url);
    if (handler === null) return answer("Fetch.continueRequest", {});
    const response = await handler(toRequest(request, url));
    await answer("Fetch.fulfillRequest", {
      responseCode: response.status,
      responseHeaders: [...response.headers].map(([name, value]) => ({ name, value })),
      body: Buffer.from(await response.arrayBuffer()).toString("base64"),
    });
  }

  #mayNavigate(url: string, isMainFrame: boolean): boolean {
    if (isMainFrame && (url === this.#expectedUrl || url === this.#url)) return true;
    const event = new NavigationEvent(url, isMainFrame);
    this.emit("will-frame-navigate", event);
    if (isMainFrame && !event.defaultPrevented) this.emit("will-navigate", event);
    return !event.defaultPrevented;
  }

  async #onIpc(message: CdpEvent): Promise<void> {
    const args: unknown[] = await Promise.all(codec.decode(message.args).map((arg: unknown) => this.#withPath(arg)));
    const event = { sender: this, senderFrame: this.mainFrame, type: "frame" };
    if (message.kind === "send") {
      ipcMain.emit(message.channel, event, ...args);
      return;
    }
    let answer: object;
    try {
      answer = { ok: true, value: codec.encode(await ipcMain.invoke(message.channel, event, args)) };
    } catch (error) {
      answer = { ok: false, value: `Error invoking remote method '${message.channel}': ${error}` };
    }
    this.#post({ kind: "answer", id: message.id, ...answer });
  }

  /** `webUtils.getPathForFile` gave a placeholder; the browser knows the path. "" for a File that a script made. */
  async #withPath(arg: unknown): Promise<unknown> {
    if (typeof arg !== "string" || !arg.startsWith(FILE_PREFIX)) return arg;
    const index = Number(arg.slice(FILE_PREFIX.length));
    const expression = `__standinFiles[${index}]`;
    const uniqueContextId = this.#preloadContext;
    const { result } = await this.#send("Runtime.evaluate", { expression, uniqueContextId });
    const info = await this.#send("DOM.getFileInfo", { objectId: result.objectId });
    return info.path;
  }

  #post(message: object): void {
    if (this.#preloadContext === null) return;
    const expression = `__standinReceive(${JSON.stringify(message)})`;
    // Between two pages there is nobody to tell.
    this.#send("Runtime.evaluate", { expression, uniqueContextId: this.#preloadContext }).catch(() => undefined);
  }

  send(channel: string, ...args: unknown[]): void {
    this.#post({ kind: "event", channel, args: codec.encode(args) });
  }

  async loadURL(url: string): Promise<void> {
    await this.created;
    this.#expectedUrl = url;
    const finished = new Promise<void>((resolve) => this.once("did-finish-load", () => resolve()));
    const { errorText } = await this.#send("Page.navigate", { url: toHttps(url) });
    if (errorText !== undefined) {
      this.emit("did-fail-load", {}, -2, errorText, url, true);
      throw new Error(`${errorText} (-2) loading '${url}'`);
    }
    await finished;
  }

  async executeJavaScript(expression: string): Promise<unknown> {
    await this.created;
    const answer = await this.#send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description ?? "script failed");
    return answer.result.value;
  }

  getURL(): string {
    return this.#url;
  }
  isDestroyed(): boolean {
    return this.#window.isDestroyed();
  }
  close(): void {
    void this.#window.close();
  }
  reload(): void {
    this.#send("Page.reload").catch(() => undefined);
  }
  setWindowOpenHandler(handler: OpenHandler): void {
    this.#openHandler = handler;
  }
  setWebRTCIPHandlingPolicy(policy: string): void {
    record("webContents.setWebRTCIPHandlingPolicy", policy);
  }
  detach(): void {
    cdp().forget(this.#sessionId);
    this.emit("destroyed");
  }
}

const toRequest = (request: CdpEvent, url: string): Request => {
  const body: Buffer | undefined = request.postDataEntries
    ? Buffer.concat(request.postDataEntries.map((entry: CdpEvent) => Buffer.from(entry.bytes, "base64")))
    : undefined;
  const headers = new Headers(request.headers);
  const origin = headers.get("origin");
  if (origin !== null) headers.set("origin", fromHttps(origin));
  const bodyless = request.method === "GET" || request.method === "HEAD" || body === undefined;
  return new Request(url, { method: request.method, headers, ...(bodyless ? {} : { body: new Uint8Array(body) }) });
};
