import { createHash, randomFillSync } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { TransferPhase, TransferView } from "#shared/ipc/views.ts";
import { runWindows } from "./demo-windows.ts";
import { type HeadlessProfile, pair, say, startHeadless, startServer } from "./headless-process.ts";

const USAGE = `npm run demo                                       Alice and Bob, paired, in two windows
npm run -s demo -- --headless [--size 64MiB] [--json]   the same road without a window, checked`;

/** "64MiB", "1GiB", "1000" (bytes). */
const parseSize = (text: string): number | null => {
  const match = /^(\d+)\s*(B|KiB|MiB|GiB)?$/i.exec(text);
  if (match === null) return null;
  const unit = { b: 1, kib: 1024, mib: 1024 ** 2, gib: 1024 ** 3 }[(match[2] ?? "B").toLowerCase()];
  return unit === undefined ? null : Number(match[1]) * unit;
};

export const writeRandomFile = async (path: string, sizeBytes: number): Promise<string> => {
  const hash = createHash("sha256");
  const file = await open(path, "wx");
  try {
    const block = Buffer.alloc(Math.min(sizeBytes, 4 * 1024 * 1024));
    for (let left = sizeBytes; left > 0; left -= block.length) {
      const part = left < block.length ? block.subarray(0, left) : block;
      randomFillSync(part);
      hash.update(part);
      await file.write(part);
    }
  } finally {
    await file.close();
  }
  return hash.digest("hex");
};

export const sha256OfFile = async (path: string): Promise<string> => {
  const hash = createHash("sha256");
  for await (const part of createReadStream(path)) hash.update(part);
  return hash.digest("hex");
};

interface PhaseTime {
  phase: TransferPhase;
  ms: number;
}

/** Starts a download and follows it to its end; `phases` tells how long each lasted, in the order in which they came. */
export const follow = async (
  profile: HeadlessProfile,
  fileId: string,
  timeoutMs: number,
): Promise<{ view: TransferView; phases: PhaseTime[]; totalMs: number }> => {
  const phases: PhaseTime[] = [];
  let enteredAt = performance.now();
  const begun = enteredAt;
  const enter = (phase: TransferPhase): void => {
    const now = performance.now();
    const last = phases.at(-1);
    if (last?.phase === phase) return;
    if (last !== undefined) last.ms = Math.round(now - enteredAt);
    phases.push({ phase, ms: 0 });
    enteredAt = now;
  };
  const finished = new Promise<TransferView>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("the transfer did not end in time")), timeoutMs);
    const off = profile.on("transfer.changed", (view) => {
      if (view.fileId !== fileId) return;
      enter(view.phase);
      if (view.phase !== "complete" && view.phase !== "failed") return;
      clearTimeout(timer);
      off();
      resolve(view);
    });
  });
  await profile.call("transfers.start", { fileId });
  const view = await finished;
  return { view, phases, totalMs: Math.round(performance.now() - begun) };
};

const expectedPhases: readonly TransferPhase[] = ["downloading", "draining", "assembling", "verifying", "complete"];

const runHeadless = async (sizeBytes: number, json: boolean): Promise<boolean> => {
  const dir = await mkdtemp(join(tmpdir(), "weir-demo-"));
  const tell = (line: string): void => {
    if (!json) process.stdout.write(`${line}\n`);
  };
  const stops: (() => Promise<unknown>)[] = [];
  try {
    const server = await startServer(join(dir, "server"));
    stops.push(() => server.stop());
    tell(`server     ${server.ready.url}`);
    const start = async (name: string): Promise<HeadlessProfile> => {
      const home = join(dir, name.toLowerCase());
      const downloads = join(home, "downloads");
      await mkdir(downloads, { recursive: true });
      const profile = await startHeadless({ dataDir: join(home, "data"), server: server.ready.url, name, downloads });
      stops.push(() => profile.stop());
      return profile;
    };
    const [alice, bob] = [await start("Alice"), await start("Bob")];
    await pair(alice, bob);
    tell("paired     Alice and Bob accepted each other");
    await say(alice, bob, "Hello Bob!");
    await say(bob, alice, "Hello Alice, send me the file.");
    tell("chat       one message each way, end-to-end encrypted");

    const path = join(dir, "alice", "demo.bin");
    const sha256 = await writeRandomFile(path, sizeBytes);
    const file = await alice.call("files.share", { chatId: bob.userId, path });
    await bob.until(
      "the file message",
      async () => (await bob.call("files.list", {})).find((f) => f.fileId === file.fileId) ?? null,
    );
    tell(`shared     ${file.name}, ${sizeBytes} bytes in ${file.chunkCount} chunks`);
    const { view, phases, totalMs } = await follow(bob, file.fileId, 60_000 + sizeBytes / 1000);
    for (const { phase, ms } of phases) tell(`${phase.padEnd(11)}${phase === "complete" ? "" : `${ms} ms`}`);

    const sha256Match = view.savedPath !== null && (await sha256OfFile(view.savedPath)) === sha256;
    const allPhases = JSON.stringify(phases.map((p) => p.phase)) === JSON.stringify(expectedPhases);
    const exitCodes = await Promise.all(
      stops
        .splice(0)
        .reverse()
        .map((stop) => stop()),
    );
    const ok = view.phase === "complete" && sha256Match && allPhases && exitCodes.every((code) => code === 0);
    const megabytesPerSecond = Math.round(sizeBytes / 10_000 / (totalMs / 1000)) / 100;
    if (json) {
      const { requestedChunks, duplicateChunks, lateChunks, rejectedChunks, cancelledChunks, chunkCount, error } = view;
      const counters = {
        ...{ chunkCount, requestedChunks, duplicateChunks },
        ...{ lateChunks, rejectedChunks, cancelledChunks },
      };
      process.stdout.write(
        `${JSON.stringify({ ok, sha256Match, phases, totalMs, sizeBytes, megabytesPerSecond, ...counters, exitCodes, error })}\n`,
      );
    } else {
      tell(`SHA-256    ${sha256Match ? "equal" : "DIFFERENT"}`);
      if (view.error !== null) tell(`error      ${view.error.type}: ${view.error.message}`);
      if (!allPhases) tell(`phases     expected ${expectedPhases.join(", ")}`);
      tell(`${ok ? "done" : "FAILED"}       ${megabytesPerSecond} MB/s from start to complete`);
    }
    return ok;
  } finally {
    for (const stop of stops.reverse()) await stop();
    await rm(dir, { recursive: true, force: true });
  }
};

const main = async (): Promise<number> => {
  let args: { headless: boolean; json: boolean; size: number };
  try {
    const { values } = parseArgs({
      options: {
        headless: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        size: { type: "string", default: "64MiB" },
      },
    });
    const size = parseSize(values.size);
    if (size === null) throw new Error(`--size ${values.size} is not a size like 64MiB`);
    args = { headless: values.headless, json: values.json, size };
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${USAGE}\n`);
    return 2;
  }
  if (!args.headless) return runWindows();
  return (await runHeadless(args.size, args.json)) ? 0 : 1;
};

if (import.meta.main) process.exitCode = await main();
