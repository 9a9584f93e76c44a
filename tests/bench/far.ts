import { join } from "node:path";
import { follow, sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { pair } from "../../scripts/headless-process.ts";
import { FAR_VARIABLE, type FarSettings } from "../support/net/far.ts";
import { createWorld } from "../support/profiles.ts";
import { NETWORKS, type Network } from "./impaired.ts";
import { memoryOf, mib } from "./proc.ts";

const ENTRY = "tests/support/net/far-headless-process.ts";
const TIMEOUT_MS = 600_000;

/** One file between two whole programs, each behind the seeded UDP relay, which runs in a process of its own. */
export const measureFar = async (sizeMiB: number, networks: readonly Network[]) => {
  const found: Record<string, unknown> = { sizeMiB };
  for (const network of networks) found[network] = await fileOver(sizeMiB, network);
  return found;
};

const fileOver = async (sizeMiB: number, network: Network) => {
  const impairment = NETWORKS[network];
  await using world = await createWorld();
  const settings = (seed: number): NodeJS.ProcessEnv => ({
    [FAR_VARIABLE]: JSON.stringify({ seed, impairment, breakAtFrame: null, log: null } satisfies FarSettings),
  });
  const alice = await world.profile("Alice", { entry: ENTRY, env: settings(1) });
  const bob = await world.profile("Bob", { entry: ENTRY, env: settings(2) });
  await pair(alice, bob);
  await bob.until(
    "a link",
    async () => (await bob.call("links.list", {})).find((link) => link.state === "connected") ?? null,
  );
  const path = join(world.dir, "far.bin");
  const sha256 = await writeRandomFile(path, sizeMiB * 1024 * 1024);
  const { fileId } = await alice.call("files.share", { chatId: bob.userId, path });
  await bob.until(
    "the offer",
    async () => (await bob.call("files.list", {})).find((file) => file.fileId === fileId) ?? null,
  );
  // With the relay, which is a child of it as the engine is.
  const idleRss = memoryOf(bob.process.pid, "VmRSS");
  const came: { atMs: number; bytes: number }[] = [];
  bob.on("transfer.changed", ({ bytesStored }) => void came.push({ atMs: performance.now(), bytes: bytesStored }));
  const { view, phases } = await follow(bob, fileId, TIMEOUT_MS);
  if (view.phase !== "complete") throw new Error(`the transfer failed: ${JSON.stringify(view.error)}`);
  if ((await sha256OfFile(view.savedPath ?? "")) !== sha256) throw new Error("the file arrived damaged");
  const peak = memoryOf(bob.process.pid, "VmHWM");
  const downloadMs = phases.find(({ phase }) => phase === "downloading")?.ms ?? 0;
  const megabits = (bytes: number, ms: number): number => Math.round(bytes / ms / 12.5) / 10;
  // The second half: stripes are opened and judged in the first seconds.
  const half = came.find(({ bytes }) => bytes >= view.bytesStored / 2);
  const end = came.find(({ bytes }) => bytes >= view.bytesStored);
  const settled =
    half === undefined || end === undefined ? null : megabits(end.bytes - half.bytes, end.atMs - half.atMs);
  return {
    fromStart: megabits(sizeMiB * 1024 * 1024, downloadMs),
    settled,
    peakRssAboveIdleMiB: idleRss === null || peak === null ? null : mib(peak - idleRss),
    requestedChunks: view.requestedChunks,
    chunkCount: view.chunkCount,
  };
};
