import { connect, type Socket } from "node:net";
import { parentPort } from "node:worker_threads";
import rtc from "node-datachannel";
import { assertNever, defined } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import { SEND_QUEUED_BYTES_LOW } from "#shared/base/limits.ts";
import { BULK_HEADER_BYTES, bytesOf, decodeBulkFrame } from "#shared/wire/frame.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import type { LinkChannel, LinkTransport, TransportEvent } from "../../src-main/links/transport.ts";
import { systemEnv } from "../../src-main/log.ts";
import { startWorker } from "../support/files.ts";
import {
  type FrameRef,
  type FromEngine,
  frameReader,
  packFrame,
  type Store,
  type ToEngine,
} from "./isolation-protocol.ts";

/** The other side of {@link RemoteDriver}: a worker thread or a child process, with the real driver. */
interface Held {
  readonly rtc: LinkTransport;
  readonly taken: Record<LinkChannel, number>;
  readonly reported: Record<LinkChannel, number>;
}

const NO_COUNTERS = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
const driver = createRtcDriver(systemEnv());
const held = new Map<number, Held>();
const [socketPath, keepsFrames] = [process.env["ISOLATION_SOCKET"], process.env["ISOLATION_FRAMES"] === "here"];

let outbox: FromEngine[] = [];
let transfers: ArrayBuffer[] = [];
const flush = (): void => {
  const [messages, buffers] = [outbox, transfers];
  outbox = [];
  transfers = [];
  if (parentPort !== null) parentPort.postMessage(messages, buffers);
  // The main process may be gone: then so are we, in a moment.
  else process.send?.(messages, undefined, {}, () => undefined);
};
/** What is about frames waits for the others of this turn; it also leaves with whatever cannot wait. */
const patient: ReadonlySet<FromEngine["type"]> = new Set(["frame", "frames", "stored", "drained"]);
const post = (message: FromEngine): void => {
  outbox.push(message);
  if (!patient.has(message.type)) queueMicrotask(flushIfAny);
  else if (outbox.length === 1) setImmediate(flushIfAny);
};
const flushIfAny = (): void => {
  if (outbox.length > 0) flush();
};

const socket: Socket | null = socketPath === undefined ? null : connect(socketPath);
socket?.on(
  "data",
  frameReader((c, bytes) => send(c, "bulk", bytes)),
);
socket?.on("error", () => process.exit(1));

// ---- Frames that stay here ---------------------------------------------------------------------------------------------
const frames = new Map<FrameRef, Bytes>();
let nextFrame = 1;
const keep = (bytes: Bytes): FrameRef => {
  const frame = nextFrame++;
  frames.set(frame, bytes);
  return frame;
};
const take = (frame: FrameRef): Bytes => {
  const bytes = defined(frames.get(frame), "frame");
  frames.delete(frame);
  return bytes;
};
const disk: { store: Store | null; worker: ReturnType<typeof startWorker> | null } = { store: null, worker: null };
const unsent = new Map<ArrayBuffer, number>();

const readFrames = async (job: number, indices: readonly number[]): Promise<void> => {
  const { spec, path } = defined(disk.store, "store");
  const input = { spec, source: { kind: "file", path } as const, indices };
  const read = await defined(disk.worker, "worker").run("readChunks", input).result;
  if (!read.ok) throw new Error(read.error.message);
  const first = bytesOf(defined(read.value.frames[0], "frame").bytes).buffer;
  unsent.set(first, read.value.frames.length);
  const told = read.value.frames.map(({ index, bytes }) => ({
    frame: keep(bytesOf(bytes)),
    index,
    length: bytes.byteLength,
  }));
  post({ type: "frames", job, frames: told });
};

const sendFrame = (c: number, frame: FrameRef, head: Uint8Array): void => {
  const bytes = take(frame);
  bytes.set(head);
  send(c, "bulk", bytes);
  const left = defined(unsent.get(bytes.buffer), "batch") - 1;
  unsent.set(bytes.buffer, left);
  if (left > 0) return;
  unsent.delete(bytes.buffer);
  disk.worker?.recycle(bytes.buffer);
};

const storeFrame = (frame: FrameRef, index: number): void => {
  const { spec } = defined(disk.store, "store");
  const decoded = decodeBulkFrame(take(frame));
  if (!decoded.ok) throw new Error(decoded.error.message);
  const { payload } = decoded.value;
  defined(disk.worker, "worker").storeChunk(spec, NO_COUNTERS, { index, bytes: payload }, (outcome) => {
    if (outcome !== "stored") throw new Error(JSON.stringify(outcome));
    post({ type: "stored", frame });
  });
};

