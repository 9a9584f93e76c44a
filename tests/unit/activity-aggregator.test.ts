import { setImmediate } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { type ChatId, chatIdOf, type MessageId } from "#shared/base/ids.ts";
import { ACTIVITY_BATCH_EVENTS, ACTIVITY_RUN_MS } from "#shared/base/limits.ts";
import type { Aggregation } from "../../src-main/activity/aggregation.ts";
import { checkSums } from "../../src-main/activity/replay.ts";
import { MessagesTable } from "../../src-main/store/messages.ts";
import { ActivityWorld, allGuards, PEERS, SELF, sumsOf } from "../support/activity-world.ts";

const worlds: ActivityWorld[] = [];
const newWorld = (...limits: ConstructorParameters<typeof ActivityWorld>): ActivityWorld => {
  const world = new ActivityWorld(...limits);
  worlds.push(world);
  return world;
};
afterEach(() => {
  for (const world of worlds.splice(0)) world.dispose();
});

const [BOB, CARA] = PEERS as [(typeof PEERS)[number], (typeof PEERS)[number]];

const total = (aggregation: Aggregation, metric: string, scope = "total", key = ""): number =>
  aggregation.sums
    .sums(scope, 0, 1e9)
    .filter((row) => row.metric === metric && row.key === key)
    .reduce((sum, row) => sum + row.value, 0);

const receive = (world: ActivityWorld, aggregation: Aggregation, count: number): void =>
  world.db.transaction(() => {
    for (let i = 0; i < count; i++) aggregation.log.append(world.event("message.received", { peer: BOB }));
  });

const check = (world: ActivityWorld, aggregation: Aggregation, repair = false) =>
  checkSums(aggregation, world.db, { pause: () => setImmediate(), nowMs: () => world.clock.now(), repair });

describe("Race Condition Prevention", () => {
  test("concurrent aggregation attempts should be rejected", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    const aggregator = world.aggregator(aggregation);
    receive(world, aggregation, 2500);
    const results = await Promise.all(Array.from({ length: 100 }, () => aggregator.run()));
    expect(results.filter((result) => result.success)).toEqual([{ success: true, processedEvents: 2500 }]);
    expect(results.filter((r) => !r.success && r.reason === "already_processing")).toHaveLength(99);
    expect(total(aggregation, "messagesReceived")).toBe(2500);
  });

  test("without the lock overlapping runs count every event once all the same", async () => {
    const world = newWorld();
    world.guards = { ...allGuards, lock: false };
    const aggregation = world.aggregation();
    const other = world.aggregation();
    receive(world, aggregation, 4500);
    const pause = (): Promise<void> => setImmediate();
    const runs = [aggregation, other].map((each) => world.aggregator(each, pause).run());
    const processed = (await Promise.all(runs)).map((result) => result.processedEvents);
    expect(Math.min(...processed)).toBeGreaterThan(0);
    expect(processed.reduce((sum, each) => sum + each, 0)).toBe(4500);
    expect(total(aggregation, "messagesReceived")).toBe(4500);
    expect((await check(world, aggregation))?.consistent).toBe(true);
  });

  test("a run that timed out can never write again", async () => {
    const world = newWorld();
    const slow = world.aggregation();
    receive(world, slow, 3 * ACTIVITY_BATCH_EVENTS);
    let goOn = (): void => undefined;
    let pauses = 0;
    const aggregator = world.aggregator(slow, () =>
      ++pauses === 2 ? new Promise((resolve) => (goOn = resolve)) : Promise.resolve(),
    );
    const first = aggregator.run();
    await expect.poll(() => pauses).toBe(2);
    const tokenOfFirst = slow.sums.state().lockToken;
    world.clock.advance(ACTIVITY_RUN_MS);
    expect(await first).toEqual({ success: false, reason: "timeout", processedEvents: 1000 });

    const second = aggregator.run();
    // The first wakes up while the second is at work, with its old token in its hands.
    goOn();
    expect(slow.batch(tokenOfFirst, allGuards)).toEqual({ kind: "fenced" });
    expect(await second).toEqual({ success: true, processedEvents: 2000 });
    expect(aggregator.staleResults).toBe(1);
    expect(total(slow, "messagesReceived")).toBe(3000);
  });

  test("a lock that a dead process left is taken away at the start, and counted", async () => {
    const world = newWorld();
    const dead = world.aggregation();
    receive(world, dead, 10);
    const token = dead.takeLock();
    expect(token).not.toBeNull();
    world.reopen();
    const aggregation = world.aggregation();
    const aggregator = world.aggregator(aggregation);
    expect(await aggregator.run()).toMatchObject({ success: false, reason: "already_processing" });
    expect(aggregation.recover()).toBe(true);
    expect(aggregation.sums.state().recoveries).toBe(1);
    expect(await aggregator.run()).toEqual({ success: true, processedEvents: 10 });
    expect(aggregation.batch(token, allGuards)).toEqual({ kind: "fenced" });
    expect(aggregation.recover()).toBe(false);
  });
});

