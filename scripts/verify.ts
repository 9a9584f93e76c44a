import { note, run, seconds } from "./run.ts";

/**
 * `npm run verify`: `npm test` with the full counts (tests/support/counts.ts): the same tests, but hundreds of rounds, long
 * blackouts and lossy networks. Takes the same arguments. Meant for a night, or for a change of what such a test looks at.
 */
const HOURS_MAX = 6;

const ran = await run(process.execPath, ["scripts/test.ts", ...process.argv.slice(2)], {
  timeoutMs: HOURS_MAX * 60 * 60_000,
  streams: "inherit",
  env: { WEIR_VERIFY: "full" },
});
if (ran.timedOut) note(`stopped after ${seconds(ran.ms)}`);
process.exitCode = ran.code ?? 1;
