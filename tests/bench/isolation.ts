import { type ChildProcess, execFile, fork } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { pageCountOf } from "../../src-main/crypto/hash-tree.ts";
import { payloadOf, shareForTest, startWorker, writeRandomFile } from "../support/files.ts";
import type { FromPerson, Latency, Settings, ToPerson } from "./isolation-person.ts";
import { type Mode, modes, type Store } from "./isolation-protocol.ts";

/**
 * `node tests/bench/isolation.ts [--mib 256] [--runs 3] [--modes main,worker,ipc,socket,engine]
 * [--only moved,stored] [--skip-transfer] [--skip-crash]`
 * Where WebRTC should live (docs/adr/0008): the same links and the same chunk worker, with the addon in the main process, in a
 * worker thread or in a child process. One JSON line per mode and run. `ratio` (speed) and `cpuRatio` (processor time of both people with
 * all their processes) are to node-datachannel alone in the same run; the second one hardly minds a busy machine.
 * When `store`d, chunks are read from a file, encrypted, proven and stored; otherwise bytes are only moved.
 */
const { values } = parseArgs({
  options: {
    mib: { type: "string", default: "256" },
    runs: { type: "string", default: "3" },
    modes: { type: "string", default: modes.join(",") },
    only: { type: "string", default: "moved,stored" },
    "skip-crash": { type: "boolean", default: false },
    "skip-transfer": { type: "boolean", default: false },
  },
});
const sizeBytes = Number(values.mib) * 1024 * 1024;
const chosen = modes.filter((mode) => values.modes.split(",").includes(mode));
const personPath = fileURLToPath(new URL("./isolation-person.ts", import.meta.url));
const print = (line: object): void => void process.stdout.write(`${JSON.stringify({ bench: "isolation", ...line })}\n`);
const rounded = (value: number): number => Math.round(value * 100) / 100;

/** Keeps the addon out of a main process that does not use it: loaded in two threads of a process, it aborts. */
const withoutAddon = `data:text/javascript,${encodeURIComponent(
  `import { registerHooks } from "node:module";
  const stub = "data:text/javascript,export default { setSctpSettings() {} }";
  registerHooks({ resolve: (name, context, next) =>
    name === "node-datachannel" ? { url: stub, shortCircuit: true } : next(name, context) });`,
)}`;

const EXIT_PATIENCE_MS = 3000;

type Told<T extends FromPerson["type"]> = Extract<FromPerson, { type: T }>;

class Person {
  readonly #child: ChildProcess;
  readonly #heard: FromPerson[] = [];
  readonly #waiting = new Set<() => void>();
  readonly exited: Promise<string>;