// ---- Connections -------------------------------------------------------------------------------------------------------
const send = (c: number, channel: LinkChannel, bytes: Uint8Array): void => {
  const connection = held.get(c);
  if (connection === undefined) return;
  if (!connection.rtc.send(channel, bytes).ok) post({ type: "event", c, event: { type: "ended", reason: "failed" } });
  connection.taken[channel] += bytes.length;
  touched.add(c);
  if (touched.size === 1) setImmediate(reportQueues);
};

/** Above the low mark the library itself tells when it is reached. */
const touched = new Set<number>();
const reportQueues = (): void => {
  for (const c of touched)
    for (const channel of ["control", "bulk"] as const)
      if ((held.get(c)?.rtc.bufferedAmount(channel) ?? 0) <= SEND_QUEUED_BYTES_LOW) reportQueue(c, channel);
  touched.clear();
};
const reportQueue = (c: number, channel: LinkChannel): void => {
  const connection = held.get(c);
  if (connection === undefined) return;
  const bytes = connection.taken[channel] - connection.rtc.bufferedAmount(channel);
  if (bytes <= connection.reported[channel]) return;
  connection.reported[channel] = bytes;
  post({ type: "drained", c, channel, bytes });
};

const tellFacts = (c: number): void => {
  const connection = held.get(c)?.rtc;
  if (connection === undefined) return;
  const fingerprint = connection.remoteFingerprint();
  post({
    type: "facts",
    c,
    fingerprint,
    pair: connection.selectedPair(),
    bytesReceived: connection.bytesReceived(),
  });
};
setInterval(() => {
  for (const c of held.keys()) tellFacts(c);
}, 1000).unref();

const onEvent = (c: number, event: TransportEvent): void => {
  if (event.type === "queueLow") {
    reportQueue(c, event.channel);
    return;
  }
  if (event.type === "channelOpen") tellFacts(c);
  if (event.type === "message" && event.bytes !== null) {
    const { channel, bytes } = event;
    if (channel === "bulk" && socket !== null) {
      socket.write(packFrame(c, bytes));
      return;
    }
    if (channel === "bulk" && keepsFrames) {
      const head = bytes.slice(0, BULK_HEADER_BYTES);
      post({ type: "frame", c, frame: keep(bytes), head, length: bytes.length });
      return;
    }
    transfers.push(bytes.buffer);
  }
  post({ type: "event", c, event });
};

const open = (c: number, options: Parameters<typeof driver.open>[0]): void => {
  const opened = driver.open(options, (event) => onEvent(c, event));
  if (!opened.ok) post({ type: "refused", c });
  else held.set(c, { rtc: opened.value, taken: { control: 0, bulk: 0 }, reported: { control: 0, bulk: 0 } });
};

const handle = (message: ToEngine): void => {
  const connection = "c" in message ? held.get(message.c)?.rtc : undefined;
  switch (message.type) {
    case "open":
      open(message.c, message.options);
      return;
    case "offer":
      if (connection?.createOffer().ok !== true) post({ type: "refused", c: message.c });
      return;
    case "acceptOffer":
    case "acceptAnswer":
      if (connection?.[message.type](message.sdp).ok !== true) post({ type: "refused", c: message.c });
      return;
    case "candidate":
      connection?.addRemoteCandidate(message.candidate, message.mid);
      return;
    case "send":
      send(message.c, message.channel, message.bytes);
      return;
    case "close":
      connection?.close();
      held.delete(message.c);
      return;
    case "throw":
      throwInCallback();
      return;
    case "sendFrame":
      if (message.frame === 0) send(message.c, "bulk", withHead(message.head));
      else sendFrame(message.c, message.frame, message.head);
      return;
    case "read":
      void readFrames(message.job, message.indices);
      return;
    case "store":
      storeFrame(message.frame, message.index);
      return;
    case "drop":
      take(message.frame);
      return;
    default:
      assertNever(message, "message to the engine");
  }
};

/** Stands for chunks when nothing is read from a disk. */
const sample = new Uint8Array(64 * 1024);
const withHead = (head: Uint8Array): Uint8Array => {
  sample.set(head);
  return sample;
};

/** What the driver takes care never to do: the addon answers with an abort. */
const throwInCallback = (): void => {
  const pc = new rtc.PeerConnection("throws", { iceServers: [] });
  pc.onLocalDescription(() => {
    throw new Error("thrown in a callback");
  });
  pc.createDataChannel("x");
};

const receive = (messages: readonly ToEngine[] | { store: Store }): void => {
  if ("store" in messages) {
    disk.store = messages.store;
    disk.worker = startWorker(messages.store.databasePath);
  } else for (const message of messages) handle(message);
};
if (parentPort !== null) parentPort.on("message", receive);
else {
  process.on("message", receive);
  process.on("disconnect", () => process.exit(0));
}
post({ type: "ready" });
