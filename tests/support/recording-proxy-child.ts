import { writeFileSync } from "node:fs";
import { createRecordingProxy } from "./recording-proxy.ts";

/** `recording-proxy-child.ts TARGET FILE`: the proxy as a process. At SIGTERM what passed through it is in the file. */
const [target = "", file = ""] = process.argv.slice(2);
const proxy = await createRecordingProxy(target);
process.once("SIGTERM", () => {
  writeFileSync(file, proxy.recorded());
  process.exit(0);
});
process.stdout.write(`${JSON.stringify({ ready: true, url: proxy.url })}\n`);
