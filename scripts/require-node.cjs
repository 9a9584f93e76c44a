// Preloaded by every npm script, before a line of TypeScript or a native addon: those fail on an old Node with a stack
// trace or a crash instead of a sentence. Written for the oldest Node that could meet it.
const major = Number(process.versions.node.split(".")[0]);
if (major < 24) {
  process.stderr.write(
    `Weir needs Node 24, this is ${process.version}. Run "npm ci" first and start through npm ("npm start", "npm test"): both bring and use the right Node.\n`,
  );
  process.exit(1);
}
