import { runElectron } from "../../src-main/host/electron/run.ts";
import { createFakeApp } from "./fake-app.ts";

/** The desktop program around an app that keeps nothing. The vault is opened, as the real app does first. */
void runElectron(async (options) => {
  await options.vault.load();
  return createFakeApp();
});
