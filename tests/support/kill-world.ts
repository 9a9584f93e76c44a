import { existsSync, readFileSync } from "node:fs";
import { lstat, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TransferView } from "#shared/ipc/views.ts";
import { type HeadlessProfile, pair } from "../../scripts/headless-process.ts";
import { orphansOf } from "./disk-scan.ts";
import { sha256OfFile, writeRandomFile } from "./files.ts";
import { hexOf, manyFiles, readTree, writeTree } from "./folders.ts";
import { createWorld, type World } from "./profiles.ts";
import type { Armed, Moment } from "./stepped.ts";

/**
 * A file or a folder goes from its owner to a receiver through a server while one of the three is killed at a named
 * moment of one of them. Everything that must hold whatever happens is checked here; `problems` says what did not.
 */
export type Who = "owner" | "receiver" | "server";

export interface Kill {
  /** Whose moment it is. */
  readonly of: Who;
  readonly step: string;
  readonly nth: number;
  readonly victim: Who;
  readonly what: "file" | "folder";
}

const CHUNKS = 40;
const CHUNK = 65_536;
const FOLDER = { files: 50, bytes: 50_000 };
const WAIT_MS = 60_000;
const POLL_MS = 10;

export const describeKill = ({ of, step, nth, victim, what }: Kill): string =>
  `the ${victim} is killed at ${nth === 1 ? "" : `${nth} x `}"${step}" of the ${of} (${what})`;

export class KillWorld implements AsyncDisposable {
  readonly problems: string[] = [];
  kills = 0;
  readonly #world: World;
  readonly #people: { owner: HeadlessProfile; receiver: HeadlessProfile };
  /** Contents by the final name. */
  readonly #expected = new Map<string, string>();
  readonly #looked = new Set<string>();
  #round = 0;

  private constructor(world: World, people: { owner: HeadlessProfile; receiver: HeadlessProfile }) {
    this.#world = world;
    this.#people = people;
  }

  static async create(): Promise<KillWorld> {
    const world = await createWorld({ stepped: true });
    const [owner, receiver] = await Promise.all([world.profile("owner"), world.profile("receiver")]);
    await pair(owner, receiver);
    return new KillWorld(world, { owner, receiver });
  }

