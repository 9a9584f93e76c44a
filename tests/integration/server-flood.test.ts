import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { counted, isFullRun } from "../support/counts.ts";
import { temporaryFolder } from "../support/files.ts";
import { Flood, type FloodCounts } from "../support/flood.ts";
import { createIdentity, freshEnvelopeId, RawClient, sealed } from "../support/rendezvous.ts";
import { type ServerProcess, startServerChild } from "../support/server-process.ts";

/** Row 41: what strangers who never log in can do to a server, and to those who use it meanwhile. */
const HALF_OPEN = counted(200, 500);
const FRAGMENTS = counted(20_000, 100_000);
const OVERSIZE = counted(2, 20);
const HONEST_REQUESTS = counted(50, 500);
/** More than the memory that garbage takes until it is collected, and far less than what was sent. */
const GROWTH_MAX_BYTES = 64 * 1024 * 1024;
const P99_MAX_MS = 200;

const KiB = 1024;
const rssOf = (pid: number | undefined): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * KiB;

describe.skipIf(process.platform !== "linux")("a flood of connections that do not log in", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let server: ServerProcess;
  let flood: Flood;
  beforeAll(async () => {
    folder = await temporaryFolder();
    server = await startServerChild("--data", folder.path);
    flood = new Flood(server.url);
  });
  afterAll(async () => {
    flood.end();
    await server.end("SIGKILL");
    await folder.dispose();
  });

  /** In the full run from a process of its own: what is promised is how long the server makes the honest wait, not this test. */
  const flooding = async (): Promise<void> => {
    const counts: FloodCounts = {
      ...{ halfOpen: HALF_OPEN, fragments: FRAGMENTS, oversize: OVERSIZE },
      // A server that took one in would show it.
      oversizeBytes: 1.5 * GROWTH_MAX_BYTES,
    };
    if (!isFullRun) return flood.run(counts);
    const args = ["tests/support/flood-child.ts", server.url, JSON.stringify(counts)];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"] });
    const code = await new Promise((resolve) => child.once("close", resolve));
    expect(code).toBe(0);
  };

  it(`costs little memory and leaves the honest alone: ${HALF_OPEN} half-open, ${FRAGMENTS} fragments, ${OVERSIZE} oversize`, async () => {
    const honest = await RawClient.loggedIn(server.url);
    const recipient = await RawClient.loggedIn(server.url, createIdentity());
    const times: number[] = [];
    const put = async (): Promise<void> => {
      const id = freshEnvelopeId();
      const at = performance.now();
      await honest.must("mailbox.put", { to: recipient.identity.userId, id, sealed: sealed(300) });
      times.push(performance.now() - at);
      // A long flood leaves time for more than one mailbox holds.
      await recipient.must("mailbox.ack", { ids: [id] });
    };
    for (let i = 0; i < HONEST_REQUESTS; i++) await put();
    const p99 = (): number => times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0;
    const quietMs = p99();
    times.length = 0;
    const before = rssOf(server.child.pid);
    let highest = before;

    let isOver = false;
    const watch = async (): Promise<void> => {
      while (!isOver || times.length < HONEST_REQUESTS) {
        await put();
        highest = Math.max(highest, rssOf(server.child.pid));
      }
    };
    const attack = flooding().finally(() => {
      isOver = true;
    });
    await Promise.all([attack, watch()]);

    const p99Ms = p99();
    const growth = highest - before;
    process.stdout.write(
      `flood: ${Math.round(growth / KiB / KiB)} MiB more at the most, honest p99 ${p99Ms.toFixed(0)} ms of ${times.length} (${quietMs.toFixed(0)} ms before)\n`,
    );
    expect(growth).toBeLessThan(GROWTH_MAX_BYTES);
    // A promise of time only where nothing else runs.
    if (isFullRun) expect(p99Ms).toBeLessThan(P99_MAX_MS);
    expect([honest, recipient].map(({ socket }) => socket.connected)).toEqual([true, true]);
    honest.close();
    recipient.close();
  });
});
