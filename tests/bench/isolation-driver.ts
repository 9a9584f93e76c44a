import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { assertNever } from "#shared/base/assert.ts";
import { ok } from "#shared/base/result.ts";
import { BULK_HEADER_BYTES } from "#shared/wire/frame.ts";
import type { LinkChannel, LinkTransport, TransportDriver, TransportEvent } from "../../src-main/links/transport.ts";
import {
  type FrameRef,
  type FromEngine,
  frameReader,
  type Mode,
  packFrame,
  type Store,
  type ToEngine,
} from "./isolation-protocol.ts";

/** What is about frames waits for the others of this turn; it also leaves with whatever cannot wait. */
const patient: ReadonlySet<ToEngine["type"]> = new Set(["sendFrame", "read", "store", "drop"]);

const engineUrl = new URL("./isolation-engine.ts", import.meta.url);

interface Held {
  readonly onEvent: (event: TransportEvent) => void;
  readonly sent: Record<LinkChannel, number>;
  readonly drained: Record<LinkChannel, number>;
  facts: Extract<FromEngine, { type: "facts" }> | null;
}

/** What `fork` gives is a view of its reading buffer, which must not be transferred to the chunk worker. */
const withOwnBytes = (event: TransportEvent): TransportEvent =>
  event.type === "message" && event.bytes !== null ? { ...event, bytes: new Uint8Array(event.bytes) } : event;

/** The running engine, as far as it has to be known. */
interface Port {
  readonly pid: number | null;
  post(messages: readonly ToEngine[] | { store: Store }, buffers: ArrayBuffer[]): void;
  sendBulk: ((c: number, bytes: Uint8Array) => void) | null;
  end(): void;
}

/** An TransportDriver whose connections live in an engine. After a crash all of them have ended, and the next one starts it again. */
export class RemoteDriver implements TransportDriver {
  /** The frame that the next bulk `send` means (mode engine only). */
  nextFrame: FrameRef = 0;
  onStored: (frame: FrameRef) => void = () => undefined;
  onFrames: (message: Extract<FromEngine, { type: "frames" }>) => void = () => undefined;
  /** When the engine died and when the next one said that it is ready. */
  readonly lives: { diedAtMs: number | null; readyAtMs: number | null }[] = [];
  readonly #mode: Exclude<Mode, "main">;
  readonly #store: Store | null;
  readonly #held = new Map<number, Held>();
  /** Stand for frames that stayed in the engine, of their length and with their header; used again and again. */
  readonly #spare = new Map<number, Uint8Array<ArrayBuffer>[]>();
  readonly #frames = new Map<ArrayBuffer, FrameRef>();
  #port: Port | null = null;
  #outbox: ToEngine[] = [];
  #buffers: ArrayBuffer[] = [];
  #next = 1;

  constructor(mode: Exclude<Mode, "main">, store: Store | null) {
    this.#mode = mode;
    this.#store = store;
  }

  get enginePid(): number | null {
    return this.#port?.pid ?? null;
  }