describe("Data Consistency", () => {
  test("transaction failure should not lose events", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    const aggregator = world.aggregator(aggregation);
    receive(world, aggregation, 1500);
    // The second sum of a batch cannot be written.
    world.db.sql.exec(`CREATE TEMP TRIGGER breaks BEFORE INSERT ON main.activity_aggregates
      WHEN new.scope = 'contact' BEGIN SELECT raise(ABORT, 'DB error'); END`);
    expect(await aggregator.run()).toEqual({ success: false, reason: "failed", processedEvents: 0 });
    expect(aggregation.log.count()).toBe(1500);
    expect(sumsOf(aggregation)).toEqual([]);
    expect(aggregation.sums.state()).toMatchObject({ cursor: 0, lockOwner: null, lastError: "failed" });
    world.db.sql.exec("DROP TRIGGER temp.breaks");
    expect(await aggregator.run()).toEqual({ success: true, processedEvents: 1500 });
    expect(total(aggregation, "messagesReceived")).toBe(1500);
    expect(aggregation.log.count()).toBe(1500);
  });

  test("events that arrive during a run are taken up by it or by the next one", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    receive(world, aggregation, 1000);
    let late = 0;
    const aggregator = world.aggregator(aggregation, () => {
      if (late < 3) receive(world, aggregation, 300 + late++);
      return Promise.resolve();
    });
    let processed = 0;
    for (let i = 0; i < 3; i++) processed += (await aggregator.run()).processedEvents;
    expect(processed).toBe(1000 + 903);
    expect(total(aggregation, "messagesReceived")).toBe(1903);
  });

  test("a batch ends early when it touches too many sums, and without batches all is one transaction", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    const many = (): void =>
      world.db.transaction(() => {
        for (let i = 0; i < 900; i++)
          aggregation.log.append(world.event("message.received", { peer: `${i}`.padStart(32, "c") }));
      });
    many();
    expect(aggregation.batch(null, allGuards)).toEqual({ kind: "done", processed: 499, more: true });
    many();
    expect(aggregation.batch(null, { ...allGuards, batches: false })).toEqual({
      kind: "done",
      processed: 1301,
      more: true,
    });
    expect(total(aggregation, "messagesReceived")).toBe(1800);
  });

  test("an event of an unknown kind, or with data that do not fit, is kept aside and taken up by a version that knows it", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    const aggregator = world.aggregator(aggregation);
    aggregation.log.append(world.event("moon.landed", { peer: BOB, json: { crater: 3 } }));
    aggregation.log.append(world.event("transfer.served", { peer: BOB, json: { bytes: "many" } }));
    receive(world, aggregation, 1);
    expect(await aggregator.run()).toEqual({ success: true, processedEvents: 3 });
    expect(aggregation.log.aside().map(({ kind, data }) => [kind, data])).toEqual([
      ["moon.landed", '{"crater":3}'],
      ["transfer.served", '{"bytes":"many"}'],
    ]);
    expect(aggregation.takeBackAside()).toBe(0);
    // The next version: what was wrong is understood now.
    world.db.sql.exec(`UPDATE activity_aside SET data = '{"bytes":5,"chunks":1,"path":"lan"}' WHERE seq = 2`);
    expect(aggregation.takeBackAside()).toBe(1);
    expect(await aggregator.run()).toEqual({ success: true, processedEvents: 1 });
    expect(total(aggregation, "bytesSent")).toBe(5);
    expect(aggregation.log.aside()).toHaveLength(1);
    expect((await check(world, aggregation))?.consistent).toBe(true);
  });

  test("what was not taken up is never deleted, whatever its age and number; the sums survive what is deleted", async () => {
    const world = newWorld({ retentionMs: 1000, eventsMax: 50 });
    const aggregation = world.aggregation();
    const aggregator = world.aggregator(aggregation);
    aggregation.log.append(world.event("app.started"));
    aggregation.log.append(world.event("contact.online", { peer: BOB }));
    receive(world, aggregation, 200);
    world.clock.advance(5000);
    world.db.sql.exec(`CREATE TEMP TRIGGER breaks BEFORE INSERT ON main.activity_aggregates
      BEGIN SELECT raise(ABORT, 'DB error'); END`);
    await aggregator.run();
    expect(aggregation.log.count()).toBe(202);
    world.db.sql.exec("DROP TRIGGER temp.breaks");
    await aggregator.run();
    expect(aggregation.log.count()).toBe(0);
    expect(total(aggregation, "messagesReceived")).toBe(200);
    // The person who came online in the part that is gone leaves in the part that is not.
    aggregation.log.append(world.event("contact.offline", { peer: BOB }));
    for (let i = 0; i < 60; i++) aggregation.log.append(world.event("message.received", { peer: CARA }));
    await aggregator.run();
    expect(aggregation.log.count()).toBe(50);
    expect(total(aggregation, "onlineMs", "contact", BOB)).toBe(5000);
    expect(await check(world, aggregation)).toEqual({ consistent: true, events: 50, differences: 0 });
  });

  test("the check finds what does not agree with the events, and the repair puts it right", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    const aggregator = world.aggregator(aggregation);
    aggregation.log.append(world.event("contact.online", { peer: CARA }));
    receive(world, aggregation, 30);
    await aggregator.run();
    const right = sumsOf(aggregation);
    expect(await check(world, aggregation)).toEqual({ consistent: true, events: 31, differences: 0 });
    for (const damage of [
      "UPDATE activity_aggregates SET value = value + 1 WHERE scope = 'total'",
      "DELETE FROM activity_aggregates WHERE scope = 'contact'",
      `INSERT INTO activity_aggregates VALUES ('head', 'total', '', 1, 'bytesSent', 5)`,
      "UPDATE activity_sessions SET started_at = started_at - 1",
      "DELETE FROM activity_sessions",
    ]) {
      world.db.sql.exec(damage);
      expect(await check(world, aggregation), damage).toMatchObject({ consistent: false, differences: 1 });
      expect(aggregation.sums.state().consistent).toBe(0);
      expect(await check(world, aggregation, true)).toMatchObject({ consistent: true, differences: 1 });
      expect(sumsOf(aggregation)).toEqual(right);
      expect(await check(world, aggregation)).toMatchObject({ consistent: true, differences: 0 });
    }
    expect(aggregation.sums.state().recoveries).toBe(5);
  });
});

