import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HeadlessProfile, pair, startHeadless, startServer } from "../../scripts/headless-process.ts";
import { cpuSecondsOf } from "./proc.ts";

/**
 * What a link costs in time between two whole profiles on this machine: until it stands, for a message over it and over
 * the mailbox, from the sender's command to the reader's event, and what it takes of a processor while nothing happens.
 */
const MESSAGES = 200;
const WARM_UP = 20;
const LINKS = 20;
/** Long enough that what the measurements before it left behind (collections, last timers) counts for what it is. */
const IDLE_MS = 60_000;
const PATIENCE_MS = 30_000;

interface Spread {
  readonly p50: number;
  readonly p99: number;
  readonly count: number;
}
const spread = (times: readonly number[]): Spread => {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number): number =>
    Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0) * 100) / 100;
  return { p50: at(0.5), p99: at(0.99), count: sorted.length };
};

const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const begunMs = performance.now();
  await work();
  return performance.now() - begunMs;
};

const within = async <T>(what: string, promise: Promise<T>): Promise<T> => {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`waited in vain: ${what}`)), PATIENCE_MS);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
};

class Pair {
  readonly alice: HeadlessProfile;
  readonly bob: HeadlessProfile;
  #messages = 0;

  constructor(alice: HeadlessProfile, bob: HeadlessProfile) {
    this.alice = alice;
    this.bob = bob;
  }

  /** The link as Alice sees it: resolves with the first view that fits, now or later. */
  async untilLink(what: string, fits: (view: { state: string; generation: number }) => boolean): Promise<number> {
    const found = Promise.withResolvers<number>();
    const off = this.alice.on("link.changed", (view) => {
      if (view.peerId === this.bob.userId && fits(view)) found.resolve(view.generation);
    });
    try {
      const now = (await this.alice.call("links.list", {})).find(({ peerId }) => peerId === this.bob.userId);
      if (now !== undefined && fits(now)) return now.generation;
      return await within(what, found.promise);
    } finally {
      off();
    }
  }

  untilConnected(): Promise<number> {
    return this.untilLink("a link", ({ state }) => state === "connected");
  }

  async messages(): Promise<Spread> {
    const times: number[] = [];
    for (let n = 0; n < WARM_UP + MESSAGES; n += 1) {
      const text = `message ${this.#messages++}`;
      const came = Promise.withResolvers<void>();
      const off = this.bob.on("message.changed", (message) => {
        if (message.text === text) came.resolve();
      });
      const ms = await timed(async () => {
        const sent = this.alice.call("messages.send", { chatId: this.bob.userId, text });
        await within(text, came.promise);
        await sent;
      });
      off();
      if (n >= WARM_UP) times.push(ms);
    }
    return spread(times);
  }

  /** What is in every other figure too: a command and its answer, between us and a profile. */
  async roundTrips(): Promise<Spread> {
    const times: number[] = [];
    for (let n = 0; n < WARM_UP + MESSAGES; n += 1) {
      const ms = await timed(() => this.alice.call("profile.get", {}));
      if (n >= WARM_UP) times.push(ms);
    }
    return spread(times);
  }

  async connects(): Promise<Spread> {
    const times: number[] = [];
    for (let n = 0; n < LINKS; n += 1) {
      await this.alice.call("links.disable", {});
      times.push(
        await timed(async () => {
          await this.alice.call("links.enable", {});
          await this.untilConnected();
        }),
      );
    }
    return spread(times);
  }

  async reconnects(): Promise<Spread> {
    const times: number[] = [];
    for (let n = 0; n < LINKS; n += 1) {
      const before = await this.untilConnected();
      times.push(
        await timed(async () => {
          await this.alice.call("links.reconnect", { peerId: this.bob.userId });
          await this.untilLink("a fresh link", ({ state, generation }) => state === "connected" && generation > before);
        }),
      );
    }
    return spread(times);
  }
}

/** Percent of one processor; null where the system does not tell. */
const idlePercent = async (pids: readonly (number | undefined)[]): Promise<(number | null)[]> => {
  const used = (): (number | null)[] =>
    pids.map((pid) => {
      const seconds = cpuSecondsOf(pid);
      return seconds === null ? null : Object.values(seconds).reduce((sum, value) => sum + value, 0);
    });
  const before = used();
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  return used().map((after, i) => {
    const from = before[i] ?? null;
    return after === null || from === null ? null : Math.round(((after - from) / (IDLE_MS / 1000)) * 10_000) / 100;
  });
};

export const measureLinks = async () => {
  const dir = await mkdtemp(join(tmpdir(), "weir-bench-"));
  const server = await startServer(join(dir, "server"));
  const profiles: HeadlessProfile[] = [];
  const start = async (name: string): Promise<HeadlessProfile> => {
    const profile = await startHeadless({ dataDir: join(dir, name), server: server.ready.url, name });
    profiles.push(profile);
    return profile;
  };
  try {
    const [alice, bob] = [await start("Alice"), await start("Bob")];
    await pair(alice, bob);
    const both = new Pair(alice, bob);
    await both.untilConnected();
    const commandMs = await both.roundTrips();
    const linkMs = await both.messages();
    const connectMs = await both.connects();
    const reconnectMs = await both.reconnects();
    await both.untilConnected();
    const [idleAlice, idleBob, idleServer] = await idlePercent([
      alice.process.pid,
      bob.process.pid,
      server.process.pid,
    ]);
    await alice.call("links.disable", {});
    const mailboxMs = await both.messages();
    return {
      commandMs,
      messageMs: { link: linkMs, mailbox: mailboxMs },
      connectMs,
      reconnectMs,
      idleCpuPercent: {
        dialer: alice.userId < bob.userId ? idleAlice : idleBob,
        answerer: alice.userId < bob.userId ? idleBob : idleAlice,
        server: idleServer,
      },
    };
  } finally {
    for (const profile of profiles) await profile.stop();
    await server.stop();
    await rm(dir, { recursive: true, force: true });
  }
};
