import { existsSync, readFileSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import { isFullRun } from "../support/counts.ts";
import { chunksIn, type DescribedDownload, describeDownload, runDownloadChild } from "../support/described-download.ts";
import { sha256OfFile, startWorker, temporaryFolder } from "../support/files.ts";
import { buildPreload } from "../support/preload.ts";

const CHUNKS = 24;
/** Of the calls of one download; in the full run every one of them fails once. */
const CALLS_AT_EVERY_CHANGE = 2;

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let owner: ChunkWorker;
beforeAll(async () => {
  folder = await temporaryFolder();
  owner = startWorker(join(folder.path, "owner.db"));
});
afterAll(async () => {
  await owner.dispose();
  await folder.dispose();
});

describe("an I/O error", () => {
  test("at any call is told, never ends in a file that counts as complete, and is overcome by another try", async (context) => {
    const shim = join(folder.path, "faulty-calls.so");
    const missing = buildPreload("faulty-calls.c", shim);
    if (missing !== null) return context.skip(missing);

    let round = 0;
    const describeNext = async () => {
      round += 1;
      return describeDownload(owner, folder.path, CHUNKS * 65_536 - 77, String(round));
    };
    const logOf = ({ file }: DescribedDownload): string => `${file}.log`;
    const runWithFault = (download: DescribedDownload, call: number) =>
      runDownloadChild(download.file, {
        env: {
          ...{ LD_PRELOAD: shim, FAULT_UNDER: dirname(download.database), FAULT_CALL: String(call) },
          FAULT_LOG: logOf(download),
        },
      });
    const callsIn = (download: DescribedDownload): string[] =>
      existsSync(logOf(download)) ? readFileSync(logOf(download), "utf8").trim().split("\n") : [];

    // Without a fault: how many calls there are.
    const whole = await describeNext();
    expect((await runWithFault(whole, 0)).code).toBe(0);
    const calls = callsIn(whole);
    const names = new Set(calls.map((line) => line.split(" ")[0]));
    expect([...names].sort()).toEqual(expect.arrayContaining(["fsync", "pwrite64", "renameat2"]));
    const rename = calls.findIndex((line) => line.startsWith("renameat2"));
    const last = calls.length;
    const step = isFullRun ? 1 : last / CALLS_AT_EVERY_CHANGE;
    const chosen = new Set([rename + 1, rename + 2]);
    for (let call = 1; call <= last; call += step) chosen.add(Math.floor(call));

    let told = 0;
    for (const call of chosen) {
      const download = await describeNext();
      const faulty = await runWithFault(download, call);
      const failed = callsIn(download)[call - 1] ?? "none";
      const where = `call ${call}, ${failed}`;
      const final = join(download.directory, "final.bin");
      if (existsSync(final)) expect(await sha256OfFile(final), where).toBe(download.hex);
      if (faulty.code !== 0) {
        told += 1;
        expect(faulty.errors, where).toMatch(/"type":"(io_error|not_accessible|disk_full)"/);
      }
      // What concerns the file itself is never passed over.
      if (failed.includes(`${download.directory}`)) expect(faulty.code, where).not.toBe(0);
      // SQLite passes over some errors that lose nothing, as that of the sync of a folder.
      if (faulty.code === 0) {
        expect(await readdir(download.directory), where).toEqual(["final.bin"]);
        continue;
      }
      const again = await runDownloadChild(download.file, {});
      expect(again.code, `${where}: ${again.errors}`).toBe(0);
      expect(await sha256OfFile(final), where).toBe(download.hex);
      expect(await readdir(download.directory), where).toEqual(["final.bin"]);
      const stored = new Set(chunksIn(faulty.lines, "S"));
      expect(
        chunksIn(again.lines, "F").filter((index) => stored.has(index)),
        where,
      ).toEqual([]);
      await rm(dirname(download.database), { recursive: true });
    }
    expect(told).toBeGreaterThan(chosen.size / 2);
  }, 1_800_000);
});
