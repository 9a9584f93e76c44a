import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { Emitter, type Event } from "#shared/base/emitter.ts";
import type { Env } from "#shared/base/env.ts";
import {
  type ChatId,
  chatIdOf,
  type FileId,
  type Generation,
  peerOfChat,
  type UserId,
  UserIdSchema,
} from "#shared/base/ids.ts";
import { CHUNK_BYTES } from "#shared/base/limits.ts";
import { type AppError, err, fail, ok, type Result } from "#shared/base/result.ts";
import type { ErrorView, FileView, NoticeView, ServerView, SettingsView, TransferView } from "#shared/ipc/views.ts";
import type { FileOffer } from "#shared/wire/manifest.ts";
import { type Account, loadOrCreateAccount } from "../../src-main/crypto/identity.ts";
import type { Links } from "../../src-main/links/links.ts";
import { createReceipts, type Receipts } from "../../src-main/shares/receipts.ts";
import { createShares, type Shares } from "../../src-main/shares/shares.ts";
import type { Signaling } from "../../src-main/signaling/signaling.ts";
import { Database } from "../../src-main/store/database.ts";
import { FilesTable } from "../../src-main/store/files.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";
import type { ChunkWorker } from "../../src-main/transfer/chunk-worker-client.ts";
import { createFiles, type Files } from "../../src-main/transfer/files.ts";
import { createTransfers, type Transfers } from "../../src-main/transfer/transfers.ts";
import { freshFileId, freshKey, realEnv, startWorker, temporaryFolder } from "./files.ts";
import { LinksPair } from "./links-pair.ts";

/** Away, unless a test says otherwise; then it takes what it is asked, and remembers it. */
export class FakeServer {
  readonly asked: string[] = [];
  /** What queueing a message answers; null when it is queued. */
  messageRefusal: AppError | null = null;
  serverId = "server-1";
  serverTimeMs: number | null = null;
  /** What it answers; by default as if it were away. */
  answer: (name: string) => Result<unknown> = () => fail("server_unreachable", "There is no server.");
  readonly #connected = new Emitter<{ generation: Generation }>(() => undefined);
  readonly #stateChanged = new Emitter<ServerView>(() => undefined);
  readonly #receiptAdded = new Emitter<{ fileId: FileId }>(() => undefined);
  readonly #shareChanged = new Emitter<{ fileId: FileId; version: number }>(() => undefined);
  #isThere = false;

