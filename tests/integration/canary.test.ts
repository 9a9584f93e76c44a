import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { FileView } from "#shared/ipc/views.ts";
import {
  type HeadlessProfile,
  pair,
  type ReadyProcess,
  startHeadless,
  startProcess,
  startServer,
} from "../../scripts/headless-process.ts";
import { formsOf, Needles, withChildren } from "../support/canary-needles.ts";
import { counted } from "../support/counts.ts";
import { whyNoNamespaces } from "../support/net/availability.ts";
import { Namespace } from "../support/net/namespace.ts";
import { capturePackets, type PacketCapture } from "../support/net/packet-capture.ts";
import { openProfileDatabase } from "../support/profile-database.ts";

const OPERATIONS = counted(80, 10_000);
/** Of one mix; every so many mixes one person is away meanwhile, so that the mailbox has to keep things. */
const AWAY_EVERY = counted(2, 10);
/** So often the memory of the server is searched while everything goes on. */
const MEMORY_LOOKS = counted(2, 5);
const PATIENCE_MS = 120_000;

/**
 * The only address of these people that is not the loopback. Nobody speaks to the server from it, so the server can know it
 * only from a candidate: what it sees of its clients is 127.0.0.1.
 */
const ICE_ADDRESS = "10.203.117.59";

const isLinux = process.platform === "linux";
const noCapture = whyNoNamespaces({ python3: "python3" });
if (!isLinux)
  process.stderr.write(`the memory of the server is not searched: there is no /proc on ${process.platform}\n`);

const marker = (): string => randomBytes(16).toString("hex");
const planted = {
  "a text": marker(),
  "a file name": marker(),
  "file content": marker(),
  "a group name": marker(),
  "a display name": marker(),
};
/** Parts of what goes between links alone, and so nothing that the server may read. */
const TELLTALES = {
  "an address of a candidate": ICE_ADDRESS,
  SDP: "a=ice-ufrag:",
  "a candidate": " typ host",
  "a fingerprint": "a=fingerprint:sha-256",
  "a description of the relay": "a=weir-relay",
  "a control message": '{"type":"ping"',
};
const asBytes = (texts: Readonly<Record<string, string>>): [string, Buffer][] =>
  Object.entries(texts).map(([name, text]) => [name, Buffer.from(text)]);
/** Of "file key 7 (raw)": "file key". */
const kindOf = (hit: string): string => hit.replace(/( \d+)? \(.*\)$/, "");

/** One server and three people, on a network of their own where that is possible. */
class CanaryWorld implements AsyncDisposable {
  readonly dir: string;
  readonly #place: Namespace | null;
  readonly #server: ReadyProcess<{ url: string }>;
  readonly #proxy: ReadyProcess<{ url: string }>;
  readonly #profiles = new Map<string, HeadlessProfile>();
  readonly #ports = new Set<number>();
  readonly #capture: PacketCapture | null;
  readonly #control: string;
  readonly #owned: AsyncDisposableStack;
  #log = "";

  private constructor(parts: {
    dir: string;
    place: Namespace | null;
    server: ReadyProcess<{ url: string }>;
    proxy: ReadyProcess<{ url: string }>;
    capture: PacketCapture | null;
    control: string;
    owned: AsyncDisposableStack;
  }) {
    this.#owned = parts.owned;
    this.dir = parts.dir;
    this.#place = parts.place;
    this.#server = parts.server;
    this.#proxy = parts.proxy;
    this.#capture = parts.capture;
    this.#control = parts.control;
    this.#log = parts.server.log();
    parts.server.process.stderr?.on("data", (text: string) => {
      this.#log += text;
    });
  }

  static async create(control: string): Promise<CanaryWorld> {
    await using owned = new AsyncDisposableStack();
    const dir = await mkdtemp(join(tmpdir(), "weir-canary-"));
    owned.defer(() => rm(dir, { recursive: true, force: true }));
    const place = noCapture === null ? owned.use(await Namespace.create()) : null;
    await place?.ip(
      "link add ice0 type veth peer name ice1",
      `address add ${ICE_ADDRESS}/24 dev ice0`,
      "link set ice0 up",
      "link set ice1 up",
    );
    const capture = place === null ? null : await capturePackets(place, join(dir, "packets"));
    const at = place === null ? {} : { place };
    const server = await startServer(join(dir, "server"), {
      entry: "tests/support/server-child.ts",
      args: ["--log-level", "trace"],
      env: { WEIR_TEST_CONTROL: control },
      ...at,
    });
    owned.defer(() => server.kill());
    const proxy = await startProcess<{ url: string }>(
      "tests/support/recording-proxy-child.ts",
      [server.ready.url, join(dir, "traffic")],
      {},
      at.place,
    );
    owned.defer(() => proxy.kill());
    return new CanaryWorld({ dir, place, server, proxy, capture, control, owned: owned.move() });
  }

