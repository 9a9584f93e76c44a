import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import WebSocket from "ws";
import { counted, isFullRun } from "../support/counts.ts";
import { temporaryFolder } from "../support/files.ts";
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

/** A server that took it in would show it. */
const MUCH = Buffer.alloc(1.5 * GROWTH_MAX_BYTES);

const KiB = 1024;
const rssOf = (pid: number | undefined): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * KiB;

describe.skipIf(process.platform !== "linux")("a flood of connections that do not log in", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let server: ServerProcess;
  const sockets: (Socket | WebSocket)[] = [];
  beforeAll(async () => {
    folder = await temporaryFolder();
    server = await startServerChild("--data", folder.path);
  });
  afterAll(async () => {
    for (const socket of sockets) socket instanceof WebSocket ? socket.terminate() : socket.destroy();
    await server.end("SIGKILL");
    await folder.dispose();
  });

  /** Half a request: neither refused nor answered until the server has waited long enough. */
  const halfOpen = (): Promise<void> =>
    new Promise((resolve) => {
      const { hostname, port } = new URL(server.url);
      const socket = connect(Number(port), hostname, () => {
        socket.write("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nX-Half: ");
        resolve();
      });
      socket.on("error", () => resolve());
      sockets.push(socket);
    });

  const websocket = (): Promise<WebSocket> =>
    new Promise((resolve, reject) => {
      const socket = new WebSocket(`${server.url}/socket.io/?EIO=4&transport=websocket`);
      socket.on("error", reject);
      socket.once("open", () => resolve(socket));
      sockets.push(socket);
    });

  const closed = (socket: WebSocket): Promise<void> =>
    new Promise((resolve) => {
      socket.removeAllListeners("error");
      socket.on("error", () => undefined);
      if (socket.readyState === WebSocket.CLOSED) resolve();
      socket.once("close", () => resolve());
    });

  /** One message that never ends, in pieces of one byte. */
  const fragments = async (): Promise<void> => {
    const socket = await websocket();
    const end = closed(socket);
    for (let sent = 0; sent < FRAGMENTS && socket.readyState === WebSocket.OPEN; sent++) {
      await new Promise<void>((resolve) => socket.send("4", { fin: false }, () => resolve()));
    }
    // It is cut off for the pieces or, at the latest, for not logging in.
    await end;
  };

  const oversize = async (): Promise<void> => {
    const socket = await websocket();
    const end = closed(socket);
    socket.send(MUCH, () => undefined);
    await end;
  };

  it(`costs little memory and leaves the honest alone: ${HALF_OPEN} half-open, ${FRAGMENTS} fragments, ${OVERSIZE} oversize`, async () => {
    const honest = await RawClient.loggedIn(server.url);
    const recipient = createIdentity();
    (await RawClient.loggedIn(server.url, recipient)).close();
    const times: number[] = [];
    const put = async (): Promise<void> => {
      const at = performance.now();
      await honest.must("mailbox.put", { to: recipient.userId, id: freshEnvelopeId(), sealed: sealed(300) });
      times.push(performance.now() - at);
    };
    for (let i = 0; i < HONEST_REQUESTS; i++) await put();
    const p99 = (): number => times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0;
    const quietMs = p99();
    times.length = 0;
    const before = rssOf(server.child.pid);
    let highest = before;

    await Promise.all(Array.from({ length: HALF_OPEN }, halfOpen));
    let isOver = false;
    const watch = async (): Promise<void> => {
      while (!isOver || times.length < HONEST_REQUESTS) {
        await put();
        highest = Math.max(highest, rssOf(server.child.pid));
      }
    };
    const flood = async (): Promise<void> => {
      await fragments();
      for (let i = 0; i < OVERSIZE; i++) await oversize();
      isOver = true;
    };
    await Promise.all([flood(), watch()]);

    const p99Ms = p99();
    const growth = highest - before;
    process.stdout.write(
      `flood: ${Math.round(growth / KiB / KiB)} MiB more at the most, honest p99 ${p99Ms.toFixed(0)} ms of ${times.length} (${quietMs.toFixed(0)} ms before)\n`,
    );
    expect(growth).toBeLessThan(GROWTH_MAX_BYTES);
    // A promise of time only where nothing else runs.
    if (isFullRun) expect(p99Ms).toBeLessThan(P99_MAX_MS);
    expect(honest.socket.connected).toBe(true);
    honest.close();
  });
});
