import { join, resolve } from "node:path";
import { dialog, app as electronApp, nativeTheme, powerMonitor, session } from "electron";
import { DisposableStore } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { SHUTDOWN_TIMEOUT_MS } from "#shared/base/limits.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { messageOf } from "#shared/base/result.ts";
import type { App, AppOptions } from "../../app.ts";
import type { Handlers } from "../../ipc/handlers.ts";
import { createPublisher } from "../../ipc/publisher.ts";
import { createIpcServer, describeThrown } from "../../ipc/server.ts";
import { type SystemEnv, systemEnv } from "../../log.ts";
import { createKeystoreVault } from "../keystore-vault.ts";
import { DEEP_LINK_SCHEME, inviteInArguments, inviteOf } from "../policy/deep-link.ts";
import { PathGrants, withPathGrants } from "../policy/path-grants.ts";
import { uiOrigin } from "../policy/url-policy.ts";
import { type QuitEffect, type QuitState, stepQuit } from "../quit-machine.ts";
import { version } from "../version.ts";
import { APP_URL, registerAppScheme, serveApp } from "./app-protocol.ts";
import { type ElectronArguments, parseElectronArguments } from "./arguments.ts";
import { showAttention } from "./attention.ts";
import { forkEngine } from "./fork-engine.ts";
import { type Hardening, hardenAllWebContents, hardenSession } from "./harden.ts";
import { electronHostHandlers } from "./host-handlers.ts";
import { type ElectronIpc, serveElectronIpc } from "./ipc.ts";
import { electronKeystore } from "./keystore.ts";
import { createLinkOpener } from "./links.ts";
import { setMenu } from "./menu.ts";
import { createMainWindow, type MainWindow } from "./window.ts";

/**
 * The desktop program from its start to its end. The order matters: what must precede Electron's "ready" comes before
 * the first await; locks and policies are in place before the first window.
 */
export type StartApp = (options: AppOptions) => Promise<App>;

export const runElectron = async (startApp: StartApp): Promise<void> => {
  const env = systemEnv();
  const args = parseElectronArguments(process.argv);
  if (args.dataDir !== undefined) electronApp.setPath("userData", resolve(args.dataDir));
  // The first instance hears of the second one and its link; two on one profile would corrupt each other's sessions.
  if (!electronApp.requestSingleInstanceLock()) return electronApp.exit(0);
  electronApp.enableSandbox();
  registerAppScheme();
  crashOnBugs(env);
  const links = listenForInvites(process.argv);
  try {
    await electronApp.whenReady();
    await start({ env, args, links, startApp });
  } catch (thrown) {
    env.log.error("start failed", describeThrown(thrown));
    dialog.showErrorBox("Weir could not start", messageOf(thrown));
    electronApp.exit(1);
  }
};

const start = async (options: {
  readonly env: SystemEnv;
  readonly args: ElectronArguments;
  readonly links: InviteLinks;
  readonly startApp: StartApp;
}): Promise<void> => {
  const { env, args, links } = options;
  const log = env.log.child("electron");
  const dev = !electronApp.isPackaged;
  const devServer = process.env["ELECTRON_RENDERER_URL"];
  const ui = uiOrigin(devServer, electronApp.isPackaged);
  const dataDir = join(electronApp.getPath("userData"), "profile");

  const window = createMainWindow({
    url: ui.protocol === "app:" ? APP_URL : `${ui.protocol}//${ui.host}/`,
    preload: join(import.meta.dirname, "../preload/preload.cjs"),
    dev,
    dataDir,
    env,
  });
  const hardening: Hardening = { ui, dev, log, openLink: createLinkOpener(window.get, log) };
  hardenAllWebContents(hardening);
  hardenSession(session.defaultSession, hardening);
  serveApp(join(import.meta.dirname, "../renderer"));
  setMenu(dev);
  electronApp.setAppUserModelId("app.weir.desktop");
  // Unpackaged it would register Electron itself, without the program's folder.
  if (electronApp.isPackaged) electronApp.setAsDefaultProtocolClient(DEEP_LINK_SCHEME);

  const owned = new DisposableStore();
  const starting = options.startApp({
    env,
    dataDir,
    vault: createKeystoreVault(dataDir, electronKeystore, env.random),
    server: args.server,
    name: args.name,
    downloadDirectory: args.downloads,
    defaultDownloadDirectory: electronApp.getPath("downloads"),
    chunkWorkerUrl: new URL("./chunk-worker.js", import.meta.url),
    forkEngine,
    version,
    recentLog: env.recentLog,
  });
  // From here on: someone may quit while the program still starts.
  stopBeforeExit(env, async () => {
    owned.dispose();
    await (await starting).stop();
  });
  const app = await starting;
  if (owned.disposed) return;

  const publisher = owned.add(createPublisher(app.events, env.clock, log));
  const grants = new PathGrants(env.random);
  const handlers = await followTheme({
    ...app.handlers,
    ...electronHostHandlers({ app, window: window.get, grants, version, dataDir }),
  });
  const ipc = owned.add(
    serveElectronIpc({
      window: window.get,
      ui,
      server: createIpcServer(withPathGrants(handlers, grants), log),
      events: publisher.events,
      grants,
      log,
    }),
  );
  const showWindow = (): void => {
    window.show().catch((thrown: unknown) => log.error("the window could not be shown", describeThrown(thrown)));
  };
  owned.add(await showAttention({ app, events: publisher.events, window: window.get, showWindow, log }));
  powerMonitor.on("resume", app.networkChanged);
  electronApp.on("second-instance", showWindow);
  electronApp.on("activate", showWindow);
  electronApp.on("window-all-closed", () => {
    if (process.platform !== "darwin") electronApp.quit();
  });
  await window.show();
  links.deliverTo((link) => showInvite(link, window, ipc));
};

