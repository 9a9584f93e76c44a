import { resolve } from "node:path";
import { fail, ok } from "#shared/base/result.ts";
import type { HostHandlers } from "../../ipc/handlers.ts";

/** What a browser tab cannot do by itself is said plainly; the window then offers its own file input instead. */
export const headlessHostHandlers = (options: { version: string; dataDir: string }): HostHandlers => ({
  "host.info": () =>
    ok({
      kind: "headless",
      platform: process.platform,
      version: options.version,
      canPick: false,
      canOpen: false,
      dataDirectory: resolve(options.dataDir),
    }),
  "host.pickFiles": () => notHere("Choose the file in the browser instead."),
  "host.pickDirectory": () => notHere("Type the folder's path instead."),
  "host.open": () => notHere("Open the file in its folder; the transfer shows where it is."),
  "host.showInFolder": () => notHere("The transfer shows where the file is."),
});

const notHere = (instead: string) =>
  fail("not_available_here", `This is only possible in the desktop window. ${instead}`);
