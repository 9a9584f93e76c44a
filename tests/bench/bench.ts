import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { follow, sha256OfFile, writeRandomFile } from "../../scripts/demo.ts";
import { type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { createWorld } from "../support/profiles.ts";
import { measureActivity } from "./activity.ts";
import { measureFar } from "./far.ts";
import { measureImpaired, NETWORKS, type Network } from "./impaired.ts";
import { measureLinks } from "./links-latency.ts";
import { cpuBetween, cpuSecondsOf, machine, memoryOf, mib } from "./proc.ts";
import { measureSeeders } from "./seeders.ts";
import { measureServer } from "./server.ts";
import { measureWebTorrent, type WebTorrentTimes } from "./webtorrent.ts";

/**
 * `npm run bench [-- [transfer] [folder] [seeders] [webtorrent] [links] [impaired] [far] [activity] [server] [--size MiB] [--runs N]
 * [--network NAME]]`: JSON lines, of all without a name. Everything that is compared is measured in the same
 * run, because timings on a shared machine mean little by themselves.
 */
const MiB = 1024 * 1024;
const run = promisify(execFile);

interface Side {
  profile: HeadlessProfile;
  idleRss: number | null;
}

/** What one process says about itself since the last question; null while nothing went on. */
const loopDelayP99Ms = async (profile: HeadlessProfile): Promise<number | null> => {
  const report = (await profile.call("diagnostics.export", {}))["eventLoop"] as { p99Ms: number } | null | undefined;
  if (report === undefined) throw new Error("diagnostics.export has no eventLoop");
  return report?.p99Ms ?? null;
};

/** Two bare peer connections on a busy machine do not always find each other: a run without a connection is no figure. */
const RAW_TRIES = 3;

const measureRaw = async (
  sizeMiB: number,
  triesLeft = RAW_TRIES,
): Promise<{ megabytesPerSecond: number; cpuSeconds: number }> => {
  const args = [join(import.meta.dirname, "raw-datachannel.ts"), "--mib", String(sizeMiB)];
  const result = await run(process.execPath, args, { timeout: 300_000 }).catch((error: unknown) => {
    if (triesLeft <= 1) throw error;
    return null;
  });
  if (result === null) return measureRaw(sizeMiB, triesLeft - 1);
  const { stdout } = result;
  const { megabytesPerSecond, cpuSeconds }: Record<string, unknown> = JSON.parse(
    stdout.trim().split("\n").at(-1) ?? "{}",
  );
  if (typeof megabytesPerSecond !== "number" || typeof cpuSeconds !== "number")
    throw new Error(`raw-datachannel printed ${stdout}`);
  return { megabytesPerSecond, cpuSeconds };
};

/** 10,000 files of 10 KiB, or as many as make up the size. */
const SMALL_FILE_BYTES = 10 * 1024;
const FOLDER_MIB = (10_000 * SMALL_FILE_BYTES) / MiB;

const writeSmallFiles = (root: string, sizeMiB: number): number => {
  const files = Math.round((sizeMiB * MiB) / SMALL_FILE_BYTES);
  for (let i = 0; i < files; i++) {
    const folder = join(root, `part ${i % 100}`);
    if (i < 100) mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `file ${i}.bin`), randomBytes(SMALL_FILE_BYTES));
  }
  return files;
};

/** At every twentieth of the chunks. */
const CURVE_POINTS = 20;

