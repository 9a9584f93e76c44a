import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import type { CommandInput, CommandName, CommandOutput, ContractEvents, EventName } from "#shared/ipc/contract.ts";

/**
 * Starts Weir's own processes and drives them the way any outside program would: the ready line on stdout, then the IPC
 * contract over a WebSocket. The demo, the benchmark and the integration tests stand on it.
 */
const root = fileURLToPath(new URL("../", import.meta.url));
const START_TIMEOUT_MS = 30_000;
const CALL_TIMEOUT_MS = 60_000;
/** Types are stripped and sources compiled once, by the first process that ends in order: later ones start in half the time. */
const compileCache = process.env["NODE_V8_COVERAGE"] === undefined && {
  NODE_COMPILE_CACHE: `${root}node_modules/.cache/node-compile`,
};

export interface ReadyProcess<Ready> {
  readonly process: ChildProcess;
  readonly ready: Ready;
  /** Everything written to stderr so far (the last 256 KiB). */
  log(): string;
  /** SIGTERM and wait; resolves to the exit code (null when it had to be killed). */
  stop(): Promise<number | null>;
  /** SIGKILL and wait. */
  kill(): Promise<void>;
}

/** Another network than this process's own (see tests/support/net). */
export interface Place {
  /** What comes before a command so that it runs there. */
  readonly command: readonly string[];
  /** A connection to a port of its loopback. */
  connect(port: number): Promise<Socket>;
}

export const startProcess = async <Ready>(
  entry: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  place?: Place,
): Promise<ReadyProcess<Ready>> => {
  const [program, ...before] = [...(place?.command ?? []), process.execPath];
  const child = spawn(program ?? process.execPath, [...before, `${root}${entry}`, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...compileCache, ...process.env, ...env },
  });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log = (log + text).slice(-256 * 1024);
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const firstLine = new Promise<string>((resolve, reject) => {
    lines.once("line", resolve);
    void exited.then(([code]) => reject(new Error(`${entry} ended with ${code} before it was ready:\n${log}`)));
    setTimeout(() => reject(new Error(`${entry} was not ready in time:\n${log}`)), START_TIMEOUT_MS).unref();
  });
  const ended = (): boolean => child.exitCode !== null || child.signalCode !== null;
  const kill = async (): Promise<void> => {
    if (!ended()) child.kill("SIGKILL");
    if (!ended()) await exited;
  };
  try {
    const ready = JSON.parse(await firstLine) as Ready;
    return {
      process: child,
      ready,
      log: () => log,
      kill,
      async stop() {
        if (!ended()) {
          child.kill("SIGTERM");
          const timer = setTimeout(() => child.kill("SIGKILL"), START_TIMEOUT_MS);
          await exited;
          clearTimeout(timer);
        }
        return child.exitCode;
      },
    };
  } catch (error) {
    await kill();
    throw error;
  }
};

export const startServer = (
  dataDir: string,
  options: { port?: number; args?: readonly string[]; env?: NodeJS.ProcessEnv; entry?: string; place?: Place } = {},
): Promise<ReadyProcess<{ url: string }>> => {
  const args = ["--data", dataDir, "--port", String(options.port ?? 0), ...(options.args ?? [])];
  return startProcess(options.entry ?? "src-server/main.ts", args, options.env ?? {}, options.place);
};

interface HeadlessReady {
  url: string;
  token: string;
  userId: string;
  serverUrl: string;
}

/** An error that the contract answered with. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly type: string;
  constructor(command: string, error: { type: string; message: string }) {
    super(`${command}: ${error.type}: ${error.message}`);
    this.type = error.type;
  }
}

export interface HeadlessProfile extends ReadyProcess<HeadlessReady> {
  readonly userId: string;
  call<Name extends CommandName>(name: Name, input: CommandInput<Name>): Promise<CommandOutput<Name>>;
  /** Sends any text as it is, for tests of malformed input. */
  sendRaw(text: string): void;
  on<Name extends EventName>(name: Name, listener: (payload: ContractEvents[Name]) => void): () => void;
  /**
   * Asks `probe` now and after every pushed event until it gives something other than null.
   * Fails with what `probe` saw last after `timeoutMs`.
   */
  until<T>(what: string, probe: () => Promise<T | null>, timeoutMs?: number): Promise<T>;
}

export interface HeadlessOptions {
  readonly dataDir: string;
  readonly server?: string;
  readonly name?: string;
  readonly downloads?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** What runs instead of the headless host, from the root of the repository. */
  readonly entry?: string;
  readonly place?: Place;
}

