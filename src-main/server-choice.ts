import { join } from "node:path";
import type { Env } from "#shared/base/env.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { AddressError, createServer, type RendezvousServer, StartError } from "../src-server/server.ts";
import type { Settings } from "./settings.ts";
import type { Signaling } from "./signaling/signaling.ts";

interface ServerChoiceDeps {
  readonly env: Env;
  readonly dataDir: string;
  readonly version: string;
  readonly settings: Pick<Settings, "embeddedPort">;
  readonly signaling: Pick<Signaling, "enable">;
}

/** The rendezvous server in use: a remote one, or one inside this process that runs while it is chosen. */
export class ServerChoice {
  readonly #deps: ServerChoiceDeps;
  #embedded: RendezvousServer | null = null;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(deps: ServerChoiceDeps) {
    this.#deps = deps;
  }

  /**
   * Connects to `wanted` ("embedded" or a URL) and answers its URL. When the embedded server cannot start, the answer is
   * `server_not_started` and what was in use before stays. One change at a time, in the order of the calls.
   */
  use(wanted: string): Promise<Result<string>> {
    const next = this.#turn.then(() => this.#use(wanted));
    this.#turn = next.catch(() => undefined);
    return next;
  }

  async dispose(): Promise<void> {
    await this.#turn;
    await this.#closeEmbedded();
  }

  async #use(wanted: string): Promise<Result<string>> {
    const { signaling } = this.#deps;
    if (wanted !== "embedded") {
      signaling.enable(wanted);
      await this.#closeEmbedded();
      return ok(wanted);
    }
    try {
      this.#embedded ??= await this.#startEmbedded();
    } catch (error) {
      if (!(error instanceof StartError)) throw error;
      return fail("server_not_started", `The server inside Weir could not start. ${error.message}`);
    }
    signaling.enable(this.#embedded.url);
    return ok(this.#embedded.url);
  }

  /** On the port of last time, because invitations name it; on any other when that one is taken. */
  async #startEmbedded(): Promise<RendezvousServer> {
    const { env, dataDir, version, settings } = this.#deps;
    const open = (port: number): Promise<RendezvousServer> =>
      createServer({ data: join(dataDir, "server"), host: "127.0.0.1", port, env, version });
    let server: RendezvousServer;
    try {
      server = await open(settings.embeddedPort);
    } catch (error) {
      if (settings.embeddedPort === 0 || !(error instanceof AddressError)) throw error;
      env.log.warn("the port of the embedded server is taken: it moves, and older invitations end");
      server = await open(0);
    }
    settings.embeddedPort = Number(new URL(server.url).port);
    return server;
  }

  async #closeEmbedded(): Promise<void> {
    const server = this.#embedded;
    this.#embedded = null;
    await server?.close();
  }
}