describe("Gaps", () => {
  const addMessage = (world: ActivityWorld, name: string, change: object = {}): void => {
    new MessagesTable(world.db).insert({
      chatId: chatIdOf(BOB),
      messageId: name.padEnd(22, "A") as MessageId,
      senderId: BOB,
      sentAtMs: world.clock.now(),
      text: "not in the log",
      fileId: null,
      state: "delivered",
      ...change,
    });
  };

  test("messages are logged with their row, and not when it is rolled back", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    aggregation.log.follow(SELF, world.clock);
    const table = new MessagesTable(world.db);
    addMessage(world, "one");
    expect(() =>
      world.db.transaction(() => {
        addMessage(world, "two");
        throw new Error("no");
      }),
    ).toThrow("no");
    addMessage(world, "one");
    addMessage(world, "mine", { senderId: SELF, state: "queued" });
    const raise = (state: "sent" | "delivered" | "read"): boolean =>
      table.raiseState(chatIdOf(BOB), "mine".padEnd(22, "A") as MessageId, SELF, state, 0);
    raise("sent");
    raise("read");
    raise("delivered");
    const logged = aggregation.log.after(0, 100);
    expect(logged.map(({ seq, kind, peer }) => [seq, kind, peer])).toEqual([
      [1, "message.received", BOB],
      [2, "message.queued", BOB],
      [3, "message.sent", BOB],
      [4, "message.delivered", BOB],
      [5, "message.read", BOB],
    ]);
    expect(JSON.stringify(logged)).not.toContain("not in the log");
  });

  test("what is written to a group counts for the group, whoever wrote it, also when its event is lost", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    aggregation.log.follow(SELF, world.clock);
    const group = `g${"a".repeat(32)}`;
    const inGroup = { chatId: group };
    addMessage(world, "direct");
    addMessage(world, "of Bob", inGroup);
    addMessage(world, "of Cara", { ...inGroup, senderId: CARA });
    addMessage(world, "mine", { ...inGroup, senderId: SELF, state: "queued" });
    addMessage(world, "of Bob again", inGroup);
    const mine = "mine".padEnd(22, "A") as MessageId;
    new MessagesTable(world.db).raiseState(group as ChatId, mine, SELF, "sent", 0);
    world.db.sql.exec("DELETE FROM activity_events WHERE seq IN (3, 5)");
    await world.aggregator(aggregation).run();
    const received = (userId: string): number => total(aggregation, "messagesReceived", "contact", userId);
    expect([group, BOB, CARA].map(received)).toEqual([3, 1, 0]);
    expect(total(aggregation, "messagesSent", "contact", group)).toBe(1);
    expect((await check(world, aggregation))?.consistent).toBe(true);
  });

  test("missing numbers are found, reported, and filled from the messages that they were about", async () => {
    const world = newWorld();
    const aggregation = world.aggregation();
    const aggregator = world.aggregator(aggregation);
    aggregation.log.follow(SELF, world.clock);
    for (let i = 0; i < 20; i++) addMessage(world, `m${i}`);
    aggregation.log.append(world.event("contact.online", { peer: BOB }));
    for (let i = 20; i < 30; i++) addMessage(world, `m${i}`);
    // In the middle: two messages and somebody coming online; at the end: three messages.
    world.db.sql.exec("DELETE FROM activity_events WHERE seq IN (19, 20, 21) OR seq > 28");
    expect(await aggregator.run()).toEqual({ success: true, processedEvents: 30 });
    expect(total(aggregation, "messagesReceived")).toBe(30);
    expect(aggregation.log.gapCount()).toBe(2);
    expect(aggregation.sums.state()).toMatchObject({ cursor: 31, recoveries: 2 });
    expect(await aggregator.run()).toEqual({ success: true, processedEvents: 0 });
    expect((await check(world, aggregation))?.consistent).toBe(true);
  });

  test("without sequence tracking what is there is taken up, and the gap is not noticed", async () => {
    const world = newWorld();
    world.guards = { ...allGuards, sequence: false };
    const aggregation = world.aggregation();
    receive(world, aggregation, 10);
    world.db.sql.exec("DELETE FROM activity_events WHERE seq IN (4, 10)");
    expect(await world.aggregator(aggregation).run()).toEqual({ success: true, processedEvents: 8 });
    expect(aggregation.log.gapCount()).toBe(0);
  });
});
