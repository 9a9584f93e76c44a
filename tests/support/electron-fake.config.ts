import { resolve } from "node:path";
import { defineConfig } from "electron-vite";
import real from "../../electron.vite.config.ts";

/**
 * The desktop program as it is built for people, around the fake app and without the chunk worker. Each test file
 * builds what it needs into a folder of its own (WEIR_BUILD_DIR, WEIR_BUILD_PARTS), since they run side by side.
 * Paths are relative to the repository, where the build is started.
 */
const out = (part: string): string => resolve(process.env["WEIR_BUILD_DIR"] ?? ".weir/electron-fake", part);
const input = { main: resolve("tests/support/electron-fake-main.ts") };
const parts = (process.env["WEIR_BUILD_PARTS"] ?? "main,preload,renderer").split(",");

const all = {
  main: {
    ...real.main,
    build: {
      ...real.main?.build,
      outDir: out("main"),
      rolldownOptions: { ...real.main?.build?.rolldownOptions, input },
    },
  },
  preload: { ...real.preload, build: { ...real.preload?.build, outDir: out("preload") } },
  renderer: { ...real.renderer, build: { ...real.renderer?.build, outDir: out("renderer") } },
};

export default defineConfig(Object.fromEntries(Object.entries(all).filter(([part]) => parts.includes(part))));
