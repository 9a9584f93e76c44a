import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#shared/base/env.ts";
import { chatIdOf } from "#shared/base/ids.ts";
import { ENGINE_PING_INTERVAL_MS } from "#shared/base/limits.ts";
import type { FileView } from "#shared/ipc/views.ts";
import { createEngine, type Engine } from "../../src-main/engine/engine-client.ts";
import type { ForkEngine } from "../../src-main/engine/engine-protocol.ts";
import { forkEngine } from "../../src-main/host/headless/fork-engine.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import { createChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import { realEnv, temporaryFolder, workerUrl } from "./files.ts";
import { LinksWorld, untilConnected } from "./links-world.ts";
import { openProfile, startPeer, type TransferPeer } from "./transfer-world.ts";

/** Somebody with a real engine: real links, a real chunk worker, and their databases. Only the server is a double. */
export interface EnginePerson extends TransferPeer {
  readonly engine: Engine;
  readonly links: LinkManager;
  /** Of all engines that were started, oldest first. */
  readonly pids: readonly number[];
}

export interface EngineWorld {
  readonly folder: string;
  /** Engines are asked for a sign of life sixteen times as often from now on. */
  hastenPings(): void;
  readonly alice: EnginePerson;
  readonly bob: EnginePerson;
  connect(): Promise<void>;
  /** Alice shares a file with Bob, who learns of it. */
  share(path: string): Promise<FileView>;
  dispose(): Promise<void>;
}

/** The engine of the headless host; writes down whom it starts. */
export const countedFork = (): { fork: ForkEngine; pids: number[] } => {
  const pids: number[] = [];
  return {
    pids,
    fork(listener) {
      const port = forkEngine(listener);
      if (port.pid !== undefined) pids.push(port.pid);
      return port;
    },
  };
};

export const createEngineWorld = async (): Promise<EngineWorld> => {
  const env = realEnv;
  const haste = { pings: false };
  const clock: Clock = {
    ...env.clock,
    setTimer: (delayMs, fn) =>
      env.clock.setTimer(haste.pings && delayMs === ENGINE_PING_INTERVAL_MS ? delayMs / 16 : delayMs, fn),
  };
  const folder = await temporaryFolder();
  const net = new LinksWorld();
  const homes = { alice: join(folder.path, "alice"), bob: join(folder.path, "bob") };
  for (const home of Object.values(homes)) await mkdir(home, { recursive: true });
  const profiles = { alice: openProfile(homes.alice), bob: openProfile(homes.bob) };

  const start = async (who: "alice" | "bob", other: "alice" | "bob"): Promise<EnginePerson> => {
    const { fork, pids } = countedFork();
    const engine = createEngine({ env: { ...env, clock }, fork });
    const member = net.join(profiles[who].account.userId);
    const links = net.links(member, { driver: engine.driver, bindAddress: "127.0.0.1" });
    const worker = createChunkWorker({
      ...{ env, start: engine.chunkWorker(workerUrl), databasePath: join(homes[who], "chunks.db") },
    });
    const parts = { drainTimeoutMs: 5000, worker, env };
    const peer = await startPeer(homes[who], profiles[who], links, profiles[other].account, parts);
    return {
      ...peer,
      engine,
      links,
      pids,
      async dispose() {
        await links.disable();
        await peer.dispose();
        links.dispose();
        await engine.dispose();
      },
    };
  };
  const [alice, bob] = [await start("alice", "bob"), await start("bob", "alice")];
  return {
    folder: folder.path,
    hastenPings: () => {
      haste.pings = true;
    },
    alice,
    bob,
    async connect() {
      for (const { links } of [alice, bob]) links.enable();
      alice.links.connect(bob.userId);
      bob.links.connect(alice.userId);
      await Promise.all([untilConnected(alice.links, bob.userId), untilConnected(bob.links, alice.userId)]);
    },
    async share(path) {
      const view = await alice.files.share(chatIdOf(bob.userId), path);
      if (!view.ok) throw new Error(`${view.error.type}: ${view.error.message}`);
      const offer = alice.sent.at(-1)?.offer;
      if (offer === undefined) throw new Error("no message was sent");
      const recorded = bob.files.record(offer, alice.userId);
      if (!recorded.ok) throw new Error(recorded.error.type);
      return view.value;
    },
    async dispose() {
      await Promise.all([alice.dispose(), bob.dispose()]);
      await folder.dispose();
    },
  };
};
