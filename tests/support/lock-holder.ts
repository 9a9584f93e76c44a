import { lockProfile } from "../../src-main/store/lock.ts";

/** A process that takes the lock of a profile, says how it went, and lives until it is killed. */
const directory = process.argv[2];
if (directory === undefined) throw new Error("usage: lock-holder.ts DIRECTORY");
const lock = lockProfile(directory);
process.stdout.write(`${JSON.stringify(lock.ok ? { ok: true } : lock)}\n`);
setInterval(() => undefined, 60_000);
