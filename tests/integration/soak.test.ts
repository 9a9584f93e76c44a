import { on, once } from "node:events";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import type { TransferView } from "#shared/ipc/views.ts";
import { sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { counted, soakMinutes } from "../support/counts.ts";
import { childrenOf, countLeakOf, growthOf, memoryLeakOf, type Sample, sampleOf } from "../support/process-sampler.ts";
import { createWorld, type World } from "../support/profiles.ts";

/**
 * Two people who connect, write and send files for as long as one likes (`npm run verify -- soak --hours 24`), while what
 * their processes hold is sampled. Nothing may grow, nothing may crash.
 */
const LASTS_MS = soakMinutes * 60_000;
/** 10,000 connections and files, evenly over the time there is; where that is too short for them, as many as it can. */
const ROUND_MS = LASTS_MS / 10_000;
const SAMPLE_MS = Math.max(250, LASTS_MS / 2000);
const FILE_BYTES = 200_000;
/** By then everything is loaded and connected once in both roles. */
const WARM_ROUNDS = 3;
/** Longer than a connection says goodbye. */
const QUIET_MS = 250;
const QUIET_SAMPLES = 10;
const CYCLE_TIMEOUT_MS = 60_000;

/** A heap that is collected only when that seems worth it grows by tens of megabytes and means nothing by it. */
const WITH_INSPECTOR = { NODE_OPTIONS: "--inspect=127.0.0.1:0" };

let world: World;
let alice: HeadlessProfile;
let bob: HeadlessProfile;
beforeAll(async () => {
  world = await createWorld();
  const start = (name: string) => world.profile(name, { env: WITH_INSPECTOR });
  [alice, bob] = await Promise.all([start("alice"), start("bob")]);
  await pair(alice, bob);
}, 60_000);
afterAll(() => world[Symbol.asyncDispose]());

/** Collects the garbage of a main process; its engine, whose heap is small, is left alone. */
const collectorOf = async (profile: HeadlessProfile): Promise<{ collect(): Promise<void>; close(): void }> => {
  const url = /Debugger listening on (ws:\S+)/.exec(profile.log())?.[1] ?? "";
  const socket = new WebSocket(url);
  await once(socket, "open");
  let calls = 0;
  return {
    collect: async () => {
      const id = ++calls;
      socket.send(JSON.stringify({ id, method: "HeapProfiler.collectGarbage" }));
      // Of a process that has died no answer comes, and the samples tell.
      for await (const [data] of on(socket, "message", { close: ["close"] }))
        if (JSON.parse(String(data)).id === id) return;
    },
    close: () => socket.close(),
  };
};

const generationOf = async (who: HeadlessProfile): Promise<number | null> => {
  const [link] = await who.call("links.list", {});
  return link?.state === "connected" ? link.generation : null;
};

/** Lists grow with every file, so this goes by events alone. */
const received = (fileId: string): Promise<TransferView> =>
  new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer);
      stop();
    };
    const stop = bob.on("transfer.changed", (view) => {
      if (view.fileId !== fileId || (view.phase !== "complete" && view.phase !== "failed")) return;
      end();
      if (view.phase === "complete") resolve(view);
      else reject(new Error(JSON.stringify(view.error)));
    });
    const timer = setTimeout(() => {
      end();
      reject(new Error("a file did not arrive"));
    }, CYCLE_TIMEOUT_MS);
  });

/** Files that this person was told of since; older ones are told of again when something about them changes. */
const filesToldTo = (who: HeadlessProfile): { until(fileId: string): Promise<void>; stop(): void } => {
  const told = new Set<string>();
  const stop = who.on("file.changed", ({ fileId }) => void told.add(fileId));
  return {
    stop,
    until: async (fileId) => {
      await who.until("the offer", async () => (told.has(fileId) ? true : null), CYCLE_TIMEOUT_MS);
    },
  };
};

