import { join } from "node:path";
import { follow, sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { createWorld } from "../support/profiles.ts";

/**
 * One download from one, two and four people who have the file, over loopback. All of them share the processors of one
 * machine, so this shows what more seeders cost and how evenly they are used, not what more networks would bring.
 */
const SEEDERS = [1, 2, 4] as const;
const TIMEOUT_MS = 600_000;

const hasLink = async (from: HeadlessProfile, to: HeadlessProfile): Promise<true | null> =>
  (await from.call("links.list", {})).some(({ peerId, state }) => peerId === to.userId && state === "connected")
    ? true
    : null;
const hasFile = async (profile: HeadlessProfile, fileId: string): Promise<true | null> =>
  (await profile.call("files.list", {})).some((file) => file.fileId === fileId) ? true : null;

const measure = async (sizeMiB: number, seeders: number) => {
  await using world = await createWorld();
  const owner = await world.profile("Owner");
  const path = join(world.dir, "bench.bin");
  const sha256 = await writeRandomFile(path, sizeMiB * 1024 * 1024);
  const downloader = await world.profile("Downloader");
  await pair(owner, downloader);
  const { fileId } = await owner.call("files.share", { chatId: downloader.userId, path });
  const all = [owner];
  while (all.length < seeders) {
    const seeder = await world.profile(`Seeder ${all.length}`);
    await pair(owner, seeder);
    await pair(seeder, downloader);
    await owner.call("files.grant", { fileId, userIds: [seeder.userId] });
    await seeder.until("the offer", () => hasFile(seeder, fileId));
    const { view } = await follow(seeder, fileId, TIMEOUT_MS);
    if (view.phase !== "complete") throw new Error(`a seeder has no file: ${JSON.stringify(view.error)}`);
    all.push(seeder);
  }
  for (const seeder of all) await downloader.until("a link", () => hasLink(downloader, seeder));
  await downloader.until("the offer", () => hasFile(downloader, fileId));
  // Who leaves the download takes the own share out of its view.
  const chunksOf = new Map<string, number>();
  downloader.on("transfer.changed", (now) => {
    for (const { userId, chunks } of now.seeders) chunksOf.set(userId, Math.max(chunks, chunksOf.get(userId) ?? 0));
  });
  const { view, phases, totalMs } = await follow(downloader, fileId, TIMEOUT_MS);
  if ((await sha256OfFile(view.savedPath ?? "")) !== sha256) throw new Error("the file arrived damaged");
  const downloadMs = phases.find(({ phase }) => phase === "downloading")?.ms ?? 0;
  const rate = (ms: number): number => Math.round((sizeMiB * 1.048576 * 10_000) / ms) / 10;
  const { requestedChunks, duplicateChunks, chunkCount } = view;
  return {
    seeders,
    downloadMBps: rate(downloadMs),
    totalMBps: rate(totalMs),
    chunksBySeeder: [...chunksOf.values()].sort((a, b) => b - a),
    ...{ requestedChunks, duplicateChunks, chunkCount },
  };
};

export const measureSeeders = async (sizeMiB: number) => {
  const runs = [];
  for (const seeders of SEEDERS) runs.push(await measure(sizeMiB, seeders));
  return { sizeMiB, runs };
};