const fullPath = async (sizeMiB: number, { asFolder = false, besideWebTorrent = false } = {}) => {
  await using world = await createWorld();
  const [alice, bob] = [await world.profile("Alice"), await world.profile("Bob")];
  const sides: Side[] = [alice, bob].map((profile) => ({ profile, idleRss: null }));
  await pair(alice, bob);
  await bob.until(
    "a link",
    async () => (await bob.call("links.list", {})).find((link) => link.state === "connected") ?? null,
  );
  const path = join(world.dir, asFolder ? "bench" : "bench.bin");
  const files = asFolder ? writeSmallFiles(path, sizeMiB) : 0;
  const sha256 = asFolder ? "" : await writeRandomFile(path, sizeMiB * MiB);
  for (const side of sides) side.idleRss = memoryOf(side.profile.process.pid, "VmRSS");
  const shareStart = performance.now();
  const file = await alice.call("files.share", { chatId: bob.userId, path });
  const shareMs = Math.round(performance.now() - shareStart);
  await bob.until(
    "the offer",
    async () => (await bob.call("files.list", {})).find((f) => f.fileId === file.fileId) ?? null,
  );
  for (const side of sides) await loopDelayP99Ms(side.profile);
  const cpu = (): (Record<string, number> | null)[] => sides.map((side) => cpuSecondsOf(side.profile.process.pid));
  const cpuAtStart = cpu();
  let cpuAtDownloaded: typeof cpuAtStart | null = null;
  const aboveIdleMiB = (of: "VmRSS" | "VmHWM"): (number | null)[] =>
    sides.map((side) => {
      const bytes = memoryOf(side.profile.process.pid, of);
      return bytes === null || side.idleRss === null ? null : mib(bytes - side.idleRss);
    });
  const rssAboveIdleMiB: (number | null)[][] = [];
  bob.on("transfer.changed", ({ phase, bytesStored, sizeBytes }) => {
    if (phase !== "downloading") cpuAtDownloaded ??= cpu();
    if (bytesStored * CURVE_POINTS >= sizeBytes * rssAboveIdleMiB.length) rssAboveIdleMiB.push(aboveIdleMiB("VmRSS"));
  });
  const { view, phases, totalMs } = await follow(bob, file.fileId, 600_000);
  const cpuAtEnd = cpu();
  const delays = [];
  for (const side of sides) delays.push(await loopDelayP99Ms(side.profile));
  const peakRssAboveIdleMiB = aboveIdleMiB("VmHWM");
  if (view.phase !== "complete") throw new Error(`the transfer failed: ${JSON.stringify(view.error)}`);
  if (asFolder) await run("diff", ["-r", path, view.savedPath ?? ""]);
  else if ((await sha256OfFile(view.savedPath ?? "")) !== sha256) throw new Error("the file arrived damaged");
  const downloadMs = phases.find((p) => p.phase === "downloading")?.ms ?? 0;
  const finishMs = phases
    .filter((p) => p.phase === "assembling" || p.phase === "verifying")
    .reduce((sum, p) => sum + p.ms, 0);
  const rate = (ms: number): number => Math.round(((sizeMiB * MiB) / 1e6 / (ms / 1000)) * 10) / 10;
  const withWebTorrent = (kind: "plain" | "encrypted") => measureWebTorrent(path, join(world.dir, kind), sha256, kind);
  const webTorrent = besideWebTorrent
    ? { plain: await withWebTorrent("plain"), encrypted: await withWebTorrent("encrypted") }
    : null;
  return {
    ...(asFolder ? { files } : {}),
    ...(webTorrent === null ? {} : { webTorrent }),
    phases,
    totalMs,
    shareMs,
    downloadMBps: rate(downloadMs),
    totalMBps: rate(totalMs),
    assembleVerifyMBps: rate(finishMs),
    downloadCpuSeconds: sides.map((_, i) => cpuBetween(cpuAtStart[i] ?? null, cpuAtDownloaded?.[i] ?? null)),
    finishCpuSeconds: sides.map((_, i) => cpuBetween(cpuAtDownloaded?.[i] ?? null, cpuAtEnd[i] ?? null)),
    eventLoopP99Ms: { seeder: delays[0], downloader: delays[1] },
    peakRssAboveIdleMiB,
    rssAboveIdleMiB,
    requestedChunks: view.requestedChunks,
    chunkCount: view.chunkCount,
  };
};

