import { Menu, type MenuItemConstructorOptions } from "electron";

/** The usual roles, so that shortcuts work; reload and the developer tools only in development. */
export const setMenu = (dev: boolean): void => {
  const view: MenuItemConstructorOptions[] = [
    { role: "resetZoom" },
    { role: "zoomIn" },
    { role: "zoomOut" },
    { type: "separator" },
    { role: "togglefullscreen" },
  ];
  if (dev) view.push({ type: "separator" }, { role: "reload" }, { role: "toggleDevTools" });
  const template: MenuItemConstructorOptions[] = [
    ...(process.platform === "darwin"
      ? [{ role: "appMenu" } as const]
      : [{ label: "&File", submenu: [{ role: "quit" } as const] }]),
    { role: "editMenu" },
    { label: "&View", submenu: view },
    { role: "windowMenu" },
  ];
  Menu.setApplicationMenu(Menu.buildFromTemplate(template));
};
