import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Namespace } from "./namespace.ts";
import { PUBLIC_ADDRESS, TURN_PORT } from "./network.ts";
import { killProcess } from "./process.ts";

const START_TIMEOUT_MS = 15_000;

/** STUN and TURN over UDP with the credentials of the TURN REST API, as a server of Weir hands them out. */
export interface Coturn extends AsyncDisposable {
  readonly stunUrl: string;
  readonly turnUrl: string;
  readonly secret: string;
  readonly pid: number;
  /** Everything it wrote. */
  log(): string;
  /** User names of the allocations that it granted, one entry for each. */
  allocations(): string[];
}

export const startCoturn = async (namespace: Namespace): Promise<Coturn> => {
  const dir = await mkdtemp(join(tmpdir(), "weir-coturn-"));
  const secret = "a secret of these tests";
  const options = [
    "-n",
    `--listening-ip=${PUBLIC_ADDRESS}`,
    `--relay-ip=${PUBLIC_ADDRESS}`,
    `--listening-port=${TURN_PORT}`,
    "--use-auth-secret",
    `--static-auth-secret=${secret}`,
    "--realm=weir",
    "--relay-threads=1",
    "--no-tls",
    "--no-dtls",
    "--no-tcp",
    "--no-tcp-relay",
    "--no-cli",
    "--verbose",
    "--log-file=stdout",
    "--simple-log",
    `--pidfile=${join(dir, "pid")}`,
    `--userdb=${join(dir, "userdb")}`,
  ];
  const [program = "", ...args] = [...namespace.command, "turnserver", ...options];
  const child = spawn(program, args, { cwd: dir, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  const started = new Promise<void>((resolve, reject) => {
    const read = (text: string): void => {
      log += text;
      if (log.includes("UDP listener opened on")) resolve();
    };
    child.stdout.setEncoding("utf8").on("data", read);
    child.stderr.setEncoding("utf8").on("data", read);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`coturn ended with ${code}:\n${log}`)));
    setTimeout(() => reject(new Error(`coturn did not start:\n${log}`)), START_TIMEOUT_MS).unref();
  });
  const end = async (): Promise<void> => {
    await killProcess(child);
    await rm(dir, { recursive: true, force: true });
  };
  const { pid } = child;
  try {
    if (pid === undefined) throw new Error("coturn could not be started");
    await started;
  } catch (error) {
    await end();
    throw error;
  }
  return {
    stunUrl: `stun:${PUBLIC_ADDRESS}:${TURN_PORT}`,
    turnUrl: `turn:${PUBLIC_ADDRESS}:${TURN_PORT}`,
    secret,
    pid,
    log: () => log,
    allocations: () =>
      [...log.matchAll(/: session \d+: new, realm=<weir>, username=<([^>]*)>/g)].map(([, user = ""]) => user),
    [Symbol.asyncDispose]: end,
  };
};
