import { EventEmitter } from "node:events";
import { app } from "./app.ts";
import { cdp, onTargetEvent } from "./browser.ts";
import { PreventableEvent } from "./recorded.ts";
import { WebContents, type WindowOptions } from "./web-contents.ts";

interface Bounds {
  x: number;
  y: number;
  width: number;
  height: number;
}

const windowById = new Map<number, BrowserWindow>();
let lastId = 0;
let focused: BrowserWindow | null = null;

/** A window is a page of the headless browser; its place, visibility and focus exist only here. */
export class BrowserWindow extends EventEmitter {
  readonly id: number;
  readonly webContents: WebContents;
  readonly options: WindowOptions;
  readonly #bounds: Bounds;
  #visible: boolean;
  #minimized = false;
  #destroyed = false;

  constructor(options: WindowOptions & Partial<Bounds> = {}) {
    super();
    this.id = ++lastId;
    this.options = options;
    this.#bounds = { x: options.x ?? 0, y: options.y ?? 0, width: options.width ?? 800, height: options.height ?? 600 };
    this.#visible = options.show !== false;
    windowById.set(this.id, this);
    app.windows.add(this);
    this.webContents = new WebContents(this, this.id, options, app.whenReady());
    if (this.#visible) focused = this;
    app.emit("browser-window-created", {}, this);
    app.emit("web-contents-created", {}, this.webContents);
  }

  loadURL(url: string): Promise<void> {
    return this.webContents.loadURL(url);
  }
  show(): void {
    this.#visible = true;
    focused = this;
    this.emit("show", {});
  }
  hide(): void {
    this.#visible = false;
    this.emit("hide", {});
  }
  focus(): void {
    focused = this;
    this.emit("focus", {});
  }
  minimize(): void {
    this.#minimized = true;
  }
  restore(): void {
    this.#minimized = false;
  }
  isVisible(): boolean {
    return this.#visible;
  }
  isFocused(): boolean {
    return focused === this && this.#visible;
  }
  isMinimized(): boolean {
    return this.#minimized;
  }
  isDestroyed(): boolean {
    return this.#destroyed;
  }
  getBounds(): Bounds {
    return { ...this.#bounds };
  }
  getNormalBounds(): Bounds {
    return this.getBounds();
  }
  setBounds(bounds: Partial<Bounds>): void {
    Object.assign(this.#bounds, bounds);
    this.emit("resize", {});
  }

  async close(): Promise<void> {
    if (this.#destroyed) return;
    const event = new PreventableEvent();
    this.emit("close", event);
    if (!event.defaultPrevented) await this.destroy();
  }
  async destroy(): Promise<void> {
    await this.webContents.created;
    if (this.#destroyed) return;
    const closed = new Promise<void>((resolve) => this.once("closed", () => resolve()));
    const { targetId } = this.webContents;
    cdp()
      .send("Target.closeTarget", { targetId })
      .catch(() => this.onTargetGone());
    await closed;
  }
  onTargetGone(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    windowById.delete(this.id);
    app.windows.delete(this);
    this.webContents.detach();
    this.emit("closed", {});
    if (windowById.size > 0 || app.quitting) return;
    if (app.listenerCount("window-all-closed") > 0) app.emit("window-all-closed");
    else app.quit();
  }

  static getAllWindows(): BrowserWindow[] {
    return [...windowById.values()];
  }
  static fromId(id: number): BrowserWindow | null {
    return windowById.get(id) ?? null;
  }
  static fromWebContents(contents: WebContents | null | undefined): BrowserWindow | null {
    return contents === null || contents === undefined ? null : (windowById.get(contents.id) ?? null);
  }
  static getFocusedWindow(): BrowserWindow | null {
    return focused !== null && !focused.isDestroyed() ? focused : null;
  }
}

const windowOfTarget = (targetId: string): BrowserWindow | undefined =>
  BrowserWindow.getAllWindows().find((window) => window.webContents.targetId === targetId);

/** Pages that a page opened are closed at once, as a handler that answers `deny` would have it. */
onTargetEvent((method, params) => {
  if (method === "Target.targetDestroyed") windowOfTarget(params.targetId)?.onTargetGone();
  if (method === "Target.targetCreated" && params.targetInfo.openerId !== undefined) {
    cdp()
      .send("Target.closeTarget", { targetId: params.targetInfo.targetId })
      .catch(() => undefined);
  }
});

export const webContents = {
  getAllWebContents: () => BrowserWindow.getAllWindows().map((window) => window.webContents),
  fromId: (id: number) => BrowserWindow.fromId(id)?.webContents,
  fromDevToolsTargetId: (targetId: string) => windowOfTarget(targetId)?.webContents,
  getFocusedWebContents: () => BrowserWindow.getFocusedWindow()?.webContents ?? null,
};
