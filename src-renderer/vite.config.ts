import { svelte } from "@sveltejs/vite-plugin-svelte";
import tailwindcss from "@tailwindcss/vite";
import { defineConfig } from "vite";

/**
 * How the renderer is built, by itself and inside electron-vite alike. The output is served under a policy
 * without inline scripts or styles, from `app://` or from the headless host, so all paths are relative.
 */
export default defineConfig({
  root: import.meta.dirname,
  base: "./",
  plugins: [tailwindcss(), svelte()],
  build: {
    outDir: "../out/renderer",
    emptyOutDir: true,
    // Electron 45 has Chromium 150; the headless UI runs in whatever current browser the person has.
    target: ["chrome130", "firefox130", "safari18"],
    // The policy forbids data: fonts, and inlining saves nothing on a local disk.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
