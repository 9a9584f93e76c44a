import { execFileSync } from "node:child_process";
import { join } from "node:path";

/**
 * Compiles a library of this folder that stands between a program and the C library (LD_PRELOAD). Returns why that cannot
 * be done here, or null; in continuous integration (`CI`) on Linux it has to be done, and what does not compile is an error anywhere.
 */
export const buildPreload = (name: string, into: string): string | null => {
  if (process.platform !== "linux") return "calls are caught with LD_PRELOAD, on Linux only";
  try {
    const flags = ["-shared", "-fPIC", "-o", into];
    execFileSync("cc", [...flags, join(import.meta.dirname, name), "-ldl", "-lpthread"], { stdio: "pipe" });
    return null;
  } catch (error) {
    const isRequired = process.env["CI"] !== undefined && process.env["CI"] !== "false";
    if (isRequired || (error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return "there is no C compiler";
  }
};
