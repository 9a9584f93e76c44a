import { describe, expect, test } from "vitest";
import { ENGINE_WAITING_BYTES_MAX } from "#shared/base/limits.ts";
import { fail, ok } from "#shared/base/result.ts";
import { BULK_HEADER_BYTES } from "#shared/wire/frame.ts";
import type { FromDriver, ToDriver } from "../../src-main/links/driver-protocol.ts";
import { DriverServer } from "../../src-main/links/driver-server.ts";
import { HeldFrames } from "../../src-main/links/held-frames.ts";
import { RemoteDriver } from "../../src-main/links/remote-driver.ts";
import type { LinkTransport, TransportDriver, TransportEvent } from "../../src-main/links/transport.ts";
import { quietLog, realEnv } from "../support/files.ts";

/** One connection of a driver that does what the test says, seen through both halves of the boundary. */
const createWorld = (rtc: Partial<LinkTransport> = {}) => {
  const sent: Uint8Array[] = [];
  const state = { queued: 0, closed: false, tell: (_: TransportEvent): void => undefined };
  const real: LinkTransport = {
    createOffer: () => ok(undefined),
    acceptOffer: () => ok(undefined),
    acceptAnswer: () => ok(undefined),
    addRemoteCandidate: () => ok(undefined),
    send: (_, bytes) => {
      sent.push(new Uint8Array(bytes));
      return ok(undefined);
    },
    bufferedAmount: () => state.queued,
    remoteFingerprint: () => "AA",
    selectedPair: () => null,
    bytesReceived: () => 5,
    close: () => {
      state.closed = true;
    },
    ...rtc,
  };
  const driver: TransportDriver = {
    open: (_, onEvent) => {
      state.tell = onEvent;
      return ok(real);
    },
    dispose: () => undefined,
  };
  const frames = new HeldFrames(1);
  const posted: FromDriver[] = [];
  const reads = { now: true };
  const receive = (message: FromDriver): void => {
    posted.push(message);
    if (reads.now) remote.receive(message);
  };
  const server = new DriverServer({ env: realEnv, driver, frames, post: receive, onSent: () => undefined });
  const post = (message: ToDriver): void => server.receive(message);
  const remote = new RemoteDriver({ isUp: true, log: quietLog, post });
  const events: TransportEvent[] = [];
  const opened = remote.open({ iceServers: [], bulkLowBytes: 1 }, (event) => events.push(event));
  if (!opened.ok) throw new Error(opened.error.message);
  return { sent, state, frames, posted, reads, server, remote, events, connection: opened.value };
};
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("a driver in another process", () => {
  test("tells the fingerprint before the channel is open, which is when it is asked for", () => {
    const world = createWorld();
    expect(world.connection.remoteFingerprint()).toBeNull();
    const seen: (string | null)[] = [];
    world.events.push = () => seen.push(world.connection.remoteFingerprint());
    world.state.tell({ type: "channelOpen", channel: "control" });
    expect(seen).toEqual(["AA"]);
    world.server.dispose();
  });

  test("keeps bulk messages and passes on their header; what is there when it closes ends with it", async () => {
    const world = createWorld();
    const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
    world.state.tell({ type: "message", channel: "bulk", bytes });
    world.state.tell({ type: "message", channel: "bulk", bytes: new Uint8Array(3) });
    world.state.tell({ type: "message", channel: "control", bytes: new Uint8Array(4) });
    expect(world.events).toEqual([
      { type: "frame", head: bytes.slice(0, BULK_HEADER_BYTES), payload: { frame: 1, byteLength: 80 } },
      { type: "frame", head: new Uint8Array(3), payload: { frame: 2, byteLength: 0 } },
      { type: "message", channel: "control", bytes: new Uint8Array(4) },
    ]);
    expect(world.frames.take(1)).toEqual(bytes.subarray(BULK_HEADER_BYTES));
    world.connection.close();
    // Chunks that were handed over in this turn leave before it.
    expect(world.frames.size).toBe(1);
    await nextTurn();
    expect(world.frames.size).toBe(0);
    expect(world.state.closed).toBe(true);
  });

  test("sends a held frame with its header, once", () => {
    const world = createWorld();
    const frame = world.frames.hold(new Uint8Array(60), null);
    const head = new Uint8Array(BULK_HEADER_BYTES).fill(9);
    expect(world.connection.sendHeld?.({ ...frame, head }).ok).toBe(true);
    expect(world.sent).toEqual([Uint8Array.from({ length: 60 }, (_, i) => (i < BULK_HEADER_BYTES ? 9 : 0))]);
    expect(world.connection.bufferedAmount("bulk")).toBe(60);
    world.connection.sendHeld?.({ ...frame, head });
    expect(world.events).toEqual([{ type: "refused", reason: "send_failed" }]);
    world.server.dispose();
  });

  test("tells what has left its queues when they are low, at once or when they get there", async () => {
    const world = createWorld();
    world.state.queued = 10 * 1024 * 1024;
    world.connection.send("bulk", new Uint8Array(1000));
    await nextTurn();
    expect(world.connection.bufferedAmount("bulk")).toBe(1000);
    expect(world.events).toEqual([]);
    world.state.queued = 100;
    world.state.tell({ type: "queueLow", channel: "bulk" });
    expect(world.connection.bufferedAmount("bulk")).toBe(100);
    world.state.queued = 0;
    world.connection.send("bulk", new Uint8Array(1000));
    await nextTurn();
    expect(world.connection.bufferedAmount("bulk")).toBe(0);
    expect(world.events).toEqual([
      { type: "queueLow", channel: "bulk" },
      { type: "queueLow", channel: "bulk" },
    ]);
    world.server.dispose();
  });

  test("refuses afterwards what it could not answer at once", () => {
    const failing = () => fail("rtc_failed", "no");
    const { connection, events, server } = createWorld({ acceptAnswer: failing, send: failing });
    expect(connection.acceptAnswer("garbage").ok).toBe(true);
    connection.send("control", new Uint8Array(1));
    expect(events).toEqual([
      { type: "refused", reason: "bad_description" },
      { type: "refused", reason: "send_failed" },
    ]);
    server.dispose();
  });

  test("ends a connection whose small messages pile up: waiting, each costs far more than its bytes", () => {
    const world = createWorld();
    world.reads.now = false;
    // What 60 bytes were measured to take in both processes.
    const most = Math.floor(ENGINE_WAITING_BYTES_MAX / 1700);
    let told = 0;
    while (!world.state.closed && told <= most) {
      world.state.tell({ type: "message", channel: "control", bytes: new Uint8Array(60) });
      told += 1;
    }
    expect(told).toBeLessThan(most);
    world.server.dispose();
  });

  test.each(["control", "bulk"] as const)("ends a connection whose %s messages pile up, and no other", (channel) => {
    const world = createWorld();
    const bytes = 1024 * 1024;
    // What is handled, and stored or dropped, does not count.
    for (let i = 0; i < (3 * ENGINE_WAITING_BYTES_MAX) / bytes; i += 1) {
      world.state.tell({ type: "message", channel, bytes: new Uint8Array(bytes) });
      world.frames.take(i + 1);
    }
    expect(world.state.closed).toBe(false);
    world.reads.now = false;
    for (let i = 0; i < ENGINE_WAITING_BYTES_MAX / bytes - 2; i += 1)
      world.state.tell({ type: "message", channel, bytes: new Uint8Array(bytes) });
    expect(world.state.closed).toBe(false);
    for (let i = 0; i < 3; i += 1) world.state.tell({ type: "message", channel, bytes: new Uint8Array(bytes) });
    expect(world.state.closed).toBe(true);
    expect(world.posted.at(-1)).toMatchObject({ type: "event", event: { type: "ended", reason: "flooded" } });
    expect(world.frames.size).toBe(0);
  });

  test("that is lost ends every connection, also when a handler fails, and says nothing more", () => {
    const world = createWorld();
    world.events.push = () => {
      throw new Error("a handler");
    };
    const others: TransportEvent[] = [];
    const other = world.remote.open({ iceServers: [], bulkLowBytes: 1 }, (event) => others.push(event));
    world.remote.lost();
    expect(others).toEqual([{ type: "ended", reason: "failed" }]);
    expect(other.ok && other.value.send("control", new Uint8Array(1)).ok).toBe(false);
    world.server.dispose();
  });
});
