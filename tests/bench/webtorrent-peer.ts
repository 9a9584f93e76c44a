import { closeSync, fsyncSync, openSync } from "node:fs";
import { registerHooks } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/**
 * One end of the comparison in webtorrent.ts, in a process of its own: `plain` or `encrypted`, and `seed FILE`, or `fetch FOLDER`, which gets the torrent
 * and the port from its parent. TCP alone: no DHT, no trackers, no WebRTC.
 */
const [library = "", kind, role, path = ""] = process.argv.slice(2);

// Its WebRTC is native code that was not installed, and nothing here uses it.
registerHooks({
  resolve: (specifier, context, next) =>
    /^(@thaunknown\/simple-peer|webrtc-polyfill)/.test(specifier)
      ? { url: "data:text/javascript,export default class NoWebRtc {}", shortCircuit: true }
      : next(specifier, context),
});

interface Torrent {
  readonly files: readonly { readonly path: string }[];
  readonly torrentFile: Uint8Array;
  addPeer(address: string): boolean;
  on(event: "infoHash" | "done", listener: () => void): void;
}
interface Client {
  readonly torrentPort: number;
  seed(path: string, options: object, ready: (torrent: Torrent) => void): void;
  add(torrentFile: Uint8Array, options: object): Torrent;
  on(event: "error", listener: (error: Error) => void): void;
}
const { default: WebTorrent } = (await import(pathToFileURL(library).href)) as {
  default: new (options: object) => Client;
};
const NO_ENCRYPTION = 0;
const RC4_ONLY = 2;
const client = new WebTorrent({
  ...{
    dht: false,
    lsd: false,
    tracker: false,
    utp: false,
    natUpnp: false,
    natPmp: false,
    webSeeds: false,
    utPex: false,
  },
  secure: kind === "encrypted" ? RC4_ONLY : NO_ENCRYPTION,
});
client.on("error", (error) => {
  throw error;
});
process.on("disconnect", () => process.exit(0));

/** WebTorrent leaves its file to the system's cache, which may be lost with the power. */
const syncFile = (file: string): void => {
  const fd = openSync(file, "r+");
  fsyncSync(fd);
  closeSync(fd);
};

if (role === "seed") {
  const startedAt = performance.now();
  client.seed(path, { announceList: [] }, ({ torrentFile }) => {
    const torrent = Buffer.from(torrentFile).toString("base64");
    process.send?.({ torrent, port: client.torrentPort, ms: Math.round(performance.now() - startedAt) });
  });
} else {
  process.once("message", ({ torrent, port }: { torrent: string; port: number }) => {
    const startedAt = performance.now();
    const fetched = client.add(Buffer.from(torrent, "base64"), { path });
    fetched.on("infoHash", () => fetched.addPeer(`127.0.0.1:${port}`));
    fetched.on("done", () => {
      const ms = Math.round(performance.now() - startedAt);
      for (const { path: inFolder } of fetched.files) syncFile(join(path, inFolder));
      process.send?.({ ms, syncedMs: Math.round(performance.now() - startedAt) });
    });
  });
  process.send?.("ready");
}
