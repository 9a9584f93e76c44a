import { existsSync } from "node:fs";
import { join } from "node:path";
import { ensureAppBuilt } from "./app-build.ts";
import { ensureNativeBuilt } from "./native-build.ts";
import { note, root, runTool, tail } from "./run.ts";

/**
 * npm's `prepare`: runs at the end of `npm ci` and `npm install`. Builds the native addon, builds the app, installs the git
 * hooks. Without addon or hooks everything works, so those are notes; an app that cannot be built is an error.
 */
const HOOKS_TIMEOUT_MS = 20_000;

const installed = (name: string): boolean => existsSync(join(root, "node_modules", name));

const prepareNative = async (): Promise<void> => {
  if (!installed("node-gyp") || !installed("node-addon-api")) return;
  const native = await ensureNativeBuilt();
  if (native.type === "failed")
    note(`native addon not built, JavaScript is used instead (${native.reason.slice(0, 200)})`);
};

const prepareHooks = async (): Promise<void> => {
  const wanted = process.env["CI"] === undefined && existsSync(join(root, ".git")) && installed("lefthook");
  if (!wanted) return;
  const ran = await runTool("lefthook", ["install"], { timeoutMs: HOOKS_TIMEOUT_MS, streams: "capture" });
  if (ran.code !== 0) note(`git hooks not installed (${tail(ran.output, 1)})`);
};

const prepareApp = async (): Promise<boolean> => {
  const build = await ensureAppBuilt();
  if (build.type === "failed") note(build.message);
  return build.type !== "failed";
};

const [, , appBuilt] = await Promise.all([prepareNative(), prepareHooks(), prepareApp()]);
process.exitCode = appBuilt ? 0 : 1;
