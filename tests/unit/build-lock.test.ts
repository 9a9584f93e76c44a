import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { missingEntries, platformOf } from "../../scripts/complete-lock.ts";
import { root } from "../../scripts/run.ts";

const read = (name: string) => JSON.parse(readFileSync(join(root, name), "utf8"));

describe("package-lock.json", () => {
  const lock = read("package-lock.json");
  const manifest = read("package.json");

  // npm ci refuses the file otherwise; npm run lock:complete adds them.
  it("describes the packages of every platform", () => {
    expect(missingEntries(lock)).toEqual([]);
  });

  it("agrees with package.json, and versions are exact", () => {
    expect(lock.packages[""].dependencies).toEqual(manifest.dependencies);
    expect(lock.packages[""].devDependencies).toEqual(manifest.devDependencies);
    for (const version of Object.values({ ...manifest.dependencies, ...manifest.devDependencies })) {
      expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    }
  });

  it("notices a package that npm left out, also one wanted by a nested package", () => {
    const wanting = { optionalDependencies: { "x-linux-arm64-musl": "1.2.3" } };
    const packages = { "node_modules/a/node_modules/x": wanting };
    expect(missingEntries({ packages })).toEqual([["node_modules/a/node_modules/x", "x-linux-arm64-musl", "1.2.3"]]);
    for (const place of ["", "node_modules/a/", "node_modules/a/node_modules/x/"]) {
      const entry = { [`${place}node_modules/x-linux-arm64-musl`]: { version: "1.2.3" } };
      expect(missingEntries({ packages: { ...packages, ...entry } })).toEqual([]);
    }
  });

  it("reads the platform from a package's name", () => {
    expect(platformOf("@oxc-parser/binding-linux-arm-musleabihf")).toEqual({
      os: ["linux"],
      cpu: ["arm"],
      libc: ["musl"],
    });
    expect(platformOf("@biomejs/cli-win32-x64")).toEqual({ os: ["win32"], cpu: ["x64"] });
    expect(platformOf("@tailwindcss/oxide-wasm32-wasi")).toEqual({ cpu: ["wasm32"] });
    expect(() => platformOf("some-helper")).toThrow("which platform");
  });
});
