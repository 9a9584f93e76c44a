import { type BrowserWindow, app as electronApp, Menu, Notification, nativeImage, Tray } from "electron";
import { type Disposable, DisposableStore, toDisposable } from "#shared/base/disposable.ts";
import type { Log } from "#shared/base/env.ts";
import type { App } from "../../app.ts";
import type { EventSource } from "../../ipc/handlers.ts";
import { describeThrown } from "../../ipc/server.ts";
import { type TrayState, TrayWatch, UnreadWatch } from "../policy/attention.ts";
import { drawTrayIcon } from "../policy/tray-icon.ts";

/** Tray, badge and notifications, fed by the same events as the window. */
export const showAttention = async (options: {
  readonly app: App;
  readonly events: EventSource;
  readonly window: () => BrowserWindow | null;
  readonly showWindow: () => void;
  readonly log: Log;
}): Promise<Disposable> => {
  const { app, events, showWindow, log } = options;
  const [chats, transfers, profile] = await Promise.all([
    app.handlers["chats.list"]({}),
    app.handlers["transfers.list"]({}),
    app.handlers["profile.get"]({}),
  ]);
  const unread = new UnreadWatch(chats.ok ? chats.value : []);
  const status = new TrayWatch(
    profile.ok ? profile.value.server.state : "disconnected",
    transfers.ok ? transfers.value : [],
  );
  const owned = new DisposableStore();
  const tray = createTray(showWindow, log);
  if (tray !== null) owned.add(toDisposable(() => tray.destroy()));

  let shown: TrayState | null = null;
  const update = (): void => {
    if (tray === null) return;
    if (status.state !== shown) tray.setImage(icon(status.state));
    shown = status.state;
    tray.setToolTip(status.tooltip(unread.total));
  };
  update();

  owned.add(
    events((published) => {
      switch (published.event) {
        case "transfer.changed":
          status.observeTransfer(published.payload);
          return update();
        case "server.changed":
          status.observeServer(published.payload);
          return update();
        case "chat.changed": {
          const news = unread.observe(published.payload, options.window()?.isFocused() ?? false);
          electronApp.setBadgeCount(unread.total);
          if (news !== null && Notification.isSupported()) {
            notify(news.title, news.body, showWindow);
          }
          return update();
        }
        default:
      }
    }),
  );
  return owned;
};

/** Kept until they are gone: a collected one would lose its click. The oldest are given up. */
const openNotifications = new Set<Notification>();
const OPEN_NOTIFICATIONS_MAX = 64;

const notify = (title: string, body: string, showWindow: () => void): void => {
  const notification = new Notification({ title, body });
  notification.on("click", showWindow);
  notification.on("close", () => openNotifications.delete(notification));
  openNotifications.add(notification);
  const [oldest] = openNotifications;
  if (openNotifications.size > OPEN_NOTIFICATIONS_MAX && oldest !== undefined) openNotifications.delete(oldest);
  notification.show();
};

const ICON_SIZE = 32;

const icon = (state: TrayState) =>
  nativeImage.createFromBitmap(drawTrayIcon(ICON_SIZE, state), { width: ICON_SIZE, height: ICON_SIZE, scaleFactor: 2 });

/** Null on desktops without a tray: everything can be done in the window. */
const createTray = (showWindow: () => void, log: Log): Tray | null => {
  try {
    const tray = new Tray(icon("offline"));
    tray.setContextMenu(
      Menu.buildFromTemplate([
        { label: "Show Weir", click: showWindow },
        { type: "separator" },
        { label: "Quit", click: () => electronApp.quit() },
      ]),
    );
    tray.on("click", showWindow);
    return tray;
  } catch (thrown) {
    log.info("this desktop has no tray", describeThrown(thrown));
    return null;
  }
};
