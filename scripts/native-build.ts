import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inputsDigest, readStamp } from "./inputs.ts";
import { note, type Ran, root, runTool, tail } from "./run.ts";

/** Builds the native addon with node-gyp. Needs a C++ compiler, Python and Node's headers; everything works without it. */
const BUILD_TIMEOUT_MS = 3 * 60_000;
/** Without headers on this machine node-gyp fetches them; a network that drops packets must not stop an installation. */
const BUILD_WITH_DOWNLOAD_TIMEOUT_MS = 60_000;

const INPUTS = ["native/binding.gyp", "native/src"];
/** What {@link loadNative} looks for. */
const RESULT = join(root, "native", "build", "Release", "weir_native.node");
/** Holds the digest of the sources that the addon was built from. */
const STAMP = join(root, "native", "build", ".inputs");

export type NativeBuild = { type: "fresh" } | { type: "built" } | { type: "failed"; reason: string };

export const ensureNativeBuilt = async (force = false): Promise<NativeBuild> => {
  const digest = inputsDigest(INPUTS, `${process.platform}-${process.arch}`);
  if (!force && existsSync(RESULT) && readStamp(STAMP) === digest) return { type: "fresh" };
  const headers = findHeaders();
  const args = ["rebuild", "--directory", "native", ...(headers === null ? [] : [`--nodedir=${headers}`])];
  const timeoutMs = headers === null ? BUILD_WITH_DOWNLOAD_TIMEOUT_MS : BUILD_TIMEOUT_MS;
  const ran = await runTool("node-gyp", args, { timeoutMs, streams: "capture" });
  if (ran.code !== 0 || !existsSync(RESULT)) return { type: "failed", reason: failureReason(ran) };
  writeFileSync(STAMP, digest);
  return { type: "built" };
};

/**
 * A folder with `include/node`. Node-API is stable over versions, so headers of another Node do as well: those that the
 * user's npm configuration names, those beside the running Node, or the system's.
 */
const findHeaders = (): string | null => {
  const configured = process.env["npm_config_nodedir"];
  const candidates = [join(process.execPath, "..", ".."), "/usr/local", "/usr"];
  if (configured !== undefined) candidates.unshift(configured);
  return candidates.find((folder) => existsSync(join(folder, "include", "node", "node_api.h"))) ?? null;
};

/** What node-gyp's long log means, in words. */
const FAILURES: readonly (readonly [pattern: RegExp, reason: string])[] = [
  [
    /network connectivity|ENOTFOUND|ECONNREFUSED|status code: \d/i,
    "Node's headers are not here and cannot be downloaded",
  ],
  [/find Python/i, "Python was not found"],
  [
    /find Visual Studio|not found: make|make.*ENOENT|g\+\+: (not found|No such file)|xcode-select/i,
    "no C++ compiler was found",
  ],
];

const failureReason = (ran: Ran): string => {
  if (ran.timedOut) return "node-gyp took too long";
  const known = FAILURES.find(([pattern]) => pattern.test(ran.output));
  if (known !== undefined) return known[1];
  return ran.output.split("\n").find((line) => /\berror:/i.test(line)) ?? tail(ran.output, 1);
};

/** `npm run build:native`: builds anew and says how it went. */
if (import.meta.main) {
  const build = await ensureNativeBuilt(true);
  note(
    build.type === "failed" ? `the native addon is not built: ${build.reason}` : `the native addon is built: ${RESULT}`,
  );
  process.exitCode = build.type === "failed" ? 1 : 0;
}
