import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, toNamespacedPath } from "node:path";
import { assert } from "#shared/base/assert.ts";
import type { Log } from "#shared/base/env.ts";
import {
  createFallback,
  errorCode,
  systemError,
  WEAKER_GUARANTEES,
  type WeakerGuarantee,
  weakerGuarantees,
} from "./fallback.ts";

/**
 * What a file mover needs and Node lacks. All calls are synchronous and short; use them in a worker or once per file.
 * Errors have Node's `code`: ENOSPC, EEXIST, ENOENT, EACCES, EPERM, EROFS, EXDEV, EDQUOT, ...
 */
export interface NativeFs {
  readonly kind: "native" | "fallback";
  /**
   * Makes the file at least `bytes` long and allocates its blocks, so that a full disk is known now and not half way.
   * Never cuts a file. @throws ENOSPC with the file left as it was.
   */
  reserve(fd: number, bytes: number): void;
  /** Gives a file its final name. @throws EEXIST when the name is taken: nothing is ever replaced. */
  renameNoReplace(from: string, to: string): void;
  /** Makes the renames done in this directory survive a power loss. */
  fsyncDirectory(path: string): void;
  /**
   * Forces everything written to the file system of this folder to the disk at once. False where the system has no such
   * call: then every file has to be synced by itself.
   */
  syncFileSystem(path: string): Promise<boolean>;
  /**
   * Marks a file as received from elsewhere: `com.apple.quarantine`, `Zone.Identifier` or `user.xdg.origin.url`.
   * A file system that keeps no such marks is logged once and is no error. @throws ENOENT, EINVAL for a URL with line breaks.
   */
  markQuarantine(path: string, originUrl: string): void;
}

type NativeLog = Pick<Log, "info" | "warn">;
/** What the addon exports; `kind` is ours. */
type Addon = Omit<NativeFs, "kind" | "syncFileSystem"> & {
  /** Missing in one that was built before there was this call. */
  readonly syncFileSystem?: (path: string) => Promise<void>;
};

/** Browsers cut longer origins too, and an extended attribute must fit one block. */
const ORIGIN_URL_LENGTH_MAX = 2048;
/** `native/` is at most this many folders above a bundle (out/main/chunks). */
const SEARCH_LEVELS = 4;

/** The addon when it was built for this machine, else what Node can do, with a log line for each weaker guarantee. */
export const loadNative = (log?: NativeLog): NativeFs => {
  const addon = loadAddon(log);
  if (addon !== null) return guarded("native", withFallback(addon, createFallback(), log), log);
  for (const weaker of weakerGuarantees()) log?.warn(`without the native addon ${WEAKER_GUARANTEES[weaker]}`);
  return guarded("fallback", createFallback(), log);
};

/** The JavaScript implementation alone, under the same checks: what {@link loadNative} gives where nothing was built. */
export const loadFallback = (log?: NativeLog): NativeFs => guarded("fallback", createFallback(), log);

function loadAddon(log: NativeLog | undefined): Addon | null {
  const file = findAddon();
  if (file === null) return null;
  try {
    const addon: unknown = createRequire(import.meta.url)(file);
    assert(isAddon(addon), "weir_native.node exports something else");
    return addon;
  } catch (error) {
    log?.warn("the native addon cannot be loaded", { reason: String(error) });
    return null;
  }
}

/** Beside this source file, or above the bundle that holds it; inside an asar archive, its unpacked twin. */
function findAddon(): string | null {
  const built = join("build", "Release", "weir_native.node");
  const start = import.meta.dirname.replace(/([\\/])app\.asar(?=[\\/]|$)/, "$1app.asar.unpacked");
  const candidates = [join(start, built)];
  for (let level = 0, folder = start; level <= SEARCH_LEVELS; level++, folder = dirname(folder)) {
    candidates.push(join(folder, "native", built));
  }
  return candidates.find((candidate) => existsSync(candidate)) ?? null;
}

function isAddon(value: unknown): value is Addon {
  if (typeof value !== "object" || value === null) return false;
  const names = ["reserve", "renameNoReplace", "fsyncDirectory", "markQuarantine"];
  return names.every((name) => typeof Reflect.get(value, name) === "function");
}

/** The addon first; what this file system or kernel refuses to do is done the fallback's way, and logged once. */
function withFallback(addon: Addon, fallback: Addon, log: NativeLog | undefined): Addon {
  const warned = new Set<WeakerGuarantee>();
  const orElse = (weaker: WeakerGuarantee, first: () => void, second: () => void): void => {
    try {
      first();
    } catch (error) {
      if (errorCode(error) !== "ENOTSUP") throw error;
      if (!warned.has(weaker)) log?.warn(`on this file system ${WEAKER_GUARANTEES[weaker]}`);
      warned.add(weaker);
      second();
    }
  };
  return {
    reserve(fd, bytes) {
      const native = () => addon.reserve(fd, bytes);
      orElse("reserve", native, () => fallback.reserve(fd, bytes));
    },
    renameNoReplace(from, to) {
      const native = () => addon.renameNoReplace(from, to);
      orElse("rename", native, () => fallback.renameNoReplace(from, to));
    },
    fsyncDirectory: addon.fsyncDirectory,
    markQuarantine: addon.markQuarantine,
    ...(addon.syncFileSystem === undefined ? {} : { syncFileSystem: addon.syncFileSystem }),
  };
}

/** What holds for both implementations: checked arguments, long Windows paths, and marks as best effort. */
function guarded(kind: NativeFs["kind"], inner: Addon, log: NativeLog | undefined): NativeFs {
  let markWarned = false;
  return {
    kind,
    reserve(fd, bytes) {
      assert(Number.isSafeInteger(fd) && fd >= 0, "a file descriptor is needed");
      assert(Number.isSafeInteger(bytes) && bytes >= 0, "a whole number of bytes is needed");
      inner.reserve(fd, bytes);
    },
    renameNoReplace: (from, to) => inner.renameNoReplace(toNamespacedPath(from), toNamespacedPath(to)),
    fsyncDirectory: (path) => inner.fsyncDirectory(toNamespacedPath(path)),
    async syncFileSystem(path) {
      try {
        await inner.syncFileSystem?.(toNamespacedPath(path));
        return inner.syncFileSystem !== undefined;
      } catch (error) {
        if (errorCode(error) !== "ENOTSUP") throw error;
        return false;
      }
    },
    markQuarantine(path, originUrl) {
      assertOriginUrl(originUrl);
      try {
        inner.markQuarantine(toNamespacedPath(path), originUrl);
      } catch (error) {
        if (errorCode(error) !== "ENOTSUP") throw error;
        if (!markWarned) log?.warn("received files cannot be marked on this file system");
        markWarned = true;
      }
    },
  };
}

/** A line break in the URL would add lines of its own to a Zone.Identifier stream. */
function assertOriginUrl(originUrl: string): void {
  const plain = /^[\x21-\x7e]+$/.test(originUrl) && originUrl.length <= ORIGIN_URL_LENGTH_MAX;
  if (!plain) throw systemError("EINVAL", "invalid origin URL", "markQuarantine");
}
