import { assertNever } from "#shared/base/assert.ts";
import type { Disposable } from "#shared/base/disposable.ts";
import type { Env, Log } from "#shared/base/env.ts";
import { MachineRunner } from "#shared/base/machine.ts";
import { RemoteDriver } from "../links/remote-driver.ts";
import type { TransportDriver } from "../links/transport.ts";
import type { StartWorker, WorkerListener } from "../transfer/chunk-thread.ts";
import { type EngineEffect, type EngineEvent, type EngineState, stepEngine } from "./engine-machine.ts";
import type { EnginePort, ForkEngine, FromEngine, ToEngine } from "./engine-protocol.ts";
import { Outbox } from "./outbox.ts";

/** The process of WebRTC and the chunk worker, as the main process sees it: started at once, and again when it dies. */
export interface Engine {
  readonly driver: TransportDriver;
  /** Runs chunk-worker, which is at this address, in the engine. */
  chunkWorker(url: URL): StartWorker;
  /** Ends it in order, after links and chunk worker were disposed of. */
  dispose(): Promise<void>;
}

export const createEngine = (deps: { readonly env: Env; readonly fork: ForkEngine }): Engine => new Client(deps);

/** Many of these come in one turn, and nobody waits for a single one. */
const PATIENT: ReadonlySet<ToEngine["type"]> = new Set(["sendHeld", "drop", "seen"]);

class Client implements Engine {
  readonly driver: RemoteDriver;
  readonly #env: Env;
  readonly #log: Log;
  readonly #fork: ForkEngine;
  readonly #machine: MachineRunner<EngineState, EngineEvent, EngineEffect>;
  /** What comes while none is there waits for the next one. */
  readonly #outbox: Outbox<ToEngine>;
  readonly #workers = new Map<number, WorkerListener>();
  readonly #ended = Promise.withResolvers<void>();
  #port: EnginePort | null = null;
  #timer: Disposable | null = null;
  #nextWorker = 1;

  constructor({ env, fork }: { readonly env: Env; readonly fork: ForkEngine }) {
    this.#env = env;
    this.#log = env.log.child("engine");
    this.#fork = fork;
    this.#outbox = new Outbox((messages) => this.#port?.post(messages));
    this.#machine = new MachineRunner({ kind: "off" }, stepEngine, (effect) => this.#run(effect));
    const isUp = (): boolean => ["starting", "running"].includes(this.#machine.state.kind);
    this.driver = new RemoteDriver({
      get isUp() {
        return isUp();
      },
      post: (message) => this.#post(message),
      log: this.#log,
    });
    this.#dispatch("start");
  }

  chunkWorker(url: URL): StartWorker {
    return (settings, listener) => {
      const w = this.#nextWorker++;
      this.#workers.set(w, listener);
      this.#post({ type: "workerStart", w, url: url.href, settings });
      return {
        // Buffers that are filled again never leave the engine.
        post: (message) => {
          if (message.type === "recycle" || !this.#workers.has(w)) return;
          this.#post({ type: "worker", w, message });
          // Only the end of Weir ends it in order: an engine that hangs must not make that wait.
          if (message.type === "end") this.#dispatch("end");
        },
        drop: (frames) => this.#post({ type: "drop", frames: frames.map(({ frame }) => frame) }),
      };
    };
  }

  async dispose(): Promise<void> {
    this.#dispatch("end");
    await this.#ended.promise;
  }

  #dispatch(type: EngineEvent["type"]): void {
    this.#machine.dispatch({ type, nowMs: this.#env.clock.monotonicMs() });
  }

  #post(message: ToEngine): void {
    this.#outbox.push(message, !PATIENT.has(message.type));
  }

  #run(effect: EngineEffect): void {
    switch (effect.type) {
      case "fork":
        this.#start();
        return;
      case "ping":
        this.#post({ type: "ping" });
        return;
      case "kill":
        this.#log.error("the engine does not answer and is killed");
        this.#port?.kill();
        return;
      case "tellToEnd":
        this.#post({ type: "end" });
        return;
      case "lost":
        this.#lost();
        return;
      case "ended":
        this.#ended.resolve();
        return;
      case "setTimer": {
        const { delayMs } = effect;
        this.#timer?.dispose();
        this.#timer = delayMs === null ? null : this.#env.clock.setTimer(delayMs, () => this.#dispatch("timer"));
        return;
      }
      default:
        assertNever(effect, "effect of the engine");
    }
  }

  #start(): void {
    const port = this.#fork({
      messages: (messages) => {
        for (const message of messages) if (this.#port === port) this.#receive(message);
      },
      exited: (how) => {
        if (this.#port !== port) return;
        this.#port = null;
        const level = this.#machine.state.kind === "ending" ? "debug" : "error";
        this.#log[level]("the engine ended", { how });
        this.#dispatch("exited");
      },
    });
    this.#port = port;
    this.#log.debug("the engine was started", { pid: port.pid ?? null });
    this.#outbox.flush();
  }

  /** Links come up again by themselves; whoever waits for the chunk worker is told, and may start the next one here. */
  #lost(): void {
    this.#outbox.clear();
    const workers = [...this.#workers.values()];
    this.#workers.clear();
    this.driver.lost();
    for (const listener of workers) listener.exited();
  }

  #receive(message: FromEngine): void {
    switch (message.type) {
      case "event":
      case "drained":
      case "facts":
        this.driver.receive(message);
        return;
      case "worker":
        this.#workers.get(message.w)?.message(message.message);
        return;
      case "workerFailed":
        this.#workers.get(message.w)?.failed(new Error(message.reason));
        return;
      case "workerExited": {
        const listener = this.#workers.get(message.w);
        this.#workers.delete(message.w);
        listener?.exited();
        return;
      }
      case "ready":
        this.#dispatch("ready");
        return;
      case "pong":
        this.#dispatch("pong");
        return;
      case "log":
        (message.in === null ? this.#log : this.#log.child(message.in))[message.level](message.message, message.fields);
        return;
      default:
        assertNever(message, "message of the engine");
    }
  }
}
