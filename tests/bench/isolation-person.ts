import { readFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import rtc from "node-datachannel";
import type { Bytes } from "#shared/base/bytes.ts";
import { Emitter } from "#shared/base/emitter.ts";
import { WORK_BATCH_BYTES } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { BULK_HEADER_BYTES, bytesOf, writeBulkHeader } from "#shared/wire/frame.ts";
import { createLinks, type LinksDeps } from "../../src-main/links/connection-manager.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import { systemEnv } from "../../src-main/log.ts";
import { startWorker } from "../support/files.ts";
import { userIdOf } from "../support/links-ids.ts";
import { RemoteDriver } from "./isolation-driver.ts";
import type { FrameRef, Mode, Store } from "./isolation-protocol.ts";

/** One person of `isolation.ts`: the main process of a profile, with real links over the driver of its mode. */
export interface Settings {
  readonly mode: Mode;
  readonly role: "sender" | "receiver";
  readonly totalBytes: number;
  readonly store: Store | null;
}
export interface Latency {
  readonly p50Ms: number;
  readonly p99Ms: number;
}
export type ToPerson =
  | { readonly type: "settings"; readonly settings: Settings }
  | { readonly type: "signal"; readonly kind: Sealed["kind"]; readonly body: Uint8Array }
  | { readonly type: "ping"; readonly count: number }
  | { readonly type: "transfer" }
  | { readonly type: "report" }
  | { readonly type: "crash"; readonly how: "segv" | "throw" };
export type FromPerson =
  | { readonly type: "signal"; readonly kind: Sealed["kind"]; readonly body: Uint8Array }
  | { readonly type: "connected"; readonly generation: number; readonly atMs: number }
  | { readonly type: "pinged"; readonly latency: Latency }
  | { readonly type: "received"; readonly busyLatency: Latency | null }
  | { readonly type: "sending"; readonly busyLatency: Latency }
  | {
      readonly type: "report";
      readonly loopP50Ms: number;
      readonly loopP99Ms: number;
      /** Processor time during the transfer, of the main process and of the engine. */
      readonly cpuSeconds: number;
      readonly mainCpuSeconds: number;
      readonly rssMiB: number;
      readonly mainRssMiB: number;
    }
  | { readonly type: "engine"; readonly diedAtMs: number | null; readonly readyAtMs: number | null };

const FRAME_BYTES = 64 * 1024;
const RESOLUTION_MS = 1;
const NO_COUNTERS = { requested: 0, duplicate: 0, late: 0, rejected: 0 };
/** Whoever started us may be done with us already. */
const tell = (message: FromPerson): void => void process.send?.(message, undefined, {}, () => undefined);
const epochMs = (): number => performance.timeOrigin + performance.now();

const peakRssMiB = (pid: number): number => {
  const match = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Math.round(Number(match?.[1] ?? 0) / 102.4) / 10;
};
const CLOCK_TICKS = 100;
/** User and system time with all threads: fields 14 and 15 of proc_pid_stat(5). */
const cpuSecondsOf = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
};
const latencyOf = (samples: readonly number[]): Latency => {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (part: number): number => Math.round((sorted[Math.floor((sorted.length - 1) * part)] ?? 0) * 100) / 100;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
};

interface Frame {
  readonly ref: FrameRef;
  readonly index: number;
  readonly bytes: Bytes;
}
/** Where chunks come from and go to. */
interface Disk {
  read(indices: readonly number[]): Promise<readonly Frame[]>;
  sent(frame: Frame): void;
  store(frame: { ref: FrameRef; index: number; payload: Bytes }, done: () => void): void;
}

const noDisk = (remote: RemoteDriver | null): Disk => {
  const bytes = new Uint8Array(FRAME_BYTES);
  return {
    read: async (indices) => indices.map((index) => ({ ref: 0, index, bytes })),
    sent: () => undefined,
    store({ ref }, done) {
      if (remote !== null && ref !== 0) remote.post({ type: "drop", frame: ref });
      done();
    },
  };
};

const ownDisk = ({ spec, databasePath, path }: Store): Disk => {
  const worker = startWorker(databasePath);
  const unsent = new Map<ArrayBuffer, number>();
  return {
    async read(indices) {
      const read = await worker.run("readChunks", { spec, source: { kind: "file", path }, indices }).result;
      if (!read.ok) throw new Error(read.error.message);
      const frames = read.value.frames.map(({ index, bytes }) => ({ index, bytes: bytesOf(bytes) }));
      for (const { bytes } of frames) unsent.set(bytes.buffer, frames.length);
      return frames.map(({ index, bytes }) => ({ ref: 0, index, bytes }));
    },
    sent({ bytes: { buffer } }) {
      const left = (unsent.get(buffer) ?? 0) - 1;
      unsent.set(buffer, left);
      if (left > 0) return;
      unsent.delete(buffer);
      worker.recycle(buffer);
    },
    store({ index, payload }, done) {
      worker.storeChunk(spec, NO_COUNTERS, { index, bytes: payload }, (outcome) => {
        if (outcome !== "stored") throw new Error(JSON.stringify(outcome));
        done();
      });
    },
  };
};

