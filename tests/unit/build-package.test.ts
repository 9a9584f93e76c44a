import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { FuseV1Options } from "@electron/fuses";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import config from "../../build/electron-builder.ts";
import { fuses } from "../../build/fuses.ts";
import type { PackedTree } from "../../scripts/package-tree.ts";
import { root } from "../../scripts/run.ts";

/** What electron-builder really puts into the tree, with a stand-in for Electron where that is not on this machine. */
const PACK_TIMEOUT_MS = 180_000;
const addon = "native/build/Release/weir_native.node";
/** Only a developer's machine without a compiler may go without. */
const addonExpected = process.env["CI"] === "true" || existsSync(join(root, addon));
const here = `${process.platform}-${process.arch}`;

// Packing a Linux tree on another system would look for that system's natives.
describe.runIf(process.platform === "linux")("the packed tree", () => {
  let output: string;
  let tree: PackedTree;
  let paths: string[];

  beforeAll(async () => {
    output = mkdtempSync(join(tmpdir(), "weir-tree-"));
    const args = [join(root, "scripts", "package-tree.ts"), "--json", "--output", output];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, maxBuffer: 2 ** 26 });
    tree = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
    paths = tree.app.map(({ path }) => path);
  }, PACK_TIMEOUT_MS);
  afterAll(() => rmSync(output, { recursive: true, force: true }));

  it("holds the program and nothing of the workshop", () => {
    expect(paths).toEqual(
      expect.arrayContaining(["package.json", "LICENSE", "out/main/main.js", "out/renderer/index.html"]),
    );
    expect(paths.filter((path) => /^(src-|tests|scripts|docs|build|\.ci|\.github)/.test(path))).toEqual([]);
    expect(paths.filter((path) => /^node_modules\/(electron|vite|typescript|vitest|node)\//.test(path))).toEqual([]);
  });

  it("holds every native of this machine, outside the archive", () => {
    const natives = tree.app.filter(({ path }) => path.endsWith(".node"));
    expect(natives.map(({ path }) => path).sort()).toEqual([
      ...(addonExpected ? [addon] : []),
      expect.stringMatching(/^node_modules\/@node-datachannel\/linux-[^/]+\/node_datachannel\.node$/),
      expect.stringMatching(new RegExp(`^node_modules/@signalapp/libsignal-client/prebuilds/${here}/[^/]+\\.node$`)),
      `node_modules/better-sqlite3-multiple-ciphers/prebuilds/${here}.node`,
      `node_modules/better-sqlite3/prebuilds/${here}.node`,
    ]);
    expect(tree.app.filter(({ unpacked }) => unpacked)).toEqual(natives);
  });

  it("holds no native of another machine and no sources of natives", () => {
    const foreign = /(darwin|win32|linuxmusl|linux-(?!x64|arm64))/;
    expect(paths.filter((path) => path.includes("prebuilds/") && foreign.test(path))).toEqual([]);
    expect(paths.filter((path) => /\.(c|cc|cpp|h|gyp|gypi|d\.ts|map)$/.test(path))).toEqual([]);
  });

  it("stays small", () => {
    const total = tree.app.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    expect(total).toBeLessThan(80 * 2 ** 20);
  });

  it("has its fuses set in the executable", () => {
    expect(tree.fuses).toBe("010011001");
  });
});

describe("the packaging configuration", () => {
  it("states all nine fuses and refuses an Electron with more", () => {
    const names = Object.values(FuseV1Options).filter((value) => typeof value === "number");
    expect(names).toHaveLength(9);
    for (const fuse of names) expect(fuses).toHaveProperty(String(fuse), expect.any(Boolean));
    expect(fuses.strictlyRequireAllFuses).toBe(true);
  });

  it("registers weir:// and makes the installers of each system", () => {
    expect(config.protocols).toEqual([{ name: "Weir invitation", schemes: ["weir"] }]);
    expect(config.linux?.target).toEqual(["AppImage", "deb"]);
    expect(config.mac?.target).toEqual(["dmg", "zip"]);
    expect(config.win?.target).toEqual(["nsis"]);
    expect(config.npmRebuild).toBe(false);
  });
});
