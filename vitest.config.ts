import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // A crash in a native addon then ends one file, not the run.
    pool: "forks",
    maxWorkers: 2,
    include: ["tests/{unit,compliance,sim,fuzz,integration}/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    coverage: { provider: "v8", include: ["src-*/**/*.ts"], reporter: ["text-summary", "json-summary"] },
  },
});
