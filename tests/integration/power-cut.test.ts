import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import Sqlite from "better-sqlite3";
import * as v from "valibot";
import { afterAll, beforeAll, expect, type TestContext, test } from "vitest";
import { chatIdOf } from "#shared/base/ids.ts";
import { CHUNK_BYTES, CHUNK_TAG_BYTES, CHUNKS_PAGE_BYTES } from "#shared/base/limits.ts";
import { systemClock, systemRandom } from "../../src-main/env.ts";
import { ChunkTables } from "../../src-main/store/chunks.ts";
import { Database } from "../../src-main/store/database.ts";
import { chunksMigrations } from "../../src-main/store/schema/chunks.ts";
import { openDatabase } from "../../src-server/database.ts";
import { ChatWorld, pair } from "../support/chat-world.ts";
import { counted } from "../support/counts.ts";
import {
  chunksIn,
  type DescribedDownload,
  describeDownload,
  receiveDescribed,
  runDownloadChild,
} from "../support/described-download.ts";
import { quietLog, sha256OfFile, startWorker } from "../support/files.ts";
import { loadMailbox, saveMailbox } from "../support/mailbox-file.ts";
import { buildTracer, type Call, Disk, type Luck, noteInTrace, readTrace } from "../support/power-cut.ts";
import { createIdentity, freshEnvelopeId, RawClient, sealed } from "../support/rendezvous.ts";
import { seededNumbers } from "../support/seeded.ts";
import { startServerChildIn } from "../support/server-process.ts";

/**
 * What was promised outlives a power cut at any moment: a process is traced, and the disks that may be left of it are made
 * from the trace, without what was not forced, with it, with parts of it, torn. And every promise (a chunk said to be stored,
 * a message acknowledged) comes after the sync of its commit.
 */
const CUTS = counted(2, 170);
/** Of downloads, and of mailboxes: each has its share of the cuts. */
const ROUNDS = counted(1, 10);
const CHUNKS = counted(20, 100);
const MESSAGES = counted(20, 100);
const ENVELOPES = counted(16, 400);
const AT_ONCE = 8;
const COPIED_CHUNKS = counted(500, 1200);
const TIMEOUT_MS = counted(180_000, 3_600_000);
/** Traces, and the disks that are made from them; the full run has the larger ones. */
const TRACES_BYTES_MAX = 2 * 1024 ** 3;
const LUCK: readonly Luck[] = ["nothing", "some", "torn", "everything"];

