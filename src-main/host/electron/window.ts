import { join } from "node:path";
import { BrowserWindow, nativeTheme, screen } from "electron";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { describeThrown } from "../../ipc/server.ts";
import { windowOptions } from "../policy/window-options.ts";
import { fitBounds, readBounds, writeBounds } from "../window-state.ts";

/** Time the window must rest before its place is written down. */
const BOUNDS_SETTLE_MS = 500;
/** A page that keeps crashing is not reloaded for ever: three times, then the window stays as it is. */
const RELOADS_MAX = 3;

export interface MainWindow {
  readonly get: () => BrowserWindow | null;
  /** Brings the window up, or makes a new one when it was closed. */
  show(): Promise<void>;
}

export const createMainWindow = (options: {
  readonly url: string;
  readonly preload: string;
  readonly dev: boolean;
  readonly dataDir: string;
  readonly env: Env;
}): MainWindow => {
  const { env } = options;
  const log = env.log.child("window");
  const boundsPath = join(options.dataDir, "window.json");
  let window: BrowserWindow | null = null;
  let opening: Promise<void> | null = null;

  const open = async (): Promise<void> => {
    const areas = screen.getAllDisplays().map((display) => display.workArea);
    const bounds = fitBounds(await readBounds(boundsPath), areas);
    const { preload, dev } = options;
    const created = new BrowserWindow(windowOptions({ preload, dev, dark: nativeTheme.shouldUseDarkColors, bounds }));
    window = created;
    created.once("ready-to-show", () => created.show());
    created.on("closed", () => {
      if (window === created) window = null;
    });
    rememberBounds(created);
    reloadAfterCrash(created);
    await created.loadURL(options.url);
  };

  const rememberBounds = (created: BrowserWindow): void => {
    let timer: Disposable | null = null;
    const save = (): void => {
      timer?.dispose();
      timer = null;
      if (created.isDestroyed() || created.isMinimized()) return;
      writeBounds(boundsPath, created.getNormalBounds()).catch((thrown: unknown) =>
        log.warn("the window's place could not be saved", describeThrown(thrown)),
      );
    };
    const settle = (): void => {
      timer?.dispose();
      timer = env.clock.setTimer(BOUNDS_SETTLE_MS, save);
    };
    created.on("resize", settle);
    created.on("move", settle);
    created.on("close", save);
  };

  const reloadAfterCrash = (created: BrowserWindow): void => {
    let reloads = 0;
    created.webContents.on("render-process-gone", (_event, { reason }) => {
      log.error("the window's page ended", { reason, reloads });
      if (reason === "clean-exit" || reloads >= RELOADS_MAX || created.isDestroyed()) return;
      reloads++;
      created.webContents.reload();
    });
  };

  return {
    get: () => window,
    async show() {
      if (window === null) {
        opening ??= open().finally(() => {
          opening = null;
        });
        return opening;
      }
      if (window.isMinimized()) window.restore();
      window.show();
      window.focus();
    },
  };
};
