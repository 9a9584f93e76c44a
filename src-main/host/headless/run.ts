import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Env } from "#shared/base/env.ts";
import { SHUTDOWN_TIMEOUT_MS } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import type { App, AppOptions } from "../../app.ts";
import { createPublisher } from "../../ipc/publisher.ts";
import { createIpcServer, describeThrown } from "../../ipc/server.ts";
import { type SystemEnv, systemEnv } from "../../log.ts";
import { VaultError } from "../key-file.ts";
import { version } from "../version.ts";
import { removeAbandonedUploads, removeUnshared } from "./abandoned-uploads.ts";
import { type HeadlessArguments, parseArguments, USAGE } from "./arguments.ts";
import { startBridge } from "./bridge.ts";
import { forkEngine } from "./fork-engine.ts";
import { headlessHostHandlers } from "./host-handlers.ts";
import { createHeadlessVault } from "./key-vault.ts";

/**
 * The headless program from its arguments to its exit code: 0 after an orderly end, 1 when it could not start or broke
 * down, 2 for bad arguments. stdout holds the ready line and nothing else.
 */
export type StartApp = (options: AppOptions) => Promise<App>;

export const runHeadless = async (argv: readonly string[], startApp: StartApp): Promise<void> => {
  const parsed = parseArguments(argv);
  if (!parsed.ok) {
    process.stderr.write(`${parsed.error.message}\n${USAGE}\n`);
    process.exitCode = 2;
    return;
  }
  const env = systemEnv();
  crashOnBugs(env);
  const starting = start(parsed.value, env, startApp);
  // From the first moment: a signal during the start ends it as orderly as one later.
  stopOnSignals(env, async () => (await starting).stop());
  try {
    const { ready } = await starting;
    process.stdout.write(`${JSON.stringify({ ready: true, ...ready })}\n`);
  } catch (thrown) {
    process.stderr.write(`Weir could not start: ${messageOf(thrown)}\n`);
    if (!(thrown instanceof VaultError)) env.log.error("start failed", describeThrown(thrown));
    process.exit(1);
  }
};

interface Running {
  readonly ready: { url: string; token: string; userId: string; serverUrl: string };
  stop(): Promise<void>;
}

const start = async (args: HeadlessArguments, env: SystemEnv, startApp: StartApp): Promise<Running> => {
  const { dataDir } = args;
  const app = await startApp({
    env,
    dataDir,
    vault: createHeadlessVault({ dataDir, passphrase: takePassphrase(), random: env.random }),
    server: args.server,
    name: args.name,
    downloadDirectory: args.downloads,
    defaultDownloadDirectory: join(homedir(), "Downloads"),
    chunkWorkerUrl: new URL("../../transfer/chunk-worker.ts", import.meta.url),
    forkEngine,
    version,
    recentLog: env.recentLog,
  });
  const log = env.log.child("headless");
  const uploadsDir = join(dataDir, "uploads");
  // Beside the start, which need not wait for it.
  void removeAbandonedUploads(uploadsDir, app.sharedPaths(), { now: env.clock.now(), log });
  const publisher = createPublisher(app.events, env.clock, log);
  try {
    const bridge = await startBridge({
      port: args.port,
      rendererDir: fileURLToPath(new URL("../../../out/renderer", import.meta.url)),
      uploadsDir,
      server: createIpcServer(
        {
          ...app.handlers,
          ...headlessHostHandlers({ version, dataDir }),
          "files.share": async (input) => {
            const shared = await app.handlers["files.share"](input);
            if (!shared.ok) await removeUnshared(uploadsDir, input.path, { sharedPaths: app.sharedPaths(), log });
            return shared;
          },
        },
        log,
      ),
      events: publisher.events,
      random: env.random,
      log,
    });
    return {
      ready: { url: bridge.url, token: bridge.token, userId: app.userId, serverUrl: app.serverUrl },
      async stop() {
        publisher.dispose();
        await bridge.stop();
        await app.stop();
      },
    };
  } catch (thrown) {
    publisher.dispose();
    await app.stop();
    throw thrown;
  }
};

/** Read once and removed, so that no child process inherits it. */
const takePassphrase = (): string | undefined => {
  const passphrase = process.env["WEIR_PASSPHRASE"];
  delete process.env["WEIR_PASSPHRASE"];
  return passphrase;
};

/** The first signal drains and ends with 0; a second one, or the backstop, ends at once: everything is safe to kill. */
const stopOnSignals = (env: Env, stop: () => Promise<void>): void => {
  let stopping = false;
  const onSignal = (): void => {
    if (stopping) process.exit(1);
    stopping = true;
    env.clock.setTimer(SHUTDOWN_TIMEOUT_MS, () => {
      env.log.error("the orderly end took too long and was cut short");
      process.exit(1);
    });
    stop().then(
      () => process.exit(0),
      (thrown: unknown) => {
        env.log.error("the orderly end failed", describeThrown(thrown));
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
};

/** A bug ends the program instead of leaving it half alive; what was acknowledged is on disk. */
const crashOnBugs = (env: Env): void => {
  const crash = (thrown: unknown): void => {
    env.log.error("Weir broke down", describeThrown(thrown));
    process.exit(1);
  };
  process.on("uncaughtException", crash);
  process.on("unhandledRejection", crash);
};
