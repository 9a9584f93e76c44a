import { EventEmitter } from "node:events";
import { record, recorded, standin } from "./recorded.ts";

/** What a desktop would show, recorded instead. */
export const dialog = {
  async showOpenDialog(...args: unknown[]) {
    record("dialog.showOpenDialog", args.at(-1));
    const filePaths = standin.answers.showOpenDialog;
    return { canceled: filePaths.length === 0, filePaths };
  },
  async showSaveDialog(...args: unknown[]) {
    record("dialog.showSaveDialog", args.at(-1));
    return { canceled: true, filePath: "" };
  },
  async showMessageBox(...args: unknown[]) {
    record("dialog.showMessageBox", args.at(-1));
    return { response: standin.answers.showMessageBox, checkboxChecked: false };
  },
  showErrorBox(title: string, content: string) {
    record("dialog.showErrorBox", title, content);
    process.stderr.write(`${title}: ${content}\n`);
  },
};

export const shell = {
  async openExternal(url: string) {
    record("shell.openExternal", url);
  },
  async openPath(path: string) {
    record("shell.openPath", path);
    return "";
  },
  showItemInFolder(path: string) {
    record("shell.showItemInFolder", path);
  },
};

export class Menu {
  static #current: Menu | null = null;
  readonly items: readonly unknown[];
  constructor(items: readonly unknown[] = []) {
    this.items = items;
  }
  static buildFromTemplate(template: readonly unknown[]): Menu {
    return new Menu(template);
  }
  static setApplicationMenu(menu: Menu | null): void {
    Menu.#current = menu;
  }
  static getApplicationMenu(): Menu | null {
    return Menu.#current;
  }
  popup(): void {}
}

export class Tray extends EventEmitter {
  tooltip = "";
  constructor(image: unknown) {
    super();
    record("new Tray", image);
  }
  setToolTip(text: string): void {
    this.tooltip = text;
    record("Tray.setToolTip", text);
  }
  setImage(): void {}
  setContextMenu(): void {}
  destroy(): void {
    record("Tray.destroy");
  }
}

export class Notification extends EventEmitter {
  readonly options: unknown;
  constructor(options: unknown) {
    super();
    this.options = options;
  }
  static isSupported(): boolean {
    return true;
  }
  show(): void {
    record("Notification.show", this.options);
  }
  close(): void {}
}

export const nativeImage = {
  createFromBitmap: (bytes: Uint8Array, size: { width: number; height: number }) => ({
    isEmpty: () => bytes.length === 0,
    getSize: () => size,
  }),
  createEmpty: () => ({ isEmpty: () => true, getSize: () => ({ width: 0, height: 0 }) }),
};

class NativeTheme extends EventEmitter {
  themeSource = "system";
  get shouldUseDarkColors(): boolean {
    return this.themeSource === "dark";
  }
}
export const nativeTheme = new NativeTheme();

const workArea = { x: 0, y: 0, width: 1280, height: 800 };
const display = { id: 1, bounds: workArea, workArea, workAreaSize: workArea, scaleFactor: 1 };
export const screen = Object.assign(new EventEmitter(), {
  getPrimaryDisplay: () => display,
  getAllDisplays: () => [display],
});

export const powerMonitor = new EventEmitter();
export const powerSaveBlocker = recorded("powerSaveBlocker", ["start", "stop", "isStarted"]);
export const clipboard = recorded("clipboard", ["writeText", "readText"]);