export const startHeadless = async (options: HeadlessOptions): Promise<HeadlessProfile> => {
  const args = ["--data", options.dataDir];
  if (options.server !== undefined) args.push("--server", options.server);
  if (options.name !== undefined) args.push("--name", options.name);
  if (options.downloads !== undefined) args.push("--downloads", options.downloads);
  const base = await startProcess<HeadlessReady>(
    options.entry ?? "src-main/headless.ts",
    args,
    options.env ?? {},
    options.place,
  );
  const { url, token, userId } = base.ready;
  const stream = await options.place?.connect(Number(new URL(url).port));
  const socket = new WebSocket(`${url.replace(/^http/, "ws")}ipc?token=${token}`, {
    perMessageDeflate: false,
    maxPayload: 0,
    ...(stream === undefined ? {} : { createConnection: () => stream }),
  });
  const pending = new Map<
    number,
    { name: string; resolve: (value: unknown) => void; reject: (error: Error) => void }
  >();
  const listeners = new Map<string, Set<(payload: unknown) => void>>();
  const anyEvent = new Set<() => void>();
  let nextId = 1;

  socket.addEventListener("message", (event) => {
    const message = JSON.parse(String(event.data));
    if (typeof message.event === "string") {
      for (const listener of listeners.get(message.event) ?? []) listener(message.payload);
      for (const wake of [...anyEvent]) wake();
      return;
    }
    const call = pending.get(message.id);
    if (call === undefined) return;
    pending.delete(message.id);
    if (message.ok) call.resolve(message.value);
    else call.reject(new CommandError(call.name, message.error));
  });
  socket.addEventListener("close", () => {
    for (const call of pending.values()) call.reject(new Error(`${call.name}: the connection to Weir was closed`));
    pending.clear();
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => resolve());
    socket.addEventListener("error", () => reject(new Error(`no IPC connection:\n${base.log()}`)));
  });

  const call: HeadlessProfile["call"] = (name, input) =>
    new Promise((resolve, reject) => {
      if (socket.readyState !== WebSocket.OPEN) {
        reject(new Error(`${name}: the connection to Weir was closed`));
        return;
      }
      const id = nextId++;
      const timer = setTimeout(() => {
        pending.delete(id);
        reject(new Error(`${name} was not answered`));
      }, CALL_TIMEOUT_MS);
      pending.set(id, {
        name,
        // The contract's own types: what the other end promises for this command.
        resolve: (value) => {
          clearTimeout(timer);
          resolve(value as CommandOutput<typeof name>);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      socket.send(JSON.stringify({ id, call: name, input }));
    });

  return {
    ...base,
    userId,
    call,
    sendRaw: (text) => socket.send(text),
    on(name, listener) {
      const set = listeners.get(name) ?? new Set();
      listeners.set(name, set);
      const entry = (payload: unknown): void => listener(payload as Parameters<typeof listener>[0]);
      set.add(entry);
      return () => set.delete(entry);
    },
    async until(what, probe, timeoutMs = 30_000) {
      const deadline = Date.now() + timeoutMs;
      for (;;) {
        const found = await probe();
        if (found !== null) return found;
        const leftMs = deadline - Date.now();
        if (leftMs <= 0) throw new Error(`waited ${timeoutMs} ms in vain: ${what}\n${base.log().slice(-4000)}`);
        await new Promise<void>((resolve) => {
          // Events wake at once; the interval covers what has no event.
          const timer = setTimeout(done, Math.min(leftMs, 250));
          function done(): void {
            clearTimeout(timer);
            anyEvent.delete(done);
            resolve();
          }
          anyEvent.add(done);
        });
      }
    },
    async stop() {
      const code = await base.stop();
      socket.close();
      return code;
    },
    async kill() {
      await base.kill();
      socket.close();
    },
  };
};

/** Pairs two profiles by link or code and waits until each accepts the other. */
export const pair = async (
  alice: HeadlessProfile,
  bob: HeadlessProfile,
  by: "link" | "code" = "link",
): Promise<void> => {
  const invite = await alice.call("invites.create", {});
  await bob.call("invites.accept", { invite: invite[by] });
  await alice.until(
    "the contact request",
    async () =>
      (await alice.call("contacts.list", {})).find((c) => c.userId === bob.userId && c.state === "incoming") ?? null,
  );
  await alice.call("contacts.accept", { userId: bob.userId });
  for (const [me, other] of [
    [alice, bob],
    [bob, alice],
  ] as const) {
    await me.until(
      "both sides accepted",
      async () =>
        (await me.call("contacts.list", {})).find((c) => c.userId === other.userId && c.state === "accepted") ?? null,
    );
  }
};

/** Sends a message between two who are paired and waits until it is there. */
export const say = async (from: HeadlessProfile, to: HeadlessProfile, text: string): Promise<void> => {
  await from.call("messages.send", { chatId: to.userId, text });
  await to.until(
    `the message "${text}"`,
    async () =>
      (await to.call("messages.list", { chatId: from.userId, limit: 20 })).find((m) => m.text === text) ?? null,
  );
};
