import { toDisposable } from "#shared/base/disposable.ts";
import { Emitter } from "#shared/base/emitter.ts";
import type { Clock, Log, LogLevel } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { type CommandName, commands } from "#shared/ipc/contract.ts";
import type { SettingsView, TransferView } from "#shared/ipc/views.ts";
import type { App } from "../../src-main/app.ts";
import type { AppHandlers, Handlers, PublishedEvent } from "../../src-main/ipc/handlers.ts";
import { freshTransferView } from "./transfer-view.ts";

/** An app of the hosts' size: it answers every command and records what it was asked, and keeps nothing. */
export interface FakeApp extends App {
  readonly calls: { name: CommandName; input: unknown }[];
  readonly emitter: Emitter<PublishedEvent>;
  readonly stops: () => number;
}

export const FAKE_USER = "abcdefghijklmnopqrstuvwxyz234567" as UserId;

export const fakeSettings: SettingsView = {
  downloadDirectory: "/home/someone/Downloads",
  drainTimeoutMs: 5000,
  downloadBytesPerSecond: null,
  uploadBytesPerSecond: null,
  chunkStorageBytes: null,
  theme: "system",
  server: "embedded",
  readReceipts: true,
  typingIndicators: true,
  lanDiscovery: false,
  activityGuards: { lock: true, batches: true, sequence: true },
};

type AnyHandler = (input: unknown) => Result<unknown> | Promise<Result<unknown>>;

export const createFakeApp = (overrides: Partial<Record<CommandName, AnyHandler>> = {}): FakeApp => {
  const calls: FakeApp["calls"] = [];
  const emitter = new Emitter<PublishedEvent>((error) => {
    throw error;
  });
  let stops = 0;
  const defaults: Partial<Record<CommandName, AnyHandler>> = {
    "profile.get": () =>
      ok({
        userId: FAKE_USER,
        name: "",
        fingerprint: "00".repeat(64),
        server: { state: "connected", url: "ws://127.0.0.1:1", error: null },
        keyProtection: "file",
      }),
    "contacts.list": () => ok([]),
    "chats.list": () => ok([]),
    "messages.list": () => ok([]),
    "files.list": () => ok([]),
    "transfers.list": () => ok([]),
    "links.list": () => ok([]),
    "settings.get": () => ok(fakeSettings),
    "settings.set": (input) => ok({ ...fakeSettings, ...(input as object) }),
    "diagnostics.export": () => ok({}),
  };
  const handlers: Record<string, AnyHandler> = {};
  for (const name of Object.keys(commands) as CommandName[]) {
    if (name.startsWith("host.")) continue;
    handlers[name] = (input) => {
      calls.push({ name, input });
      const handler = overrides[name] ?? defaults[name];
      return handler === undefined ? fail("not_found", "This fake keeps nothing.") : handler(input);
    };
  }
  return {
    userId: FAKE_USER,
    serverUrl: "ws://127.0.0.1:1",
    handlers: handlers as unknown as AppHandlers,
    events: emitter.event,
    savedPath: () => null,
    sharedPaths: () => [],
    networkChanged: () => undefined,
    stop: async () => {
      stops++;
    },
    calls,
    emitter,
    stops: () => stops,
  };
};

export const fakeHostHandlers: Pick<Handlers, Extract<CommandName, `host.${string}`>> = {
  "host.info": () => ok({ kind: "headless", platform: "linux", version: "0", canPick: false, canOpen: false }),
  "host.pickFiles": () => ok([]),
  "host.pickDirectory": () => ok({ path: null }),
  "host.open": () => ok({ opened: false }),
  "host.showInFolder": () => ok({ shown: false }),
};

export interface LogLine {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

export const recordingLog = (): Log & { readonly lines: LogLine[] } => {
  const lines: LogLine[] = [];
  const at =
    (level: LogLevel) =>
    (message: string, fields: Record<string, unknown> = {}): void => {
      lines.push({ level, message, fields });
    };
  const log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), lines, child: () => log };
  return log;
};

/** Time that moves only when a test says so. */
export const createManualClock = (): Clock & { advance(ms: number): void; readonly timers: () => number } => {
  let now = 1_000_000;
  let sequence = 0;
  const timers = new Map<number, { atMs: number; fn: () => void }>();
  return {
    now: () => now,
    monotonicMs: () => now,
    setTimer(delayMs, fn) {
      const id = sequence++;
      timers.set(id, { atMs: now + delayMs, fn });
      return toDisposable(() => timers.delete(id));
    },
    timers: () => timers.size,
    advance(ms) {
      const end = now + ms;
      for (;;) {
        const due = [...timers].filter(([, timer]) => timer.atMs <= end);
        const next = due.sort(([a, x], [b, y]) => x.atMs - y.atMs || a - b)[0];
        if (next === undefined) break;
        timers.delete(next[0]);
        now = Math.max(now, next[1].atMs);
        next[1].fn();
      }
      now = end;
    },
  };
};

export const transferView = (change: Partial<TransferView> = {}): TransferView =>
  freshTransferView(
    { fileId: "AAAAAAAAAAAAAAAAAAAAAA", name: "holiday.mp4", chunkCount: 100, sizeBytes: 6_553_600 },
    change,
  );