/** A link only fills in the pairing dialog; no log ever sees it. */
const showInvite = (link: string, window: MainWindow, ipc: ElectronIpc): void => {
  ipc.sendWhenListening({ event: "invite.opened", payload: { link } });
  void window.show();
};

interface InviteLinks {
  /** Hands over the link that came so far, and every later one. */
  deliverTo(receive: (link: string) => void): void;
}

/** Collects `weir://` links from the start on: macOS may send one before the program is ready. */
const listenForInvites = (argv: readonly string[]): InviteLinks => {
  let waiting = inviteInArguments(argv);
  let receive = (link: string): void => {
    waiting = link;
  };
  const take = (link: string | null): void => {
    if (link !== null) receive(link);
  };
  electronApp.on("open-url", (event, url) => {
    event.preventDefault();
    take(inviteOf(url));
  });
  electronApp.on("second-instance", (_event, secondArgv) => take(inviteInArguments(secondArgv)));
  return {
    deliverTo(receiver) {
      receive = receiver;
      if (waiting !== null) receiver(waiting);
      waiting = null;
    },
  };
};

/** The system's dialogs and title bar follow the chosen theme. */
const followTheme = async (handlers: Handlers): Promise<Handlers> => {
  const settings = await handlers["settings.get"]({});
  if (settings.ok) nativeTheme.themeSource = settings.value.theme;
  return {
    ...handlers,
    "settings.set": async (input) => {
      const result = await handlers["settings.set"](input);
      if (result.ok) nativeTheme.themeSource = result.value.theme;
      return result;
    },
  };
};

const stopBeforeExit = (env: Env, stop: () => Promise<void>): void => {
  const run = (effect: QuitEffect): void => {
    switch (effect.type) {
      case "startTimer":
        env.clock.setTimer(SHUTDOWN_TIMEOUT_MS, () => machine.dispatch({ type: "timedOut" }));
        return;
      case "stopApp":
        stop().then(
          () => machine.dispatch({ type: "stopped" }),
          (thrown: unknown) => {
            env.log.error("the orderly end failed", describeThrown(thrown));
            machine.dispatch({ type: "stopFailed" });
          },
        );
        return;
      case "exit":
        electronApp.exit(effect.code);
    }
  };
  const initial: QuitState = { kind: "running" };
  const machine = new MachineRunner<QuitState, Parameters<typeof stepQuit>[1], QuitEffect>(initial, stepQuit, run);
  // "will-quit" comes when all windows are closed, so the page is gone before its answers would be missing.
  electronApp.on("will-quit", (event) => {
    event.preventDefault();
    machine.dispatch({ type: "quitRequested" });
  });
};

/** A bug ends the program instead of leaving it half alive; what was acknowledged is on disk. */
const crashOnBugs = (env: Env): void => {
  const crash = (thrown: unknown): void => {
    env.log.error("Weir broke down", describeThrown(thrown));
    dialog.showErrorBox("Weir has to close", "Something went wrong inside Weir. Nothing is lost; start it again.");
    electronApp.exit(1);
  };
  process.on("uncaughtException", crash);
  process.on("unhandledRejection", crash);
  electronApp.on("child-process-gone", (_event, { type, reason }) => {
    env.log.error("a helper process ended", { type, reason });
  });
};
