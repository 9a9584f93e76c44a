import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { root, toolEntry } from "../../scripts/run.ts";

/** The rules of dependency-cruiser, tried on a small copy of the folders with one violation planted for each. */
const CONFIGS = [".dependency-cruiser.cjs", ".dependency-cruiser-runtime.cjs"] as const;
const FOLDERS = ["src-shared", "src-main", "src-preload", "src-renderer", "src-server", "native"];

/** What may be done. Every target of the violations below is here too, so that it resolves. */
const CLEAN: Record<string, string> = {
  "src-shared/base/pure.ts": 'import * as v from "valibot"; export const pure = v.string();',
  "src-shared/ipc/contract.ts": 'import { pure } from "#shared/base/pure.ts"; export const contract = pure;',
  "src-main/start-app.ts": 'import { outbox } from "./messages/outbox.ts"; export const startApp = () => outbox;',
  "src-main/app.ts": "export interface App { readonly name: string }",
  "src-main/env.ts": "export const env = 1;",
  "src-main/steps.ts": 'import { channel } from "node:diagnostics_channel"; export const steps = channel("weir:step");',
  "src-main/headless.ts": 'import { host } from "./host/headless/run.ts"; export const main = host;',
  "src-main/host/headless/run.ts":
    'import { WebSocketServer } from "ws"; import { startApp } from "../../start-app.ts"; export const host = [WebSocketServer, startApp];',
  "src-main/host/electron/window.ts": 'import { app } from "electron"; export const window = app;',
  "src-main/ipc/server.ts": 'import { outbox } from "../messages/outbox.ts"; export const server = outbox;',
  "src-main/messages/outbox.ts":
    'import { contacts } from "../contacts/contacts.ts"; import { links } from "../links/links.ts"; import { files } from "../transfer/files.ts"; export const outbox = [contacts, links, files];',
  "src-main/transfer/files.ts": 'import { loadNative } from "../../native/index.ts"; export const files = loadNative;',
  "src-main/transfer/transfer-machine.ts":
    'import type { Row } from "../store/row.ts"; import { pieces } from "./pieces.ts"; import { contract } from "#shared/ipc/contract.ts"; export const step = (row: Row) => [row, pieces, contract];',
  "src-main/transfer/pieces.ts": "export const pieces = 1;",
  "src-main/contacts/contacts.ts": 'import { links } from "../links/links.ts"; export const contacts = links;',
  "src-main/links/links.ts":
    'import { driver } from "./driver.ts"; import { signaling } from "../signaling/signaling.ts"; export const links = [driver, signaling];',
  "src-main/links/driver.ts": 'import nd from "node-datachannel"; export const driver = nd;',
  "src-main/signaling/signaling.ts":
    'import { io } from "socket.io-client"; import { sessions } from "../crypto/sessions.ts"; export const signaling = [io, sessions];',
  "src-main/crypto/sessions.ts":
    'import * as S from "@signalapp/libsignal-client"; import { rows } from "../store/row.ts"; export const sessions = [S, rows];',
  "src-main/store/row.ts":
    'import Sqlite from "better-sqlite3"; import Cipher from "better-sqlite3-multiple-ciphers"; export interface Row { id: number } export const rows = [Sqlite, Cipher];',
  "src-preload/preload.ts":
    'import { contextBridge } from "electron"; import { contract } from "#shared/ipc/contract.ts"; export const preload = [contextBridge, contract];',
  "src-renderer/main.ts": 'import App from "./App.svelte"; export const app = App;',
  "src-renderer/App.svelte": '<script lang="ts">import { contract } from "#shared/ipc/contract.ts"; contract;</script>',
  "src-server/server.ts":
    'import { Kysely } from "kysely"; import { Server } from "socket.io"; import Sqlite from "better-sqlite3"; export const server = [Kysely, Server, Sqlite];',
  "src-server/session.ts": "export const session = 1;",
  "native/index.ts": 'import { readFileSync } from "node:fs"; export const loadNative = readFileSync;',
};

