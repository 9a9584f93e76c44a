import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { killProcess } from "./process.ts";
import type { FromRelay, RelaySettings, ToRelay } from "./relay-child.ts";

/**
 * A relay in a process of its own: tens of thousands of packets a second do not wait for what the ends do in this one, and the
 * other way round. The fate of packets is the same for a seed as in here.
 */
export class ForkedRelay implements AsyncDisposable {
  /** To connect to, of a TCP relay. */
  readonly port: number | null;
  readonly #child: ChildProcess;
  readonly #asked = new Map<number, (candidate: string | null) => void>();
  #ids = 0;

  private constructor(child: ChildProcess, port: number | null) {
    this.#child = child;
    this.port = port;
    child.on("message", (message: FromRelay) => {
      if (!("id" in message)) return;
      this.#asked.get(message.id)?.(message.candidate);
      this.#asked.delete(message.id);
    });
    child.on("exit", () => {
      for (const answer of this.#asked.values()) answer(null);
      this.#asked.clear();
    });
  }

  /** @throws Error when it ends before it is ready. */
  static async open(settings: RelaySettings): Promise<ForkedRelay> {
    const child = fork(join(import.meta.dirname, "relay-child.ts"), [JSON.stringify(settings)], { execArgv: [] });
    const failed = once(child, "exit").then(([code]) => {
      throw new Error(`the relay ended with ${code}`);
    });
    const [ready] = (await Promise.race([once(child, "message"), failed])) as [Extract<FromRelay, { port: unknown }>];
    failed.catch(() => undefined);
    return new ForkedRelay(child, ready.port);
  }

  /** As UdpRelay's. */
  rewrite(candidate: string): Promise<string | null> {
    return new Promise((resolve) => {
      this.#ids += 1;
      this.#asked.set(this.#ids, resolve);
      this.#child.send({ id: this.#ids, candidate } satisfies ToRelay);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await killProcess(this.#child);
  }
}
