/** What `import ... from "electron"` gives in the main process of the stand-in. `standin` is its own: see recorded.ts. */
export { app } from "./app.ts";
export { BrowserWindow, webContents } from "./browser-window.ts";
export {
  clipboard,
  dialog,
  Menu,
  Notification,
  nativeImage,
  nativeTheme,
  powerMonitor,
  powerSaveBlocker,
  screen,
  shell,
  Tray,
} from "./desktop.ts";
export { ipcMain } from "./ipc-main.ts";
export { protocol } from "./protocol.ts";
export { standin } from "./recorded.ts";
export { safeStorage } from "./safe-storage.ts";
export { session } from "./session.ts";
export { utilityProcess } from "./utility-process.ts";
