import { note, run, seconds } from "./run.ts";

/**
 * `npm run verify`: `npm test` with the full counts (tests/support/counts.ts): the same tests, but hundreds of rounds, long
 * blackouts and lossy networks. Takes the same arguments. Meant for a night, or for a change of what such a test looks at.
 *
 * `npm run verify -- soak [--hours 24]`: only the test of what grows over time (tests/integration/soak.test.ts), for so long.
 */
const HOURS_MAX = 6;
const HOUR_MS = 60 * 60_000;

const [what, flag, value, ...rest] = process.argv.slice(2);
const isSoak = what === "soak";
const soakHours = flag === undefined ? 24 : flag === "--hours" ? Number(value) : Number.NaN;
if (isSoak && !(soakHours > 0 && rest.length === 0)) {
  note("Usage: npm run verify -- soak [--hours 24]");
  process.exit(2);
}
const args = isSoak ? ["integration", "tests/integration/soak.test.ts"] : process.argv.slice(2);
const hours = isSoak ? soakHours + 1 : HOURS_MAX;
const ran = await run(process.execPath, ["scripts/test.ts", ...args], {
  timeoutMs: hours * HOUR_MS,
  streams: "inherit",
  env: { WEIR_VERIFY: "full", ...(isSoak && { WEIR_SOAK_MINUTES: String(soakHours * 60) }) },
});
if (ran.timedOut) note(`stopped after ${seconds(ran.ms)}`);
process.exitCode = ran.code ?? 1;