  async open(name: string): Promise<HeadlessProfile> {
    await mkdir(join(this.dir, name, "downloads"), { recursive: true });
    const profile = await startHeadless({
      dataDir: join(this.dir, name, "data"),
      server: this.#proxy.ready.url,
      name: `${planted["a display name"]} ${name}`,
      downloads: join(this.dir, name, "downloads"),
      ...(this.#place === null ? {} : { place: this.#place }),
    });
    this.#profiles.set(name, profile);
    this.#ports.add(Number(new URL(profile.ready.url).port));
    return profile;
  }

  /** Key and plaintext hash of every file that this person shared. */
  async fileSecrets(name: string): Promise<Map<string, Buffer>> {
    const db = await openProfileDatabase(join(this.dir, name, "data"));
    const files = db.sql.prepare<[], { key: Buffer; sha256: Buffer }>("SELECT key, sha256 FROM files").all();
    db.dispose();
    return new Map(
      files.flatMap(({ key, sha256 }, n) => [[`file key ${n}`, key] as const, [`plaintext hash ${n}`, sha256]]),
    );
  }

  /** Looks into the memory of the server, where what it may know must be found: from its environment, and from its clients. */
  searchMemory(secrets: ReadonlyMap<string, Buffer>, userId: string): { found: string[]; bytes: number } {
    const controls = { "the control": this.#control, "a user id": userId };
    const needles = new Needles(new Map([...secrets, ...asBytes(controls)]));
    const { found, bytes } = needles.inFrozenMemory(this.#server.process.pid ?? 0);
    for (const control of Object.keys(controls)) expect(found).toContain(`${control} (raw)`);
    return { found: [...found].filter((hit) => !(kindOf(hit) in controls)), bytes };
  }

  /**
   * Looks into the memory of the people until everything `wanted` was found; what was not is the answer. While they run: a
   * program whose engine stands still would start another one.
   */
  missingInPeople(secrets: ReadonlyMap<string, Buffer>, wanted: readonly string[]): string[] {
    const needles = new Needles(secrets);
    const missing = new Set(wanted);
    for (const { process: of } of this.#profiles.values())
      for (const pid of withChildren(of.pid ?? 0)) {
        if (missing.size > 0) for (const hit of needles.inMemory(pid).found) missing.delete(kindOf(hit));
      }
    return [...missing];
  }

  /** Ends the recordings and searches them, the log and the database. */
  async searchRecords(
    secrets: ReadonlyMap<string, Buffer>,
  ): Promise<{ server: string[]; own: Set<string>; figures: string }> {
    const needles = new Needles(secrets);
    await this.#proxy.stop();
    const captured = await this.#capture?.stop();
    const found = [
      ...[...(await needles.inFolder(join(this.dir, "server")))].map((hit) => `${hit} in the database`),
      ...[...needles.find([Buffer.from(this.#log)])].map((hit) => `${hit} in the log`),
      ...[...needles.inFile(join(this.dir, "traffic"))].map((hit) => `${hit} in the traffic`),
    ];
    // What the test itself says to the programs and hears of them passes over the loopback too, in the clear.
    const own = new Set<string>();
    const counts = { tcp: 0, udp: 0, other: 0, own: 0 };
    const { ["an address of a candidate"]: _, ...inPackets } = Object.fromEntries(secrets);
    const packetNeedles = new Needles(new Map(Object.entries(inPackets)));
    for (const { protocol, ports, bytes } of captured?.packets ?? []) {
      const isOwn = protocol === "tcp" && ports.some((port) => this.#ports.has(port));
      counts[isOwn ? "own" : protocol] += 1;
      for (const hit of packetNeedles.find([bytes]))
        if (isOwn) own.add(hit);
        else found.push(`${hit} in a packet (${protocol})`);
    }
    const figures = captured === undefined ? "no packets" : `packets: ${JSON.stringify(counts)}, lost ${captured.lost}`;
    if (captured !== undefined) {
      expect(captured.lost).toBe(0);
      expect(counts.udp).toBeGreaterThan(100);
      expect(counts.tcp).toBeGreaterThan(100);
    }
    return { server: [...new Set(found)], own, figures };
  }

  get log(): string {
    return this.#log;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#profiles.values()].map((profile) => profile.kill()));
    await this.#owned.disposeAsync();
  }
}

const linkBy = (me: HeadlessProfile, other: HeadlessProfile, fits: (path: string | null) => boolean) =>
  me.until(
    "a link",
    async () =>
      (await me.call("links.list", {})).find(
        ({ peerId, state, path }) => peerId === other.userId && state === "connected" && fits(path),
      ) ?? null,
    PATIENCE_MS,
  );
const fileWhere = (me: HeadlessProfile, fileId: string, fits: (file: FileView) => boolean) =>
  me.until(
    "the file",
    async () => {
      const file = await me.call("files.get", { fileId }).catch(() => null);
      return file !== null && fits(file) ? file : null;
    },
    PATIENCE_MS,
  );
const delivered = (me: HeadlessProfile, chatId: string) =>
  me.until(
    "delivery",
    async () => {
      const [newest] = await me.call("messages.list", { chatId, limit: 1 });
      return newest === undefined || newest.state === "delivered" || newest.state === "read" ? true : null;
    },
    PATIENCE_MS,
  );

describe("what the server may not know", () => {
  test("the search finds every form, wherever it begins, and nothing else", () => {
    const secret = Buffer.from(planted["a text"]);
    const needles = new Needles(
      new Map([
        ["it", secret],
        ["another", Buffer.from(marker())],
      ]),
    );
    const noise = randomBytes(300_000);
    expect([...needles.find([noise])]).toEqual([]);
    for (const [form, bytes] of formsOf(secret))
      for (const at of [0, 1, 131_070]) {
        const whole = Buffer.concat([noise.subarray(0, at), bytes, noise.subarray(at)]);
        // In two pieces, cut in the middle of it.
        const cut = at + (bytes.length >> 1);
        expect([...needles.find([whole.subarray(0, cut), whole.subarray(cut)])]).toContain(`it (${form})`);
      }
    // Base64 of a longer text, in which the secret begins anywhere.
    for (const before of ["", "x", "xy"]) {
      const encoded = Buffer.from(Buffer.from(`${before}${secret.toString()}yz`).toString("base64"));
      expect([...needles.find([encoded])].map(kindOf)).toContain("it");
    }
    expect([...needles.find([Buffer.from(planted["a text"].slice(0, -1))])]).toEqual([]);
  });

  test("nothing of it is in the server's database, log, memory or traffic, nor in any packet", {
    timeout: counted(180_000, 3_600_000),
  }, async () => {
    const begun = performance.now();
    await using world = await CanaryWorld.create(marker());
    const [alice, bob] = [await world.open("alice"), await world.open("bob")];
    let carol = await world.open("carol");
    // Two of them only over the server's relay, so that the server carries everything that there is; two without it.
    await pair(alice, bob, "code");
    await pair(alice, carol);
    for (const [me, other] of [
      [alice, bob],
      [bob, alice],
    ] as const)
      await me.call("contacts.network", { userId: other.userId, policy: "relay" });
    await linkBy(alice, bob, (path) => path === "relay");
    await linkBy(alice, carol, (path) => path !== "relay");
    const { chatId: group } = await alice.call("chats.createGroup", {
      name: planted["a group name"],
      userIds: [bob.userId, carol.userId],
    });
    for (const me of [bob, carol])
      await me.until("the group", async () =>
        (await me.call("chats.list", {})).some(({ chatId }) => chatId === group) ? true : null,
      );

    let operations = 0;
    const counts: Record<string, number> = {};
    const done = (what: string): void => {
      operations += 1;
      counts[what] = (counts[what] ?? 0) + 1;
    };
    const texts = async (from: HeadlessProfile, chatId: string, count: number): Promise<void> => {
      for (let n = 0; n < count; n++) {
        await from.call("messages.send", { chatId, text: `${planted["a text"]} ${operations}` });
        done("messages");
      }
    };
    const mix = async (round: number, isCarolAway: boolean): Promise<void> => {
      await texts(alice, bob.userId, 10);
      await texts(bob, alice.userId, 8);
      await texts(alice, carol.userId, 8);
      await texts(alice, group, 4);
      await texts(bob, group, 2);
      const path = join(world.dir, `${planted["a file name"]}-${round}.txt`);
      const line = `${planted["file content"]} ${round}\n`;
      await writeFile(path, line.repeat(500 + (round % 10) * 500));
      // To the other one it is granted afterwards, and taken back.
      const [first, second] = round % 2 === 0 ? [bob, carol] : [carol, bob];
      const { fileId } = await alice.call("files.share", { chatId: first.userId, path });
      done("files shared");
      await alice.call("files.grant", { fileId, userIds: [second.userId] });
      done("grants");
      for (const me of [first, second]) {
        if (me === carol && isCarolAway) continue;
        await fileWhere(me, fileId, ({ access }) => access === "granted");
        await me.call("transfers.start", { fileId });
        await me.until(
          "the whole file",
          async () =>
            (await me.call("transfers.list", {})).find((t) => t.fileId === fileId && t.phase === "complete") ?? null,
          PATIENCE_MS,
        );
        done("downloads");
      }
      await alice.call("files.revoke", { fileId, userIds: [second.userId], rekey: round % 5 === 4 });
      done("revocations");
      await alice.call("chats.settings", { chatId: group, name: `${planted["a group name"]} ${round}` });
      done("groups renamed");
      await bob.call("profile.update", { name: `${planted["a display name"]} ${round}` });
      done("profiles renamed");
      await alice.call("chats.typing", { chatId: bob.userId, typing: round % 2 === 0 });
      await bob.call("chats.markRead", { chatId: alice.userId });
      done("typing");
      done("chats read");
      // Only so many may be open at a time.
      if (round < 5) {
        await alice.call("invites.create", {});
        done("invitations");
      }
      await Promise.all([delivered(alice, bob.userId), delivered(bob, alice.userId)]);
      if (!isCarolAway) {
        await texts(carol, alice.userId, 8);
        await texts(carol, group, 2);
        await Promise.all([delivered(alice, carol.userId), delivered(carol, alice.userId), delivered(alice, group)]);
      }
    };

    const known = new Map([...asBytes(planted), ...asBytes(TELLTALES)]);
    const inMemory: string[] = [];
    let searched = 0;
    const search = async (): Promise<Map<string, Buffer>> => {
      const secrets = new Map([...known, ...(await world.fileSecrets("alice"))]);
      if (isLinux) {
        const { found, bytes } = world.searchMemory(secrets, alice.userId);
        inMemory.push(...found);
        searched += bytes;
      }
      return secrets;
    };
    for (let round = 0, looks = 0; operations < OPERATIONS; round++) {
      const isCarolAway = round % AWAY_EVERY === AWAY_EVERY - 1;
      if (isCarolAway) await carol.kill();
      await mix(round, isCarolAway);
      if (isCarolAway) {
        carol = await world.open("carol");
        await delivered(alice, carol.userId);
      }
      if (operations >= (OPERATIONS / MEMORY_LOOKS) * (looks + 1)) {
        looks += 1;
        await search();
      }
    }

    const secrets = await search();
    // A revocation that changes the key makes a further file.
    const keys = [...secrets.keys()].filter((name) => name.startsWith("file key"));
    expect(keys.length).toBeGreaterThanOrEqual(counts["files shared"] ?? 1);
    // What is searched for is there to be found: in the memory of those who may know it.
    if (isLinux) {
      const fromCapture = noCapture === null ? ["an address of a candidate"] : [];
      const kinds = [...Object.keys(planted), ...fromCapture, "SDP", "a fingerprint", "a control message"];
      expect(world.missingInPeople(secrets, [...kinds, "file key", "plaintext hash"])).toEqual([]);
    }
    const mayBeKnown = new Needles(new Map([["a user id", Buffer.from(alice.userId)]]));
    expect([...(await mayBeKnown.inFolder(join(world.dir, "server")))]).toContain("a user id (raw)");
    const { server, own, figures } = await world.searchRecords(secrets);
    expect([...mayBeKnown.inFile(join(world.dir, "traffic"))]).toContain("a user id (raw)");
    expect(world.log).toContain("server started");
    if (noCapture === null) expect([...own].map(kindOf)).toEqual(expect.arrayContaining(["a text", "a file name"]));

    process.stderr.write(
      `canary: ${operations} operations ${JSON.stringify(counts)} in ${Math.round((performance.now() - begun) / 1000)} s; ` +
        `${secrets.size} secrets; ${Math.round(searched / 2 ** 20)} MiB of the server's memory; ${figures}\n`,
    );
    expect([...new Set(inMemory)], "in the server's memory").toEqual([]);
    expect(server, "in what the server keeps, writes or sends").toEqual([]);
    expect(operations).toBeGreaterThanOrEqual(OPERATIONS);
  });
});
