import { type ChildProcess, fork } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import { RECEIVE_CREDIT_BYTES } from "#shared/base/limits.ts";
import { liveRtcObjects } from "../../src-main/links/driver.ts";
import type { LinkManager, Links } from "../../src-main/links/links.ts";
import { counted } from "../support/counts.ts";
import { linksOver, type Wire } from "../support/links-peer-process.ts";
import { LinksWorld, untilConnected, untilView } from "../support/links-world.ts";

/** What links cost over time: memory, handles, threads, the processor. */
const MiB = 1024 * 1024;
const peerProcess = fileURLToPath(new URL("../support/links-peer-process.ts", import.meta.url));
const opened: Links[] = [];
const children: ChildProcess[] = [];
afterEach(() => {
  for (const links of opened.splice(0)) links.dispose();
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

interface Held {
  readonly rssMiB: number;
  /** Open files and sockets; null where the system does not tell. */
  readonly files: number | null;
  readonly threads: number | null;
}
const held = (): Held => {
  globalThis.gc?.();
  const rssMiB = Math.round(process.memoryUsage.rss() / MiB);
  if (process.platform !== "linux") return { rssMiB, files: null, threads: null };
  const threads = Number(/^Threads:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
  return { rssMiB, files: readdirSync("/proc/self/fd").length, threads };
};
const show = (what: string, at: Record<string, Held>): void => {
  const words = Object.entries(at).map(
    ([when, { rssMiB, files, threads }]) => `${when} ${rssMiB} MiB, ${files} files, ${threads} threads`,
  );
  process.stdout.write(`${what}: ${words.join("; ")}\n`);
};

const pairOf = (world: LinksWorld) => {
  const [a, b] = [world.add(0), world.add(1)];
  const [alice, bob] = [world.links(a), world.links(b)];
  opened.push(alice, bob);
  return { alice, bob, a, b };
};

/** Measured after the first tenth, when everything is loaded, and at the end: the difference must not depend on the count. */
const cycles = async (what: string, count: number, cycle: () => Promise<void>): Promise<void> => {
  const warm = Math.ceil(count / 10);
  for (let run = 0; run < warm; run += 1) await cycle();
  await expect.poll(liveRtcObjects).toBe(0);
  const before = held();
  for (let run = warm; run < count; run += 1) await cycle();
  await expect.poll(liveRtcObjects).toBe(0);
  const after = held();
  show(`${what}, ${count} times`, { "after a tenth": before, "at the end": after });
  // The library keeps about 12 KiB of each connection; a leak of ours would keep a connection's megabyte.
  expect(after.rssMiB - before.rssMiB).toBeLessThan(32 + (count * 2 * 32) / 1024);
  if (before.files !== null) expect(Math.abs((after.files ?? 0) - before.files)).toBeLessThanOrEqual(8);
  if (before.threads !== null) expect(Math.abs((after.threads ?? 0) - before.threads)).toBeLessThanOrEqual(4);
};

test(
  "enable, connect, disable: nothing stays behind",
  async () => {
    const { alice, bob, a, b } = pairOf(new LinksWorld());
    alice.connect(b.userId);
    bob.connect(a.userId);
    await cycles("enable, connect, disable", counted(40, 100), async () => {
      alice.enable();
      bob.enable();
      await Promise.all([untilConnected(alice, b.userId), untilConnected(bob, a.userId)]);
      await Promise.all([alice.disable(), bob.disable()]);
    });
  },
  counted(120_000, 600_000),
);

test(
  "open and close: nothing stays behind",
  async () => {
    const world = new LinksWorld();
    const [a, b] = [world.add(0), world.add(1)];
    const listeners = (): number => a.signals.listenerCount + b.signals.listenerCount + a.connected.listenerCount;
    await cycles("open and close", counted(60, 1000), async () => {
      const [alice, bob] = [world.links(a), world.links(b)];
      alice.enable();
      bob.enable();
      alice.connect(b.userId);
      bob.connect(a.userId);
      await Promise.all([untilConnected(alice, b.userId), untilConnected(bob, a.userId)]);
      await alice.disable();
      alice.dispose();
      bob.dispose();
      expect(listeners()).toBe(0);
    });
  },
  counted(120_000, 1_200_000),
);

const linkedTo = async (
  what: string,
): Promise<{ links: LinkManager; peer: Parameters<Links["view"]>[0]; child: ChildProcess }> => {
  const child = fork(peerProcess, [what], { execArgv: [] });
  children.push(child);
  const { links, heard, peer } = linksOver(0, (wire) => void (child.connected && child.send(wire)));
  opened.push(links);
  child.on("message", (wire) => heard(wire as Wire));
  links.enable();
  links.connect(peer);
  await untilConnected(links, peer);
  return { links, peer, child };
};

test("a process that is busy for seconds holds no more of its peers than it gave credit for", async () => {
  const { links, peer } = await linkedTo("pump");
  let received = 0;
  links.onBulk((event) => {
    received += event.bytes;
    links.release(event.peer, event.generation, event.bytes);
  });
  await expect.poll(() => received).toBeGreaterThan(4 * RECEIVE_CREDIT_BYTES);
  const before = held();
  // Nothing of JavaScript runs here meanwhile, and the peer sends as fast as it can.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, counted(2000, 5000));
  const after = held();
  show("stalled under load", { before, after });
  expect(after.rssMiB - before.rssMiB).toBeLessThan(32);
  const stalledAt = received;
  // And it goes on: on the same link, or, if the peer took us for dead, on the next.
  await expect.poll(() => received, { timeout: 20_000 }).toBeGreaterThan(stalledAt + 4 * RECEIVE_CREDIT_BYTES);
  await untilView(links, peer, (view) => view.state === "connected");
}, 60_000);

test("a link that rests costs next to nothing", async () => {
  const { links, peer } = await linkedTo("echo");
  const { generation } = links.view(peer);
  const begun = process.cpuUsage();
  const beganMs = performance.now();
  await new Promise((resolve) => setTimeout(resolve, counted(4000, 30_000)));
  const { user, system } = process.cpuUsage(begun);
  const share = (user + system) / 1000 / (performance.now() - beganMs);
  process.stdout.write(`idle: ${(share * 100).toFixed(2)} % of one processor\n`);
  expect(share).toBeLessThan(0.05);
  expect(links.view(peer)).toMatchObject({ state: "connected", generation });
}, 60_000);
