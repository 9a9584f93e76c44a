import { assertNever } from "#shared/base/assert.ts";
import type { Bytes } from "#shared/base/bytes.ts";
import type { Log, LogLevel } from "#shared/base/env.ts";
import { err, messageOf, ok } from "#shared/base/result.ts";
import { bytesOf, type Payload } from "#shared/wire/frame.ts";
import { systemClock, systemRandom } from "../env.ts";
import { createRtcDriver, rtcShutDown } from "../links/driver.ts";
import { DriverServer } from "../links/driver-server.ts";
import { HeldFrames } from "../links/held-frames.ts";
import { chunkThread, type WorkerChannel } from "../transfer/chunk-thread.ts";
import {
  type FromWorker,
  type Jobs,
  type ReadFrame,
  type ToWorker,
  workError,
} from "../transfer/chunk-worker-protocol.ts";
import { FrameBatches } from "../transfer/frame-batches.ts";
import type { FromEngine, ToEngine } from "./engine-protocol.ts";
import { Outbox } from "./outbox.ts";

/** The way to the main process. */
export interface MainPort {
  post(messages: readonly FromEngine[]): void;
  onMessages(receive: (messages: readonly ToEngine[]) => void): void;
}

/**
 * The engine process: WebRTC and the chunk worker, for {@link createEngine}. It keeps no state that the main process
 * would miss, so it may die at any moment. Signals are the main process's business (Ctrl-C reaches both): only `end`
 * ends it, or the end of the main process, which the host notices.
 */
export const runEngine = (port: MainPort): void => {
  process.on("SIGINT", ignore);
  process.on("SIGTERM", ignore);
  const engine = new EngineServer(port);
  port.onMessages((messages) => {
    for (const message of messages) engine.receive(message);
  });
};

const ignore = (): void => undefined;

class EngineServer {
  readonly #outbox: Outbox<FromEngine>;
  /** No engine before this one has counted so far: that would take more than a thousand frames a millisecond. */
  readonly #frames = new HeldFrames(systemClock.now() * 1000);
  readonly #batches = new FrameBatches();
  readonly #driver: DriverServer;
  #worker: { readonly w: number; readonly channel: WorkerChannel; readonly exited: Promise<void> } | null = null;
  /** Jobs whose frames stay here. */
  readonly #heldJobs = new Set<number>();

