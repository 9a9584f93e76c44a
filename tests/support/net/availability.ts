import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Program, and the Debian package that brings it. */
const PROGRAMS = {
  ip: "iproute2",
  nft: "nftables",
  turnserver: "coturn",
  unshare: "util-linux",
  nsenter: "util-linux",
  setpriv: "util-linux",
} as const;

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};
/** A user's path often lacks the folders of the administrator's programs. */
const FOLDERS = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"];
const isInstalled = (program: string): boolean => FOLDERS.some((folder) => isExecutable(join(folder, program)));

const reason = (more: Readonly<Record<string, string>>): string | null => {
  if (process.platform !== "linux") return `network namespaces are of Linux; this is ${process.platform}`;
  if (process.getuid?.() !== 0) return "network namespaces need root";
  const missing = Object.entries({ ...PROGRAMS, ...more }).filter(([program]) => !isInstalled(program));
  if (missing.length > 0) return `not installed: ${[...new Set(missing.map(([, debian]) => debian))].join(", ")}`;
  return null;
};

/**
 * Why the tests with network namespaces cannot run here; null when they can. Continuous integration (`CI`) has to have
 * everything: there the tests run in any case, and fail with this reason. `more`: what a test needs besides.
 */
export const whyNoNamespaces = (more: Readonly<Record<string, string>> = {}): string | null => {
  const found = reason(more);
  if (found === null) return null;
  const isRequired = process.env["CI"] !== undefined && process.env["CI"] !== "false";
  if (isRequired) throw new Error(`the network tests cannot run: ${found}`);
  process.stderr.write(`skipped the tests with network namespaces: ${found}\n`);
  return found;
};