  get state(): ServerView {
    return { state: this.#isThere ? "connected" : "disconnected", url: "", error: null };
  }
  get onConnected(): Event<{ generation: Generation }> {
    return this.#connected.event;
  }
  get onStateChanged(): Event<ServerView> {
    return this.#stateChanged.event;
  }
  get onShareChanged(): Event<{ fileId: FileId; version: number }> {
    return this.#shareChanged.event;
  }

  get onReceiptAdded(): Event<{ fileId: FileId }> {
    return this.#receiptAdded.event;
  }

  come(): void {
    this.#isThere = true;
    this.#connected.emit({ generation: 1 });
  }

  // The answers are checked by those who use them.
  request = ((name: string) => {
    // Receipts are tested by themselves.
    if (name === "files.receipts") return Promise.resolve(ok({ receipts: [], total: 0 }));
    if (name === "files.receipt") return Promise.resolve(ok({ stored: true }));
    this.asked.push(name);
    return Promise.resolve(this.answer(name));
  }) as Signaling["request"];
}

type Limits = Pick<SettingsView, "downloadBytesPerSecond" | "uploadBytesPerSecond" | "chunkStorageBytes">;

/** One person's files and transfers with real databases and a real chunk worker; only link and server are doubles. */
export interface TransferPeer {
  readonly userId: UserId;
  readonly account: Account;
  readonly db: Database;
  readonly worker: ChunkWorker;
  readonly files: Files;
  readonly shares: Shares;
  readonly receipts: Receipts;
  readonly transfers: Transfers;
  readonly downloads: string;
  readonly server: FakeServer;
  readonly settingsChanged: Emitter<{ drainTimeoutMs: number } & Limits>;
  readonly sent: { chatId: ChatId; offer: FileOffer }[];
  readonly views: TransferView[];
  readonly notices: NoticeView[];
  /** What keeps the other one from sending anything, as contacts would say. */
  readonly hindrance: { now: ErrorView | null };
  dispose(): Promise<void>;
}

const DATA_KEY = new Uint8Array(32).fill(7);

export const openProfile = (home: string): { db: Database; account: Account } => {
  const db = Database.openApp(join(home, "app.db"), DATA_KEY, appMigrations);
  return { db, account: loadOrCreateAccount(db, realEnv) };
};

const unknownChat = () => fail("unknown_chat", "There is no chat with this id.");

export const startPeer = async (
  home: string,
  profile: { db: Database; account: Account },
  links: Links,
  other: Account,
  { drainTimeoutMs, worker, env }: { drainTimeoutMs: number; worker: ChunkWorker; env: Env },
): Promise<TransferPeer> => {
  const { db, account } = profile;
  const downloads = join(home, "downloads");
  await mkdir(downloads, { recursive: true });
  const sent: TransferPeer["sent"] = [];
  const server = new FakeServer();
  const sendKey = (peer: UserId, offer: FileOffer): Result<unknown> => sendFile(chatIdOf(peer), offer);
  const sendFile = (chatId: ChatId, offer: FileOffer): Result<unknown> => {
    if (server.messageRefusal !== null) return err(server.messageRefusal);
    sent.push({ chatId, offer });
    return ok(null);
  };
  const people = { isContact: () => true, nameOf: () => null };
  const receipts = createReceipts({
    ...{ env, db, account, signaling: server, post: () => undefined, ...people },
    operations: (fileId) => shares.log(fileId),
  });
  const onOffered = (fileId: FileId, userId: UserId): void => receipts.offered(fileId, userId);
  const shares: Shares = createShares({
    ...{ env, db, account, signaling: server, ...people, sendKey, onOffered, post: () => undefined },
    downloads: (fileId) => ({ completedBy: receipts.completedBy(fileId), current: receipts.isCurrent(fileId) }),
    registerAgain: (fileId) => files.registerAgain(fileId),
  });
  const files: Files = createFiles({
    env,
    db,
    account,
    worker,
    signaling: server,
    accountKeyOf: (peer) => (peer === other.userId ? other.accountKey : null),
    isTrusted: () => true,
    membersOf: (chatId) => [peerOfChat(chatId)],
    maySend: (chatId) => (chatId === chatIdOf(other.userId) ? ok(null) : unknownChat()),
    sendFile,
    shares,
    onOffered,
    hasCompleted: (fileId, userId) => receipts.completedBy(fileId).has(userId),
    onRegistered: (fileId) => receipts.registered(fileId),
  });
  const limits: Limits = { downloadBytesPerSecond: null, uploadBytesPerSecond: null, chunkStorageBytes: null };
  const settings = () => ({ downloadDirectory: downloads, drainTimeoutMs, ...limits });
  const settingsChanged = new Emitter<{ drainTimeoutMs: number } & Limits>(() => undefined);
  const onSettingsChanged = settingsChanged.event;
  settingsChanged.event((changed) => {
    limits.chunkStorageBytes = changed.chunkStorageBytes;
  });
  const hindrance: { now: ErrorView | null } = { now: null };
  const hindranceOf = () => hindrance.now;
  const transfers = createTransfers({
    ...{ env, db, worker, links, files, settings, onSettingsChanged, hindranceOf },
    onCompleted: (fileId) => receipts.completed(fileId),
    nameOf: (peer) => `Person ${peer.slice(0, 4)}`,
  });
  const views: TransferView[] = [];
  const notices: NoticeView[] = [];
  transfers.onChanged((view) => views.push(view));
  files.onNotice((notice) => notices.push(notice));
  return {
    ...{
      server,
      settingsChanged,
      userId: account.userId,
      account,
      db,
      worker,
      files,
      shares,
      receipts,
      transfers,
      downloads,
      sent,
      views,
      notices,
      hindrance,
    },
    async dispose() {
      transfers.dispose();
      files.dispose();
      shares.dispose();
      receipts.dispose();
      await worker.dispose();
      db.dispose();
    },
  };
};

/** A file of somebody who is never there, as if its offer had come in a message. */
export const addFileOf = (peer: TransferPeer, owner: string, sizeBytes: number): FileId => {
  const fileId = freshFileId();
  const manifest = {
    ...{ fileId, ownerId: v.parse(UserIdSchema, owner), sizeBytes, chunkBytes: CHUNK_BYTES },
    ...{ chunkCount: Math.ceil(sizeBytes / CHUNK_BYTES), root: new Uint8Array(32), createdAtMs: 0 },
  };
  const signed = { manifest, signature: new Uint8Array(64) };
  const offer = { signed, name: "far.bin", key: freshKey(), sha256: new Uint8Array(32) };
  new FilesTable(peer.db).insert({ offer, sharedWith: [peer.userId], version: 1, sourcePath: null, registered: true });
  return fileId;
};

export interface TransferWorld {
  readonly folder: string;
  readonly links: LinksPair;
  readonly alice: TransferPeer;
  bob: TransferPeer;
  /** Ends Bob's side in order and starts it again from its files. */
  restartBob(): Promise<void>;
  /** Alice shares a file with Bob, who learns of it. */
  share(path: string): Promise<FileView>;
  dispose(): Promise<void>;
}

export const createTransferWorld = async ({
  drainTimeoutMs = 5000,
  bobHome,
  bobDatabase,
  env = realEnv,
}: {
  drainTimeoutMs?: number;
  bobHome?: string;
  bobDatabase?: string;
  env?: Env;
} = {}): Promise<TransferWorld> => {
  const folder = await temporaryFolder();
  const homes = { alice: join(folder.path, "alice"), bob: bobHome ?? join(folder.path, "bob") };
  const databases = { alice: join(homes.alice, "chunks.db"), bob: bobDatabase ?? join(homes.bob, "chunks.db") };
  for (const home of Object.values(homes)) await mkdir(home, { recursive: true });
  const profiles = { alice: openProfile(homes.alice), bob: openProfile(homes.bob) };
  const links = new LinksPair(profiles.alice.account.userId, profiles.bob.account.userId);
  const startBob = (profile: { db: Database; account: Account }) =>
    startPeer(homes.bob, profile, links.b, profiles.alice.account, {
      drainTimeoutMs,
      worker: startWorker(databases.bob),
      env,
    });
  const alice = await startPeer(homes.alice, profiles.alice, links.a, profiles.bob.account, {
    drainTimeoutMs,
    worker: startWorker(databases.alice),
    env,
  });
  const world: TransferWorld = {
    folder: folder.path,
    links,
    alice,
    bob: await startBob(profiles.bob),
    async restartBob() {
      links.cut();
      await world.bob.dispose();
      world.bob = await startBob(openProfile(homes.bob));
    },
    async share(path) {
      const view = await alice.files.share(chatIdOf(world.bob.userId), path);
      if (!view.ok) throw new Error(`${view.error.type}: ${view.error.message}`);
      const offer = alice.sent.at(-1)?.offer;
      if (offer === undefined) throw new Error("no message was sent");
      const recorded = world.bob.files.record(offer, alice.userId);
      if (!recorded.ok) throw new Error(recorded.error.type);
      return view.value;
    },
    async dispose() {
      links.cut();
      await world.bob.dispose();
      await alice.dispose();
      await folder.dispose();
    },
  };
  return world;
};

/** Resolves with the first snapshot (from now on, or the current one) that fits. */
export const viewWhere = (
  peer: TransferPeer,
  fits: (view: TransferView) => boolean,
  timeoutMs = 20_000,
): Promise<TransferView> =>
  new Promise((resolve, reject) => {
    const now = peer.transfers.list().find(fits);
    if (now !== undefined) return resolve(now);
    const timer = setTimeout(() => {
      subscription.dispose();
      reject(new Error(`no such snapshot; last: ${JSON.stringify(peer.views.at(-1))}`));
    }, timeoutMs);
    const subscription = peer.transfers.onChanged((view) => {
      if (!fits(view)) return;
      clearTimeout(timer);
      subscription.dispose();
      resolve(view);
    });
  });

export const phasesOf = (views: readonly TransferView[]): string[] =>
  views.map(({ phase }) => phase).filter((phase, i, all) => phase !== all[i - 1]);