/** One file that breaks the rule, and what it imports. */
const VIOLATIONS: readonly (readonly [rule: string, file: string, source: string])[] = [
  ["not-to-unresolvable", "src-main/store/x1.ts", 'import "./no-such-file.ts";'],
  ["no-undeclared-package", "src-server/x2.ts", 'import "acorn";'],
  ["no-development-package-in-node", "src-main/ipc/x3.ts", 'import "fast-check";'],
  [
    "only-shared-from-src-main",
    "src-main/signaling/x4.ts",
    'import { session } from "../../src-server/session.ts"; session;',
  ],
  ["only-shared-from-src-preload", "src-preload/x5.ts", 'import "../src-main/messages/outbox.ts";'],
  [
    "only-shared-from-src-renderer",
    "src-renderer/X6.svelte",
    '<script lang="ts">import "../src-main/app.ts";</script>',
  ],
  [
    "only-shared-from-src-server",
    "src-server/x7.ts",
    'import type { Row } from "../src-main/store/row.ts"; export type X = Row;',
  ],
  ["only-shared-from-src-shared", "src-shared/x8.ts", 'import "../src-main/env.ts";'],
  ["only-shared-from-native", "native/x9.ts", 'import "../src-main/env.ts";'],
  ["downward-only-engine", "src-main/engine/x33.ts", 'import "../ipc/server.ts";'],
  ["downward-only-messages-transfer-shares-activity", "src-main/activity/x10.ts", 'import "../ipc/server.ts";'],
  ["downward-only-contacts", "src-main/contacts/x11.ts", 'import "../messages/outbox.ts";'],
  ["downward-only-links", "src-main/links/x12.ts", 'import "../contacts/contacts.ts";'],
  ["downward-only-signaling-crypto", "src-main/crypto/x13.ts", 'import "../links/links.ts";'],
  [
    "downward-only-store",
    "src-main/store/x14.ts",
    'import type { X } from "../crypto/sessions.ts"; export type Y = X;',
  ],
  ["composition-is-on-top", "src-main/host/headless/x15.ts", 'import "../../headless.ts";'],
  ["only-hosts-start-the-app", "src-main/messages/x16.ts", 'import "../start-app.ts";'],
  ["shared-is-pure", "src-shared/x17.ts", 'import "node:path";'],
  ["shared-needs-little", "src-shared/x18.ts", 'import "@noble/hashes/sha3.js";'],
  ["renderer-has-no-node", "src-renderer/X19.svelte", '<script lang="ts">import fs from "node:fs"; fs;</script>'],
  ["machines-are-pure", "src-main/transfer/x20-machine.ts", 'import { join } from "node:path"; join;'],
  [
    "machines-import-siblings-only",
    "src-main/transfer/x21-machine.ts",
    'import { outbox } from "../messages/outbox.ts"; outbox;',
  ],
  ["machines-reach-no-world", "src-main/transfer/x22-machine.ts", 'import { files } from "./files.ts"; files;'],
  ["no-circular", "src-main/store/x23.ts", 'import { a } from "./x23b.ts"; export const b = a;'],
  ["nobody-listens-to-steps", "src-main/host/x34.ts", 'import { channel } from "node:diagnostics_channel"; channel;'],
  ["sole-importer-of-node-datachannel", "src-main/links/x24.ts", 'import nd from "node-datachannel"; nd;'],
  ["sole-importer-of-better-sqlite3", "src-main/crypto/x25.ts", 'import C from "better-sqlite3-multiple-ciphers"; C;'],
  ["sole-importer-of-libsignal", "src-main/messages/x26.ts", 'import * as S from "@signalapp/libsignal-client"; S;'],
  ["sole-importer-of-electron", "src-main/host/x27.ts", 'import { app } from "electron"; app;'],
  ["sole-importer-of-socket.io-client", "src-main/links/x28.ts", 'import { io } from "socket.io-client"; io;'],
  ["sole-importer-of-socket.io", "src-main/host/headless/x29.ts", 'import { Server } from "socket.io"; Server;'],
  ["sole-importer-of-kysely", "src-main/store/x30.ts", 'import { Kysely } from "kysely"; Kysely;'],
  ["sole-importer-of-ws", "src-main/links/x31.ts", 'import { WebSocket } from "ws"; WebSocket;'],
  ["sole-importer-of-multicast-dns", "src-main/links/x32.ts", 'import mdns from "multicast-dns"; mdns;'],
];
const COMPANIONS = { "src-main/store/x23b.ts": 'import { b } from "./x23.ts"; export const a = () => b;' };

interface Violation {
  readonly from: string;
  readonly rule: { readonly name: string };
}

let clean: Violation[];
let planted: Violation[];
const folders: string[] = [];

const makeTree = (files: Record<string, string>): string => {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "weir-layers-")));
  folders.push(folder);
  for (const config of [...CONFIGS, "tsconfig.json", "tsconfig.base.json", "package.json"]) {
    copyFileSync(join(root, config), join(folder, config));
  }
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"), "junction");
  for (const [path, source] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), source);
  }
  return folder;
};

const cruise = async (folder: string): Promise<Violation[]> => {
  const entry = toolEntry("depcruise");
  const results = await Promise.all(
    CONFIGS.map(async (config) => {
      const args = [entry, "--config", config, "--output-type", "json", "--preserve-symlinks", ...FOLDERS];
      // The exit code is the number of violations; what it wrote is the answer either way.
      const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: folder, maxBuffer: 2 ** 26 }).catch(
        (error: { stdout: string; stderr: string }) =>
          error.stdout === "" ? Promise.reject(new Error(error.stderr)) : error,
      );
      return JSON.parse(stdout).summary.violations as Violation[];
    }),
  );
  return results.flat();
};

beforeAll(async () => {
  const violating = Object.fromEntries(VIOLATIONS.map(([, file, source]) => [file, source]));
  [clean, planted] = await Promise.all([
    cruise(makeTree(CLEAN)),
    cruise(makeTree({ ...CLEAN, ...violating, ...COMPANIONS })),
  ]);
}, 60_000);
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

describe("layer rules", () => {
  it("accept what is allowed", () => {
    expect(clean.map(({ rule, from }) => `${rule.name}: ${from}`)).toEqual([]);
  });

  it.each(VIOLATIONS)("report %s", (rule, file) => {
    expect(planted.filter(({ from }) => from === file).map((violation) => violation.rule.name)).toContain(rule);
  });

  it("are all tried here", () => {
    const load = createRequire(import.meta.url);
    const rules = CONFIGS.flatMap((config) =>
      load(join(root, config)).forbidden.map(({ name }: { name: string }) => name),
    );
    expect(VIOLATIONS.map(([rule]) => rule).sort()).toEqual(rules.sort());
  });
});
