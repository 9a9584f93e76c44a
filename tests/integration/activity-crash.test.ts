import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { expect, test } from "vitest";
import { Aggregation } from "../../src-main/activity/aggregation.ts";
import { checkSums } from "../../src-main/activity/replay.ts";
import { Database } from "../../src-main/store/database.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";
import { allGuards, PEERS, SELF } from "../support/activity-world.ts";
import { counted } from "../support/counts.ts";
import { realEnv } from "../support/files.ts";

const CHILD = join(import.meta.dirname, "..", "support", "activity-child.ts");

/** Runs the child and kills it some time after it got going. */
const runAndKill = async (database: string, report: string): Promise<void> => {
  const child = spawn(process.execPath, [CHILD, database, report], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  await once(child.stdout, "data");
  await setTimeout(Math.random() * 120);
  child.kill("SIGKILL");
  expect((await exited)[1]).toBe("SIGKILL");
};

test("killed at any moment with events arriving, the sums are those of the messages that are stored", async () => {
  const directory = await mkdtemp(join(tmpdir(), "weir-activity-"));
  const database = join(directory, "app.db");
  const report = join(directory, "report");
  const kills = counted(8, 200);
  try {
    for (let i = 0; i < kills; i++) await runAndKill(database, report);
    const db = Database.openApp(database, new Uint8Array(32).fill(7), appMigrations);
    try {
      const aggregation = new Aggregation({ env: realEnv, db, self: SELF, owner: "test" });
      const before = aggregation.sums.state().cursor;
      aggregation.recover();
      const token = aggregation.takeLock();
      while (aggregation.batch(token, allGuards).kind === "done")
        if (aggregation.sums.state().cursor === aggregation.log.top()) break;
      const stored = db.sql
        .prepare<[], { peer: string; n: number }>("SELECT sender_id AS peer, count(*) AS n FROM messages GROUP BY 1")
        .all();
      const sums = aggregation.sums.sums("contact", 0, 1e9);
      const found = new Map(sums.map(({ key, value }) => [key, value]));
      expect(stored.map(({ peer }) => peer).sort()).toEqual([...PEERS].sort());
      expect([...found].sort()).toEqual(stored.map(({ peer, n }) => [peer, n]).sort());
      // The runs got somewhere before they died, and left nothing that does not agree with the log.
      expect(before).toBeGreaterThan(0);
      expect(aggregation.log.gapCount()).toBe(0);
      const check = await checkSums(aggregation, db, { pause: () => setTimeout(0), nowMs: Date.now, repair: false });
      expect(check).toMatchObject({ consistent: true, differences: 0 });
    } finally {
      db.dispose();
    }
    const reports = (await readFile(report, "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as object);
    expect(reports).toHaveLength(kills);
    for (const each of reports) expect(each).toMatchObject({ consistent: true, differences: 0 });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
