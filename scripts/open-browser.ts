import { spawn } from "node:child_process";

/** Opens a URL in the user's browser. False when this machine has no way to; the caller then shows the URL. */
export const openBrowser = (url: string): boolean => {
  const [command, args] =
    process.platform === "darwin"
      ? (["open", [url]] as const)
      : process.platform === "win32"
        ? (["rundll32", ["url.dll,FileProtocolHandler", url]] as const)
        : (["xdg-open", [url]] as const);
  if (process.platform === "linux" && !process.env["DISPLAY"] && !process.env["WAYLAND_DISPLAY"]) return false;
  const child = spawn(command, args, { stdio: "ignore", detached: true });
  // A missing opener is told by an event; the URL has been printed, so there is nothing more to do.
  child.on("error", () => undefined);
  child.unref();
  return true;
};
