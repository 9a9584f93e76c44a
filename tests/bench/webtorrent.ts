import { type ChildProcess, execFile, fork } from "node:child_process";
import { on } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { sha256OfFile } from "../../scripts/demo.ts";

/**
 * WebTorrent, the best known program that moves files from peer to peer in JavaScript, over TCP and loopback. It is
 * installed at the first comparison, next to the other caches, so that nobody else needs it: its scripts, which would
 * build native code, do not run.
 */
const VERSION = "3.0.21";
const CACHE = join(import.meta.dirname, "../../node_modules/.cache/weir/webtorrent");
const LIBRARY = join(CACHE, "node_modules/webtorrent/index.js");
const PEER = join(import.meta.dirname, "webtorrent-peer.ts");

const install = async (): Promise<void> => {
  if (existsSync(LIBRARY)) return;
  await mkdir(CACHE, { recursive: true });
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", "--prefix", CACHE];
  await promisify(execFile)("npm", ["install", ...flags, `webtorrent@${VERSION}`], { timeout: 300_000 });
};

/** The next message of this kind; rejects when the process ends before. */
const heard = async <T>(child: ChildProcess): Promise<T> => {
  const ended = new AbortController();
  child.once("exit", () => ended.abort(new Error("WebTorrent ended")));
  for await (const [message] of on(child, "message", { signal: ended.signal })) return message as T;
  throw new Error("no message");
};

export interface WebTorrentTimes {
  /** How long the torrent of the file took to make. */
  readonly seedMs: number;
  /** From `add` to `done`: every piece was checked by then. */
  readonly downloadMs: number;
  /** From `add` until the file is on the disk too, as Weir's is when it is complete. */
  readonly syncedMs: number;
  /** From the start of making the torrent until then. */
  readonly totalMs: number;
}

/** `plain`: as it comes. `encrypted`: all of a connection in RC4 (Message Stream Encryption), by OpenSSL. */
export const measureWebTorrent = async (
  path: string,
  folder: string,
  sha256: string,
  kind: "plain" | "encrypted",
): Promise<WebTorrentTimes> => {
  await install();
  await mkdir(folder, { recursive: true });
  // OpenSSL has RC4 among its legacy ciphers only.
  const options = { execArgv: kind === "encrypted" ? ["--openssl-legacy-provider"] : [] };
  const seeder = fork(PEER, [LIBRARY, kind, "seed", path], options);
  const fetcher = fork(PEER, [LIBRARY, kind, "fetch", folder], options);
  try {
    const [seeded] = await Promise.all([
      heard<{ torrent: string; port: number; ms: number }>(seeder),
      heard<"ready">(fetcher),
    ]);
    const fetched = heard<{ ms: number; syncedMs: number }>(fetcher);
    fetcher.send(seeded);
    const { ms, syncedMs } = await fetched;
    const [name = ""] = await readdir(folder);
    if ((await sha256OfFile(join(folder, name))) !== sha256) throw new Error("WebTorrent's file arrived damaged");
    return { seedMs: seeded.ms, downloadMs: ms, syncedMs, totalMs: seeded.ms + syncedMs };
  } finally {
    seeder.kill();
    fetcher.kill();
  }
};
