import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { type HeadlessProfile, pair, say } from "../../scripts/headless-process.ts";
import type { ActivityEvent } from "../../src-main/activity/events.ts";
import { ActivityFold } from "../../src-main/activity/fold.ts";
import { writeRandomFile } from "../support/files.ts";
import { createWorld } from "../support/profiles.ts";

const SIZE = 3 * 1024 * 1024 + 12_345;

const completed = (profile: HeadlessProfile, fileId: string): Promise<unknown> =>
  profile.until("the finished download", async () => {
    const view = (await profile.call("transfers.list", {})).find((each) => each.fileId === fileId);
    return view?.phase === "complete" ? view : null;
  });

test("what moved between two people is counted alike on both sides, and a kill changes nothing of it", async () => {
  await using world = await createWorld();
  const alice = await world.profile("alice");
  let bob = await world.profile("bob");
  await pair(alice, bob, "link");
  for (const text of ["one", "two", "three"]) await say(alice, bob, text);
  await say(bob, alice, "four");
  const path = join(world.dir, "secret-name.bin");
  await writeRandomFile(path, SIZE);
  const { fileId } = await alice.call("files.share", { chatId: bob.userId, path });
  await bob.until("the offer", async () => (await bob.call("files.list", {})).find((f) => f.fileId === fileId) ?? null);
  await bob.call("transfers.start", { fileId });
  await completed(bob, fileId);

  const [view] = await bob.call("transfers.list", {});
  const received = await bob.call("activity.summary", {});
  expect(received).toMatchObject({
    bytesReceived: view?.bytesStored,
    ...{ bytesSent: 0, transfersCompleted: 1, transfersFailed: 0 },
    // The offer of the file is a message too.
    ...{ messagesReceived: 4, messagesSent: 1 },
    byFile: [{ fileId, bytesReceived: SIZE, bytesSent: 0 }],
    byContact: [{ userId: alice.userId, bytesReceived: SIZE, messagesReceived: 4, messagesSent: 1 }],
  });
  expect(received.byPath.reduce((sum, each) => sum + each.bytesReceived, 0)).toBe(SIZE);
  expect(received.byDay.reduce((sum, each) => sum + each.bytesReceived, 0)).toBe(SIZE);
  expect(received.drains.reduce((sum, each) => sum + each.count, 0)).toBe(1);
  const sent = await alice.call("activity.summary", { userId: bob.userId });
  expect(sent).toMatchObject({ bytesSent: SIZE, bytesReceived: 0, messagesSent: 4, messagesReceived: 1 });

  const { runs } = await bob.call("activity.transfer", { fileId });
  expect(runs).toMatchObject([
    {
      outcome: "completed",
      bytes: SIZE,
      sizeBytes: SIZE,
      counters: { requested: view?.requestedChunks, duplicate: view?.duplicateChunks },
      drain: { endedBy: view?.drain?.endedBy },
    },
  ]);
  expect(runs[0]?.steps.map(({ what }) => what)).toEqual([
    "started",
    "draining",
    "assembling",
    "verifying",
    "complete",
  ]);
  expect(runs[0]?.shares.reduce((sum, each) => sum + each.bytes, 0)).toBe(SIZE);

  // A report for bug hunting tells how it went and not who or what it was; its events sum up to the same again.
  const report = await bob.call("diagnostics.export", {});
  const text = JSON.stringify(report);
  for (const secret of ["secret-name", "alice", alice.userId, bob.userId, fileId, "127.0.0.1", world.dir])
    expect(text.includes(secret), secret).toBe(false);
  const fold = new ActivityFold(0, []);
  for (const event of report["events"] as ActivityEvent[]) fold.apply(event);
  const replayed = [...fold.take().sums].filter(({ scope }) => scope === "total");
  expect(replayed.find(({ metric }) => metric === "bytesReceived")?.value).toBe(SIZE);
  expect(replayed.find(({ metric }) => metric === "messagesReceived")?.value).toBe(4);

  // Both succeed when the first is done before the second arrives; that two at once never do is tested where time stands still.
  const run = await Promise.all([bob.call("activity.run", {}), bob.call("activity.run", {})]);
  expect(run.some(({ success }) => success)).toBe(true);
  for (const each of run) if (!each.success) expect(each.reason).toBe("already_processing");
  // What its links went through can be run again, on another machine.
  const file = join(world.dir, "report.json");
  await writeFile(file, text);
  const replay = await promisify(execFile)(process.execPath, ["scripts/replay.ts", file]);
  expect(replay.stdout).toMatch(/proven -> connected[\s\S]*links, all of them the same here\n$/);

  await bob.kill();
  bob = await world.profile("bob");
  expect(await bob.call("activity.check", {})).toMatchObject({ consistent: true, differences: 0 });
  const { byDay: _, ...after } = await bob.call("activity.summary", {});
  expect(after).toMatchObject({ bytesReceived: SIZE, messagesReceived: 4, messagesSent: 1, transfersCompleted: 1 });
  expect(await bob.call("activity.health", {})).toMatchObject({ consistent: true, backlog: 0, gaps: 0, dropped: 0 });

  const forgotten = await bob.call("activity.deleteHistory", {});
  expect(forgotten.consistent).toBe(true);
  expect(await bob.call("activity.summary", {})).toMatchObject({ bytesReceived: 0, messagesReceived: 0, byFile: [] });
  expect((await bob.call("activity.transfer", { fileId })).runs).toEqual([]);
  // Nothing of before is counted again after the next start.
  await bob.stop();
  bob = await world.profile("bob");
  expect(await bob.call("activity.summary", {})).toMatchObject({ bytesReceived: 0, messagesReceived: 0 });
  expect(await bob.call("activity.check", {})).toMatchObject({ consistent: true });
});