  constructor(settings: Settings, onSignal: (signal: Told<"signal">) => void) {
    this.#child = fork(personPath, [], {
      serialization: "advanced",
      stdio: ["ignore", "ignore", "inherit", "ipc"],
      execArgv: settings.mode === "main" ? [] : ["--import", withoutAddon],
    });
    this.#child.on("message", (message: FromPerson) => {
      if (message.type === "signal") return onSignal(message);
      this.#heard.push(message);
      for (const wake of [...this.#waiting]) wake();
    });
    this.exited = new Promise((resolve) => this.#child.on("exit", (code, signal) => resolve(signal ?? String(code))));
    this.tell({ type: "settings", settings });
  }

  tell(message: ToPerson): void {
    if (this.#child.connected) this.#child.send(message);
  }

  /** Takes the first message of this type that fits, now or when it comes; null when the person died before. */
  async next<T extends FromPerson["type"]>(type: T, fits: (told: Told<T>) => boolean = () => true): Promise<Told<T>> {
    for (;;) {
      const at = this.#heard.findIndex((told) => told.type === type && fits(told as Told<T>));
      if (at >= 0) return this.#heard.splice(at, 1)[0] as Told<T>;
      const woken = Promise.withResolvers<void>();
      this.#waiting.add(woken.resolve);
      const died = this.exited.then((why) => Promise.reject(new Error(`a person ended: ${why}`)));
      await Promise.race([woken.promise, died]);
      this.#waiting.delete(woken.resolve);
    }
  }

  /** False when it had to be killed, because it did not get to its end by itself. */
  async stop(): Promise<boolean> {
    if (this.#child.connected) this.#child.disconnect();
    const patience = setTimeout(() => this.#child.kill("SIGKILL"), EXIT_PATIENCE_MS);
    const why = await this.exited;
    clearTimeout(patience);
    return why !== "SIGKILL";
  }
}

interface Pair {
  readonly sender: Person;
  readonly receiver: Person;
}
const pairUp = async (mode: Mode, stores: { sender: Store; receiver: Store } | null): Promise<Pair> => {
  const settings = (role: Settings["role"]): Settings => ({
    mode,
    role,
    totalBytes: sizeBytes,
    store: stores?.[role] ?? null,
  });
  const sender: Person = new Person(settings("sender"), (signal) => receiver.tell(signal));
  const receiver: Person = new Person(settings("receiver"), (signal) => sender.tell(signal));
  await Promise.all([sender.next("connected"), receiver.next("connected")]);
  return { sender, receiver };
};

const rawTransfer = async (triesLeft = 3): Promise<{ megabytesPerSecond: number; cpuSeconds: number }> => {
  const script = join(import.meta.dirname, "raw-datachannel.ts");
  const running = promisify(execFile)(process.execPath, [script, "--mib", values.mib], { timeout: 300_000 });
  // It gives up connecting where the machine is very busy, which says nothing about its speed.
  const ran = await running.catch((error: unknown) => {
    if (triesLeft === 0) throw error;
    return null;
  });
  if (ran === null) return rawTransfer(triesLeft - 1);
  const { megabytesPerSecond, cpuSeconds } = JSON.parse(ran.stdout);
  if (typeof megabytesPerSecond !== "number" || typeof cpuSeconds !== "number")
    throw new Error(`raw-datachannel printed ${ran.stdout}`);
  return { megabytesPerSecond, cpuSeconds };
};

interface Measured {
  readonly megabytesPerSecond: number;
  readonly idleLatency: Latency;
  readonly busyLatency: Latency;
  readonly sender: Told<"report">;
  readonly receiver: Told<"report">;
  readonly exits: boolean;
}
const measure = async (mode: Mode, stores: { sender: Store; receiver: Store } | null): Promise<Measured> => {
  const { sender, receiver } = await pairUp(mode, stores);
  const stop = async (): Promise<boolean> => (await Promise.all([sender.stop(), receiver.stop()])).every(Boolean);
  try {
    sender.tell({ type: "ping", count: 300 });
    const { latency: idleLatency } = await sender.next("pinged");
    const begunAtMs = performance.now();
    sender.tell({ type: "transfer" });
    await receiver.next("received");
    const seconds = (performance.now() - begunAtMs) / 1000;
    const { busyLatency } = await sender.next("sending");
    const reports = await Promise.all(
      [sender, receiver].map((person) => {
        person.tell({ type: "report" });
        return person.next("report");
      }),
    );
    const [senderReport, receiverReport] = reports;
    if (senderReport === undefined || receiverReport === undefined) throw new Error("two reports");
    const megabytesPerSecond = Math.round(sizeBytes / 1e5 / seconds) / 10;
    const exits = await stop();
    return { megabytesPerSecond, idleLatency, busyLatency, sender: senderReport, receiver: receiverReport, exits };
  } finally {
    await stop();
  }
};

/** Kills the addon's process in the middle of a link, and waits until the link stands again. */
const crash = async (mode: Mode, victim: "sender" | "receiver", how: "segv" | "throw"): Promise<object> => {
  const pair = await pairUp(mode, null);
  const { sender, receiver } = pair;
  const person = pair[victim];
  try {
    const crashedAtMs = Date.now();
    person.tell({ type: "crash", how });
    const back = person.next("connected");
    const other = (victim === "sender" ? receiver : sender).next("connected");
    const result = await Promise.race([Promise.all([back, other]), person.exited]).catch((error: unknown) =>
      String(error),
    );
    if (typeof result === "string") return { mainSurvives: false, mainEndedBy: await person.exited };
    const [{ atMs }, { atMs: otherAtMs }] = result;
    person.tell({ type: "report" });
    await person.next("report");
    const died = await person.next("engine", ({ diedAtMs }) => diedAtMs !== null);
    const ready = await person.next(
      "engine",
      ({ readyAtMs }) => readyAtMs !== null && readyAtMs > (died.diedAtMs ?? 0),
    );
    return {
      mainSurvives: true,
      linkBackMs: Math.round(Math.max(atMs, otherAtMs) - crashedAtMs),
      noticedMs: Math.round((died.diedAtMs ?? 0) - crashedAtMs),
      engineReadyMs: Math.round((ready.readyAtMs ?? 0) - crashedAtMs),
    };
  } finally {
    await Promise.all([sender.stop(), receiver.stop()]);
  }
};

// ---- The file that is moved --------------------------------------------------------------------------------------------
const must = <T>(result: { ok: true; value: T } | { ok: false; error: unknown }): T => {
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return result.value;
};

/** A file, its owner's hashes, and for every run a fresh database that knows them and holds no chunk. */
const prepareStores = async (directory: string) => {
  const path = join(directory, "file.bin");
  const ownerPath = join(directory, "owner.db");
  await writeRandomFile(path, sizeBytes);
  const owner = startWorker(ownerPath);
  const { spec } = await shareForTest(owner, path);
  const pages: Uint8Array<ArrayBuffer>[] = [];
  for (let page = 0; page < pageCountOf(spec.chunkCount); page += 1) {
    const frame = must(await owner.run("readLeaves", { spec, page }).result);
    pages.push(new Uint8Array(payloadOf(frame)));
  }
  await owner.dispose();
  let count = 0;
  return async (): Promise<{ sender: Store; receiver: Store }> => {
    const databasePath = join(directory, `receiver-${count++}.db`);
    const receiver = startWorker(databasePath);
    must(await receiver.run("prepare", { spec, directory, unstoredBytes: spec.sizeBytes }).result);
    must(await receiver.run("open", { spec, directory }).result);
    for (const [page, payload] of pages.entries())
      must(await receiver.run("storeLeaves", { spec, page, payload: payload.slice() }).result);
    await receiver.dispose();
    return { sender: { spec, databasePath: ownerPath, path }, receiver: { spec, databasePath, path } };
  };
};

const transfers = async (directory: string): Promise<void> => {
  const freshStores = await prepareStores(directory);
  for (let run = 1; run <= Number(values.runs); run += 1) {
    // The machine is shared: what node-datachannel does alone is measured right before and right after each.
    let before = await rawTransfer();
    for (const store of [false, true]) {
      if (!values.only.split(",").includes(store ? "stored" : "moved")) continue;
      for (const mode of chosen) {
        const measured = await measure(mode, store ? await freshStores() : null);
        const after = await rawTransfer();
        const rawMBps = (before.megabytesPerSecond + after.megabytesPerSecond) / 2;
        const rawCpu = (before.cpuSeconds + after.cpuSeconds) / 2;
        before = after;
        const cpuRatio = rounded((measured.sender.cpuSeconds + measured.receiver.cpuSeconds) / rawCpu);
        const ratio = rounded(measured.megabytesPerSecond / rawMBps);
        print({
          mode,
          store,
          run,
          ratio,
          cpuRatio,
          rawMBps: rounded(rawMBps),
          rawCpuSeconds: rounded(rawCpu),
          ...measured,
        });
      }
    }
  }
};

const directory = await mkdtemp(join(tmpdir(), "weir-isolation-bench-"));
try {
  if (!values["skip-transfer"]) await transfers(directory);
  if (!values["skip-crash"])
    for (const mode of chosen)
      for (const how of ["segv", "throw"] as const)
        for (const victim of ["sender", "receiver"] as const)
          print({ crash: how, mode, victim, ...(await crash(mode, victim, how)) });
} finally {
  await rm(directory, { recursive: true, force: true });
}