const remoteDisk = (remote: RemoteDriver): Disk => {
  const reads = new Map<number, (frames: readonly Frame[]) => void>();
  const stores = new Map<FrameRef, () => void>();
  const scratch = new Map<number, Bytes>();
  let nextJob = 1;
  remote.onFrames = ({ job, frames }) => {
    const whole = frames.map(({ frame, index, length }) => {
      const bytes = scratch.get(length) ?? new Uint8Array(length);
      scratch.set(length, bytes);
      return { ref: frame, index, bytes };
    });
    reads.get(job)?.(whole);
    reads.delete(job);
  };
  remote.onStored = (frame) => {
    stores.get(frame)?.();
    stores.delete(frame);
  };
  return {
    read: (indices) =>
      new Promise((resolve) => {
        const job = nextJob++;
        reads.set(job, resolve);
        remote.post({ type: "read", job, indices });
      }),
    sent: () => undefined,
    store({ ref, index }, done) {
      stores.set(ref, done);
      remote.post({ type: "store", frame: ref, index });
    },
  };
};

const diskOf = (store: Store | null, remote: RemoteDriver | null, mode: Mode): Disk => {
  if (store === null) return noDisk(mode === "engine" ? remote : null);
  return mode === "engine" && remote !== null ? remoteDisk(remote) : ownDisk(store);
};