const cycle = async (round: number): Promise<void> => {
  const [from, to] = round % 2 === 0 ? [alice, bob] : [bob, alice];
  const [before, beforeThere] = await Promise.all([generationOf(from), generationOf(to)]);
  await from.call("links.reconnect", { peerId: to.userId });
  for (const [who, old] of [
    [from, before],
    [to, beforeThere],
  ] as const)
    await who.until(
      "a new link",
      async () => {
        const generation = await generationOf(who);
        return generation !== null && generation !== old ? generation : null;
      },
      CYCLE_TIMEOUT_MS,
    );
  await to.call("messages.send", { chatId: from.userId, text: `round ${round}` });

  const path = join(world.dir, `soak-${round}.bin`);
  const sha256 = await writeRandomFile(path, FILE_BYTES);
  const told = filesToldTo(bob);
  const { fileId } = await alice.call("files.share", { chatId: bob.userId, path });
  await told.until(fileId);
  told.stop();
  const arrived = received(fileId);
  await bob.call("transfers.start", { fileId });
  const { savedPath } = await arrived;
  expect(await sha256OfFile(savedPath ?? "")).toBe(sha256);
  await Promise.all([rm(path), rm(savedPath ?? "")]);
};

/** What is open for a moment only has to be gone; a resting process opens nothing. */
const atRest = async (
  pids: ReadonlyMap<string, number>,
  now: (pid: number) => Sample | null,
): Promise<Map<string, Sample>> => {
  const rest = new Map<string, Sample>();
  const watch = async (name: string, pid: number): Promise<void> => {
    let seen = now(pid);
    for (let quiet = 0; quiet < QUIET_SAMPLES; ) {
      await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
      const next = now(pid);
      quiet = next?.files === seen?.files && next?.threads === seen?.threads ? quiet + 1 : 0;
      seen = next;
    }
    if (seen !== null) rest.set(name, seen);
  };
  await Promise.all([...pids].map(([name, pid]) => watch(name, pid)));
  return rest;
};

test.runIf(process.platform === "linux")(
  "connections, messages and files leave nothing behind",
  async () => {
    let rounds = 0;
    const pids = new Map<string, number>();
    for (const [name, profile] of [
      ["alice", alice],
      ["bob", bob],
    ] as const) {
      const pid = profile.process.pid ?? 0;
      pids.set(name, pid);
      const [engine] = await expect
        .poll(() => childrenOf(pid))
        .toHaveLength(1)
        .then(() => childrenOf(pid));
      pids.set(`${name}'s engine`, engine ?? 0);
    }
    const begunMs = performance.now();
    const now = (pid: number): Sample | null => sampleOf(pid, performance.now() - begunMs);
    for (; rounds < WARM_ROUNDS; rounds += 1) await cycle(rounds);
    const before = await atRest(pids, now);
    const samples = new Map<string, Sample[]>([...pids.keys()].map((name) => [name, []]));
    const lost = new Set<string>();
    const collectors = await Promise.all([alice, bob].map(collectorOf));
    let isOver = false;
    const sampling = (async () => {
      while (!isOver) {
        await Promise.all(collectors.map(({ collect }) => collect()));
        for (const [name, pid] of pids) {
          const sample = now(pid);
          if (sample === null) lost.add(name);
          else samples.get(name)?.push(sample);
        }
        await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
      }
    })();
    const untilMs = performance.now() + LASTS_MS;
    try {
      while (performance.now() < untilMs && lost.size === 0) {
        const nextMs = performance.now() + ROUND_MS;
        await cycle(rounds);
        rounds += 1;
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, nextMs - performance.now())));
      }
    } finally {
      isOver = true;
      await sampling;
      for (const collector of collectors) collector.close();
    }
    const after = await atRest(pids, now);
    const found: Record<string, string[]> = {};
    for (const [name, all] of samples) {
      const [first, last] = [before.get(name), after.get(name)];
      if (first === undefined || last === undefined) throw new Error(`${name} is gone`);
      const { mebibytes, mebibytesPerHour, hours } = growthOf(all);
      const memory = `${mebibytes.toFixed(1)} MiB in ${(hours * 60).toFixed(1)} min (${mebibytesPerHour.toFixed(1)} an hour, now ${last.rssMiB.toFixed(0)})`;
      const counts = `files ${first.files} to ${last.files}, threads ${first.threads} to ${last.threads}`;
      process.stdout.write(
        `soak, ${name}: ${rounds} rounds, ${all.length} samples; memory grew ${memory}; ${counts}\n`,
      );
      const leaks = [memoryLeakOf(all, rounds), countLeakOf(first, last)].filter((leak) => leak !== null);
      if (leaks.length > 0) found[name] = leaks;
    }
    expect({ found, lost: [...lost] }).toEqual({ found: {}, lost: [] });
    expect(rounds).toBeGreaterThan(WARM_ROUNDS);
    expect(await Promise.all([alice.stop(), bob.stop()])).toEqual([0, 0]);
  },
  LASTS_MS + counted(120_000, 600_000),
);
