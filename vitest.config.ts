import { svelte } from "@sveltejs/vite-plugin-svelte";
import { svelteTesting } from "@testing-library/svelte/vite";
import { defineConfig } from "vitest/config";
import { whyNoEngines } from "./tests/support/engines.ts";

/** The full counts of `npm run verify` repeat within one test. */
const isFullRun = process.env["WEIR_VERIFY"] === "full";
const patience = isFullRun ? 20 : 1;

const noEngines = whyNoEngines();
if (noEngines !== null) process.stderr.write(`skipped the server's tests on PostgreSQL and Redis: ${noEngines}\n`);
/**
 * One compliance suite for both: what holds on SQLite holds between two nodes. At every change those files that have to do
 * with what two nodes could do at once.
 */
const AT_EVERY_CHANGE = ["files", "idempotency", "invites", "keys", "mailbox", "presence", "shares"];
const DISTRIBUTED = isFullRun ? [...AT_EVERY_CHANGE, "directory", "login", "relay"] : AT_EVERY_CHANGE;

/**
 * Six projects; scripts/test.ts runs them in order, and says how many files at once. One by one only `net`: it promises times.
 */
export default defineConfig({
  test: {
    // A crash in a native addon then ends one file, not the run.
    pool: "forks",
    maxWorkers: 2,
    // Of the tests that say they can run beside others of their file.
    maxConcurrency: 2,
    testTimeout: 30_000 * patience,
    hookTimeout: 30_000,
    // Vitest waits one second for what is polled: on a busy machine that is a verdict on the machine.
    expect: { poll: { timeout: 20_000, interval: 50 } },
    coverage: {
      provider: "v8",
      include: ["src-*/**/*.{ts,svelte}", "native/*.ts"],
      reporter: ["text-summary", "json-summary"],
    },
    projects: [
      { extends: true, test: { name: "node", include: ["tests/{unit,sim,fuzz}/**/*.test.ts"] } },
      {
        extends: true,
        plugins: [svelte({ configFile: false }), svelteTesting()],
        test: { name: "ui", include: ["tests/ui/**/*.test.ts"], environment: "happy-dom" },
      },
      {
        extends: true,
        test: {
          name: "integration",
          include: ["tests/integration/**/*.test.ts"],
          testTimeout: 120_000 * patience,
          // The full run promises times here too.
          fileParallelism: !isFullRun,
          hookTimeout: 60_000,
        },
      },
      // The server's tests once more, on PostgreSQL and Redis.
      ...(noEngines === null
        ? [
            {
              extends: true as const,
              test: {
                name: "distributed",
                include: DISTRIBUTED.map((name) => `tests/integration/server-${name}.test.ts`),
                env: { WEIR_TEST_ENGINE: "distributed" },
                globalSetup: ["./tests/support/engines-setup.ts"],
                testTimeout: 120_000 * patience,
                hookTimeout: 60_000,
              },
            },
          ]
        : []),
      {
        extends: true,
        test: {
          name: "net",
          include: ["tests/net/**/*.test.ts"],
          testTimeout: 120_000 * patience,
          hookTimeout: 60_000,
          fileParallelism: false,
        },
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: ["tests/e2e/**/*.test.ts"],
          testTimeout: 120_000 * patience,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
