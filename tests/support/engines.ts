import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { accessSync, chmodSync, chownSync, constants, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { delimiter, join } from "node:path";
import pg from "pg";
import { createClient } from "redis";

/**
 * A real PostgreSQL and a real Redis of one's own, in a new folder, on Unix sockets: no port is taken, nothing of the
 * system's own instances is touched. PostgreSQL refuses to run as root, so root starts both as `nobody`.
 */
const NOBODY = 65_534;
const START_TIMEOUT_MS = 60_000;
const POLL_MS = 50;

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

/** Debian keeps the programs of each version of PostgreSQL in a folder of their own. */
const postgresFolders = (): string[] => {
  const versions = "/usr/lib/postgresql";
  if (!existsSync(versions)) return [];
  const byNumber = (a: string, b: string): number => Number(b) - Number(a);
  return readdirSync(versions)
    .sort(byNumber)
    .map((version) => join(versions, version, "bin"));
};

const find = (program: string, folders: readonly string[] = []): string | null => {
  const all = [...folders, ...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  return all.map((folder) => join(folder, program)).find(isExecutable) ?? null;
};

/** Why PostgreSQL and Redis cannot be started here; null when they can. With `CI` they must be there. */
export const whyNoEngines = (): string | null => {
  const missing = [
    ...(find("initdb", postgresFolders()) === null ? ["postgresql"] : []),
    ...(find("redis-server") === null ? ["redis-server"] : []),
  ];
  if (missing.length === 0) return null;
  const reason = `not installed: ${missing.join(", ")}`;
  const isRequired = process.env["CI"] !== undefined && process.env["CI"] !== "false";
  if (isRequired) throw new Error(`the server cannot be tested on PostgreSQL and Redis: ${reason}`);
  return reason;
};

const asNobody = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {};

const makeFolder = (): string => {
  // Below the system's own folder: a path of a socket has about 100 characters at most.
  const folder = mkdtempSync("/tmp/weir-engine-");
  if (asNobody.uid !== undefined) chownSync(folder, NOBODY, NOBODY);
  chmodSync(folder, 0o700);
  return folder;
};

const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once("exit", () => resolve());
  });

const until = async (what: string, child: () => ChildProcess, isReady: () => Promise<boolean>): Promise<void> => {
  const giveUpAt = performance.now() + START_TIMEOUT_MS;
  while (!(await isReady())) {
    if (child().exitCode !== null) throw new Error(`${what} ended (${child().exitCode})`);
    if (performance.now() > giveUpAt) throw new Error(`${what} did not start in time`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
};

export interface Engine {
  /** Of PostgreSQL, SIGINT is an orderly end and SIGQUIT one as in a crash. */
  kill(signal: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
}

export interface Engines {
  readonly folder: string;
  readonly postgres: Engine;
  readonly redis: Engine;
  /** An address for `--redis`. */
  readonly redisUrl: string;
  /** Makes an empty database. Returns an address for `--database`. */
  createDatabase(): Promise<string>;
  stop(): Promise<void>;
}

const startProcess = (what: string, program: string, args: string[], isReady: () => Promise<boolean>) => {
  let child: ChildProcess;
  const engine: Engine = {
    async start() {
      child = spawn(program, args, { stdio: "ignore", ...asNobody });
      await until(what, () => child, isReady);
    },
    async kill(signal) {
      child.kill(signal);
      await ended(child);
    },
  };
  return engine;
};

const databaseUrl = (folder: string, name: string): string =>
  `postgres:///${name}?host=${encodeURIComponent(folder)}&user=weir`;

const startPostgres = (folder: string): Engine => {
  const bin = postgresFolders();
  const data = join(folder, "data");
  const made = spawnSync(
    find("initdb", bin) ?? "initdb",
    ["-D", data, "-U", "weir", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
    { ...asNobody, encoding: "utf8" },
  );
  if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr}`);
  const settings = ["listen_addresses=", `unix_socket_directories=${folder}`, "max_connections=200"];
  const isReady = async (): Promise<boolean> => {
    const client = new pg.Client({ connectionString: databaseUrl(folder, "postgres") });
    client.on("error", () => undefined);
    try {
      await client.connect();
      await client.end();
      return true;
    } catch {
      return false;
    }
  };
  const args = ["-D", data, ...settings.flatMap((setting) => ["-c", setting])];
  return startProcess("PostgreSQL", find("postgres", bin) ?? "postgres", args, isReady);
};

const startRedis = (folder: string, socket: string): Engine => {
  const args = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder, "--daemonize", "no"];
  const isReady = async (): Promise<boolean> => {
    const client = createClient({ socket: { path: socket, tls: false, reconnectStrategy: false } });
    client.on("error", () => undefined);
    try {
      await client.connect();
      client.destroy();
      return true;
    } catch {
      return false;
    }
  };
  return startProcess("Redis", find("redis-server") ?? "redis-server", args, isReady);
};

let databases = 0;

export const startEngines = async (): Promise<Engines> => {
  const folder = makeFolder();
  const socket = join(folder, "redis.sock");
  const postgres = startPostgres(folder);
  const redis = startRedis(folder, socket);
  await Promise.all([postgres.start(), redis.start()]);
  return {
    folder,
    postgres,
    redis,
    redisUrl: `unix://${socket}`,
    createDatabase: () => createDatabase(folder),
    async stop() {
      await Promise.all([postgres.kill("SIGINT"), redis.kill("SIGKILL")]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
};

/**
 * In the PostgreSQL that runs in this folder, also from another process than the one that started it. With the name of a
 * template, a copy of it.
 */
export const createDatabase = async (folder: string, template = "template1"): Promise<string> => {
  const name = `weir_${process.pid}_${++databases}`;
  const client = new pg.Client({ connectionString: databaseUrl(folder, "postgres") });
  await client.connect();
  await client.query(`create database ${name} template ${template}`);
  await client.end();
  return databaseUrl(folder, name);
};