  open(options: Parameters<TransportDriver["open"]>[0], onEvent: (event: TransportEvent) => void) {
    const c = this.#next++;
    const held: Held = { onEvent, sent: { control: 0, bulk: 0 }, drained: { control: 0, bulk: 0 }, facts: null };
    this.#held.set(c, held);
    this.post({ type: "open", c, options });
    const connection: LinkTransport = {
      createOffer: () => ok(this.post({ type: "offer", c })),
      acceptOffer: (sdp) => ok(this.post({ type: "acceptOffer", c, sdp })),
      acceptAnswer: (sdp) => ok(this.post({ type: "acceptAnswer", c, sdp })),
      addRemoteCandidate: (candidate, mid) => ok(this.post({ type: "candidate", c, candidate, mid })),
      send: (channel, bytes) => {
        held.sent[channel] += bytes.length;
        this.#send(c, channel, bytes);
        return ok(undefined);
      },
      bufferedAmount: (channel) => held.sent[channel] - held.drained[channel],
      remoteFingerprint: () => held.facts?.fingerprint ?? null,
      selectedPair: () => held.facts?.pair ?? null,
      bytesReceived: () => held.facts?.bytesReceived ?? 0,
      close: () => {
        if (this.#held.delete(c)) this.post({ type: "close", c });
      },
    };
    return ok(connection);
  }

  /** Which frame of the engine this stands for. What stands for it is not needed any more. */
  takeFrame(buffer: ArrayBuffer): FrameRef {
    const frame = this.#frames.get(buffer) ?? 0;
    this.#frames.delete(buffer);
    this.#spare.set(buffer.byteLength, [...(this.#spare.get(buffer.byteLength) ?? []), new Uint8Array(buffer)]);
    return frame;
  }

  post(message: ToEngine): void {
    this.#port ??= this.#start();
    this.#outbox.push(message);
    if (!patient.has(message.type)) queueMicrotask(() => this.#flush());
    else if (this.#outbox.length === 1) setImmediate(() => this.#flush());
  }

  dispose(): void {
    this.#held.clear();
    this.#port?.end();
    this.#port = null;
  }

  #flush(): void {
    if (this.#outbox.length === 0) return;
    const [messages, buffers] = [this.#outbox, this.#buffers];
    this.#outbox = [];
    this.#buffers = [];
    this.#port?.post(messages, buffers);
  }

  #send(c: number, channel: LinkChannel, bytes: Uint8Array): void {
    if (channel === "bulk" && this.#mode === "engine") {
      this.post({ type: "sendFrame", c, frame: this.nextFrame, head: bytes.slice(0, BULK_HEADER_BYTES) });
      return;
    }
    if (channel === "bulk" && this.#port?.sendBulk != null) {
      this.#port.sendBulk(c, bytes);
      return;
    }
    // The caller fills its buffer again at once.
    const copy = new Uint8Array(bytes);
    this.#buffers.push(copy.buffer);
    this.post({ type: "send", c, channel, bytes: copy });
  }

  readonly #onBulk = (c: number, bytes: Uint8Array<ArrayBuffer>): void =>
    this.#held.get(c)?.onEvent({ type: "message", channel: "bulk", bytes });

  #receive(message: FromEngine): void {
    switch (message.type) {
      case "ready":
        this.lives.push({ diedAtMs: null, readyAtMs: performance.now() });
        return;
      case "event":
        this.#held.get(message.c)?.onEvent(this.#mode === "ipc" ? withOwnBytes(message.event) : message.event);
        return;
      case "refused":
        this.#held.get(message.c)?.onEvent({ type: "ended", reason: "failed" });
        return;
      case "drained": {
        const held = this.#held.get(message.c);
        if (held === undefined) return;
        held.drained[message.channel] = message.bytes;
        held.onEvent({ type: "queueLow", channel: message.channel });
        return;
      }
      case "facts": {
        const held = this.#held.get(message.c);
        if (held !== undefined) held.facts = message;
        return;
      }
      case "frame": {
        const { c, frame, head, length } = message;
        const held = this.#held.get(c);
        if (held === undefined) {
          this.post({ type: "drop", frame });
          return;
        }
        const whole = this.#spare.get(length)?.pop() ?? new Uint8Array(length);
        whole.set(head);
        this.#frames.set(whole.buffer, frame);
        held.onEvent({ type: "message", channel: "bulk", bytes: whole });
        return;
      }
      case "frames":
        this.onFrames(message);
        return;
      case "stored":
        this.onStored(message.frame);
        return;
      default:
        assertNever(message, "message of the engine");
    }
  }

  #start(): Port {
    const port = this.#mode === "worker" ? this.#startWorker() : this.#startChild();
    if (this.#mode === "engine" && this.#store !== null) port.post({ store: this.#store }, []);
    return port;
  }

  #onGone(port: Port): void {
    if (this.#port !== port) return;
    this.#port = null;
    this.#outbox = [];
    this.lives.push({ diedAtMs: performance.now(), readyAtMs: null });
    const ended = [...this.#held.values()];
    this.#held.clear();
    for (const { onEvent } of ended) onEvent({ type: "ended", reason: "failed" });
  }

  #startWorker(): Port {
    const thread = new Worker(engineUrl, { execArgv: [] });
    thread.on("message", (messages: FromEngine[]) => {
      for (const message of messages) this.#receive(message);
    });
    const port: Port = {
      pid: null,
      post: (messages, buffers) => thread.postMessage(messages, buffers),
      sendBulk: null,
      end: () => void thread.terminate(),
    };
    thread.on("exit", () => this.#onGone(port));
    return port;
  }

  #startChild(): Port {
    const listening = this.#mode === "socket" ? this.#listen() : null;
    const child: ChildProcess = fork(fileURLToPath(engineUrl), [], {
      execArgv: [],
      serialization: "advanced",
      env: {
        ...process.env,
        ...(listening === null ? {} : { ISOLATION_SOCKET: listening.path }),
        ...(this.#mode === "engine" ? { ISOLATION_FRAMES: "here" } : {}),
      },
    });
    child.on("message", (messages: FromEngine[]) => {
      for (const message of messages) this.#receive(message);
    });
    const port: Port = {
      pid: child.pid ?? null,
      post: (messages) => child.connected && child.send(messages, () => undefined),
      sendBulk: listening === null ? null : (c, bytes) => void listening.sockets[0]?.write(packFrame(c, bytes)),
      end: () => child.disconnect(),
    };
    child.on("error", () => undefined);
    child.on("exit", () => {
      listening?.server.close();
      if (listening !== null) rmSync(listening.directory, { recursive: true, force: true });
      this.#onGone(port);
    });
    return port;
  }

  #listen(): { path: string; directory: string; server: Server; sockets: Socket[] } {
    const directory = mkdtempSync(join(tmpdir(), "weir-isolation-"));
    const path = join(directory, "bulk");
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket);
      socket.on("data", frameReader(this.#onBulk));
      socket.on("error", () => undefined);
    });
    server.listen(path);
    return { path, directory, server, sockets };
  }
}
