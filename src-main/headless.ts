/**
 * Weir without a window: the same program, reached through a browser or another program on this machine.
 * Everything else is imported only after this check, because older versions of Node cannot even load it.
 */
const NODE_MAJOR_MIN = 24;
const major = Number.parseInt(process.versions.node, 10);
if (major < NODE_MAJOR_MIN) {
  process.stderr.write(
    `Weir needs Node ${NODE_MAJOR_MIN} or newer; this is ${process.version}. Use "npm run headless".\n`,
  );
  process.exit(2);
}

const [{ runHeadless }, { startApp }] = await Promise.all([import("./host/headless/run.ts"), import("./start-app.ts")]);
await runHeadless(process.argv.slice(2), startApp);