const start = ({ mode, role, totalBytes, store }: Settings): ((message: ToPerson) => void) => {
  const env = systemEnv();
  const [local, peer] = role === "sender" ? [userIdOf(0), userIdOf(1)] : [userIdOf(1), userIdOf(0)];
  const remote = mode === "main" ? null : new RemoteDriver(mode, store);
  const signals = new Emitter<{ from: typeof peer; sealed: Sealed; generation: number }>(() => undefined);
  const links = createLinks({
    env,
    localUserId: local,
    signaling: {
      onSignal: signals.event,
      onConnected: new Emitter<{ generation: number }>(() => undefined).event,
      request: (async (_name: string, input: { sealed: Sealed }) => {
        tell({ type: "signal", kind: input.sealed.kind, body: input.sealed.body });
        return ok({ delivered: true });
      }) as LinksDeps["signaling"]["request"],
    },
    sessions: {
      seal: async (_peer, plaintext, commit) => ok(commit({ kind: "message", body: new Uint8Array(plaintext) })),
      open: async (_peer, sealed, commit) => ok(commit(sealed.body)),
    },
    account: { sign: () => new Uint8Array(64) },
    accountKeyOf: () => new Uint8Array(32),
    verifyAccountSignature: () => true,
    mayLink: () => true,
    bindAddress: "127.0.0.1",
    driver: remote ?? createRtcDriver(systemEnv()),
  });
  const disk = diskOf(store, remote, mode);
  const chunkCount = totalBytes / FRAME_BYTES;
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  let generation = 0;
  links.onChanged((view) => {
    if (view.state !== "connected" || view.generation === generation) return;
    ({ generation } = view);
    tell({ type: "connected", generation, atMs: epochMs() });
  });

  // Round trips of small control messages, as a text message and its acknowledgement make them.
  const pings = new Map<number, (ms: number) => void>();
  let nextPing = 1;
  const ping = (): Promise<number> => {
    const tag = nextPing++;
    const sentAtMs = performance.now();
    links.send(peer, generation, { type: "stop", tag });
    return new Promise((resolve) => pings.set(tag, (nowMs) => resolve(nowMs - sentAtMs)));
  };
  links.onMessage(({ message }) => {
    if (message.type === "stop") links.send(peer, generation, { type: "stopped", tag: message.tag, framesSent: 0 });
    if (message.type !== "stopped") return;
    pings.get(message.tag)?.(performance.now());
    pings.delete(message.tag);
  });
  const pingAll = async (count: number): Promise<void> => {
    const samples: number[] = [];
    for (let i = 0; i < count; i += 1) {
      samples.push(await ping());
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    tell({ type: "pinged", latency: latencyOf(samples) });
  };

  const cpu = (): { main: number; engine: number } => {
    const engine = remote?.enginePid ?? null;
    return { main: cpuSecondsOf(process.pid), engine: engine === null ? 0 : cpuSecondsOf(engine) };
  };
  let begun: ReturnType<typeof cpu> | null = null;
  const begin = (): void => {
    begun = cpu();
    delay.enable();
  };
  let received = 0;
  links.onBulk(({ frame, bytes }) => {
    if (begun === null) begin();
    const payload = bytesOf(frame.payload);
    const ref = mode === "engine" ? (remote?.takeFrame(payload.buffer) ?? 0) : 0;
    // As the downloader does: credit comes back with the hand-over.
    links.release(peer, generation, bytes);
    disk.store({ ref, index: frame.index, payload }, () => {
      received += 1;
      if (received === chunkCount) tell({ type: "received", busyLatency: null });
    });
  });

  const transfer = async (): Promise<void> => {
    begin();
    let ready: Frame[] = [];
    let reading = 0;
    let nextIndex = 0;
    let sent = 0;
    const samples: number[] = [];
    const pinger = setInterval(() => void ping().then((ms) => samples.push(ms)), 20);
    const batch = WORK_BATCH_BYTES / FRAME_BYTES;
    const pump = (): void => {
      while (ready[0] !== undefined) {
        const [frame] = ready;
        const head = { kind: "chunk", tag: 1, sequence: sent, index: frame.index } as const;
        writeBulkHeader(frame.bytes, head, frame.bytes.length - BULK_HEADER_BYTES);
        if (remote !== null) remote.nextFrame = frame.ref;
        if (links.sendBulk(peer, generation, frame.bytes) !== "sent") break;
        disk.sent(frame);
        sent += 1;
        ready = ready.slice(1);
      }
      while (nextIndex < chunkCount && reading + ready.length / batch < 2) {
        const indices = Array.from({ length: Math.min(batch, chunkCount - nextIndex) }, (_, i) => nextIndex + i);
        nextIndex += indices.length;
        reading += 1;
        void disk.read(indices).then((frames) => {
          reading -= 1;
          ready.push(...frames);
          pump();
        });
      }
      if (sent < chunkCount || samples.length === 0) return;
      clearInterval(pinger);
      tell({ type: "sending", busyLatency: latencyOf(samples.splice(0)) });
    };
    links.onDrained(pump);
    pump();
  };

  const crash = (how: "segv" | "throw"): void => {
    if (how === "throw" && remote !== null) {
      remote.post({ type: "throw" });
      return;
    }
    if (how === "segv") {
      // A worker thread cannot be hit without the process that it is in.
      process.kill(remote?.enginePid ?? process.pid, "SIGSEGV");
      return;
    }
    const pc = new rtc.PeerConnection("throws", { iceServers: [] });
    pc.onLocalDescription(() => {
      throw new Error("thrown in a callback");
    });
    pc.createDataChannel("x");
  };

  const report = (): void => {
    const ms = (ns: number): number => Math.max(0, Math.round((ns / 1e6 - RESOLUTION_MS) * 100) / 100);
    const mainRssMiB = peakRssMiB(process.pid);
    const engine = remote?.enginePid ?? null;
    const rssMiB = mainRssMiB + (engine === null ? 0 : peakRssMiB(engine));
    const now = cpu();
    const mainCpuSeconds = now.main - (begun?.main ?? now.main);
    tell({
      type: "report",
      mainCpuSeconds: Math.round(mainCpuSeconds * 100) / 100,
      cpuSeconds: Math.round((mainCpuSeconds + now.engine - (begun?.engine ?? now.engine)) * 100) / 100,
      loopP50Ms: ms(delay.percentile(50)),
      loopP99Ms: ms(delay.percentile(99)),
      rssMiB: Math.round(rssMiB * 10) / 10,
      mainRssMiB,
    });
    for (const { diedAtMs, readyAtMs } of remote?.lives ?? []) {
      const at = (value: number | null): number | null => (value === null ? null : performance.timeOrigin + value);
      tell({ type: "engine", diedAtMs: at(diedAtMs), readyAtMs: at(readyAtMs) });
    }
  };

  links.enable();
  links.connect(peer);
  return (message) => {
    switch (message.type) {
      case "signal":
        signals.emit({
          from: peer,
          sealed: { kind: message.kind, body: new Uint8Array(message.body) },
          generation: 1,
        });
        return;
      case "ping":
        void pingAll(message.count);
        return;
      case "transfer":
        void transfer();
        return;
      case "report":
        report();
        return;
      case "crash":
        crash(message.how);
        return;
      case "settings":
        return;
    }
  };
};

if (process.argv[1] === import.meta.filename) {
  let heard: ((message: ToPerson) => void) | null = null;
  process.on("message", (message: ToPerson) => {
    if (message.type === "settings") heard = start(message.settings);
    else heard?.(message);
  });
  process.on("disconnect", () => process.exit(0));
}
