import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { Generation } from "#shared/base/ids.ts";
import { BULK_HEADER_BYTES, writeBulkHeader } from "#shared/wire/frame.ts";
import { sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { pair } from "../../scripts/headless-process.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import { LinksWorld, untilConnected, untilView } from "../support/links-world.ts";
import { createWorld } from "../support/profiles.ts";

const opened: LinkManager[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
});

test("a link that is replaced ten times under full load loses no frame and no message, and is never down", async () => {
  const world = new LinksWorld();
  const [a, b] = [world.add(0), world.add(1)];
  const [alice, bob] = [world.links(a), world.links(b)];
  opened.push(alice, bob);
  alice.enable();
  bob.enable();
  alice.connect(b.userId);
  bob.connect(a.userId);
  await Promise.all([untilConnected(alice, b.userId), untilConnected(bob, a.userId)]);

  const frames = new Map<Generation, number>();
  const tags: number[] = [];
  const states = new Set<string>();
  let sent = 0;
  let isPumping = true;
  bob.onBulk(({ peer, generation, frame, bytes }) => {
    frames.set(frame.sequence, (frames.get(frame.sequence) ?? 0) + 1);
    bob.release(peer, generation, bytes);
  });
  bob.onMessage(({ message }) => {
    if (message.type === "stop") tags.push(message.tag);
  });
  for (const links of [alice, bob]) links.onChanged(({ state }) => states.add(state));
  /** As much as the link of the moment takes, and a message with each frame. */
  const pump = (): void => {
    while (isPumping) {
      const { generation } = alice.view(b.userId);
      const frame = new Uint8Array(64 * 1024);
      writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence: sent, index: 0 }, frame.length - BULK_HEADER_BYTES);
      if (alice.sendBulk(b.userId, generation, frame) !== "sent") return;
      if (!alice.send(b.userId, generation, { type: "stop", tag: sent })) return;
      sent += 1;
    }
  };
  alice.onDrained(pump);
  alice.onChanged(pump);
  pump();
  for (let round = 0; round < 10; round += 1) {
    const { generation } = alice.view(b.userId);
    const taken = untilView(alice, b.userId, (view) => view.generation > generation);
    (round % 2 === 0 ? alice : bob).networkChanged();
    await taken;
    // What went over the old connection comes over the old connection, while the new one is in use.
    const before = sent;
    await expect.poll(() => frames.size).toBeGreaterThanOrEqual(before);
  }
  // A last goodbye waits for FIN_TIMEOUT_MS only, which is not enough for all of it on a busy machine.
  isPumping = false;
  await expect.poll(() => frames.size).toBe(sent);
  await expect.poll(() => tags.length).toBe(sent);
  await alice.disconnect(b.userId);
  expect(sent).toBeGreaterThan(100);
  expect([...frames.values()].every((times) => times === 1)).toBe(true);
  expect([...tags].sort((x, y) => x - y)).toEqual(Array.from({ length: sent }, (_, tag) => tag));
  states.delete("disconnected");
  states.delete("discovering");
  expect(states).toEqual(new Set(["connected"]));
}, 120_000);

test("a download goes on over a link that is replaced under it, and keeps its contact's policy in mind", {
  timeout: 120_000,
}, async () => {
  await using world = await createWorld();
  const [alice, bob] = [await world.profile("alice"), await world.profile("bob")];
  await pair(alice, bob, "link");
  const path = join(world.dir, "large.bin");
  const sha256 = await writeRandomFile(path, 48 * 1024 * 1024);
  const { fileId } = await alice.call("files.share", { chatId: bob.userId, path });
  await bob.until("the offer", async () => (await bob.call("files.list", {})).find((f) => f.fileId === fileId) ?? null);
  await bob.call("transfers.start", { fileId });
  const transfer = async () => (await bob.call("transfers.list", {})).find((it) => it.fileId === fileId);
  await bob.until("some of it", async () => ((await transfer())?.chunksStored ?? 0) > 20 || null);
  const report = await bob.call("links.test", { peerId: alice.userId });
  expect(report.link).toMatchObject({ state: "connected" });
  expect(report.attempts.at(-1)).toMatchObject({ via: "rtc", result: "connected" });
  const done = await bob.until(
    "the file",
    async () => {
      const view = await transfer();
      return view?.phase === "complete" ? view : null;
    },
    60_000,
  );
  expect(await sha256OfFile(done.savedPath ?? "")).toBe(sha256);

  // From now on only over the server, and the report says so.
  await bob.call("contacts.network", { userId: alice.userId, policy: "relay" });
  await bob.until(
    "the relay",
    async () => {
      const [found] = await bob.call("links.report", { peerId: alice.userId });
      return found?.link.state === "connected" && found.link.path === "relay" ? found : null;
    },
    30_000,
  );
  const [relayed] = await bob.call("links.report", {});
  expect(relayed).toMatchObject({ policy: "relay", directAllowed: false, relayAllowed: true });
  expect(relayed?.selected).toEqual({ local: "relay", remote: "relay" });
  expect(JSON.stringify(relayed)).not.toMatch(/candidate:|\d+\.\d+\.\d+\.\d+/);
});
