import { Flood, type FloodCounts } from "./flood.ts";

/** The flood as a process of its own, so that nobody honest waits for the one who floods. argv: url, counts as JSON. */
const [url = "", counts = "{}"] = process.argv.slice(2);
await new Flood(url).run(JSON.parse(counts) as FloodCounts);
// The half-open connections would keep it here.
process.exit(0);