const random = seededNumbers(20_002);
let folder: string;
let tracer: string;
let missing: string | null;
beforeAll(() => {
  folder = mkdtempSync(join(roomyFolder(), "weir-power-cut-"));
  tracer = join(folder, "traced-calls.so");
  missing = buildTracer(tracer);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** In memory, if there is enough: the model forgets what was not forced, and that the real disk is slow would only cost time. */
const roomyFolder = (): string => {
  if (!existsSync("/dev/shm")) return tmpdir();
  const { bavail, bsize } = statfsSync("/dev/shm");
  return bavail * bsize > TRACES_BYTES_MAX ? "/dev/shm" : tmpdir();
};

const tracing = (under: string, log: string): NodeJS.ProcessEnv => ({
  ...{ LD_PRELOAD: tracer, TRACE_UNDER: under, TRACE_LOG: log },
});

/** Runs a program of tests/support; what it says goes to `onSaid`, which may end it. */
const runTraced = async (
  name: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  onSaid: (text: string) => "go on" | "kill" = () => "go on",
): Promise<number | null> => {
  const script = join(import.meta.dirname, "../support", name);
  const child = spawn(process.execPath, [script, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
  child.stdout.on("data", (data: Buffer) => {
    if (onSaid(data.toString()) === "kill") child.kill("SIGKILL");
  });
  return new Promise((resolve) => child.once("close", resolve));
};

/** Places in the trace, in order: half of them anywhere, half right after something was promised. */
const placesIn = (calls: readonly Call[], isPromise: (call: Call) => boolean, count: number): number[] => {
  const promises = calls.flatMap((call, at) => (isPromise(call) ? [at + 1] : []));
  const oneOf = (places: readonly number[]): number => places[Math.floor(random() * places.length)] ?? 0;
  return Array.from({ length: count }, (_, i) =>
    i % 2 === 0 && promises.length > 0 ? oneOf(promises) : Math.floor(random() * (calls.length + 1)),
  ).sort((a, b) => a - b);
};

/** Goes through the trace, and makes a disk at each of the places. */
const cutAt = async (
  places: readonly number[],
  calls: readonly Call[],
  disk: Disk,
  {
    onCall,
    onCut,
  }: { onCall: (call: Call, at: number) => void; onCut: (image: string, what: string) => Promise<void> },
): Promise<void> => {
  const left = [...places];
  for (let at = 0; at <= calls.length; at += 1) {
    for (; left[0] === at; left.shift()) {
      const luck = LUCK[left.length % LUCK.length] ?? "nothing";
      const image = join(folder, "image");
      disk.cutInto(image, luck, random);
      await onCut(image, `cut at call ${at} of ${calls.length}, of the rest ${luck}`);
      rmSync(image, { recursive: true });
    }
    const call = calls[at];
    if (call === undefined) return;
    disk.apply(call);
    onCall(call, at + 1);
  }
};

const skipped = (context: TestContext): boolean => {
  if (missing !== null) context.skip(missing);
  return missing !== null;
};

/** Opens a copy, so that whoever comes next finds the disk as the cut left it. */
const checkDatabase = (path: string, what: string, look: (tables: ChunkTables) => void = () => undefined): void => {
  if (!existsSync(path)) return;
  const copy = join(folder, "copy");
  mkdirSync(copy);
  for (const end of ["", "-wal"]) if (existsSync(path + end)) cpSync(path + end, join(copy, `chunks.db${end}`));
  const db = Database.openChunks(join(copy, "chunks.db"), chunksMigrations);
  try {
    expect(db.sql.pragma("integrity_check", { simple: true }), what).toBe("ok");
    look(new ChunkTables(db));
  } finally {
    db.dispose();
    rmSync(copy, { recursive: true });
  }
};

/** Which call completed the transaction that a chunk came with, as its bytes go by. */
class Commits {
  readonly #wanted = new Map<number, Buffer>();
  /** Null until the frame that ends its transaction is written. */
  readonly #found = new Map<number, number | null>();
  #endsTransaction = false;

  want(index: number, sealed: Buffer): void {
    // From the middle of it: the beginning shares its page with others.
    const at = index * (CHUNK_BYTES + CHUNK_TAG_BYTES) + 20_000;
    this.#wanted.set(index, sealed.subarray(at, at + 16));
  }

  /** Before each page of the log goes its header, with the size of the database when it ends a transaction. */
  onLogWrite(data: Buffer, at: number): void {
    if (data.length !== CHUNKS_PAGE_BYTES) {
      this.#endsTransaction = data.length === 24 && data.readUInt32BE(4) !== 0;
      return;
    }
    for (const [index, bytes] of this.#wanted) {
      if (!data.includes(bytes)) continue;
      this.#wanted.delete(index);
      this.#found.set(index, null);
    }
    if (!this.#endsTransaction) return;
    for (const [index, end] of this.#found) if (end === null) this.#found.set(index, at);
  }

  of(index: number): number | null {
    return this.#found.get(index) ?? null;
  }
}

/** The same download, on another disk. */
const elsewhere = (download: DescribedDownload, image: string): { file: string; directory: string } => {
  const before = JSON.parse(readFileSync(download.file, "utf8"));
  const directory = join(image, "down");
  mkdirSync(directory, { recursive: true });
  const file = join(folder, "again.json");
  writeFileSync(file, JSON.stringify({ ...before, directory, database: join(image, "chunks.db") }));
  return { file, directory };
};

test(`${CUTS} power cuts while files are downloaded: no chunk that counted as stored is fetched again, a final name means a whole file`, {
  timeout: TIMEOUT_MS,
}, async (context) => {
  if (skipped(context)) return;
  const owner = startWorker(join(folder, "owner.db"));
  let acknowledged = 0;
  let resumed = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const download = await describeDownload(owner, folder, CHUNKS * CHUNK_BYTES - 77, String(round));
    const under = dirname(download.database);
    const log = join(folder, "trace");
    const whole = await runDownloadChild(download.file, { env: tracing(under, log) });
    expect(whole.code, whole.errors).toBe(0);
    const sealed = readFileSync(join(folder, `sealed-${round}`));
    const calls = readTrace(log);
    const disk = new Disk(under);
    const commits = new Commits();
    const said: string[] = [];
    const logPath = `${download.database}-wal`;
    const cuts = Math.ceil((CUTS - round) / ROUNDS);
    await cutAt(
      placesIn(calls, (call) => call.kind === "say", cuts),
      calls,
      disk,
      {
        onCall: (call, at) => {
          if (call.kind === "write" && call.path === logPath) commits.onLogWrite(call.data, at);
          if (call.kind !== "say") return;
          const line = call.text.trim();
          said.push(line);
          if (line.startsWith("F ")) commits.want(Number(line.slice(2)), sealed);
          if (!line.startsWith("S ")) return;
          const end = commits.of(Number(line.slice(2)));
          expect(end, `${line}: its commit was written`).not.toBeNull();
          expect(disk.isForced(logPath, end ?? 0), `${line}: its commit was forced before`).toBe(true);
          acknowledged += 1;
        },
        onCut: async (image, what) => {
          const { file, directory } = elsewhere(download, image);
          checkDatabase(join(image, "chunks.db"), what);
          const isFinished = existsSync(join(directory, "final.bin"));
          if (said.some((line) => line.startsWith("D "))) expect(isFinished, what).toBe(true);
          if (isFinished) {
            expect(await sha256OfFile(join(directory, "final.bin")), what).toBe(download.hex);
            return;
          }
          const again: string[] = [];
          await receiveDescribed(file, (line) => again.push(line));
          const stored = new Set(chunksIn(said, "S"));
          const twice = chunksIn(again, "F").filter((index) => stored.has(index));
          expect(twice, what).toEqual([]);
          expect(await sha256OfFile(join(directory, "final.bin")), what).toBe(download.hex);
          expect(readdirSync(directory), what).toEqual(["final.bin"]);
          resumed += 1;
        },
      },
    );
    expect(said.filter((line) => line.startsWith("D "))).toHaveLength(1);
    for (const path of [log, under, join(folder, `sealed-${round}`), join(folder, `source-${round}`)])
      rmSync(path, { recursive: true });
  }
  await owner.dispose();
  expect(acknowledged).toBe(ROUNDS * CHUNKS);
  expect(resumed).toBeGreaterThan(0);
});

test(`${CUTS} power cuts while messages come: none that was acknowledged is lost, each is there once, in order`, {
  timeout: TIMEOUT_MS,
}, async (context) => {
  if (skipped(context)) return;
  let acknowledged = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const { mailbox, acked, database, chatId, sent, under } = await fillMailbox();
    const before = new Map([[database, readFileSync(database)]]);
    expect(existsSync(`${database}-wal`)).toBe(false);
    const log = join(folder, "trace");
    const args = [under, mailbox, acked, "never", "0", "durable"];
    expect(await runTraced("receive-child.ts", args, tracing(under, log))).toBe(0);
    const calls = readTrace(log);
    const disk = new Disk(under, before);
    // The server's side of it: what it was told.
    const isAck = (call: Call): boolean => call.kind === "write" && call.path === acked;
    let told = "";
    await cutAt(placesIn(calls, isAck, CUTS / ROUNDS), calls, disk, {
      onCall: (call, at) => {
        if (call.kind !== "write" || call.path !== acked) return;
        told += call.data.toString();
        acknowledged += 1;
        expect(disk.isForced(`${database}-wal`, at), "a commit is forced before its message is acknowledged").toBe(
          true,
        );
      },
      onCut: async (image, what) => {
        writeFileSync(join(image, "acked.txt"), told);
        const after = new ChatWorld({ crypto: "signal", folder: image, seed: 7 });
        const again = await after.join("Bob");
        for (const envelope of loadMailbox(mailbox, join(image, "acked.txt")))
          expect(await again.handle(envelope), what).toBe("ack");
        const shown = again.messages.list(chatId, 10_000);
        const texts = shown.ok ? shown.value.map(({ text }) => text).reverse() : [];
        expect(texts, what).toEqual(sent);
        expect(again.notices, what).toEqual([]);
        expect(again.parts.db.sql.pragma("integrity_check", { simple: true }), what).toBe("ok");
        await again.stop();
      },
    });
    for (const path of [under, mailbox, log]) rmSync(path, { recursive: true });
  }
  expect(acknowledged).toBe(ROUNDS * MESSAGES);
});

/** Bob's profile, and what Alice has sent him while he was away. */
const fillMailbox = async () => {
  const under = join(folder, "world");
  mkdirSync(under);
  const world = new ChatWorld({ crypto: "signal", folder: under });
  const [alice, bob] = [await world.join("Alice"), await world.join("Bob")];
  await pair(world, alice, bob);
  bob.setServer("disconnected");
  const sent = Array.from({ length: MESSAGES }, (_, i) => alice.send(bob, `message ${i}`).text);
  await world.run();
  const [mailbox, acked] = [join(folder, "mailbox.json"), join(under, "acked.txt")];
  saveMailbox(mailbox, world.mailboxes.get(bob.userId) ?? []);
  writeFileSync(acked, "");
  for (const peer of [alice, bob]) await peer.stop();
  return { ...{ mailbox, acked, sent, under }, database: join(under, "Bob.db"), chatId: chatIdOf(alice.userId) };
};

const Progress = v.tuple([v.number(), v.number()]);

test(`${CUTS} power cuts while the log of commits is copied into the database: what was committed is there and right`, {
  timeout: TIMEOUT_MS,
}, async (context) => {
  if (skipped(context)) return;
  const under = join(folder, "copied");
  mkdirSync(under);
  const [path, log] = [join(under, "chunks.db"), join(folder, "trace")];
  const progressIn = (text: string): [number, number] =>
    v.parse(Progress, text.trim().split("\n").at(-1)?.split(" ").map(Number) ?? []);
  await runTraced("checkpoint-child.ts", [path], tracing(under, log), (text) =>
    progressIn(text)[1] >= COPIED_CHUNKS ? "kill" : "go on",
  );
  const calls = readTrace(log);
  // It was copied, and forced, in the middle.
  expect(calls.some((call) => call.kind === "sync" && call.path === path)).toBe(true);
  let committed: [number, number] | null = null;
  await cutAt(
    placesIn(calls, (call) => call.kind === "say", CUTS),
    calls,
    new Disk(under),
    {
      onCall: (call) => {
        if (call.kind === "say") committed = progressIn(call.text);
      },
      onCut: async (image, what) => {
        checkDatabase(join(image, "chunks.db"), what, (tables) => {
          const [file, count] = committed ?? [0, 0];
          for (let index = 0; index < count; index += 1) {
            const data = tables.chunk(file, index);
            const isRight = data?.equals(Buffer.alloc(65_552, index % 251)) ?? false;
            if (!isRight) throw new Error(`chunk ${index} of ${count} is ${data === null ? "gone" : "wrong"}: ${what}`);
          }
        });
      },
    },
  );
  rmSync(under, { recursive: true });
  rmSync(log);
});

test(`${CUTS} power cuts of a server: no envelope that it has answered is lost`, {
  timeout: TIMEOUT_MS,
}, async (context) => {
  if (skipped(context)) return;
  const [under, log] = [join(folder, "server"), join(folder, "trace")];
  mkdirSync(under);
  const server = await startServerChildIn(tracing(under, log), "--data", under);
  const [recipient, sender] = [createIdentity(), createIdentity()];
  (await RawClient.loggedIn(server.url, recipient)).close();
  const client = await RawClient.loggedIn(server.url, sender);
  const putOne = async (): Promise<void> => {
    const id = freshEnvelopeId();
    const outcome = await client.outcome("mailbox.put", { to: recipient.userId, id, sealed: sealed(300) });
    expect(outcome).toBe("ok");
    noteInTrace(log, `${id}\n`);
  };
  for (let put = 0; put < ENVELOPES; put += AT_ONCE) await Promise.all(Array.from({ length: AT_ONCE }, putOne));
  client.close();
  await server.end("SIGKILL");

  const calls = readTrace(log);
  const answered: string[] = [];
  const isAnswer = (call: Call): boolean => call.kind === "say" && !call.text.startsWith("{");
  await cutAt(placesIn(calls, isAnswer, CUTS), calls, new Disk(under), {
    onCall: (call) => {
      if (call.kind === "say" && isAnswer(call)) answered.push(call.text.trim());
    },
    onCut: async (image, what) => {
      const store = await openDatabase(image, { clock: systemClock, random: systemRandom, log: quietLog });
      const rows = await store.db.selectFrom("mailbox").select("id").execute();
      await store.close();
      const there = new Set(rows.map(({ id }) => id));
      expect(
        answered.filter((id) => !there.has(id)),
        what,
      ).toEqual([]);
      const db = new Sqlite(join(image, "server.db"));
      expect(db.pragma("integrity_check", { simple: true }), what).toBe("ok");
      db.close();
    },
  });
  expect(answered).toHaveLength(ENVELOPES);
  for (const path of [under, log]) rmSync(path, { recursive: true });
});
