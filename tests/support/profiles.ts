import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HeadlessProfile, type ReadyProcess, startHeadless, startServer } from "../../scripts/headless-process.ts";
import { STEPS_VARIABLE } from "./stepped.ts";

/** A world of real processes in a temporary folder: one server and any number of headless profiles. */
export interface World extends AsyncDisposable {
  readonly dir: string;
  serverUrl(): string;
  profile(name: string, options?: { env?: NodeJS.ProcessEnv; entry?: string }): Promise<HeadlessProfile>;
  downloadsOf(name: string): string;
  dataOf(name: string): string;
  /** Of a profile or of "server": see stepped.ts. */
  stepsOf(name: string): string;
  killServer(): Promise<void>;
  /** Its connections stay open and nothing is answered any more. */
  freezeServer(): void;
  /** On the same data and port. */
  startServerAgain(): Promise<void>;
  /** SIGKILL, then a new process on the same data and port. */
  restartServer(options?: { kill?: boolean; downMs?: number }): Promise<void>;
}

/** `stepped`: every process can be ended at a named moment (stepped.ts). */
export const createWorld = async ({ stepped = false } = {}): Promise<World> => {
  const dir = await mkdtemp(join(tmpdir(), "weir-world-"));
  const serverDir = join(dir, "server");
  const profiles: HeadlessProfile[] = [];
  const stepsOf = (name: string): string => join(dir, name, "steps");
  const stepping = async (name: string, entry: string): Promise<{ entry?: string; env?: NodeJS.ProcessEnv }> => {
    if (!stepped) return {};
    await mkdir(stepsOf(name), { recursive: true });
    await writeFile(join(stepsOf(name), "pids"), "");
    return { entry, env: { [STEPS_VARIABLE]: stepsOf(name) } };
  };
  const startServerOn = async (port: number): Promise<ReadyProcess<{ url: string }>> =>
    startServer(serverDir, { port, ...(await stepping("server", "tests/support/server-child.ts")) });
  let server = await startServerOn(0);
  const startServerAgain = async (): Promise<void> => {
    server = await startServerOn(Number(new URL(server.ready.url).port));
  };
  return {
    dir,
    serverUrl: () => server.ready.url,
    downloadsOf: (name) => join(dir, name, "downloads"),
    dataOf: (name) => join(dir, name, "data"),
    stepsOf,
    async profile(name, options = {}) {
      await mkdir(join(dir, name, "downloads"), { recursive: true });
      const stepEntry = await stepping(name, "tests/support/stepped-headless-process.ts");
      const profile = await startHeadless({
        ...(options.entry === undefined ? {} : { entry: options.entry }),
        ...stepEntry,
        dataDir: join(dir, name, "data"),
        server: server.ready.url,
        name,
        downloads: join(dir, name, "downloads"),
        env: { ...options.env, ...stepEntry.env },
      });
      profiles.push(profile);
      return profile;
    },
    killServer: () => server.kill(),
    freezeServer: () => void server.process.kill("SIGSTOP"),
    startServerAgain,
    async restartServer({ kill = true, downMs = 0 } = {}) {
      if (kill) await server.kill();
      else await server.stop();
      await new Promise((resolve) => setTimeout(resolve, downMs));
      await startServerAgain();
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(profiles.map((profile) => profile.kill()));
      await server.kill();
      await rm(dir, { recursive: true, force: true });
    },
  };
};
