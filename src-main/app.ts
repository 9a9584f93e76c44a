import type { Env } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import type { ProfileView } from "#shared/ipc/views.ts";
import type { ForkEngine } from "./engine/engine-protocol.ts";
import type { AppHandlers, EventSource } from "./ipc/handlers.ts";

/** Keeps the random 32-byte data key of app.db. Made on first use, loaded ever after. */
export interface KeyVault {
  /** @throws VaultError (host) in words for the user when the key exists and cannot be unwrapped: never makes a new one then. */
  load(): Promise<{ key: Uint8Array<ArrayBuffer>; protection: ProfileView["keyProtection"] }>;
}

export interface AppOptions {
  readonly env: Env;
  /** Everything Weir keeps; made if missing, mode 0700. */
  readonly dataDir: string;
  readonly vault: KeyVault;
  /** Overrides of the saved settings, from the command line. */
  readonly server?: string | undefined;
  readonly name?: string | undefined;
  readonly downloadDirectory?: string | undefined;
  /** Where a profile that has no setting yet saves downloads. */
  readonly defaultDownloadDirectory: string;
  /** The chunk worker: the .ts source under Node, the bundle in Electron. */
  readonly chunkWorkerUrl: URL;
  /** Starts the engine process, where WebRTC and the chunk worker run. */
  readonly forkEngine: ForkEngine;
  readonly version: string;
  /** The last lines of the log, for `diagnostics.export`. */
  readonly recentLog: { entries(): readonly object[] };
}

export interface App {
  readonly userId: UserId;
  /** The rendezvous server in use, also when it is the embedded one. */
  readonly serverUrl: string;
  readonly handlers: AppHandlers;
  /** Snapshots as they happen; the publisher coalesces them. */
  readonly events: EventSource;
  /** Where a finished download was saved, for "open" and "show in folder"; null when there is none. */
  savedPath(fileId: string): string | null;
  /** Real paths of the files that this profile shares: what others download from, so none may be deleted. */
  sharedPaths(): string[];
  /** The host knows that the machine woke up, or that its network is another one. */
  networkChanged(): void;
  /** Drains and releases everything in order; afterwards the process can exit with code 0. */
  stop(): Promise<void>;
}
