import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Disposable } from "#shared/base/disposable.ts";
import { messageOf } from "#shared/base/result.ts";

/** A file system of a fixed size that can really run full. */
export interface SmallDisk extends Disposable {
  readonly directory: string;
}

/** Needs root and Linux; otherwise says why there is none. In CI that is an error: the tests on it must run there. */
export const mountSmallDisk = (bytes: number): SmallDisk | { readonly unavailable: string } => {
  const directory = mkdtempSync(join(tmpdir(), "weir-small-disk-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${bytes},mode=0700`, "tmpfs", directory], { stdio: "pipe" });
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    const unavailable = `no tmpfs can be mounted here (needs root on Linux): ${messageOf(error).trim()}`;
    if (process.env["CI"] === "true" && process.platform === "linux") throw new Error(unavailable);
    return { unavailable };
  }
  let mounted = true;
  return {
    directory,
    dispose() {
      if (!mounted) return;
      mounted = false;
      execFileSync("umount", [directory], { stdio: "pipe" });
      rmSync(directory, { recursive: true, force: true });
    },
  };
};
