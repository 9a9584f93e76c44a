import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { Arch, build, Platform } from "electron-builder";
import config from "../build/electron-builder.ts";
import { ensureAppBuilt } from "./app-build.ts";
import { listAsar } from "./asar.ts";
import { ensureNativeBuilt } from "./native-build.ts";
import { note, root } from "./run.ts";

/**
 * `npm run package:tree`: packs the unpacked Linux tree with electron-builder itself and lists what is in it. Where Electron
 * has not been downloaded, a stand-in takes its place in the tree: everything of ours is then exactly what an installer
 * would hold, and only Electron's own files are missing.
 *
 *   npm run package:tree -- [--output DIR] [--json]    pack and list; the last line on stdout is JSON
 *   npm run package:tree -- --packed                   list what `npm run package` made in dist/
 */
export interface PackedTree {
  readonly app: readonly { path: string; sizeBytes: number; unpacked: boolean }[];
  /** Files around the app: Electron's, its fuses set, and the licence. */
  readonly around: readonly { path: string; sizeBytes: number }[];
  readonly electron: "real" | "stand-in";
  /** The nine fuses of the executable in the order of Electron's fuse wire, "1" on and "0" off. */
  readonly fuses: string;
}

const FUSE_SENTINEL = "dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX";
const FUSE_COUNT = 9;

const packTree = async (output: string): Promise<PackedTree> => {
  const electronDist = join(root, "node_modules", "electron", "dist");
  const real = existsSync(join(electronDist, "electron"));
  const standIn = real ? null : makeElectronStandIn();
  try {
    await build({
      targets: Platform.LINUX.createTarget("dir", process.arch === "arm64" ? Arch.arm64 : Arch.x64),
      config: { ...config, directories: { ...config.directories, output }, electronDist: standIn ?? electronDist },
      projectDir: root,
      publish: "never",
    });
  } finally {
    if (standIn !== null) rmSync(standIn, { recursive: true });
  }
  const folder = readdirSync(output).find((name) => /^linux.*unpacked$/.test(name));
  if (folder === undefined) throw new Error(`electron-builder made no unpacked tree in ${output}`);
  return { ...describeTree(join(output, folder)), electron: real ? "real" : "stand-in" };
};

/** The files that electron-builder needs to find in Electron's folder, and a fuse wire as Electron 45 has it. */
const makeElectronStandIn = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "weir-electron-"));
  const wire = Buffer.concat([
    Buffer.from(FUSE_SENTINEL),
    Buffer.from([1, FUSE_COUNT]),
    Buffer.from("1".repeat(FUSE_COUNT)),
  ]);
  writeFileSync(join(folder, "electron"), wire, { mode: 0o755 });
  writeFileSync(join(folder, "chrome-sandbox"), "", { mode: 0o755 });
  writeFileSync(join(folder, "LICENSE"), "");
  writeFileSync(join(folder, "LICENSES.chromium.html"), "");
  mkdirSync(join(folder, "locales"));
  writeFileSync(join(folder, "locales", "en-US.pak"), "");
  mkdirSync(join(folder, "resources"));
  return folder;
};

const describeTree = (folder: string): Omit<PackedTree, "electron"> => {
  const archive = join(folder, "resources", "app.asar");
  const around = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => !file.startsWith(`${archive}.unpacked`))
    .map((file) => ({ path: relative(folder, file), sizeBytes: statSync(file).size }));
  return { app: listAsar(archive), around, fuses: readFuses(join(folder, "weir")) };
};

const readFuses = (executable: string): string => {
  const bytes = readFileSync(executable);
  const at = bytes.indexOf(FUSE_SENTINEL) + FUSE_SENTINEL.length;
  return bytes.subarray(at + 2, at + 2 + (bytes[at + 1] ?? 0)).toString("latin1");
};

/** Folders that are shown as one line each: two levels of packages, one of everything else. */
const groupOf = (path: string): string => {
  const parts = path.split("/");
  if (parts[0] !== "node_modules") return parts.slice(0, 2).join("/");
  return parts.slice(0, parts[1]?.startsWith("@") ? 3 : 2).join("/");
};

const printApp = (files: PackedTree["app"]): void => {
  const groups = new Map<string, { bytes: number; count: number }>();
  for (const { path, sizeBytes } of files) {
    const group = groups.get(groupOf(path)) ?? { bytes: 0, count: 0 };
    groups.set(groupOf(path), { bytes: group.bytes + sizeBytes, count: group.count + 1 });
  }
  const rows = [...groups].sort(([, a], [, b]) => b.bytes - a.bytes);
  for (const [name, { bytes, count }] of rows) print(`${kib(bytes)}  ${name}${count > 1 ? ` (${count} files)` : ""}`);
  print(`${kib(files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0))}  in all, ${files.length} files`);
  print("\nunpacked beside the archive, for the system's loader:");
  for (const file of files.filter(({ unpacked }) => unpacked)) print(`${kib(file.sizeBytes)}  ${file.path}`);
};

const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};
const kib = (bytes: number): string => `${(bytes / 1024).toFixed(0)} KiB`.padStart(12);

const printTree = (tree: PackedTree): void => {
  print("resources/app.asar:");
  printApp(tree.app);
  print(`\naround it (${tree.electron === "real" ? "Electron" : "a stand-in for Electron"}):`);
  for (const { path, sizeBytes } of tree.around) print(`${kib(sizeBytes)}  ${path}`);
  print(`\nfuses: ${tree.fuses}`);
  if (tree.electron === "real") return;
  print("\nNot done, because Electron is not on this machine (npm start fetches it where it can):");
  print("- Electron's own files are not in the tree, so it cannot be started");
  print("- the fuses were set on a stand-in executable that holds nothing but a fuse wire");
  print("- no AppImage, deb, dmg or NSIS installer was made");
};

/** Lists every app.asar under dist/. */
const printPacked = (): number => {
  const dist = join(root, "dist");
  const archives = (existsSync(dist) ? readdirSync(dist, { recursive: true, encoding: "utf8" }) : []).filter((path) =>
    path.endsWith("app.asar"),
  );
  for (const archive of archives) {
    print(`dist/${archive}:`);
    printApp(listAsar(join(dist, archive)));
  }
  if (archives.length === 0) note("dist/ holds no packed app: run npm run package");
  return archives.length === 0 ? 1 : 0;
};

const main = async (): Promise<number> => {
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArgs({ options: { json: flag, packed: flag, output: { type: "string" } } });
  if (values.packed) return printPacked();
  const app = await ensureAppBuilt();
  if (app.type === "failed" || app.type === "impossible") {
    note(app.message);
    return 1;
  }
  const native = await ensureNativeBuilt();
  if (native.type === "failed") note(`packed without the native addon: ${native.reason}`);
  const tree = await packTree(values.output ?? join(root, "dist", "tree"));
  if (values.json) print(JSON.stringify(tree));
  else printTree(tree);
  return 0;
};

process.exitCode = await main();
