import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inputsDigest, readStamp } from "./inputs.ts";
import { note, type Ran, root, runTool, seconds, tail } from "./run.ts";

/** `npm run build`, and what other scripts use to build `out/` only when its sources have changed. */
const BUILD_TIMEOUT_MS = 5 * 60_000;
const CONFIG = "electron.vite.config.ts";
const INPUTS = [
  ...["src-main", "src-preload", "src-renderer", "src-server", "src-shared"],
  ...["native/index.ts", "native/fallback.ts", CONFIG, "package.json", "package-lock.json"],
];
const OUTPUTS = ["out/main", "out/preload", "out/renderer/index.html"];
/** Holds the digest of the sources that `out/` was built from. */
const STAMP = join(root, "out", ".inputs");

export type AppBuild =
  | { type: "fresh" }
  | { type: "built"; ms: number }
  | { type: "failed"; message: string }
  /** A checkout without the build's configuration or its tools has nothing to build. */
  | { type: "impossible"; message: string };

export const ensureAppBuilt = async (force = false): Promise<AppBuild> => {
  if (!existsSync(join(root, CONFIG))) return { type: "impossible", message: `${CONFIG} is missing` };
  if (!existsSync(join(root, "node_modules", "electron-vite"))) {
    return { type: "impossible", message: "the development dependencies are not installed" };
  }
  const digest = inputsDigest(INPUTS);
  if (!force && readStamp(STAMP) === digest && OUTPUTS.every((path) => existsSync(join(root, path)))) {
    return { type: "fresh" };
  }
  rmSync(STAMP, { force: true });
  const ran = await runTool("electron-vite", ["build"], {
    timeoutMs: BUILD_TIMEOUT_MS,
    streams: "capture",
    env: { NO_COLOR: "1", FORCE_COLOR: "0" },
  });
  if (ran.code !== 0) return { type: "failed", message: failureMessage(ran) };
  const missing = OUTPUTS.filter((path) => !existsSync(join(root, path)));
  if (missing.length > 0) return { type: "failed", message: `the build made no ${missing.join(", ")}` };
  writeFileSync(STAMP, digest);
  return { type: "built", ms: ran.ms };
};

const failureMessage = (ran: Ran): string =>
  ran.timedOut
    ? `the app was not built in ${seconds(BUILD_TIMEOUT_MS)}`
    : `the app cannot be built:\n${tail(ran.output, 40)}`;

if (import.meta.main) {
  const build = await ensureAppBuilt(true);
  switch (build.type) {
    case "fresh":
    case "built":
      note("the app is built in out/");
      break;
    case "failed":
    case "impossible":
      note(build.message);
      process.exitCode = 1;
  }
}
