import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { note, root } from "./run.ts";

/**
 * `npm run lock:complete`: adds the packages of other platforms that are missing in package-lock.json. Run it after every
 * `npm install` that changed the file.
 *
 * npm leaves an optional package out when the registry it talks to does not hold it (a partial mirror) or, at times, when
 * node_modules was there before (https://github.com/npm/cli/issues/4828). `npm ci` then refuses the file, and other
 * platforms would miss their binaries. Name and version are known from the package that wants it, the platform from the name.
 */
interface LockEntry {
  version?: string;
  optional?: boolean;
  dev?: boolean;
  os?: string[];
  cpu?: string[];
  libc?: string[];
  optionalDependencies?: Record<string, string>;
}
interface Lock {
  packages: Record<string, LockEntry>;
}

const LOCK = join(root, "package-lock.json");

/** Optional packages that some entry wants and no entry describes, as [wanted by, name, version]. */
export const missingEntries = ({ packages }: Lock): [by: string, name: string, version: string][] =>
  Object.entries(packages).flatMap(([by, entry]) =>
    Object.entries(entry.optionalDependencies ?? {})
      .filter(([name]) => !isInstalledFor(packages, by, name))
      .map(([name, version]): [string, string, string] => [by, name, version]),
  );

/** As Node resolves: in the package's own node_modules, then in each one further up. */
const isInstalledFor = (packages: Lock["packages"], from: string, name: string): boolean => {
  const places = [`${from}/node_modules/`, "node_modules/"];
  for (let at = from.lastIndexOf("/node_modules/"); at > 0; at = from.lastIndexOf("/node_modules/", at - 1)) {
    places.push(`${from.slice(0, at)}/node_modules/`);
  }
  return places.some((place) => `${place}${name}` in packages);
};

const OS = ["aix", "android", "darwin", "freebsd", "linux", "openbsd", "openharmony", "sunos", "win32"];
const CPU = ["arm64", "arm", "ia32", "loong64", "ppc64", "riscv64", "s390x", "wasm32", "x64"];

/** "binding-linux-arm-musleabihf" is for linux, arm, musl. */
export const platformOf = (name: string): Pick<LockEntry, "os" | "cpu" | "libc"> => {
  const parts = name.split(/[-/]/);
  const os = parts.filter((part) => OS.includes(part));
  const cpu = parts.filter((part) => CPU.includes(part));
  if (cpu.length !== 1 || (os.length !== 1 && cpu[0] !== "wasm32")) throw new Error(`which platform is ${name} for?`);
  const abi = parts.at(-1) ?? "";
  const libc = os[0] !== "linux" ? [] : abi.startsWith("musl") ? ["musl"] : abi.startsWith("gnu") ? ["glibc"] : [];
  return { cpu, ...(libc.length > 0 && { libc }), ...(os.length > 0 && { os }) };
};

const complete = (lock: Lock): number => {
  const missing = missingEntries(lock);
  for (const [by, name, version] of missing) {
    if (!/^\d+\.\d+\.\d+/.test(version)) throw new Error(`${by} wants ${name} ${version}, which is no exact version`);
    const { cpu, libc, os } = platformOf(name);
    // Fields in npm's order, so that npm does not rewrite them.
    lock.packages[`node_modules/${name}`] = {
      version,
      ...(cpu && { cpu }),
      ...(lock.packages[by]?.dev && { dev: true }),
      ...(libc && { libc }),
      optional: true,
      ...(os && { os }),
    };
  }
  lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, "en")));
  return missing.length;
};

if (import.meta.main) {
  const lock: Lock = JSON.parse(readFileSync(LOCK, "utf8"));
  const added = complete(lock);
  if (added > 0) writeFileSync(LOCK, `${JSON.stringify(lock, null, 2)}\n`);
  note(added > 0 ? `${added} packages of other platforms added to package-lock.json` : "package-lock.json is complete");
}