  async run(kill: Kill): Promise<void> {
    const name = `round-${this.#round++}`;
    const path = join(this.#world.dir, name);
    this.#expected.set(name, await contentsAt(path, kill.what));
    if (kill.of === "server" || kill.step.startsWith("regist")) await this.#untilAllOnline();
    await this.#arm(kill);
    const recovered = this.#recover(kill);
    // Awaited at the end; whoever waits for something before that fails on its own account.
    recovered.catch(() => undefined);
    const again = <T>(who: "owner" | "receiver", act: (profile: HeadlessProfile) => Promise<T>): Promise<T> =>
      this.#again(kill, who, recovered, act);

    await again("owner", async (owner) => {
      const isShared = (await owner.call("files.list", {})).some((file) => file.name === name);
      if (!isShared) await owner.call("files.share", { chatId: this.#people.receiver.userId, path });
    });
    const { fileId } = await again("receiver", (receiver) =>
      receiver.until(
        "the offer",
        async () => (await receiver.call("files.list", {})).find((f) => f.name === name) ?? null,
      ),
    );
    const complete = (): Promise<TransferView> =>
      again("receiver", async (receiver) => {
        if ((await viewOf(receiver, fileId)) === null) await receiver.call("transfers.start", { fileId });
        return receiver.until(
          "the finished download",
          async () => {
            const view = await viewOf(receiver, fileId);
            if (view?.phase === "failed") throw new Error(`the download failed: ${JSON.stringify(view.error)}`);
            return view?.phase === "complete" ? view : null;
          },
          WAIT_MS,
        );
      });
    await complete();
    await recovered;
    const view = await complete();
    this.#check(kill, view);
    await this.#lookAtFinals(kill);
    if (view.savedPath === null || !this.#looked.has(name)) this.#problem(kill, "nothing was saved");
  }

  /** Ends everybody in order and looks at what is left on their disks. */
  async end(): Promise<void> {
    for (const who of ["owner", "receiver"] as const) {
      const code = await this.#people[who].stop();
      if (code !== 0) this.problems.push(`the ${who} ended with ${code}`);
      for (const orphan of await orphansOf(this.#world.dataOf(who), this.#world.downloadsOf(who)))
        this.problems.push(`orphan of the ${who}: ${orphan}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#world[Symbol.asyncDispose]();
  }

  /** After a kill of the server everybody comes back in their own time. */
  async #untilAllOnline(): Promise<void> {
    for (const person of Object.values(this.#people))
      await person.until("the server", async () =>
        (await person.call("diagnostics.export", {}))["server"] === "connected" ? true : null,
      );
  }

  #problem(kill: Kill, what: string): void {
    this.problems.push(`${describeKill(kill)}: ${what}`);
  }

  async #arm({ of, step, nth, victim }: Kill): Promise<void> {
    const steps = this.#world.stepsOf(of);
    await rm(join(steps, "fired"), { force: true });
    const armed: Armed = { step, nth, victim: this.#world.stepsOf(victim) };
    // Whole at once: the process may look at any moment.
    await writeFile(join(steps, "arming"), JSON.stringify(armed));
    await rename(join(steps, "arming"), join(steps, "armed"));
  }

  async #recover(kill: Kill): Promise<void> {
    const fired = join(this.#world.stepsOf(kill.of), "fired");
    for (const until = Date.now() + WAIT_MS; !existsSync(fired); await pause(POLL_MS))
      if (Date.now() > until) throw new Error(`never: ${describeKill(kill)}`);
    const { victim } = kill;
    if (victim === "server") {
      await this.#world.killServer();
      await this.#world.startServerAgain();
    } else {
      // It is dying already; this waits for its end.
      await this.#people[victim].kill();
      await this.#lookAtFinals(kill);
      this.#people[victim] = await this.#world.profile(victim);
    }
    this.kills += 1;
  }

  /** Once more, with the next process, when the one that was asked has been killed meanwhile. */
  async #again<T>(
    kill: Kill,
    who: "owner" | "receiver",
    recovered: Promise<void>,
    act: (profile: HeadlessProfile) => Promise<T>,
  ): Promise<T> {
    const profile = this.#people[who];
    try {
      return await act(profile);
    } catch (error) {
      if (kill.victim !== who) throw new Error(`${describeKill(kill)}: ${String(error)}`, { cause: error });
      await recovered;
      if (this.#people[who] === profile) throw new Error(`${describeKill(kill)}: ${String(error)}`, { cause: error });
      return act(this.#people[who]);
    }
  }

  #check(kill: Kill, view: TransferView): void {
    const { requestedChunks, chunksStored, duplicateChunks, rejectedChunks, cancelledChunks } = view;
    if (requestedChunks !== chunksStored + duplicateChunks + rejectedChunks + cancelledChunks)
      this.#problem(kill, `the counters do not add up: ${JSON.stringify(view)}`);
    const stored = new Set<number>();
    for (const { step, fileId, indices } of this.#moments("receiver")) {
      if (fileId !== view.fileId) continue;
      if (step === "committed") for (const index of indices) stored.add(index);
      const twice = step === "asked" ? indices.filter((index) => stored.has(index)) : [];
      if (twice.length > 0) this.#problem(kill, `stored chunks are asked for again: ${twice.join(" ")}`);
    }
  }

  #moments(who: Who): Moment[] {
    const lines = readFileSync(join(this.#world.stepsOf(who), "steps"), "utf8").split("\n");
    // The last line may have been cut off by a kill.
    return lines.filter((line) => line.endsWith("}")).map((line) => JSON.parse(line) as Moment);
  }

  /** Whatever has a final name is whole. */
  async #lookAtFinals(kill: Kill): Promise<void> {
    const downloads = this.#world.downloadsOf("receiver");
    for (const name of await readdir(downloads)) {
      if (this.#looked.has(name) || name.startsWith(".weir-")) continue;
      const found = await contentsOf(join(downloads, name));
      if (found !== this.#expected.get(name)) this.#problem(kill, `"${name}" is not what was shared`);
      this.#looked.add(name);
    }
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const viewOf = async (profile: HeadlessProfile, fileId: string): Promise<TransferView | null> =>
  (await profile.call("transfers.list", {})).find((view) => view.fileId === fileId) ?? null;

const contentsAt = async (path: string, what: Kill["what"]): Promise<string> => {
  if (what === "file") return writeRandomFile(path, CHUNKS * CHUNK - 77);
  const tree = manyFiles(FOLDER.files, FOLDER.bytes);
  await writeTree(path, tree);
  return canonical(hexOf(tree));
};

const contentsOf = async (path: string): Promise<string> =>
  (await lstat(path)).isDirectory() ? canonical(await readTree(path)) : sha256OfFile(path);

const canonical = (tree: Record<string, string>): string => JSON.stringify(Object.entries(tree).sort());