  constructor(port: MainPort) {
    this.#outbox = new Outbox((messages) => port.post(messages));
    const env = { clock: systemClock, random: systemRandom, log: this.#logFor(null) };
    this.#driver = new DriverServer({
      env,
      driver: createRtcDriver(env),
      frames: this.#frames,
      // Frames come many in one turn.
      post: (message) => this.#outbox.push(message, message.type === "event" && message.event.type !== "frame"),
      onSent: (frame) => this.#recycle(frame),
    });
    this.#post({ type: "ready" });
  }

  receive(message: ToEngine): void {
    switch (message.type) {
      case "workerStart":
        this.#startWorker(message.w, new URL(message.url), message.settings);
        return;
      case "worker":
        if (this.#worker?.w === message.w) this.#toWorker(message.w, this.#worker.channel, message.message);
        return;
      case "drop":
        for (const frame of message.frames) this.#frames.take(frame);
        return;
      case "ping":
        this.#post({ type: "pong" });
        return;
      case "end":
        void this.#end();
        return;
      default:
        this.#driver.receive(message);
    }
  }

  async #end(): Promise<void> {
    const down = rtcShutDown();
    this.#driver.dispose();
    await Promise.all([down, this.#worker?.exited]);
    process.exit(0);
  }

  #post(message: FromEngine): void {
    this.#outbox.push(message, true);
  }

  #logFor(name: string | null): Log {
    const at =
      (level: LogLevel) =>
      (message: string, fields: Record<string, unknown> = {}): void =>
        this.#post({ type: "log", level, in: name, message, fields });
    const [debug, info, warn, error] = [at("debug"), at("info"), at("warn"), at("error")];
    return { debug, info, warn, error, child: (child) => this.#logFor(child) };
  }

  // ---- Chunk worker ---------------------------------------------------------------------------------------------------

  #startWorker(w: number, url: URL, settings: Extract<ToEngine, { type: "workerStart" }>["settings"]): void {
    this.#heldJobs.clear();
    const ended = Promise.withResolvers<void>();
    const channel = chunkThread(url)(settings, {
      message: (message) => this.#post({ type: "worker", w, message: this.#withNumbers(message) }),
      failed: (error) => this.#post({ type: "workerFailed", w, reason: messageOf(error) }),
      exited: () => {
        if (this.#worker?.w === w) this.#worker = null;
        this.#post({ type: "workerExited", w });
        ended.resolve();
      },
    });
    this.#worker = { w, channel, exited: ended.promise };
  }

  #toWorker(w: number, channel: WorkerChannel, message: ToWorker): void {
    switch (message.type) {
      case "start": {
        if ((message.name === "readChunks" || message.name === "readLeaves") && message.input.held === true)
          this.#heldJobs.add(message.job);
        if (message.name === "storeLeaves") {
          const payload = this.#take(message.input.payload);
          if (payload === null) this.#answer(w, { type: "done", job: message.job, result: err(GONE) });
          else channel.post({ ...message, input: { ...message.input, payload } });
          return;
        }
        channel.post(message);
        return;
      }
      case "store": {
        const chunks = message.chunks.flatMap((chunk) => {
          const bytes = this.#take(chunk.bytes);
          if (bytes !== null) return [{ ...chunk, bytes }];
          this.#answer(w, { type: "stored", results: [{ job: chunk.job, outcome: "gone" }] });
          return [];
        });
        const buffers = [...new Set(chunks.map(({ bytes }) => bytes.buffer))];
        if (chunks.length > 0) channel.post({ ...message, chunks }, buffers);
        return;
      }
      case "cancel":
      case "repair":
      case "recycle":
      case "end":
        channel.post(message);
        return;
      default:
        assertNever(message, "message to the chunk worker");
    }
  }

  #answer(w: number, message: FromWorker): void {
    this.#post({ type: "worker", w, message });
  }

  #take(payload: Payload): Bytes | null {
    return payload instanceof Uint8Array ? payload : this.#frames.take(payload.frame);
  }

  #recycle(frame: Bytes): void {
    const buffer = this.#batches.sent(frame);
    if (buffer !== null) this.#worker?.channel.post({ type: "recycle", buffer }, [buffer]);
  }

  /** Frames that are to stay here are replaced by their numbers. */
  #withNumbers(message: FromWorker): FromWorker {
    if (message.type !== "done" || !this.#heldJobs.delete(message.job) || !message.result.ok) return message;
    // A held job is one of the two that read frames; the worker answers it with the result of its own name.
    const value = message.result.value as Jobs["readChunks" | "readLeaves"]["output"];
    return {
      ...message,
      result: ok(value !== null && "frames" in value ? this.#heldBatch(value) : this.#heldLeaves(value)),
    };
  }

  #heldBatch({ frames, unavailable }: Jobs["readChunks"]["output"]): Jobs["readChunks"]["output"] {
    this.#batches.add(frames);
    return { frames: frames.map((frame) => this.#hold(frame)), unavailable };
  }

  #heldLeaves(frame: Jobs["readLeaves"]["output"]): Jobs["readLeaves"]["output"] {
    return frame === null ? null : this.#hold(frame);
  }

  #hold({ index, bytes }: ReadFrame): ReadFrame {
    return { index, bytes: this.#frames.hold(bytesOf(bytes), null) };
  }
}

/** Its connection ended before it could be stored. Whoever asked fetches it again. */
const GONE = workError("frame_gone", "A part of the file was lost with its connection. Try again.");
