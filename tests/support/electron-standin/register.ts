import { registerHooks } from "node:module";

/** Makes `electron` mean the stand-in, for `import` and `require` alike, and the process look like Electron's main one. */
const standin = new URL("./electron.ts", import.meta.url).href;

registerHooks({
  resolve: (specifier, context, next) =>
    /^(node:)?electron(\/main|\/common)?$/.test(specifier)
      ? { url: standin, shortCircuit: true }
      : next(specifier, context),
});

Object.defineProperties(process, {
  type: { value: "browser" },
  defaultApp: { value: true },
  resourcesPath: { value: import.meta.dirname },
});
Object.assign(process.versions, { electron: "45.3.4", chrome: "156.0.0.0" });
