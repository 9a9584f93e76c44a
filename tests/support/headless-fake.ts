import { runHeadless } from "../../src-main/host/headless/run.ts";
import { createFakeApp } from "./fake-app.ts";

/** The headless host as a process of its own around an app that keeps nothing. WEIR_FAKE_STOP=never: it never stops. */
await runHeadless(process.argv.slice(2), async (options) => {
  await options.vault.load();
  const app = createFakeApp();
  return {
    ...app,
    stop: () => (process.env["WEIR_FAKE_STOP"] === "never" ? new Promise<void>(() => undefined) : app.stop()),
  };
});
