import { afterEach, expect, test } from "vitest";
import { ACTIVITY_INTERVAL_MS } from "#shared/base/limits.ts";
import { createActivity } from "../../src-main/activity/activity.ts";
import { ActivityWorld, allGuards, PEERS, SELF } from "../support/activity-world.ts";
import { realEnv } from "../support/files.ts";

const worlds: ActivityWorld[] = [];
afterEach(() => {
  for (const world of worlds.splice(0)) world.dispose();
});

test("health checks the sums once at the start and then now and then, and a repair puts them right", async () => {
  const world = new ActivityWorld();
  worlds.push(world);
  let monotonicMs = 0;
  const clock = { ...realEnv.clock, monotonicMs: () => monotonicMs };
  const start = () => createActivity({ env: { ...realEnv, clock }, db: world.db, self: SELF, guards: () => allGuards });
  let activity = start();
  const log = world.aggregation().log;
  for (let i = 0; i < 5; i++) log.append(world.event("message.received", { at: Date.now(), peer: PEERS[0] ?? null }));
  expect(await activity.run()).toEqual({ success: true, processedEvents: 5 });
  expect(await activity.health()).toMatchObject({ consistent: true, backlog: 0, events: 5, running: false });
  // Somebody else changes the file: noticed by the next process, whatever this one had found.
  world.db.sql.exec("UPDATE activity_aggregates SET value = 7");
  expect((await activity.health()).consistent).toBe(true);
  activity.dispose();
  world.reopen();
  activity = start();
  expect((await activity.health()).consistent).toBe(false);
  expect(await activity.check(true)).toMatchObject({ ok: true, value: { consistent: true, differences: 2 } });
  expect(await activity.health()).toMatchObject({ consistent: true, recoveries: 1 });
  // And by this one, when there was something new and some time has passed.
  world.db.sql.exec("UPDATE activity_aggregates SET value = 7");
  world.aggregation().log.append(world.event("message.received", { at: Date.now(), peer: PEERS[0] ?? null }));
  await activity.run();
  expect((await activity.health()).consistent).toBe(true);
  monotonicMs += ACTIVITY_INTERVAL_MS + 1;
  expect((await activity.health()).consistent).toBe(false);
  activity.dispose();
});
