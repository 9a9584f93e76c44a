import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HeadlessProfile, type ReadyProcess, startHeadless, startServer } from "../../scripts/headless-process.ts";

/** A world of real processes in a temporary folder: one server and any number of headless profiles. */
export interface World extends AsyncDisposable {
  readonly dir: string;
  serverUrl(): string;
  profile(name: string, options?: { env?: NodeJS.ProcessEnv }): Promise<HeadlessProfile>;
  downloadsOf(name: string): string;
  dataOf(name: string): string;
  killServer(): Promise<void>;
  /** Its connections stay open and nothing is answered any more. */
  freezeServer(): void;
  /** On the same data and port. */
  startServerAgain(): Promise<void>;
  /** SIGKILL, then a new process on the same data and port. */
  restartServer(options?: { kill?: boolean; downMs?: number }): Promise<void>;
}

export const createWorld = async (): Promise<World> => {
  const dir = await mkdtemp(join(tmpdir(), "weir-world-"));
  const serverDir = join(dir, "server");
  let server: ReadyProcess<{ url: string }> = await startServer(serverDir);
  const profiles: HeadlessProfile[] = [];
  const startServerAgain = async (): Promise<void> => {
    server = await startServer(serverDir, { port: Number(new URL(server.ready.url).port) });
  };
  return {
    dir,
    serverUrl: () => server.ready.url,
    downloadsOf: (name) => join(dir, name, "downloads"),
    dataOf: (name) => join(dir, name, "data"),
    async profile(name, options = {}) {
      await mkdir(join(dir, name, "downloads"), { recursive: true });
      const profile = await startHeadless({
        dataDir: join(dir, name, "data"),
        server: server.ready.url,
        name,
        downloads: join(dir, name, "downloads"),
        ...(options.env === undefined ? {} : { env: options.env }),
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
