import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { toDisposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { systemRandom } from "../../src-main/env.ts";
import { Ballast } from "../../src-main/store/ballast.ts";
import { Database } from "../../src-main/store/database.ts";
import { isDiskFull } from "../../src-main/store/errors.ts";
import { testEnv } from "../support/session-peer.ts";
import { mountSmallDisk, type SmallDisk } from "../support/tmpfs.ts";

const MiB = 1024 * 1024;

/** Timers that the test fires by hand. */
const envWithTimers = (): { env: Env; timers: (() => void)[] } => {
  const timers: (() => void)[] = [];
  const { env } = testEnv();
  const setTimer = (_delayMs: number, fn: () => void) => {
    timers.push(fn);
    return toDisposable(() => {
      timers.splice(0, timers.length, ...timers.filter((timer) => timer !== fn));
    });
  };
  return { env: { ...env, clock: { ...env.clock, setTimer } }, timers };
};

const ballasts: Ballast[] = [];
const create = (directory: string, env: Env, bytes: number, reserveBytes = 0): Ballast => {
  const ballast = new Ballast({ env, directory, bytes, reserveBytes });
  ballasts.push(ballast);
  return ballast;
};
const allocated = (path: string): number => statSync(path).blocks * 512;

describe("the ballast file", () => {
  let directory: string;
  let path: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "weir-ballast-"));
    path = join(directory, "ballast");
  });
  afterEach(() => {
    for (const ballast of ballasts.splice(0)) ballast.dispose();
    rmSync(directory, { recursive: true, force: true });
  });

  test("takes up real room, is made once, and is found again by the next start", async () => {
    const ballast = create(directory, envWithTimers().env, 3 * MiB);
    await Promise.all([ballast.ensure(), ballast.ensure()]);
    expect(ballast.state).toBe("held");
    expect(statSync(path).size).toBe(3 * MiB);
    expect(allocated(path)).toBeGreaterThanOrEqual(3 * MiB);
    const { ino } = statSync(path);
    const next = create(directory, envWithTimers().env, 3 * MiB);
    await next.ensure();
    expect(statSync(path).ino).toBe(ino);
    expect(readdirSync(directory)).toEqual(["ballast"]);
  });

  test("is made anew when it is sparse, or when a kill left half of it", async () => {
    writeFileSync(path, "");
    truncateSync(path, 2 * MiB);
    writeFileSync(join(directory, "ballast.part"), "half");
    expect(allocated(path)).toBeLessThan(2 * MiB);
    await create(directory, envWithTimers().env, 2 * MiB).ensure();
    expect(allocated(path)).toBeGreaterThanOrEqual(2 * MiB);
    expect(readdirSync(directory)).toEqual(["ballast"]);
  });

  test("is not made when too little room would remain, and tried again later", async () => {
    const { env, timers } = envWithTimers();
    const ballast = create(directory, env, MiB, Number.MAX_SAFE_INTEGER - 2 * MiB);
    await ballast.ensure();
    expect(ballast.state).toBe("absent");
    expect(existsSync(path)).toBe(false);
    expect(timers.length).toBe(1);
  });

  test("released while it is being made leaves nothing behind", async () => {
    const { env, timers } = envWithTimers();
    const ballast = create(directory, env, 4 * MiB);
    const making = ballast.ensure();
    expect(ballast.state).toBe("making");
    expect(ballast.release()).toBe(false);
    const again = ballast.ensure();
    await making;
    await again;
    expect(ballast.state).toBe("held");
    expect(ballast.release()).toBe(true);
    expect(ballast.release()).toBe(false);
    expect(readdirSync(directory)).toEqual([]);
    expect(timers.length).toBe(1);
    ballast.dispose();
    expect(timers.length).toBe(0);
  });
});

const probe = mountSmallDisk(MiB);
const reason = "unavailable" in probe ? probe.unavailable : null;
if (!("unavailable" in probe)) probe.dispose();

describe.skipIf(reason !== null)(`on a disk that is full${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let disk: SmallDisk;
  beforeEach(() => {
    const mounted = mountSmallDisk(16 * MiB);
    if ("unavailable" in mounted) throw new Error(mounted.unavailable);
    disk = mounted;
  });
  afterEach(() => {
    for (const ballast of ballasts.splice(0)) ballast.dispose();
    disk.dispose();
  });

  const notes = { name: "0001-notes", sql: "CREATE TABLE notes (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT" };

  test("a write fails whole, a delete fails too, and both work once the ballast is released", async () => {
    const { env, timers } = envWithTimers();
    const ballast = create(disk.directory, env, 4 * MiB);
    await ballast.ensure();
    expect(ballast.state).toBe("held");
    const db = Database.openApp(join(disk.directory, "app.db"), systemRandom.bytes(32), [notes]);
    try {
      let told = 0;
      db.onDiskFull(() => {
        told++;
      });
      const insert = db.sql.prepare<[Uint8Array]>("INSERT INTO notes (body) VALUES (?)");
      const count = (): unknown => db.sql.prepare("SELECT count(*) AS n FROM notes").pluck().get();
      const fill = (): void => {
        for (;;) db.transaction(() => insert.run(systemRandom.bytes(64 * 1024)));
      };
      expect(errorCode(fill)).toBe("disk full");
      expect(told).toBe(1);
      const stored = count();
      const remove = (): void => db.transaction(() => void db.sql.exec("DELETE FROM notes WHERE id <= 20"));
      expect(errorCode(remove)).toBe("disk full");
      expect(count()).toBe(stored);

      ballast.retryOnFull(remove);
      expect(ballast.state).toBe("absent");
      expect(existsSync(join(disk.directory, "ballast"))).toBe(false);
      expect(count()).toBe(Number(stored) - 20);
      expect(db.sql.pragma("integrity_check", { simple: true })).toBe("ok");

      db.sql.exec("DELETE FROM notes");
      db.sql.exec("VACUUM");
      db.sql.pragma("wal_checkpoint(TRUNCATE)");
      expect(timers.length).toBe(1);
      timers[0]?.();
      await ballast.ensure();
      expect(ballast.state).toBe("held");
    } finally {
      db.dispose();
    }
  });

  test("the ballast is not made of the last bytes, and no half of it stays", async () => {
    writeFileSync(join(disk.directory, "big"), systemRandom.bytes(14 * MiB));
    const { env } = envWithTimers();
    // The reserve is negative, so that the check before passes and the disk runs full while writing.
    const ballast = create(disk.directory, env, 4 * MiB, -8 * MiB);
    await ballast.ensure();
    expect(ballast.state).toBe("absent");
    expect(readdirSync(disk.directory)).toEqual(["big"]);
  });

  test("a new profile says so", () => {
    writeFileSync(join(disk.directory, "big"), systemRandom.bytes(16 * MiB - 8192));
    expect(() => Database.openApp(join(disk.directory, "app.db"), systemRandom.bytes(32), [notes])).toThrow(
      expect.objectContaining({ type: "disk_full" }),
    );
  });
});

const errorCode = (body: () => void): string => {
  try {
    body();
  } catch (error) {
    if (isDiskFull(error)) return "disk full";
    throw error;
  }
  return "none";
};