const transferLine = async (sizeMiB: number) => {
  const rawBefore = await measureRaw(sizeMiB);
  const full = await fullPath(sizeMiB);
  const rawAfter = await measureRaw(sizeMiB);
  const raw = (rawBefore.megabytesPerSecond + rawAfter.megabytesPerSecond) / 2;
  return {
    sizeMiB,
    rawMBps: Math.round(raw * 10) / 10,
    rawCpuSeconds: Math.round((rawBefore.cpuSeconds + rawAfter.cpuSeconds) * 50) / 100,
    downloadRatio: Math.round((full.downloadMBps / raw) * 100) / 100,
    totalRatio: Math.round((full.totalMBps / raw) * 100) / 100,
    ...full,
  };
};

/** Many small files against one file of the same size, both from start to complete. */
const folderLine = async (sizeMiB: number) => {
  const file = await fullPath(sizeMiB);
  const folder = await fullPath(sizeMiB, { asFolder: true });
  const { files, phases, totalMs, shareMs, totalMBps } = folder;
  const ofFile = { phases: file.phases, totalMs: file.totalMs, shareMs: file.shareMs, totalMBps: file.totalMBps };
  const ratio = Math.round((totalMBps / file.totalMBps) * 100) / 100;
  return { sizeMiB, files, folderToFileRatio: ratio, phases, totalMs, shareMs, totalMBps, file: ofFile };
};

/**
 * One file, sent by Weir and then by WebTorrent, plain and encrypted. Above 1: Weir was faster. `download`: from start to
 * WebTorrent's `done`, or Weir's complete, which is on the disk. `synced`: until both are on the disk. `all`: the same from
 * choosing the file at the other end, with what both do before anything can be sent.
 */
const webTorrentLine = async (sizeMiB: number) => {
  const { webTorrent, totalMs, shareMs, totalMBps } = await fullPath(sizeMiB, { besideWebTorrent: true });
  const ratios = (theirs: WebTorrentTimes | undefined) => ({
    download: Math.round(((theirs?.downloadMs ?? Number.NaN) / totalMs) * 100) / 100,
    synced: Math.round(((theirs?.syncedMs ?? Number.NaN) / totalMs) * 100) / 100,
    all: Math.round(((theirs?.totalMs ?? Number.NaN) / (shareMs + totalMs)) * 100) / 100,
  });
  const [plain, encrypted] = [ratios(webTorrent?.plain), ratios(webTorrent?.encrypted)];
  return { sizeMiB, ratio: { plain, encrypted }, totalMs, shareMs, totalMBps, webTorrent };
};

const { values, positionals } = parseArgs({
  options: {
    size: { type: "string", default: "256" },
    runs: { type: "string", default: "3" },
    /** Of `impaired` and `far`: one of them, which takes two minutes instead of six. */
    network: { type: "string" },
  },
  allowPositionals: true,
});
const sizeMiB = Number(values.size);
const isNetwork = (name: string): name is Network => Object.hasOwn(NETWORKS, name);
const networks = values.network === undefined ? Object.keys(NETWORKS) : [values.network];
for (const name of networks)
  if (!isNetwork(name)) throw new Error(`no network "${name}": there are ${Object.keys(NETWORKS).join("; ")}`);
const benches = {
  transfer: () => transferLine(sizeMiB),
  folder: () => folderLine(Math.min(sizeMiB, FOLDER_MIB)),
  seeders: () => measureSeeders(sizeMiB),
  webtorrent: () => webTorrentLine(sizeMiB),
  links: measureLinks,
  impaired: () => measureImpaired(networks.filter(isNetwork)),
  far: () => measureFar(sizeMiB, networks.filter(isNetwork)),
  activity: measureActivity,
  server: measureServer,
};
const isBench = (name: string): name is keyof typeof benches => Object.hasOwn(benches, name);
const names = positionals.length === 0 ? Object.keys(benches) : positionals;
for (const name of names) {
  if (!isBench(name)) throw new Error(`no benchmark "${name}": there are ${Object.keys(benches).join(", ")}`);
  for (let i = 0; i < Number(values.runs); i++)
    process.stdout.write(`${JSON.stringify({ bench: name, ...(await benches[name]()), machine })}\n`);
}
