import { readFileSync } from "node:fs";
import { messageOf } from "#shared/base/result.ts";
import { readRecording, replayLink } from "../src-main/links/link-recorder.ts";

/**
 * `npm run -s replay -- FILE`: runs the link machines of this version on what the report of a person (Settings >
 * Diagnostics) has recorded of theirs, and tells the story of each link. Code 0: each did the same; 1: one did not, which is
 * where another version behaves differently; 2: the command is wrong.
 */
const stop = (message: string): never => {
  process.stderr.write(`${message}\n`);
  process.exit(2);
};

const [path, ...rest] = process.argv.slice(2);
const file = path === undefined || rest.length > 0 ? stop("Usage: npm run -s replay -- FILE") : path;

const read = (): unknown => {
  try {
    const report: unknown = JSON.parse(readFileSync(file, "utf8"));
    return typeof report === "object" && report !== null && "linkSteps" in report ? report.linkSteps : report;
  } catch (error) {
    return stop(`${file} cannot be read: ${messageOf(error)}`);
  }
};
const recording = readRecording(read());
if (!recording.ok) stop(recording.error.message);
else {
  for (const recorded of recording.value.links) {
    const divergence = replayLink(recorded);
    process.stdout.write(`link ${recorded.link}, ${recorded.start.role}, from ${recorded.start.phase.name}\n`);
    for (const [step, { input, result }] of recorded.steps.entries()) {
      const { event } = input;
      const what = event.type === "signal" ? `signal ${event.signal.type}` : event.type;
      const beside = result.next === null ? "" : `, beside it ${result.next}`;
      process.stdout.write(
        `  ${(input.atMs / 1000).toFixed(3)} s  ${what} -> ${result.phase} ${result.generation}${beside}\n`,
      );
      if (divergence?.step !== step) continue;
      process.stdout.write(`  OTHERWISE HERE: ${JSON.stringify(divergence.replayed)}\n`);
      process.exitCode = 1;
      break;
    }
  }
  const count = recording.value.links.length;
  if (process.exitCode !== 1) process.stdout.write(`${count} links, all of them the same here\n`);
}
