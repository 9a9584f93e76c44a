import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import vm from "node:vm";
import { beforeAll, expect, test } from "vitest";
import { commands, eventNames } from "#shared/ipc/contract.ts";
import { buildFake } from "../support/electron-launch.ts";

/**
 * The preload script as it is built. Sandboxed, it must be one CommonJS file that requires Electron alone: a bundle that
 * requires anything else, or an ES module, leaves the window without its API, and only at run time.
 */
let folder = "";
let bundle = "";
beforeAll(async () => {
  folder = join(await buildFake("preload-bundle", ["preload"]), "preload");
  bundle = await readFile(`${folder}/preload.cjs`, "utf8");
}, 120_000);

/** Runs the bundle as Electron does and returns what it exposes. */
const load = () => {
  const required: string[] = [];
  const exposed: Record<string, Record<string, (...args: unknown[]) => unknown>> = {};
  const invoked: unknown[][] = [];
  const listeners: ((event: unknown, name: unknown, payload: unknown) => void)[] = [];
  const electron = {
    contextBridge: {
      exposeInMainWorld(key: string, api: Record<string, (...args: unknown[]) => unknown>) {
        exposed[key] = api;
      },
    },
    ipcRenderer: {
      async invoke(...args: unknown[]) {
        invoked.push(args);
        return args[0] === "weir:grant" && args[1] === ""
          ? { ok: false, error: { message: "no path" } }
          : { ok: true, value: "v" };
      },
      on(_channel: string, listener: (typeof listeners)[number]) {
        listeners.push(listener);
      },
    },
    webUtils: { getPathForFile: (file: { path: string }) => file.path },
  };
  const require = (name: string): unknown => {
    required.push(name);
    if (name === "electron") return electron;
    throw new Error(`module not found: ${name}`);
  };
  const module = { exports: {} };
  vm.runInNewContext(`(function (require, module, exports) {${bundle}\n})`, { TextEncoder, TextDecoder })(
    require,
    module,
    module.exports,
  );
  const push = (name: unknown, payload: unknown): void => {
    for (const listener of listeners) listener({}, name, payload);
  };
  const api = exposed["weir"];
  if (api === undefined) throw new Error("window.weir was not exposed");
  return { api, exposed, required, invoked, push };
};

test("one CommonJS file that requires only electron", async () => {
  expect(await readdir(folder)).toEqual(["preload.cjs"]);
  expect(bundle).not.toMatch(/^\s*(import|export)\s/m);
  expect([...bundle.matchAll(/\brequire\(([^)]*)\)/g)].map(([, name]) => name)).toEqual(['"electron"']);
  expect(bundle).not.toMatch(/\bimport\(|\beval\(|new Function\(/);
  expect(load().required).toEqual(["electron"]);
});

test("it exposes call, on and pathOf, and nothing else", () => {
  const { exposed } = load();
  expect(Object.keys(exposed)).toEqual(["weir"]);
  expect(Object.keys(exposed["weir"] ?? {})).toEqual(["call", "on", "pathOf"]);
});

test("every command of the contract goes through, anything else goes nowhere", async () => {
  const { api, invoked } = load();
  for (const name of Object.keys(commands)) expect(await api["call"]?.(name, {})).toMatchObject({ ok: true });
  expect(invoked).toHaveLength(Object.keys(commands).length);
  for (const name of ["nope", "", "__proto__", "toString", "weir:grant", 7, null, undefined, {}]) {
    expect(await api["call"]?.(name, {})).toMatchObject({ ok: false, error: { type: "unknown_command" } });
  }
  expect(invoked).toHaveLength(Object.keys(commands).length);
});

test("events of the contract reach their listeners until these end", () => {
  const { api, push } = load();
  const got: unknown[] = [];
  const ends = eventNames.map((name) => api["on"]?.(name, (payload: unknown) => got.push(payload)));
  for (const name of [...eventNames, "other", "__proto__", 7, null]) push(name, name);
  expect(got).toEqual([...eventNames]);
  for (const end of ends) if (typeof end === "function") end();
  push("notice", "late");
  expect(got).toHaveLength(eventNames.length);
  for (const args of [
    ["nope", () => undefined],
    ["notice", "text"],
    [7, () => undefined],
  ]) {
    expect(() => api["on"]?.(...args)).toThrow(/takes the name of an event and a function/);
  }
});

test("a file becomes a handle; one that is not on the disk is refused", async () => {
  const { api, invoked } = load();
  expect(await api["pathOf"]?.({ path: "/a" })).toBe("v");
  expect(invoked).toEqual([["weir:grant", "/a"]]);
  await expect(api["pathOf"]?.({ path: "" })).rejects.toThrow("no path");
});
