import { resolve } from "node:path";
import { defineConfig } from "electron-vite";
import renderer from "./src-renderer/vite.config.ts";

/**
 * The bundles of the desktop program, under out/: main process with its engine and chunk worker, preload, window. Building needs no Electron binary. Dependencies of the main
 * process stay outside its bundle: several are native, and all are packaged as they are.
 */
export default defineConfig({
  main: {
    build: {
      outDir: "out/main",
      target: "node24",
      minify: false,
      sourcemap: true,
      rolldownOptions: {
        input: {
          main: "src-main/main.ts",
          engine: "src-main/host/electron/engine-entry.ts",
          "chunk-worker": "src-main/transfer/chunk-worker.ts",
          "chunk-checkpointer": "src-main/transfer/chunk-checkpointer.ts",
          "chunk-hasher": "src-main/transfer/chunk-hasher.ts",
        },
        output: { format: "es", entryFileNames: "[name].js", chunkFileNames: "shared-[hash].js" },
      },
    },
  },
  preload: {
    build: {
      outDir: "out/preload",
      minify: false,
      // A sandboxed preload script can require nothing but Electron, so everything else is bundled, as CommonJS.
      externalizeDeps: false,
      rolldownOptions: {
        input: { preload: "src-preload/preload.ts" },
        output: { format: "cjs", entryFileNames: "[name].cjs" },
      },
    },
  },
  renderer: {
    ...renderer,
    // This file is bundled before it runs, so an imported one no longer knows its own folder.
    root: resolve("src-renderer"),
    build: {
      ...renderer.build,
      outDir: resolve("out/renderer"),
      minify: true,
      // electron-vite adds Electron's Chromium to a list of browsers, which fails; and the headless host serves the same
      // files to any current browser.
      target: "es2024",
      cssTarget: renderer.build?.target ?? "es2024",
      rolldownOptions: { input: resolve("src-renderer/index.html") },
    },
  },
});
